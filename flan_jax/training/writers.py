"""Scalars on their way out: TensorBoard and `metrics.jsonl`.

The JSON lines are the record that reports are made from. A run that was
killed goes on from its last checkpoint, so lines after that step (and half a
last line) are cut off first: the file always holds one curve. Where a line
cannot be written, the disk being full, it waits for the next one, and the run
goes on.
"""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

_log = logging.getLogger(__name__)


class JsonLines:
  """A file of JSON objects, a line each, that survives a full disk.

  >>> lines = JsonLines(path, [])  # doctest: +SKIP
  >>> lines.append({"step": 1})  # doctest: +SKIP
  True
  """

  def __init__(self, path: pathlib.Path, rows: Iterable[Mapping[str, Any]]):
    """Replaces what is there by `rows`; lines are appended after them."""
    self.path = path
    self._waiting: list[str] = [json.dumps(dict(row)) + "\n" for row in rows]
    self._failing = False
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(self._waiting), encoding="utf-8")
    os.replace(draft, path)
    self._waiting = []
    self._file = path.open("ab")
    self._end = path.stat().st_size

  def append(self, row: Mapping[str, Any]) -> bool:
    """Writes a line and those that wait; False: they wait for the next."""
    self._waiting.append(json.dumps(dict(row)) + "\n")
    content = "".join(self._waiting).encode()
    try:
      self._file.write(content)
      self._file.flush()
    except OSError as error:
      self._failed(error)
      return False
    if self._failing:
      _log.warning("%s is written again; no line is lost.", self.path)
    self._failing = False
    self._end += len(content)
    self._waiting = []
    return True

  def close(self) -> None:
    self._file.close()

  def _failed(self, error: OSError) -> None:
    if not self._failing:
      _log.warning(
        "%s cannot be written: %s. The run goes on; its lines are kept in"
        " memory until they can.",
        self.path,
        error.strerror or error,
      )
    self._failing = True
    # A part of a line may have gone out, and another wait in the buffer, which
    # only closing gets rid of.
    with contextlib.suppress(OSError):
      self._file.close()
    try:
      self._file = self.path.open("ab")
      self._file.truncate(self._end)
    except OSError:
      self._file = _Closed()


class _Closed:
  """Stands for a file that could not be opened again."""

  def write(self, _):
    raise OSError(0, "it could not be opened again")

  def flush(self):
    pass

  def close(self):
    pass


class MetricsLog:
  """Appends `{"step": n, name: value, ...}` lines and TensorBoard scalars.

  >>> log = MetricsLog(directory, start_step=0)  # doctest: +SKIP
  >>> log.write(1, {"train/loss": 8.3})  # doctest: +SKIP
  """

  def __init__(self, directory: pathlib.Path, start_step: int):
    """Opens the log; lines after `start_step` are dropped.

    Args:
      directory: the run's folder; TensorBoard files go to `tensorboard/`.
      start_step: the step that the run starts from, 0 for a fresh run.
    """
    self.path = directory / "metrics.jsonl"
    self._directory = directory / "tensorboard"
    # A run that starts at 0 measures step 0 again.
    self._open(start_step, read(self.path) if start_step else [])

  def _open(self, step: int, rows: Iterable[Mapping[str, Any]]):
    # clu imports TensorFlow for its summary files.
    from clu import metric_writers

    kept = [row for row in rows if row["step"] <= step]
    self._lines = JsonLines(self.path, kept)
    self._writer = metric_writers.SummaryWriter(str(self._directory))

  def write(self, step: int, scalars: Mapping[str, float]):
    """Writes one line; `scalars` are plain floats."""
    self._lines.append({"step": step, **scalars})
    self._quietly(self._writer.write_scalars, step, dict(scalars))

  def go_back(self, step: int):
    """Drops the lines after `step`, which is run again."""
    self.close()
    self._open(step, read(self.path))

  def close(self):
    self._lines.close()
    self._quietly(self._writer.close)

  def _quietly(self, write, *args):
    """TensorBoard's copy may have gaps; the lines have everything."""
    try:
      write(*args)
    except Exception as error:
      if type(error).__module__.startswith("tensorflow") or isinstance(
        error, OSError
      ):
        _log.warning("TensorBoard's files: %s", str(error).splitlines()[0])
      else:
        raise


def read(path: pathlib.Path) -> list[dict]:
  """Rows of a file of JSON lines; a half-written last line is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows
