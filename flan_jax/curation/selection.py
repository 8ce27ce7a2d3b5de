"""One way of choosing rows: filters, groups, a selector, within a budget.

Dimensions: N rows, D size of an embedding, K chosen rows.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from flan_jax.curation import embeddings
from flan_jax.curation.budget import Budget, shares
from flan_jax.curation.groups import Groups
from flan_jax.curation.rows import Row, prompt
from flan_jax.curation.selectors import Candidates, Selector
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError

SELECTION = "selection"
NOT_TAKEN = "not taken within the budget"


class Filter(Protocol):
  """Drops rows by what they say; `name` stands in the decisions."""

  name: str

  def reasons(self, rows: Sequence[Row]) -> list[str | None]:
    """Why each row is dropped; None: it is not."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How rows are chosen.

  Attributes:
    selector: of `selectors.py`; None: all rows that pass the filters.
    filters: before it, in order: `quality.Lima`, `copies.Copies`, ...
    groups: of `groups.py`: each group gets its share of the budget, in
      proportion to its rows (or tokens), and is chosen from alone. None: all
      rows together.
    name: in tables; None: the selector's, or the filters'.

  Raises:
    UserError: neither a selector nor a filter.
  """

  selector: Selector | None = None
  filters: tuple[Filter, ...] = ()
  groups: Groups | None = None
  name: str | None = None

  def __post_init__(self):
    if self.selector is None and not self.filters:
      raise UserError(
        "SELECTOR is None and FILTERS is empty, so that all rows would be"
        " taken; give one of them."
      )

  @property
  def title(self) -> str:
    if self.name or self.selector is not None:
      return self.name or self.selector.name
    return "+".join(f.name for f in self.filters)

  @property
  def embedded(self) -> bool:
    """Whether vectors are needed."""
    grouped = self.groups is not None and self.groups.embedded
    return grouped or (self.selector is not None and self.selector.embedded)

  @property
  def options(self) -> dict[str, Any]:
    """The recipe as JSON, for the manifest."""
    return {
      "selector": described(self.selector),
      "filters": [described(f) for f in self.filters],
      "groups": None if self.groups is None else described(self.groups),
    }


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Tokens of each row: of all of it and of its output, int64 [N]."""

  rows: Int[np.ndarray, " N"]
  outputs: Int[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True)
class Chosen:
  """What came of a recipe.

  Attributes:
    rows: taken, in order, int64 [K].
    dropped: filter name -> row -> reason.
    numbers: row -> what the selector says of it.
    group_of: row -> name of its group; empty without groups.
  """

  rows: Int[np.ndarray, " K"]
  dropped: Mapping[str, Mapping[int, str]]
  numbers: Mapping[int, Mapping[str, float]]
  group_of: Mapping[int, str]

  def kept(self, total: int) -> np.ndarray:
    """Whether each row was taken, bool [N]."""
    out = np.zeros(total, bool)
    out[self.rows] = True
    return out


def count_tokens(rows: Sequence[Row], vocabulary: Any) -> Lengths:
  """Tokens of each row's prompt and output, without marks around them."""
  prompts = vocabulary_lib.encode_batch(vocabulary, [prompt(r) for r in rows])
  outputs = vocabulary_lib.encode_batch(
    vocabulary, [row["output"] for row in rows]
  )
  outputs_N = np.array([len(ids) for ids in outputs], np.int64)
  prompts_N = np.array([len(ids) for ids in prompts], np.int64)
  return Lengths(prompts_N + outputs_N, outputs_N)


