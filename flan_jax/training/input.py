"""Training batches: a mixture, mixed, packed, and read ahead in a thread.

The batch at step N depends on the mixture, the seed and N alone, so a run that
is started again draws the batches it would have drawn: `start_step` batches
are made and skipped, which costs input time only.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Batches = Iterator[dict[str, np.ndarray]]


def mixture_examples(
  mixture, *, lengths: Mapping[str, int], split: str, seed: int, repeat: bool
) -> Iterator[dict[str, np.ndarray]]:
  """Tokenised examples of a seqio task or mixture, in a fixed order.

  Args:
    mixture: a seqio Task or Mixture.
    lengths: feature -> tokens at most, `{"inputs": 256, "targets": 64}`.
    split: "train" or "validation".
    seed: decides the shuffle, the mixing and the templates drawn.
    repeat: whether to go on for ever.
  """
  # seqio's features alone: copies of the texts would cost as much as the rest.
  options = {"copy_pretokenized": False} if hasattr(mixture, "tasks") else {}
  dataset = mixture.get_dataset(
    sequence_length=dict(lengths),
    split=split,
    shuffle=repeat,
    seed=seed,
    num_epochs=None if repeat else 1,
    **options,
  )
  for example in dataset.as_numpy_iterator():
    yield {name: example[name] for name in ("inputs", "targets")}


def training_batches(
  mixture,
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
    mixture: a seqio Task or Mixture with a `train` split.
    convert: examples -> batches, `features.encoder_decoder_batches`.
    lengths: feature -> tokens a row.
    batch_size: rows a batch.
    seed: see `mixture_examples`.
    pack: several examples a row.
    start_step: batches to skip.
  """
  examples = mixture_examples(
    mixture, lengths=lengths, split="train", seed=seed, repeat=True
  )
  batches = convert(
    examples, lengths=lengths, batch_size=batch_size, pack=pack
  )
  return itertools.islice(batches, start_step, None)


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
