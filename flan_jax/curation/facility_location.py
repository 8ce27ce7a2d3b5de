"""Facility location: rows such that every row has a near one among them.

The value of a set S is the sum over all rows of 1 + the largest cosine with a
row of S. Greedy adds the row that raises it most; lazily, since what a row adds
never grows, only rows that may be the best are looked at again. The value is at
least 1 - 1/e of the best possible one.

Source: Nemhauser, Wolsey and Fisher, 1978, "An analysis of approximations for
maximizing submodular set functions"; lazily: Minoux, 1978, "Accelerated greedy
algorithms for maximizing submodular set functions"; by samples: Mirzasoleiman
et al., 2015, "Lazier than lazy greedy" (arXiv 1409.7938).

Dimensions: N rows, D size of an embedding, K picks, C rows looked at together.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from flan_jax.curation import k_center

_ROWS_AT_ONCE = 4096
_LOOKED_AT = 64
# Sums whose difference is below this, for each row, are equal: float32 cosines
# are not exact.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Picks:
  """Rows in the order in which they were taken, and what each one added."""

  rows: Int[np.ndarray, " K"]
  gains: Float[np.ndarray, " K"]


def pick(
  x_ND: Float[np.ndarray, "N D"],
  count: int | None = None,
  *,
  costs_N: Int[np.ndarray, " N"] | None = None,
  budget: int | None = None,
  epsilon: float | None = None,
  seed: int = 0,
) -> Picks:
  """The first rows of greedy facility location, the lowest among equals.

  >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
  >>> made = pick(x, 2)
  >>> made.rows.tolist(), made.gains.round(3).tolist()
  ([1, 2], [5.4, 0.4])

  Memory is O(N D). Every row is compared with every other once and, where rows
  are all alike far, many times: use `epsilon` for more than some 10,000 rows.

  Args:
    x_ND: float32 unit vectors.
    count: rows to take; None: as many as the budget allows.
    costs_N: what each row takes of the budget, such as its tokens.
    budget: a row that costs more than is left is passed over.
    epsilon: None: the best row at every step. Else the best of some at random,
      so many that the value is at least 1 - 1/e - epsilon of the best, in
      expectation; log(1/epsilon) comparisons of every two rows, in all.
    seed: of these draws.

  Raises:
    ValueError: neither count nor budget, one of costs and budget without the
      other, a count above N or below 0, an epsilon that is not in (0, 1).
  """
  N = len(x_ND)
  if (costs_N is None) != (budget is None) or count is budget is None:
    raise ValueError("give a count, or costs and a budget, or all three")
  if count is not None and not 0 <= count <= N:
    raise ValueError(f"count {count} of {N} rows")
  if epsilon is not None and not 0 < epsilon < 1:
    raise ValueError(f"epsilon {epsilon}")
  count = N if count is None else count
  rng = np.random.default_rng(seed)
  left = np.inf if budget is None else budget
  open_N = np.ones(N, bool)
  if costs_N is not None:
    open_N &= costs_N <= left
  # 1 + cosine is never below 0: the first sums need no comparison.
  gains_N = N + (x_ND @ x_ND.sum(axis=0, dtype=np.float64).T).astype(np.float64)
  best_N = np.zeros(N, np.float32)
  fresh_N = np.ones(N, bool)
  equal = _ROUNDING * N
  rows: list[int] = []
  gains: list[float] = []
  while len(rows) < count and open_N.any():
    able_N = open_N
    if epsilon is not None:
      able_N = _sample(open_N, count, epsilon, rng)
    while True:
      known = able_N & fresh_N
      top = gains_N[known].max(initial=-np.inf)
      stale = np.flatnonzero(able_N & ~fresh_N & (gains_N >= top - equal))
      if not len(stale):
        break
      if len(stale) > _LOOKED_AT:
        order = np.argpartition(-gains_N[stale], _LOOKED_AT)[:_LOOKED_AT]
        stale = stale[order]
      gains_N[stale] = _gains(x_ND, stale, best_N)
      fresh_N[stale] = True
    row = int(np.flatnonzero(known & (gains_N >= top - equal))[0])
    rows.append(row)
    gains.append(float(gains_N[row]))
    open_N[row] = False
    for start in range(0, N, _ROWS_AT_ONCE):
      part = slice(start, start + _ROWS_AT_ONCE)
      cosines_N1 = k_center.products(x_ND[part], x_ND[row, None])
      np.maximum(best_N[part], 1 + cosines_N1[:, 0], out=best_N[part])
    fresh_N[:] = False
    if costs_N is not None:
      left -= costs_N[row]
      open_N &= costs_N <= left
  return Picks(np.array(rows, np.int64), np.array(gains, np.float64))


def _sample(open_N, count, epsilon, rng) -> Bool[np.ndarray, " N"]:
  rows = np.flatnonzero(open_N)
  size = math.ceil(len(open_N) / count * math.log(1 / epsilon))
  out_N = np.zeros(len(open_N), bool)
  out_N[rng.choice(rows, min(size, len(rows)), replace=False)] = True
  return out_N


def _gains(x_ND, rows, best_N) -> Float[np.ndarray, " C"]:
  """What each of these rows would add."""
  columns_DC = np.ascontiguousarray(x_ND[rows].T)
  out = np.zeros(len(rows))
  for start in range(0, len(x_ND), _ROWS_AT_ONCE):
    part = slice(start, start + _ROWS_AT_ONCE)
    more_NC = x_ND[part] @ columns_DC
    more_NC += 1 - best_N[part, None]
    np.maximum(more_NC, 0, out=more_NC)
    out += more_NC.sum(axis=0, dtype=np.float64)
  return out
