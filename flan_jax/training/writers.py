"""Scalars on their way out: TensorBoard and `metrics.jsonl`.

The JSON lines are the record that reports are made from. A run that was
killed goes on from its last checkpoint, so lines after that step (and half a
last line) are cut off first: the file always holds one curve.
"""

import json
import os
import pathlib
from collections.abc import Mapping


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
    # clu imports TensorFlow for its summary files.
    from clu import metric_writers

    self.path = directory / "metrics.jsonl"
    # A run that starts at 0 measures step 0 again.
    earlier = read(self.path) if start_step else []
    kept = [row for row in earlier if row["step"] <= start_step]
    draft = self.path.with_suffix(".tmp")
    draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
    os.replace(draft, self.path)
    self._file = self.path.open("a", encoding="utf-8")
    self._writer = metric_writers.SummaryWriter(str(directory / "tensorboard"))

  def write(self, step: int, scalars: Mapping[str, float]):
    """Writes one line; `scalars` are plain floats."""
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    self._writer.write_scalars(step, dict(scalars))

  def close(self):
    self._file.close()
    self._writer.close()


def read(path: pathlib.Path) -> list[dict]:
  """Rows of a metrics file; a half-written last line is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows
