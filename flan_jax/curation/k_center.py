"""Greedy k-centre: every step takes the row farthest from all taken so far.

The picks are those of the definition in float64, the lowest row among equals.
Most of the work is matrix products in float32 whose rounding error is bounded:
a row is computed in float64 only when it may be the next pick. Rows that are
far from being picked wait, and are brought up to date with many centres at
once.

Source: Gonzalez, 1985, "Clustering to minimize the maximum intercluster
distance"; as a core-set: Sener and Savarese, 2018 (arXiv 1708.00489),
algorithm 1; for instruction data: Chen et al., 2023 (arXiv 2305.09246).

Dimensions: N rows, D size of an embedding, K picks.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

# Rows that are compared with every new centre: they fit a processor's cache.
_ACTIVE = 2048
_ROWS_AT_ONCE = 4096
_CENTRES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Picks:
  """Rows in the order in which they were taken.

  Attributes:
    rows: numbers of rows, int64 [K].
    distances: of each pick to the nearest earlier one when it was taken: what
      was then the largest distance of a row that could be taken, the covering
      radius. Infinite for the first. float64 [K].
  """

  rows: Int[np.ndarray, " K"]
  distances: Float[np.ndarray, " K"]


def nearest_mean(x_ND: Float[np.ndarray, "N D"]) -> int:
  """The row nearest to the mean of all, the lowest among equals.

  >>> nearest_mean(np.array([[0.0], [2.0], [10.0], [4.0]], np.float32))
  3
  """
  mean_D = np.mean(x_ND, axis=0, dtype=np.float64)
  return int(np.argmin(squares(x_ND, mean_D)))


def squares(
  x_ND: Float[np.ndarray, "N D"], centre_D: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " N"]:
  """Squared distances to one point, float64; equal rows get equal numbers.

  >>> squares(np.array([[3.0, 4.0]], np.float32), np.zeros(2)).tolist()
  [25.0]
  """
  out = np.empty(len(x_ND))
  centre_D = np.asarray(centre_D, np.float64)
  for start in range(0, len(x_ND), _ROWS_AT_ONCE):
    part = x_ND[start : start + _ROWS_AT_ONCE].astype(np.float64)
    part -= centre_D
    np.square(part, out=part)
    out[start : start + len(part)] = part.sum(axis=1)
  return out


def products(
  x_ND: Float[np.ndarray, "N D"], centres_KD: Float[np.ndarray, "K D"]
) -> Float[np.ndarray, "N K"]:
  """Inner products of all rows with all centres.

  >>> products(np.eye(2), np.array([[3.0, 4.0]])).tolist()
  [[3.0], [4.0]]
  """
  if len(centres_KD) == 1:
    # Threads of a matrix library wait for one another many times as long as
    # one product takes, where other work runs beside them.
    return np.einsum("nd,d->n", x_ND, centres_KD[0])[:, None]
  return x_ND @ centres_KD.T


def pick(
  x_ND: Float[np.ndarray, "N D"],
  count: int | None = None,
  *,
  first: int | None = None,
  costs_N: Int[np.ndarray, " N"] | None = None,
  budget: int | None = None,
) -> Picks:
  """The first rows of greedy k-centre.

  >>> x = np.array([[0.0], [1.0], [10.0], [4.0]], np.float32)
  >>> made = pick(x, 3, first=0)
  >>> made.rows.tolist(), made.distances.tolist()
  ([0, 2, 3], [inf, 10.0, 4.0])

  Exact, with O(N D) memory: `x_ND` itself and about 40 bytes a row.

  Args:
    x_ND: float32, finite. Unit vectors make distance and cosine agree.
    count: rows to take; None: as many as the budget allows. A row is taken
      once, copies of taken rows last.
    first: the first pick; None: the row nearest to the mean.
    costs_N: what each row takes of the budget, such as its tokens.
    budget: a row that costs more than is left is passed over.

  Raises:
    ValueError: neither count nor budget, one of costs and budget without the
      other, a count above N or below 0, or another type than float32.
  """
  N = len(x_ND)
  if x_ND.dtype != np.float32 or x_ND.ndim != 2:
    raise ValueError(f"x_ND is {x_ND.dtype} of {x_ND.ndim} dimensions")
  if (costs_N is None) != (budget is None) or count is budget is None:
    raise ValueError("give a count, or costs and a budget, or all three")
  if count is not None and not 0 <= count <= N:
    raise ValueError(f"count {count} of {N} rows")
  count = N if count is None else count
  search = _Search(x_ND)
  open_N = np.ones(N, bool)
  left = np.inf if budget is None else budget
  if costs_N is not None:
    open_N &= costs_N <= left
  rows: list[int] = []
  distances: list[float] = []
  while len(rows) < count and open_N.any():
    if rows:
      row, square = search.farthest(open_N)
    else:
      row, square = _first(x_ND, open_N, first), np.inf
    search.add(row)
    rows.append(row)
    distances.append(np.sqrt(square))
    open_N[row] = False
    if costs_N is not None:
      left -= costs_N[row]
      open_N &= costs_N <= left
  return Picks(np.array(rows, np.int64), np.array(distances, np.float64))


def _first(x_ND, open_N, first) -> int:
  if first is not None and open_N[first]:
    return first
  target_D = np.mean(x_ND, axis=0, dtype=np.float64)
  if first is not None:
    target_D = x_ND[first]
  distances = squares(x_ND, target_D)
  distances[~open_N] = np.inf
  return int(np.argmin(distances))


class _Search:
  """The row farthest from all centres added, by bounds on squared distances.

  `upper` is never below the true value; where `loose` is False it is the true
  one in float64. Centres from `waiting` on were not yet compared with rows
  that are not `active`.
  """

  def __init__(self, x_ND: np.ndarray):
    N, D = x_ND.shape
    self._x = x_ND
    self._norms = np.empty(N)
    for start in range(0, N, _ROWS_AT_ONCE):
      part = x_ND[start : start + _ROWS_AT_ONCE].astype(np.float64)
      self._norms[start : start + len(part)] = np.einsum("nd,nd->n", part, part)
    self._centres = np.empty((0, D), np.float32)
    self._centre_norms = np.empty(0)
    self._count = self._waiting = 0
    self._upper = np.full(N, np.inf)
    self._loose = np.ones(N, bool)
    # Centres that the last exact value of a row is about.
    self._exact = np.full(N, np.inf)
    self._seen = np.zeros(N, np.int64)
    self._active = np.arange(N)
    self._bound, self._bound_row = -np.inf, N
    # |fl(a.b) - a.b| <= g |a| |b|, whatever the order of the sum (Higham,
    # "Accuracy and stability of numerical algorithms", section 3.1); twice
    # that in |a|^2 + |b|^2 - 2 a.b, and a little for the float64 around it.
    u = np.finfo(np.float32).eps / 2
    self._error = 2 * (D + 4) * u / (1 - (D + 4) * u)
    self._largest = np.sqrt(self._norms.max(initial=0.0))

  def add(self, row: int) -> None:
    """One more centre."""
    if self._count == len(self._centres):
      more = max(64, 2 * self._count)
      self._centres = np.resize(self._centres, (more, self._x.shape[1]))
      self._centre_norms = np.resize(self._centre_norms, more)
    self._centres[self._count] = self._x[row]
    self._centre_norms[self._count] = self._norms[row]
    self._count += 1
    if self._count > 1:
      self._compare(self._active, self._count - 1, self._count)
    else:
      # All exactly: float64 distances to the first centre.
      self._upper = squares(self._x, self._centres[0])
      self._exact = self._upper.copy()
      self._loose[:] = False
      self._seen[:] = self._count
      self._waiting = 1
      self._choose()

  def farthest(self, open_N: Bool[np.ndarray, " N"]) -> tuple[int, float]:
    """The open row farthest from its nearest centre, and the distance squared.

    Args:
      open_N: rows that may be taken; rows never open again.
    """
    while True:
      able = self._active[open_N[self._active]]
      if len(able):
        row = int(able[np.argmax(self._upper[able])])
        value = self._upper[row]
        if value > self._bound or (
          value == self._bound and row < self._bound_row
        ):
          if not self._loose[row]:
            return row, float(value)
          self._settle(row)
          continue
      rest = np.ones(len(self._x), bool)
      rest[self._active] = False
      self._compare(np.flatnonzero(rest), self._waiting, self._count)
      self._waiting = self._count
      self._choose(open_N)

  def _choose(self, open_N=None) -> None:
    """The open rows with the largest bounds become the active ones."""
    value = self._upper
    if open_N is not None:
      value = np.where(open_N, value, -np.inf)
    N = len(value)
    if N <= _ACTIVE:
      self._active = np.arange(N)
      return
    border = np.partition(value, N - _ACTIVE)[N - _ACTIVE]
    above = np.flatnonzero(value > border)
    equal = np.flatnonzero(value == border)
    room = _ACTIVE - len(above)
    self._active = np.sort(np.concatenate([above, equal[:room]]))
    rest = equal[room:]
    if len(rest):
      self._bound, self._bound_row = border, int(rest[0])
    else:
      below = np.where(value < border, value, -np.inf)
      self._bound_row = int(np.argmax(below))
      self._bound = below[self._bound_row]

  def _compare(self, rows: np.ndarray, start: int, stop: int) -> None:
    """Bounds of these rows with the centres from `start` to `stop`."""
    for first in range(start, stop, _CENTRES_AT_ONCE):
      last = min(first + _CENTRES_AT_ONCE, stop)
      centres_KD = self._centres[first:last]
      norms_K = self._centre_norms[first:last]
      reach = self._error * self._largest * np.sqrt(norms_K.max())
      for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[begin : begin + _ROWS_AT_ONCE]
        products_NK = products(self._x[part], centres_KD).astype(np.float64)
        near_N = (norms_K - 2 * products_NK).min(axis=1) + self._norms[part]
        upper_N = self._upper[part]
        closer = near_N - reach < upper_N
        part, near_N = part[closer], near_N[closer]
        self._upper[part] = np.minimum(upper_N[closer], near_N + reach)
        self._loose[part] = True

  def _settle(self, row: int) -> None:
    """The exact value of one row."""
    centres_KD = self._centres[self._seen[row] : self._count]
    part = centres_KD.astype(np.float64)
    np.subtract(self._x[row], part, out=part)
    np.square(part, out=part)
    least = part.sum(axis=1).min(initial=np.inf)
    self._exact[row] = min(self._exact[row], least)
    self._upper[row] = self._exact[row]
    self._loose[row] = False
    self._seen[row] = self._count
