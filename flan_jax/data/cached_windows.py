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

Grain, which reads the rows, could mix and pack as well: `MapDataset.mix` rounds
rates to whole multiples of a hundredth of the smallest, and its packers are
iterators, which find step N by packing all before it.
"""

import collections
import functools
import logging
import math
import threading
from collections.abc import Sequence

import numpy as np

from flan_jax.data import packing

_log = logging.getLogger(__name__)

# Examples of a window: enough that every window has nearly the same number of
# tokens, few enough to pack in a second.
WINDOW = 32_768
# Windows that are packed to learn how many rows one needs.
_TRIED = 2
# Pools of `packing.rows`, the next where a window needs too many rows with one.
_POOLS = (packing.POOL, 768, 1024, 2048)
# Standard deviations of a window's tokens that its rows have room for beyond
# the fullest of those, and a share of rows, since a packer has luck too.
_DEVIATIONS = 2.0
_LUCK = 0.004
# Windows, and permutations of a task, that are kept.
_KEPT = 3


class Windows:
  """The stream of a mixture's examples, in packed rows.

  >>> sizes = np.full((40, 2), (10, 4), np.int32)
  >>> windows = Windows(
  ...   [sizes], [[40]], [1.0], room=(32, 16), seed=0, window=100)
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
    window: int | None = None,
  ):
    """Args:
    sizes: of every task: what each record takes of `room`, int32 [records, 2].
    draws: of every task: records of each draw; an epoch is one draw.
    rates: share of each task; they sum to 1.
    room: of a row.
    seed: of the order.
    pack: several examples a row; else a row is one example.
    window: examples of a window; None: `WINDOW`.
    """
    self._sizes = list(sizes)
    self._ends = [np.cumsum([0, *d]) for d in draws]
    self._tree = _Tree(rates, seed)
    self._seed, self._room = seed, room
    self._window = window = WINDOW if window is None else window
    self._kept: collections.OrderedDict = collections.OrderedDict()
    self._permutations: collections.OrderedDict = collections.OrderedDict()
    self._tried: dict[int, list[list[int]]] = {}
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
    rows = self._tried.pop(window, None)
    if rows is None:
      sizes = self._sizes_of(tasks, records)
      for pool in _POOLS:
        rows = pack(sizes, self._room, pool)
        if len(rows) <= self.rows_per_window:
          break
    rows, left = fixed(rows, self.rows_per_window)
    if left:
      self.left += left
      _log.warning(
        "%d of the %s examples of window %d of the cached input found no room"
        " in its rows and are passed over.",
        left,
        f"{self._window:,}",
        window,
      )
    shuffled = _permutation(len(rows), self._seed, -2, window)
    rows = [rows[i] for i in shuffled]
    starts = np.cumsum([0, *map(len, rows)])
    order = np.concatenate(rows).astype(np.int64)
    return tasks[order], records[order], starts

  def _sizes_of(self, tasks, records) -> np.ndarray:
    out = np.empty((len(tasks), 2), np.int32)
    for task in np.unique(tasks):
      of_task = tasks == task
      out[of_task] = self._sizes[task][records[of_task]]
    return out

  def _rows_needed(self) -> int:
    """Rows that a window needs, and as many more as windows differ."""
    for window in range(_TRIED):
      tasks, records = self.examples(window)
      sizes = self._sizes_of(tasks, records)
      self._tried[window] = pack(sizes, self._room)
    used = [len(rows) for rows in self._tried.values()]
    room = np.array(self._room, np.float64)
    counts = self.counts(self._window)
    variance = sum(
      _drawn(n, len(sizes)) * (sizes / room).var(axis=0)
      for n, sizes in zip(counts, self._sizes, strict=True)
    )
    spare = _DEVIATIONS * math.sqrt(np.max(variance)) + _LUCK * max(used)
    return math.ceil(max(used) + spare)


def _drawn(n: int, records: int) -> float:
  """By how many independent draws n records in a row of a stream vary.

  Whole epochs do not; of two parts of an epoch each is drawn without return.
  """
  return n * (1 - n / (2 * records)) if n < records else records / 2


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


def pack(
  sizes: np.ndarray, room: packing.Sized, pool: int = packing.POOL
) -> list[list[int]]:
  """Rows of examples: `first_fit` in one dimension, `packing.rows` in two.

  First fit fills rows of inputs and targets a tenth worse: it knows one order
  of the examples, and one of the two sides runs out first.

  Args:
    sizes: (inputs, targets) tokens of each example, [N, 2].
    room: of a row.
    pool: of `packing.rows`.

  Returns:
    Numbers of the examples of each row.
  """
  if room[0] == room[1] and (sizes[:, 0] == sizes[:, 1]).all():
    return first_fit(sizes[:, 0], room[0])
  pairs = ((s, t) for s, t in sizes.tolist())
  return list(packing.rows(pairs, room, pool))


def first_fit(lengths: np.ndarray, room: int) -> list[list[int]]:
  """Rows by first fit, the longest examples first (Johnson, 1973).

  >>> first_fit(np.array([6, 5, 4, 3]), 10)
  [[0, 2], [1, 3]]

  Args:
    lengths: tokens of each example, [N].
    room: tokens of a row.

  Returns:
    Numbers of the examples of each row.
  """
  rows: list[list[int]] = []
  free = np.empty(len(lengths), np.int64)
  # Rows that still have room for the shortest example: numbers, in order.
  live = np.empty(len(lengths), np.int64)
  opened, shortest = 0, lengths.min(initial=room)
  for count, i in enumerate(np.argsort(-lengths, kind="stable")):
    fits = free[live[:opened]] >= lengths[i]
    at = int(fits.argmax()) if opened else 0
    if opened and fits[at]:
      row = live[at]
    else:
      row = live[opened] = len(rows)
      free[row] = room
      rows.append([])
      opened += 1
    rows[row].append(int(i))
    free[row] -= lengths[i]
    if count % 256 == 255:
      still = live[:opened][free[live[:opened]] >= shortest]
      opened = len(still)
      live[:opened] = still
  return rows


def fixed(rows: list[list[int]], count: int) -> tuple[list[list[int]], int]:
  """`count` rows exactly.

  >>> fixed([[0, 1, 2], [3]], 3)
  ([[0], [3], [1, 2]], 0)
  >>> fixed([[0, 1, 2], [3]], 1)
  ([[0, 1, 2]], 1)

  Of rows that are too many those with the fewest examples are not used; where
  they are too few, those with the most are halved.

  Returns:
    The rows, and how many examples are left over.
  """
  by_number = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
  if len(rows) > count:
    used = sorted(by_number[:count])
    left = sum(len(rows[i]) for i in by_number[count:])
    return [rows[i] for i in used], left
  rows = list(rows)
  for i in by_number:
    if len(rows) == count or len(rows[i]) < 2:
      break
    half = len(rows[i]) // 2
    rows[i], other = rows[i][:half], rows[i][half:]
    rows.append(other)
  return rows + [[] for _ in range(count - len(rows))], 0


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
