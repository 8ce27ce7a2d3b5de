"""Which examples a row of cached input holds: a function of seed and place.

The mixture is an endless stream of examples, cut into windows of `WINDOW`. How
many of them each task has is a closed formula of the window's number
(`counts`), so is where in its own stream each task goes on, and that stream is
one permutation after the other of the task's records. A window is packed by
itself, and fills a fixed number of rows, `rows_per_window`. So row n is looked
up from n, as fast for the millionth as for the first.

Rates are the mixture's own (Raffel et al., 2020, arXiv 1910.10683, section
3.5.2, with the maximum of Wei et al., 2022, arXiv 2109.01652, section 2.4), met
within a few examples over any stretch of the stream.
"""

import collections
import functools
import math
import threading
from collections.abc import Sequence

import numpy as np

from flan_jax.data import packing

# Examples of a window: enough that every window has nearly the same number of
# tokens, few enough to pack in a fraction of a second.
WINDOW = 16_384
# Windows that are packed to learn how many rows one needs.
_TRIED = 3
# Standard deviations of a window's tokens that its rows have room for.
_DEVIATIONS = 4.0
# Windows, and permutations of a task, that are kept.
_KEPT = 3


class Windows:
  """The stream of a mixture's examples, in packed rows.

  >>> sizes = np.full((40, 2), (10, 4), np.int32)
  >>> windows = Windows([sizes], [[40]], [1.0], room=(32, 16), seed=0)
  >>> tasks, records = windows.row(5)
  >>> len(records)
  3

  Attributes:
    rows_per_window: rows that a window's examples are packed into.
    left: examples of windows so far that found no room.
  """

  def __init__(
    self,
    sizes: Sequence[np.ndarray],
    draws: Sequence[Sequence[int]],
    rates: Sequence[float],
    *,
    room: packing.Sized,
    seed: int,
    pack: bool = True,
    window: int = WINDOW,
  ):
    """Args:
    sizes: of every task: what each record takes of `room`, int32 [records, 2].
    draws: of every task: records of each draw; an epoch is one draw.
    rates: share of each task; they sum to 1.
    room: of a row.
    seed: of the order.
    pack: several examples a row; else a row is one example.
    window: examples of a window.
    """
    self._sizes = list(sizes)
    self._ends = [np.cumsum([0, *d]) for d in draws]
    self._tree = _Tree(rates, seed)
    self._seed, self._room, self._window = seed, room, window
    self._kept: collections.OrderedDict = collections.OrderedDict()
    self._permutations: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()
    self.left = 0
    self._pack = pack
    self.rows_per_window = self._rows_needed() if pack else window

  def counts(self, examples: int) -> np.ndarray:
    """Examples of each task among the first `examples`, int64 [tasks]."""
    return self._tree.split(examples)

  def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of a row: their tasks and records, int64 [N] each."""
    window, place = divmod(number, self.rows_per_window)
    tasks, records, starts = self._packed(window)
    span = slice(starts[place], starts[place + 1])
    return tasks[span], records[span]

  def examples(self, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Tasks and records of a window's examples, shuffled: int64 [window]."""
    begin, end = (self.counts(self._window * (window + i)) for i in (0, 1))
    tasks = np.repeat(np.arange(len(begin)), end - begin)
    records = [
      self._records(task, int(begin[task]), int(end[task]))
      for task in range(len(begin))
      if end[task] > begin[task]
    ]
    order = _permutation(self._window, self._seed, -1, window)
    return tasks[order], np.concatenate(records)[order]

  def _records(self, task: int, begin: int, end: int) -> np.ndarray:
    """Records [begin, end) of a task's own endless stream."""
    ends = self._ends[task]
    out = []
    while begin < end:
      cycle, place = divmod(begin, int(ends[-1]))
      draw = int(np.searchsorted(ends, place, "right")) - 1
      first, last = int(ends[draw]), int(ends[draw + 1])
      n = min(end - begin, last - place)
      epoch = cycle * (len(ends) - 1) + draw
      order = self._order(task, epoch, last - first)
      out.append(first + order[place - first : place - first + n])
      begin += n
    return np.concatenate(out)

  def _order(self, task: int, epoch: int, n: int) -> np.ndarray:
    kept = self._permutations
    if (task, epoch) not in kept:
      kept[task, epoch] = _permutation(n, self._seed, task, epoch)
      while len(kept) > _KEPT * len(self._sizes):
        kept.popitem(last=False)
    kept.move_to_end((task, epoch))
    return kept[task, epoch]

  def _packed(self, window: int):
    """Tasks and records of a window by row, and where each row starts."""
    with self._lock:
      if window not in self._kept:
        self._kept[window] = self._make(window)
        while len(self._kept) > _KEPT:
          self._kept.popitem(last=False)
      return self._kept[window]

  def _make(self, window: int):
    tasks, records = self.examples(window)
    if not self._pack:
      return tasks, records, np.arange(self._window + 1)
    rows, left = fixed_rows(
      self._sizes_of(tasks, records), self._room, self.rows_per_window
    )
    self.left += left
    shuffled = _permutation(len(rows), self._seed, -2, window)
    rows = [rows[i] for i in shuffled]
    starts = np.cumsum([0, *map(len, rows)])
    order = np.concatenate(rows)
    return tasks[order], records[order], starts

  def _sizes_of(self, tasks, records) -> np.ndarray:
    out = np.empty((len(tasks), 2), np.int32)
    for task in np.unique(tasks):
      of_task = tasks == task
      out[of_task] = self._sizes[task][records[of_task]]
    return out

  def _rows_needed(self) -> int:
    """Rows that a window needs, and as many more as windows differ."""
    used = [
      len(first_fit(self._sizes_of(*self.examples(w)), self._room))
      for w in range(_TRIED)
    ]
    room = np.array(self._room, np.float64)
    counts = self.counts(self._window)
    variance = sum(
      n * (sizes / room).var(axis=0)
      for n, sizes in zip(counts, self._sizes, strict=True)
    )
    spare = _DEVIATIONS * math.sqrt(float(np.max(variance)))
    return math.ceil(max(used) + spare / math.sqrt(_TRIED))


class _Tree:
  """Shares n examples out among tasks, for any n at once.

  Tasks are halved again and again; the left half of a node with share p of it
  gets floor(n p + t) of n, the right half the rest. Both grow with n, sums are
  exact, and each task is within log2(tasks) examples of its rate.
  """

  def __init__(self, rates: Sequence[float], seed: int):
    self._ends = np.concatenate([[0.0], np.cumsum(rates, dtype=np.float64)])
    # Where a node begins to count: rare tasks then do not all come at once.
    mixed = _mix(np.arange(len(rates), dtype=np.uint64), seed, -3, 0)
    self._shift = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53

  def split(self, n: int) -> np.ndarray:
    out = np.zeros(len(self._shift), np.int64)
    stack = [(0, len(out), int(n))]
    while stack:
      low, high, n = stack.pop()
      if high - low == 1:
        out[low] = n
        continue
      middle = (low + high) // 2
      begin, cut, end = self._ends[[low, middle, high]]
      share = (cut - begin) / (end - begin) if end > begin else 0.0
      left = min(n, math.floor(n * share + self._shift[middle]))
      stack += [(low, middle, left), (middle, high, n - left)]
    return out


def first_fit(sizes: np.ndarray, room: packing.Sized) -> list[list[int]]:
  """Rows by first fit, the largest examples first (Johnson, 1973).

  >>> first_fit(np.array([(6, 1), (5, 2), (4, 3), (3, 1)]), (10, 4))
  [[2, 0], [1, 3]]

  Args:
    sizes: (inputs, targets) tokens of each example, [N, 2].
    room: of a row.

  Returns:
    Numbers of the examples of each row.
  """
  rows, _ = _fit(sizes, room, None)
  return rows


def fixed_rows(
  sizes: np.ndarray, room: packing.Sized, count: int
) -> tuple[list[list[int]], int]:
  """As `first_fit`, in `count` rows exactly.

  >>> fixed_rows(np.array([(4, 1), (4, 1), (9, 1)]), (10, 4), 3)
  ([[2], [0], [1]], 0)

  Rows that are too many are not used, and what they held is left over; where
  they are too few, the fullest in number are halved.

  Returns:
    The rows, and how many examples are left over.
  """
  rows, left = _fit(sizes, room, count)
  if len(rows) < count:
    by_number = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for i in by_number:
      if len(rows) == count or len(rows[i]) < 2:
        break
      half = len(rows[i]) // 2
      rows[i], other = rows[i][:half], rows[i][half:]
      rows.append(other)
    rows += [[] for _ in range(count - len(rows))]
  return rows, left


def _fit(sizes, room, most: int | None) -> tuple[list[list[int]], int]:
  """First fit in `most` rows at most; how many examples fit in none."""
  share = sizes / np.array(room, np.float64)
  # The scarcer side decides, since the other has room anyway.
  load = share.sum(0)
  order = np.argsort(-(share @ (load / load.max())), kind="stable")
  n = len(sizes)
  free = np.empty((2, n if most is None else most), np.int32)
  rows: list[list[int]] = []
  # Rows that still have room for the smallest example: numbers, in order.
  smallest = sizes.min(axis=0)
  open_ = np.zeros(free.shape[1], np.int32)
  used = opened = left = 0
  for count, i in enumerate(order):
    s, t = sizes[i]
    live = open_[:opened]
    fits = (free[0, live] >= s) & (free[1, live] >= t)
    at = int(fits.argmax()) if opened else 0
    if opened and fits[at]:
      row = live[at]
    elif used < free.shape[1]:
      row = used
      free[:, row] = room
      rows.append([])
      open_[opened] = row
      opened += 1
      used += 1
    else:
      left += 1
      continue
    rows[row].append(int(i))
    free[0, row] -= s
    free[1, row] -= t
    if count % 256 == 255:
      live = open_[:opened]
      keep = (free[0, live] >= smallest[0]) & (free[1, live] >= smallest[1])
      still = live[keep]
      opened = len(still)
      open_[:opened] = still
  return rows, left


def _permutation(n: int, *key: int) -> np.ndarray:
  """A permutation of n by a hash of its places: the same everywhere.

  numpy promises its generators' streams for one version alone.
  """
  hashed = _mix(np.arange(n, dtype=np.uint64), *key)
  return np.argsort(hashed, kind="stable")


def _mix(values: np.ndarray, *key: int) -> np.ndarray:
  """SplitMix64's finaliser over values and a key (Steele et al., 2014)."""
  state = functools.reduce(
    lambda h, k: _scramble(h ^ np.array([k], np.int64).view(np.uint64)),
    key,
    np.array([0x9E3779B97F4A7C15], np.uint64),
  )
  return _scramble(_scramble(values + state))


def _scramble(x: np.ndarray) -> np.ndarray:
  x = x + np.uint64(0x9E3779B97F4A7C15)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