def choose(
  rows: Sequence[Row],
  recipe: Recipe,
  budget: Budget,
  *,
  lengths: Lengths,
  x_ND: Float[np.ndarray, "N D"] | None = None,
  memory_gib: float = 8.0,
  all_that_pass: bool = False,
) -> Chosen:
  """Applies a recipe.

      choose(rows, Recipe(Random()), Budget(count=10), lengths=lengths).rows
      # array([...])

  Args:
    rows: to choose from.
    recipe: how.
    budget: how many.
    lengths: of the rows.
    x_ND: a vector for each row, checked; it may lie in a file.
    memory_gib: that the vectors of one group may take, in GiB.
    all_that_pass: take all rows that pass the filters where the budget is for
      more, which is refused otherwise.

  Raises:
    UserError: no row passes the filters, vectors that are needed and not there,
      a group that is too large, a budget for more rows than there are.
  """
  if recipe.embedded and x_ND is None:
    raise UserError(
      f"{recipe.title} reads a vector of every row, and there are none: add"
      " --gin_file=gin/curation/vectors_sentence_encoder.gin,"
      " vectors_checkpoint.gin or vectors_file.gin."
    )
  if (recipe.selector is None) == budget.limits:
    raise UserError(
      f"{recipe.title} takes all rows that pass: give it no budget (COUNT,"
      " FRACTION and TOKENS None)."
      if recipe.selector is None
      else f"{recipe.title} needs a budget: COUNT, FRACTION or TOKENS."
    )
  left_N = np.arange(len(rows))
  dropped: dict[str, dict[int, str]] = {}
  for one in recipe.filters:
    reasons = one.reasons([rows[i] for i in left_N])
    dropped[one.name] = {
      int(i): reason
      for i, reason in zip(left_N, reasons, strict=True)
      if reason is not None
    }
    left_N = left_N[[reason is None for reason in reasons]]
    if not len(left_N):
      raise UserError(
        f"none of {len(rows):,} rows passes the filter {one.name!r}; the first"
        f" fails since it {reasons[0]}. Loosen its rules."
      )
  if all_that_pass:
    budget = _at_most(budget, len(rows), lengths.rows[left_N])
  if recipe.selector is None:
    if recipe.groups is not None:
      raise UserError("GROUPS has no effect where SELECTOR is None.")
    return Chosen(left_N, dropped, {}, {})
  count, tokens = budget.of(
    len(rows), len(left_N), int(lengths.rows[left_N].sum())
  )
  group_of: dict[int, str] = {}
  parts = [("all rows", left_N)]
  if recipe.groups is not None:
    number_N, names = recipe.groups([rows[i] for i in left_N], x_ND, left_N)
    parts = [(name, left_N[number_N == i]) for i, name in enumerate(names)]
    group_of = {int(i): name for name, part in parts for i in part}
  sizes = [
    len(part) if tokens is None else int(lengths.rows[part].sum())
    for _, part in parts
  ]
  taken, numbers = [], {}
  total = count if tokens is None else tokens
  for (name, part), share in zip(parts, shares(total, sizes), strict=True):
    vectors_ND = None
    if recipe.selector.embedded and share:
      vectors_ND = embeddings.units(
        x_ND, part, memory_gib=memory_gib, what=name
      )
    among = Candidates(lengths.rows[part], lengths.outputs[part], vectors_ND)
    if not share:
      continue
    limits = (int(share), None) if tokens is None else (None, int(share))
    places, found = recipe.selector(among, *limits)
    taken.append(part[places])
    for n, row in enumerate(part[places].tolist()):
      numbers[row] = {
        key: float(values[n])
        for key, values in found.items()
        if np.isfinite(values[n])
      }
  return Chosen(
    np.concatenate([np.zeros(0, np.int64), *taken]), dropped, numbers, group_of
  )


def described(value: Any) -> Any:
  """A configured object as JSON: its class's name and its fields."""
  if dataclasses.is_dataclass(value):
    return {
      "class": type(value).__name__,
      **{
        f.name: described(getattr(value, f.name))
        for f in dataclasses.fields(value)
      },
    }
  if isinstance(value, list | tuple):
    return [described(v) for v in value]
  if value is None or isinstance(value, bool | int | float | str):
    return value
  # Without an address, which is another one each time.
  return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _at_most(budget: Budget, came_in: int, left_N) -> Budget:
  """The budget, or all that is left where that is less."""
  try:
    budget.of(came_in, len(left_N), int(left_N.sum()))
  except UserError:
    return Budget(count=len(left_N))
  return budget
