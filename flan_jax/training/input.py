"""Training batches: a mixture, mixed, packed, and read ahead in a thread.

The batch at step N depends on the mixture, the seed and N alone, so a run that
is started again draws the batches it would have drawn: `start_step` batches
are made and skipped, which costs input time only. Of cached input
(`data/cached_batches.py`) batch N is read at once.
"""

import concurrent.futures
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

from flan_jax.data import cached_batches, mixtures
from flan_jax.data import waiting as waiting_lib

T = TypeVar("T")
Batches = Iterator[dict[str, np.ndarray]]


def training_batches(
  resolved: mixtures.Resolved,
  *,
  convert: Callable[..., Batches],
  lengths: Mapping[str, int],
  batch_size: int,
  seed: int,
  pack: bool = True,
  start_step: int = 0,
  waiting: waiting_lib.Waiting | None = None,
  cached: cached_batches.Steps | None = None,
  workers: int = 0,
) -> Batches:
  """Endless packed batches from step `start_step` on.

  Args:
    resolved: a mixture or task with a `train` split.
    convert: examples -> batches, `features.encoder_decoder_batches`.
    lengths: feature -> tokens a row.
    batch_size: rows a batch.
    seed: decides the shuffle, the mixing and the templates drawn.
    pack: several examples a row.
    start_step: batches to skip.
    waiting: is told which task is asked for an example.
    cached: batches that were rendered and tokenised before, of the same
      mixture, lengths and seed; then nothing is made, and nothing skipped.
    workers: processes that read these.
  """
  if cached is not None:
    if waiting is not None:
      waiting.reads(f"any in {cached.path}")
    return cached_batches.batches(
      cached, start_step=start_step, workers=workers
    )
  if waiting is not None:
    mixture = waiting.watched(resolved.mixture, "train")
    resolved = dataclasses.replace(resolved, mixture=mixture)
  examples = mixtures.examples(resolved, lengths, seed=seed, passthrough=())
  batches = convert(examples, lengths=lengths, batch_size=batch_size, pack=pack)
  return itertools.islice(batches, start_step, None)


class InThread(Generic[T]):
  """A value computed in a daemon thread, which never keeps a process alive.

  >>> InThread(lambda: 2 + 2).result()
  4
  """

  def __init__(self, function: Callable[[], T]):
    self._function = function
    self._future: concurrent.futures.Future = concurrent.futures.Future()
    self._thread = threading.Thread(target=self._run, daemon=True)

  def start(self):
    """Begins, if it has not begun."""
    if self._thread.ident is None:
      self._thread.start()

  def _run(self):
    try:
      self._future.set_result(self._function())
    except BaseException as e:
      self._future.set_exception(e)

  def result(self) -> T:
    """Waits for the value; raises what the function raised."""
    self.start()
    return self._future.result()


class ReadAhead(Iterator[T]):
  """Draws from an iterator in a thread, `depth` items ahead.

  An error in the thread is raised by `next`, where the reader sees it.

  >>> list(ReadAhead(iter([1, 2, 3]), depth=2))
  [1, 2, 3]
  """

  def __init__(
    self,
    source: Iterator[T],
    depth: int = 4,
    stall_seconds: float | None = None,
    on_stall: Callable[[float], None] = lambda seconds: None,
  ):
    """Args:
    source: of the items.
    depth: items that wait at most.
    stall_seconds: of waiting for an item after which `on_stall` is called,
      and again each time as long passes; None: never.
    on_stall: gets the seconds that the item has been waited for.
    """
    self._stall_seconds = stall_seconds
    self._on_stall = on_stall
    self._queue: queue.Queue = queue.Queue(depth)
    self._stop = threading.Event()
    self._thread = threading.Thread(
      target=self._fill, args=(source,), daemon=True
    )
    self._thread.start()

  def _fill(self, source: Iterator[T]):
    try:
      for item in source:
        if not self._put((item, None)):
          return
      self._put((None, StopIteration()))
    except BaseException as e:
      self._put((None, e))

  def _put(self, pair) -> bool:
    while not self._stop.is_set():
      try:
        self._queue.put(pair, timeout=0.2)
        return True
      except queue.Full:
        continue
    return False

  def __next__(self) -> T:
    item, error = self._next()
    if error is not None:
      self._queue.put((None, error))
      raise error
    return item

  def _next(self):
    began = time.monotonic()
    while True:
      try:
        return self._queue.get(timeout=self._stall_seconds)
      except queue.Empty:
        self._on_stall(time.monotonic() - began)

  def close(self):
    """Stops the thread; items drawn ahead are dropped."""
    self._stop.set()
    self._thread.join(timeout=5)
