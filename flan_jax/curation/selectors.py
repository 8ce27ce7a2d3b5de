"""Which rows are taken: one class a method, all called in the same way.

Dimensions: N rows, D size of an embedding, K picks.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from flan_jax.curation import facility_location, groups, k_center
from flan_jax.errors import UserError, check_known


@dataclasses.dataclass(frozen=True)
class Candidates:
  """Rows to choose from.

  Attributes:
    tokens: of each row, inputs and targets, int64 [N].
    outputs: tokens of each row's output, int64 [N].
    vectors: unit vectors, float32 [N, D]; None where no selector reads them.
  """

  tokens: Int[np.ndarray, " N"]
  outputs: Int[np.ndarray, " N"]
  vectors: Float[np.ndarray, "N D"] | None = None

  def __len__(self) -> int:
    return len(self.tokens)


class Selector(Protocol):
  """Takes rows up to a budget.

  `name` stands in the manifest; `embedded` says whether vectors are read.
  """

  name: str
  embedded: bool

  def __call__(
    self, among: Candidates, count: int | None, tokens: int | None
  ) -> tuple[Int[np.ndarray, " K"], dict[str, Float[np.ndarray, " K"]]]:
    """Positions in the order taken, and numbers that each one got.

    Args:
      among: what to choose from.
      count: rows to take; None: no limit.
      tokens: at most, in all; None: no limit. One of the two is given.
    """


def in_order(
  order: Int[np.ndarray, " N"],
  among: Candidates,
  count: int | None,
  tokens: int | None,
) -> Int[np.ndarray, " K"]:
  """The first rows of an order; one over the tokens left is passed over.

  >>> among = Candidates(np.array([5, 9, 4]), np.array([1, 1, 1]))
  >>> in_order(np.array([0, 1, 2]), among, None, 10).tolist()
  [0, 2]
  """
  if tokens is None:
    return order[:count]
  out = []
  for row in order.tolist():
    if among.tokens[row] <= tokens:
      tokens -= int(among.tokens[row])
      out.append(row)
    if len(out) == count:
      break
  return np.array(out, np.int64)


@dataclasses.dataclass(frozen=True)
class Random:
  """Rows at random, each as likely as any other."""

  seed: int = 0
  name = "random"
  embedded = False

  def __call__(self, among, count, tokens):
    order = np.random.default_rng(self.seed).permutation(len(among))
    return in_order(order, among, count, tokens), {}


@dataclasses.dataclass(frozen=True)
class Longest:
  """The rows with the longest outputs, the earlier among equals.

  Source: Zhao et al., 2024, "Long is more for alignment" (arXiv 2402.04833).

  Attributes:
    of: "output", or "row": input and output together.
  """

  of: str = "output"
  name = "longest"
  embedded = False

  def __post_init__(self):
    check_known("LONGEST_OF", self.of, ("output", "row"))

  def __call__(self, among, count, tokens):
    length_N = among.outputs if self.of == "output" else among.tokens
    rows = in_order(np.argsort(-length_N, kind="stable"), among, count, tokens)
    return rows, {"length": length_N[rows].astype(np.float64)}


@dataclasses.dataclass(frozen=True)
class KCenter:
  """Greedy k-centre, see `k_center.py`."""

  name = "k_center"
  embedded = True

  def __call__(self, among, count, tokens):
    made = k_center.pick(among.vectors, count, **_costs(among, tokens))
    return made.rows, {"distance": made.distances}


@dataclasses.dataclass(frozen=True)
class FacilityLocation:
  """Greedy facility location, see `facility_location.py`.

  Attributes:
    epsilon: None: exact; else by samples, for many rows.
    seed: of the samples.
  """

  epsilon: float | None = None
  seed: int = 0
  name = "facility_location"
  embedded = True

  def __post_init__(self):
    if self.epsilon is not None and not 0 < self.epsilon < 1:
      raise UserError(
        f"EPSILON is {self.epsilon}; it must be above 0 and below 1, or None."
      )

  def __call__(self, among, count, tokens):
    made = facility_location.pick(
      among.vectors,
      count,
      **_costs(among, tokens),
      epsilon=self.epsilon,
      seed=self.seed,
    )
    return made.rows, {"gain": made.gains}


@dataclasses.dataclass(frozen=True)
class Central:
  """The rows nearest to the centres of K-means clusters, cluster by cluster.

  The clusters take turns: of each its nearest row, then its second nearest.

  Attributes:
    clusters: None: as many as rows are taken, which needs a budget of rows.
    seed: of K-means.

  Raises:
    UserError: when called: a budget of tokens without `clusters`.
  """

  clusters: int | None = None
  seed: int = 0
  name = "k_means"
  embedded = True

  def __call__(self, among, count, tokens):
    clusters = self.clusters
    if clusters is None:
      if count is None:
        raise UserError(
          "with a budget of TOKENS, K-means needs CLUSTERS; give a number."
        )
      clusters = count
    x_ND = among.vectors
    if not clusters:
      return np.zeros(0, np.int64), {}
    clusters = min(clusters, len(np.unique(x_ND, axis=0)))
    made = groups.KMeans(clusters, len(x_ND), self.seed, memory_gib=np.inf)
    number_N, centre_KD = made.centres(x_ND)
    away_N = np.empty(len(x_ND))
    for k, centre_D in enumerate(centre_KD):
      members = np.flatnonzero(number_N == k)
      away_N[members] = k_center.squares(x_ND[members], centre_D)
    by_cluster = np.lexsort((np.arange(len(x_ND)), away_N, number_N))
    starts = np.searchsorted(number_N[by_cluster], np.arange(clusters))
    turn_N = np.empty(len(x_ND), np.int64)
    turn_N[by_cluster] = np.arange(len(x_ND)) - starts[number_N[by_cluster]]
    order = np.lexsort((number_N, turn_N))
    rows = in_order(order, among, count, tokens)
    return rows, {
      "cluster": number_N[rows].astype(np.float64),
      "distance": np.sqrt(away_N[rows]),
    }


def _costs(among: Candidates, tokens: int | None) -> dict[str, Any]:
  if tokens is None:
    return {}
  return {"costs_N": among.tokens, "budget": tokens}
