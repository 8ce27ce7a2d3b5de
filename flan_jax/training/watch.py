"""Watch: one process of a run that hangs ends all of them.

A process that dies is noticed by JAX, whose coordination service misses its
heartbeats. One that hangs, in a file system that does not answer or a lock,
goes on sending them, and all others wait for it without end. Here each process
counts the steps that it took, and a thread of it compares the counts: who
stays behind the others for too long is named, and every process ends. What all
of them do for long (compiling, evaluating) leaves no one behind. So one that
hangs in an evaluation, where all others wait, is not told from a long one.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax

# The exit code of a process that ends because one of them hangs.
EXIT_HANGING = 70
_FOLDER = "flan_jax/steps"


class Store(Protocol):
  """Texts that all processes can read: of JAX's coordination service."""

  def key_value_set(
    self, key: str, value: str, allow_overwrite: bool = False
  ) -> None: ...

  def key_value_dir_get(self, key: str) -> list[tuple[str, str]]: ...


class Behind(NamedTuple):
  """A process that stays behind.

  Attributes:
    process: its number.
    count: steps that it took since the start.
    ahead: steps that others took.
  """

  process: int
  count: int
  ahead: int


class Comparison:
  """Who has been behind the others for too long.

  >>> comparison = Comparison(seconds=10)
  >>> comparison.behind({0: 4, 1: 3}, now=0.0)
  >>> comparison.behind({0: 5, 1: 3}, now=9.0)
  >>> comparison.behind({0: 5, 1: 3}, now=10.0)
  Behind(process=1, count=3, ahead=5)
  """

  def __init__(self, seconds: float):
    self._seconds = seconds
    # Process -> its count and when it was first seen behind with it.
    self._since: dict[int, tuple[int, float]] = {}

  def behind(self, counts: Mapping[int, int], now: float) -> Behind | None:
    """The process that took none of the steps of others for `seconds`.

    Args:
      counts: steps of every process.
      now: seconds, of a clock that never goes back.
    """
    ahead = max(counts.values(), default=0)
    for process, count in sorted(counts.items()):
      if count == ahead:
        self._since.pop(process, None)
        continue
      before = self._since.get(process)
      if before is None or before[0] != count:
        self._since[process] = count, now
      elif now - before[1] >= self._seconds:
        return Behind(process, count, ahead)
    return None


class Watch:
  """Compares the steps of this process with those of the others.

      with Watch(seconds=300) as watch:
        for batch in batches:
          watch.passed()
          state = train_step(state, batch)

  A run of one process has nothing to compare: no thread is started.
  """

  def __init__(
    self,
    seconds: float,
    *,
    store: Store | None = None,
    index: int | None = None,
    count: int | None = None,
    end: Callable[[int], None] = os._exit,
  ):
    """Args:
    seconds: that a process may stay behind.
    store, index, count: default: of JAX's coordination service.
    end: ends the process, with an exit code.
    """
    self._seconds = seconds
    self._store, self._index, self._count = store, index, count
    self._end = end
    self._passed = 0
    self._over = threading.Event()

  def __enter__(self) -> "Watch":
    if self._count is None:
      self._count, self._index = jax.process_count(), jax.process_index()
    if self._count > 1:
      if self._store is None:
        self._store = _coordination_service()
      threading.Thread(target=self._compare, name="watch", daemon=True).start()
    return self

  def __exit__(self, *_):
    self._over.set()

  def passed(self) -> None:
    """Counts a step that this process begins, with all it needs for it."""
    self._passed += 1

  def _compare(self):
    comparison, published = Comparison(self._seconds), None
    # Often enough that the stated time is kept, seldom enough for a pod.
    pause = min(max(self._seconds / 10, 0.1), 10)
    while not self._over.wait(pause):
      # Where the service is gone, JAX ends the process itself.
      with contextlib.suppress(RuntimeError):
        if published != self._passed:
          published = self._passed
          self._store.key_value_set(
            f"{_FOLDER}/{self._index}", str(published), allow_overwrite=True
          )
        behind = comparison.behind(self._counts(), time.monotonic())
        if behind is not None and not self._over.is_set():
          self._say(behind)
          if behind.process != self._index:
            # Where the first process ends, JAX ends all others: not before
            # the one that hangs has said where.
            self._over.wait(2 * pause)
          self._end(EXIT_HANGING)
          return

  def _counts(self) -> dict[int, int]:
    """Of all processes; of one that was not heard of yet, 0."""
    found = {
      int(key.rpartition("/")[2]): int(text)
      for key, text in self._store.key_value_dir_get(_FOLDER)
    }
    return {index: found.get(index, 0) for index in range(self._count)}

  def _say(self, behind: Behind):
    mine = behind.process == self._index
    print(
      f"\nerror: process {behind.process} of {self._count}"
      f"{' (this one)' if mine else ''} hangs: it began {behind.count:,} steps"
      f" since its start and others {behind.ahead:,}, for"
      f" {self._seconds:g} s (PROCESS_STALL_SECONDS). All processes end; the"
      " same command goes on from the last checkpoint."
      + (" Where it hangs:" if mine else " Its own log says where it hangs."),
      file=sys.stderr,
      flush=True,
    )
    if mine:
      with contextlib.suppress(OSError, ValueError):
        faulthandler.dump_traceback(all_threads=True)


def _coordination_service() -> Store:
  # JAX offers its client nowhere else.
  from jax._src import distributed

  return distributed.global_state.client
