"""Rows in groups, each of which gets its share of the budget.

Dimensions: N rows, D size of an embedding, K clusters.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from sklearn import cluster

from flan_jax.curation import embeddings
from flan_jax.curation.rows import Row
from flan_jax.errors import UserError


class Groups(Protocol):
  """Which group each row is in; `embedded` says whether it reads vectors."""

  embedded: bool

  def __call__(
    self,
    rows: Sequence[Row],
    x_ND: Float[np.ndarray, "All D"] | None,
    at_N: Int[np.ndarray, " N"] | None = None,
  ) -> tuple[Int[np.ndarray, " N"], list[str]]:
    """The number of each row's group, and the groups' names.

    Args:
      rows: to group.
      x_ND: vectors; None where none are needed.
      at_N: the place of each row's vector; None: the same as the row's.
    """


@dataclasses.dataclass(frozen=True)
class ByField:
  """Groups are the values of a field of the rows: a task, a category.

  >>> rows = [{"task": "qa"}, {"task": "nli"}, {"task": "qa"}]
  >>> number, names = ByField("task")(rows, None)
  >>> number.tolist(), names
  ([1, 0, 1], ['nli', 'qa'])

  Raises:
    UserError: when called: a row without the field.
  """

  field: str
  embedded = False

  def __call__(self, rows, x_ND, at_N=None):
    del x_ND, at_N
    missing = [n for n, row in enumerate(rows) if self.field not in row]
    if missing:
      raise UserError(
        f"GROUP_FIELD is {self.field!r}, which {len(missing):,} of"
        f" {len(rows):,} rows lack; the first is row {missing[0]:,}, with the"
        f" fields {', '.join(rows[missing[0]])}."
      )
    values = [str(row[self.field]) for row in rows]
    names = sorted(set(values))
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[v] for v in values], np.int64), names


@dataclasses.dataclass(frozen=True)
class KMeans:
  """K-means clusters of the rows' unit vectors.

  Centres are found on at most `sample` rows at random; every row then belongs
  to the centre nearest to it. Source: Lloyd, 1982; k-means++: Arthur and
  Vassilvitskii, 2007. scikit-learn does the work.

  Attributes:
    clusters: how many.
    sample: rows that centres are found on.
    seed: of the sample and the first centres.
    memory_gib: that the sample may take.

  Raises:
    UserError: when called: more clusters than rows.
  """

  clusters: int = 10
  sample: int = 100_000
  seed: int = 0
  memory_gib: float = 8.0
  embedded = True

  def __post_init__(self):
    if self.clusters < 1 or self.sample < 1:
      raise UserError(
        f"K-means has CLUSTERS {self.clusters} and a sample of {self.sample}"
        " rows; both must be 1 or more."
      )

  def __call__(self, rows, x_ND, at_N=None):
    del rows
    number_N, _ = self.centres(x_ND, at_N)
    width = len(str(self.clusters - 1))
    return number_N, [f"cluster {i:0{width}}" for i in range(self.clusters)]

  def centres(
    self,
    x_ND: Float[np.ndarray, "All D"],
    at_N: Int[np.ndarray, " N"] | None = None,
  ) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "K D"]]:
    """The cluster of each row, and the clusters' centres.

    Args:
      x_ND: vectors, which may lie in a file.
      at_N: which of them; None: all.
    """
    at_N = np.arange(len(x_ND)) if at_N is None else at_N
    N = len(at_N)
    if self.clusters > N:
      raise UserError(
        f"CLUSTERS is {self.clusters:,}, and there are {N:,} rows; give {N:,}"
        " or fewer."
      )
    rows = at_N
    if self.sample < N:
      rng = np.random.default_rng(self.seed)
      size = max(self.sample, self.clusters)
      rows = at_N[np.sort(rng.choice(N, size, replace=False))]
    sample_ND = embeddings.units(
      x_ND,
      rows,
      memory_gib=self.memory_gib,
      what=f"the sample for K-means of {len(rows):,} rows",
    )
    if len(np.unique(sample_ND, axis=0)) < self.clusters:
      raise UserError(
        f"CLUSTERS is {self.clusters:,}, and fewer of the {len(rows):,} rows"
        " have different vectors; give fewer clusters."
      )
    fitted = cluster.KMeans(
      self.clusters, n_init=1, random_state=self.seed, algorithm="lloyd"
    ).fit(sample_ND)
    if len(rows) == N:
      return fitted.labels_.astype(np.int64), fitted.cluster_centers_
    out_N = np.empty(N, np.int64)
    for start in range(0, N, 8192):
      part = at_N[start : start + 8192]
      units_ND = embeddings.units(x_ND, part, memory_gib=self.memory_gib)
      out_N[start : start + len(part)] = fitted.predict(units_ND)
    return out_N, fitted.cluster_centers_
