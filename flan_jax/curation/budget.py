"""How much is selected: a number of rows, a share of them, or tokens."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Budget:
  """One of three; or none of them: all rows.

  >>> Budget(fraction=0.1).of(2996, 2500, 500_000)
  (300, None)
  >>> Budget(tokens=1000).of(50, 50, 20_000)
  (None, 1000)

  Attributes:
    count: rows.
    fraction: of the rows that came in, whatever filters drop; above 0 and at
      most 1; rounded up.
    tokens: of inputs and targets together. A row that takes more than is left
      is passed over.

  Raises:
    UserError: several of them, or a value out of range.
  """

  count: int | None = None
  fraction: float | None = None
  tokens: int | None = None

  def __post_init__(self):
    given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
    if len(given) > 1:
      said = ", ".join(f"{k.upper()} = {v}" for k, v in given.items())
      raise UserError(
        f"the budget is {said}; give one of COUNT, FRACTION and TOKENS, and"
        " None for the others."
      )
    if not given:
      return
    ((name, value),) = given.items()
    if value <= 0 or (name == "fraction" and value > 1):
      limit = "above 0 and at most 1" if name == "fraction" else "1 or more"
      raise UserError(
        f"the budget {name.upper()} is {value}; it must be {limit}."
      )

  @property
  def limits(self) -> bool:
    """Whether it is for less than all rows."""
    return self != Budget()

  def of(
    self, came_in: int, rows: int, tokens: int
  ) -> tuple[int | None, int | None]:
    """Rows and tokens to take at most; None: no such limit.

    Args:
      came_in: rows before the filters.
      rows: that are left.
      tokens: that these have.

    Raises:
      UserError: more rows or tokens than are left.
    """
    if self.tokens is not None:
      if self.tokens > tokens:
        raise UserError(
          f"TOKENS is {self.tokens:,}, and the {rows:,} rows to choose from"
          f" have {tokens:,}; give fewer, or filter less."
        )
      return None, self.tokens
    if not self.limits:
      return rows, None
    count, said = self.count, f"COUNT is {self.count}"
    if self.fraction is not None:
      count = math.ceil(self.fraction * came_in - 1e-9)
      said = f"FRACTION {self.fraction:g} of {came_in:,} rows is {count:,}"
    if count > rows:
      raise UserError(
        f"{said}, and there are {rows:,} rows to choose from; give {rows:,} or"
        " fewer, or filter less."
      )
    return count, None


def shares(total: int, sizes: Sequence[int]) -> Int[np.ndarray, " G"]:
  """`total` over groups in proportion to their sizes, none above its size.

  >>> shares(10, [50, 30, 21]).tolist()
  [5, 3, 2]
  >>> shares(3, [5, 1, 1, 1]).tolist()
  [2, 1, 0, 0]

  What is left after rounding down goes to the largest remainders, the earlier
  group first among equals (Hamilton's method).

  Raises:
    ValueError: `total` is above the sum of the sizes.
  """
  sizes = np.asarray(sizes, np.int64)
  whole = int(sizes.sum())
  if total > whole:
    raise ValueError(f"{total} of {whole}")
  # In whole numbers: floats would round remainders that are equal apart.
  scaled = [int(size) * total for size in sizes]
  out = np.array([s // whole for s in scaled], np.int64)
  rest = [-(s % whole) for s in scaled]
  order = np.argsort(rest, kind="stable")[: total - int(out.sum())]
  out[order] += 1
  return out
