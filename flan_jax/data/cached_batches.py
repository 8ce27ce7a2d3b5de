"""Batches of cached input, by Grain: the batch of step N from N alone.

Nothing is read but the records of the rows that are asked for: step N costs
the same whether it is the first or the millionth, and a host reads the rows of
its own devices. Which records those are is said by `cached_windows.py`.
"""

import collections
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flan_jax.data import cached_files, cached_windows, layouts
from flan_jax.errors import UserError

# Steps there are; any run has fewer.
_STEPS = 1 << 40
# Files that are open at once.
_OPEN_FILES = 256
_HEADER_SIZE = 4
_HEADER = np.dtype("<i4")


class Steps:
  """Batches by the number of their step: a source for `grain.MapDataset`.

  >>> Steps(cache, layout, batch_size=64, seed=0)[1_000_000]  # doctest: +SKIP
  {'encoder_input_tokens': array([[...
  """

  def __init__(
    self,
    cache: cached_files.Cache,
    layout: layouts.Layout,
    *,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
  ):
    """Args:
    cache: of the run's mixture.
    layout: how examples lie in a row.
    batch_size: rows of a batch, over all hosts.
    seed: decides the order of the examples.
    rows: of a batch that are read here, all others being padding; None: all.

    Raises:
      UserError: a file of the cache cannot be read.
    """
    self._cache, self._layout, self._seed = cache, layout, seed
    self._batch_size = batch_size
    self._rows = list(range(batch_size) if rows is None else rows)
    self._start()

  def _start(self):
    self._windows: cached_windows.Windows | None = None
    self._segments: list[np.ndarray] = []
    self._readers: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getstate__(self):
    """What another process needs: files are opened and packed anew there."""
    names = ("_cache", "_layout", "_seed", "_batch_size", "_rows")
    return {name: getattr(self, name) for name in names}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._start()

  def __len__(self) -> int:
    return _STEPS

  @property
  def windows(self) -> cached_windows.Windows:
    """Which examples are in which row; made at the first call."""
    with self._lock:
      if self._windows is None:
        tasks = self._cache.tasks
        self._segments = [task.segments() for task in tasks]
        self._windows = cached_windows.Windows(
          [self._layout.sizes(task.sizes()) for task in tasks],
          [task.draws() for task in tasks],
          self._cache.rates,
          room=self._layout.room,
          seed=self._seed,
          pack=self._layout.pack,
        )
      return self._windows

  @property
  def path(self) -> str:
    """The folder of the cache."""
    return self._cache.path

  def described(self) -> dict[str, Any]:
    """What identifies the cache in a run's record."""
    return self._cache.described()

  def prepare(self) -> None:
    """Packs the first windows in a thread, while other things are done."""

    def first():
      import grain  # which takes a second

      del grain
      # Who asks for a batch is told what is wrong.
      with contextlib.suppress(UserError):
        _ = self.windows

    threading.Thread(target=first, daemon=True).start()

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step; the first one is 0."""
    batch = self._layout.empty(self._batch_size)
    rows = [self.windows.row(step * self._batch_size + b) for b in self._rows]
    pairs = iter(self._read(rows))
    for b, (tasks, _) in zip(self._rows, rows, strict=True):
      if len(tasks):
        into = {name: value[b] for name, value in batch.items()}
        self._layout.fill(into, [next(pairs) for _ in tasks])
    return batch

  def origins(self, step: int) -> list[list[tuple[str, int, int]]]:
    """Of every row of a batch that is read here its examples.

    Returns:
      (task, row of its dataset or -1, template or -1) of each.
    """
    out = []
    for b in self._rows:
      tasks, records = self.windows.row(step * self._batch_size + b)
      raw = self._raw(tasks, records)
      headers = [np.frombuffer(r, _HEADER, _HEADER_SIZE) for r in raw]
      names = [self._cache.tasks[t].name for t in tasks]
      out.append(
        [(n, int(h[1]), int(h[2])) for n, h in zip(names, headers, strict=True)]
      )
    return out

  def _read(self, rows) -> list[layouts.Pair]:
    """Inputs and targets of the examples of rows, in their order."""
    tasks = np.concatenate([tasks for tasks, _ in rows])
    records = np.concatenate([records for _, records in rows])
    kinds = [np.dtype(task.dtype) for task in self._cache.tasks]
    out = []
    for task, raw in zip(tasks, self._raw(tasks, records), strict=True):
      inputs = int.from_bytes(raw[:4], "little")
      ids = np.frombuffer(raw, kinds[task], offset=_HEADER.itemsize * 4)
      if self._layout.pads_with_zero and not ids.all():
        raise UserError(
          f"task {self._cache.tasks[task].name!r}: an example in the cache"
          " holds id 0, which is padding. Use a vocabulary that keeps id 0 for"
          " padding."
        )
      out.append((ids[:inputs].astype(np.int32), ids[inputs:].astype(np.int32)))
    return out

  def _raw(self, tasks, records) -> list[bytes]:
    """Records as they lie in the files, each file asked once."""
    of_file = collections.defaultdict(list)
    for i, (task, record) in enumerate(zip(tasks, records, strict=True)):
      segments = self._segments[task]
      at = int(np.searchsorted(segments[:, 0], record, "right")) - 1
      first, shard, place = segments[at]
      of_file[int(task), int(shard)].append((i, int(place + record - first)))
    out: list[bytes] = [b""] * len(tasks)
    for (task, shard), wanted in of_file.items():
      file = self._cache.tasks[task].files[shard]
      try:
        found = self._reader(file).read([place for _, place in wanted])
      except (RuntimeError, OSError, ValueError) as e:
        said = str(e).splitlines()[0]
        raise UserError(
          f"{file} cannot be read ({said}). Remove it and run the cache job"
          " once more: it writes what is missing."
        ) from None
      for (i, _), record in zip(wanted, found, strict=True):
        out[i] = record
    return out

  def _reader(self, file: str):
    from array_record.python import array_record_module

    with self._lock:
      if file not in self._readers:
        # No reading ahead: the next record may be anywhere.
        self._readers[file] = array_record_module.ArrayRecordReader(
          file,
          options="readahead_buffer_size:0,index_storage_option:in_memory",
          file_reader_buffer_size=1 << 15,
        )
        while len(self._readers) > _OPEN_FILES:
          self._readers.popitem(last=False)
      self._readers.move_to_end(file)
      return self._readers[file]


def batches(
  steps: Steps,
  *,
  start_step: int = 0,
  workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches of cached input from step `start_step` on.

  Args:
    steps: the batches by number.
    start_step: steps done.
    workers: processes that read; 0: threads of this one.

  Yields:
    What `features.encoder_decoder_batches` or `decoder_only_batches` does.

  Raises:
    UserError: a file of the cache cannot be read.
  """
  import grain
  from absl import flags

  if workers and not flags.FLAGS.is_parsed():
    # Grain asks for a flag of its own, which our launcher does not offer.
    flags.FLAGS.mark_as_parsed()
  source = grain.MapDataset.source(steps)
  threads = min(4, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
  stream = source.slice(slice(start_step, None)).to_iter_dataset(options)
  if workers:
    stream = stream.mp_prefetch(
      grain.MultiprocessingOptions(workers, per_worker_buffer_size=4)
    )
  return _until_closed(iter(stream))


def _until_closed(stream) -> Iterator[dict[str, np.ndarray]]:
  try:
    yield from stream
  finally:
    stream.close()
