"""What was decided about every candidate of a curation run, and why.

A file of JSON lines, one a decision, in order: `stage`, `kept`, `reason` (null
for what is kept; the same words for the same reason), `id`, `row` (what was
decided on) and further fields of the stage.
"""

import collections
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax.errors import UserError

FILE = "decisions.jsonl"
KEPT = "kept"


class Decisions:
  """Writes decisions and counts them.

      with Decisions("runs/self_instruct") as decisions:
        decisions.write("instruction", "a_1", {"instruction": "Name a fruit."},
                        reason="too short")
        decisions.counts      # {"instruction": {"too short": 1}}

  A run that goes on from its journal decides all again, the same way, so the
  file is written anew.

  Args:
    folder: of the run.
    name: of the file.

  Raises:
    UserError: the file cannot be written.
  """

  def __init__(self, folder: str | os.PathLike, name: str = FILE):
    self.path = pathlib.Path(folder) / name
    self._counts: dict[str, collections.Counter] = {}
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._file = self.path.open("w", encoding="utf-8")
    except OSError as e:
      raise UserError(f"{self.path} cannot be written: {e.strerror}.") from None

  def write(
    self,
    stage: str,
    id: str,
    row: Mapping[str, Any],
    *,
    reason: str | None = None,
    **more: Any,
  ) -> None:
    """Notes one decision.

    Args:
      stage: of the run.
      id: of the candidate.
      row: the candidate.
      reason: why it is dropped; None: it is kept.
      more: further fields.
    """
    kept = reason is None
    self._counts.setdefault(stage, collections.Counter())[reason or KEPT] += 1
    record = {"stage": stage, "kept": kept, "reason": reason, "id": id}
    record |= {"row": dict(row), **more}
    self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

  @property
  def counts(self) -> dict[str, dict[str, int]]:
    """Stage -> "kept" or reason -> how many, most first."""
    return {
      stage: dict(counter.most_common())
      for stage, counter in self._counts.items()
    }

  def flush(self) -> None:
    """Lets a reader see what was written so far."""
    self._file.flush()

  def __enter__(self) -> "Decisions":
    return self

  def __exit__(self, *_):
    self._file.close()


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """The decisions of a file."""
  with pathlib.Path(path).open(encoding="utf-8") as file:
    for line in file:
      yield json.loads(line)
