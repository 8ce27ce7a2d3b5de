"""Files of cached input, as their readers see them; nothing heavy is imported.

Processes that only read begin with this module (`cached_batches.py`).
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.errors import UserError

_AGAIN = (
  "Remove that file and run the cache job once more: it writes what is missing."
)


@dataclasses.dataclass(frozen=True)
class CachedTask:
  """The cached examples of one task; a record is one of them.

  Records are numbered draw by draw, within a draw shard by shard.

  Attributes:
    name: of the task.
    path: the folder.
    dtype: of the tokens in a record.
    shards: per shard its `file`, `rows` by draw, and more (the manifest's).
  """

  name: str
  path: str
  dtype: str
  shards: tuple[Mapping[str, Any], ...]

  @property
  def files(self) -> list[str]:
    return [os.path.join(self.path, shard["file"]) for shard in self.shards]

  def draws(self) -> np.ndarray:
    """Records of each draw, int64 [draws]."""
    return np.array([shard["rows"] for shard in self.shards], np.int64).sum(0)

  def segments(self) -> np.ndarray:
    """Runs of records that lie together: (first, shard, place), int64 [N, 3].

    Record `first + i` of a run is at `place + i` of file `shard`.
    """
    out, first = [], 0
    for d in range(len(self.shards[0]["rows"])):
      for s, shard in enumerate(self.shards):
        out.append((first, s, sum(shard["rows"][:d])))
        first += shard["rows"][d]
    return np.array(out, np.int64)

  def sizes(self) -> np.ndarray:
    """(inputs, targets) tokens of every record, int32 [records, 2].

    Raises:
      UserError: a file is missing or is not what the manifest says.
    """
    parts = []
    for shard in self.shards:
      file = pathlib.Path(self.path, shard["sizes"])
      try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        parts.append(np.load(file))
      except (OSError, ValueError) as e:
        raise UserError(f"{file} cannot be read ({e}). {_AGAIN}") from None
      if found != shard["sizes_sha256"]:
        raise UserError(f"{file} is not what was written. {_AGAIN}")
    ends = [np.cumsum([0, *shard["rows"]]) for shard in self.shards]
    return np.concatenate(
      [
        part[end[d] : end[d + 1]]
        for d in range(len(ends[0]) - 1)
        for part, end in zip(parts, ends, strict=True)
      ]
    )


def check(task: CachedTask) -> None:
  """Refuses a task of which a file is missing or of another size.

  The bytes themselves carry checksums, which are looked at when they are read.

  Raises:
    UserError: naming the file.
  """
  for file, shard in zip(task.files, task.shards, strict=True):
    try:
      size = os.stat(file).st_size
    except OSError as e:
      raise UserError(f"{file}: {e.strerror}. {_AGAIN}") from None
    if size != shard["bytes"]:
      raise UserError(
        f"{file} has {size:,} bytes, {shard['bytes']:,} were written. {_AGAIN}"
      )


@dataclasses.dataclass(frozen=True)
class Cache:
  """The cached examples of a run's mixture.

  Attributes:
    path: CACHE_DIR.
    tasks: in the mixture's order.
    rates: share of each task in the examples; they sum to 1.
    digest: of the shards' checksums: of what is read.
  """

  path: str
  tasks: tuple[CachedTask, ...]
  rates: tuple[float, ...]
  digest: str

  def described(self) -> dict[str, Any]:
    """What identifies it in a run's record."""
    counts = [task.draws() for task in self.tasks]
    return {
      "digest": self.digest,
      "examples": int(sum(count.sum() for count in counts)),
      "draws": sorted({len(count) for count in counts}),
    }
