"""Training batches: a mixture, mixed, packed, and read ahead in a thread.

The batch at step N depends on the mixture, the seed and N alone, so a run that
is started again draws the batches it would have drawn: `start_step` batches
are made and skipped, which costs input time only.
"""

import concurrent.futures
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

from flan_jax.data import mixtures

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
  """
  examples = mixtures.examples(resolved, lengths, seed=seed, passthrough=())
  batches = convert(
    examples, lengths=lengths, batch_size=batch_size, pack=pack
  )
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

  def __init__(self, source: Iterator[T], depth: int = 4):
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
    item, error = self._queue.get()
    if error is not None:
      self._queue.put((None, error))
      raise error
    return item

  def close(self):
    """Stops the thread; items drawn ahead are dropped."""
    self._stop.set()
    self._thread.join(timeout=5)
