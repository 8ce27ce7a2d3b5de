"""Writes seqio's own cache, for other projects: `use_cached=True` reads it.

  CACHE_DIR/<task>/<split>.tfrecord-00000-of-00002     rows as tf.Example
                   info.<split>.json, stats.<split>.json
                   COMPLETED                            it may be read
                   flan_jax.json                        what it was made from

As `seqio_cache_tasks` of seqio 0.0.20 writes it, but for the order of rows,
which is the dataset's. A cache holds what a task makes before its
`CacheDatasetPlaceholder`: of ours, rows whose templates are drawn at reading.
It has the functions that `cached_shards.py` has.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import cached, cached_shards, mixtures, template
from flan_jax.data.cached_shards import Setting
from flan_jax.errors import UserError

_KEY = "flan_jax.json"
_COMPLETED = "COMPLETED"


@dataclasses.dataclass(frozen=True)
class Work(cached_shards.Work):
  """One file of one split of a task."""

  @property
  def split(self) -> str:
    return self.key["split"]

  @property
  def stem(self) -> str:
    return f"{self.split}.tfrecord-{self.shard:05}-of-{self.shards:05}"


def plan(
  cache_dir: str | os.PathLike, key: Mapping, *, draws: int, seed: int
) -> list[Work]:
  """The files of all splits of one task.

  Raises:
    UserError: the task has no place for a cache in its pipeline.
  """
  task = mixtures.registered(key["task"])
  if not task.supports_caching:
    raise UserError(
      f"task {task.name!r} has no CacheDatasetPlaceholder among its"
      " preprocessors, so seqio cannot read it from a cache; write it with"
      " FORMAT='flan_jax'."
    )
  root = pathlib.Path(cache_dir).expanduser()
  folder = str(root / seqio.utils.get_task_dir_from_name(task.name))
  out = []
  for split in task.splits:
    rows = int(task.num_input_examples(split))
    # What seqio caches knows no lengths and no wrapper.
    own = {k: v for k, v in key.items() if k not in ("lengths", "wrapper")}
    own |= {"split": split, "rows": rows}
    shards = min(
      max(-(-rows // cached_shards.SHARD_ROWS), 1), cached_shards.MOST_SHARDS
    )
    out += [Work(own, folder, i, shards, draws, seed) for i in range(shards)]
  return out


def clear_other(work: Work) -> bool:
  """Removes the folder if it was made from something else.

  Raises:
    UserError: another program wrote it.
  """
  folder = pathlib.Path(work.folder)
  if not folder.is_dir() or not any(folder.iterdir()):
    return False
  file = folder / _KEY
  if not file.is_file():
    raise UserError(
      f"{folder} holds a cache that another program wrote; give another"
      " CACHE_DIR, or remove it."
    )
  if json.loads(file.read_text()) == _made_from(work):
    return False
  shutil.rmtree(folder)
  return True


def is_written(work: Work, verify: bool = False) -> bool:
  """Whether a file is there, whole; with `verify` its bytes are looked at."""
  try:
    line = json.loads(work.line.read_text())
    file = work.line.with_name(line["file"])
    return file.stat().st_size == line["bytes"] and (
      not verify or cached_shards.sha256(file) == line["sha256"]
    )
  except (OSError, ValueError, KeyError):
    return False


def write(setting: Setting, work: Work) -> dict[str, Any]:
  """Writes one file; the line about it.

  Raises:
    UserError: a row that cannot be read, or a folder that cannot be written.
  """
  setting.prepare()
  task = mixtures.registered(work.key["task"])
  folder = pathlib.Path(work.folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _KEY).exists():
      cached_shards.replace_json(folder / _KEY, _made_from(work))
    return _write(task, work)
  except OSError as e:
    raise UserError(
      f"CACHE_DIR {work.folder!r} cannot be written: {e.strerror}."
    ) from None


def _write(task: seqio.Task, work: Work) -> dict[str, Any]:
  info = seqio.ShardInfo(work.shard, work.shards)
  dataset = task.source.get_dataset(
    split=work.split,
    shuffle=False,
    seed=work.seed,
    shard_info=info if work.shards > 1 else None,
  )
  dataset = task.preprocess_precache(dataset, seed=work.seed)
  file = work.line.with_name(work.stem)
  draft = work.line.with_name(f"{work.stem}.{os.getpid()}.part")
  stats = {"examples": 0}
  with tf.io.TFRecordWriter(str(draft)) as writer:
    for example in template.user_errors(dataset):
      writer.write(seqio.dict_to_tfexample(example).SerializeToString())
      stats["examples"] += 1
      for name, feature in task.output_features.items():
        if name in example:
          _count(stats, name, np.asarray(example[name]), feature.vocabulary)
  line = {
    "file": file.name,
    "rows": stats["examples"],
    "bytes": draft.stat().st_size,
    "sha256": cached_shards.sha256(draft),
    "stats": stats,
    "features": {
      name: _feature(spec) for name, spec in dataset.element_spec.items()
    },
  }
  os.replace(draft, file)
  cached_shards.replace_json(work.line, line)
  return line


def _count(stats, name: str, ids: np.ndarray, vocabulary):
  """Tokens that are neither EOS nor padding, as seqio counts them."""
  if ids.dtype not in (np.int32, np.int64):
    return
  real = int(((ids != vocabulary.eos_id) & (ids != vocabulary.pad_id)).sum())
  stats[f"{name}_tokens"] = stats.get(f"{name}_tokens", 0) + real
  most = f"{name}_max_tokens"
  stats[most] = max(stats.get(most, 0), real)


def _feature(spec) -> dict[str, Any]:
  shape = spec.shape.as_list()
  return {
    "shape": [None, *shape[1:]] if shape else [],
    "dtype": spec.dtype.name,
  }


def finish(works: list[Work]) -> dict[str, Any]:
  """Writes info, statistics and COMPLETED of a task.

  Raises:
    UserError: a file is missing.
  """
  missing = [w.stem for w in works if not is_written(w)]
  folder = pathlib.Path(works[0].folder)
  if missing:
    raise UserError(
      f"{folder}: {', '.join(missing)} were not written; run the job once more."
    )
  shards = []
  for split in dict.fromkeys(work.split for work in works):
    own = [w for w in works if w.split == split]
    lines = [json.loads(w.line.read_text()) for w in own]
    stats: dict[str, int] = {}
    for line in lines:
      for name, value in line["stats"].items():
        join = max if name.endswith("_max_tokens") else int.__add__
        stats[name] = join(stats.get(name, 0), value)
    info = {
      "num_shards": len(own),
      "features": lines[0]["features"],
      "seqio_version": seqio.__version__,
    }
    for path, value in (
      (seqio.utils.get_cached_info_path(str(folder), split), info),
      (seqio.utils.get_cached_stats_path(str(folder), split), stats),
    ):
      cached_shards.replace_json(pathlib.Path(path), value)
    shards += lines
  for left in folder.glob("*.part"):
    left.unlink(missing_ok=True)
  (folder / _COMPLETED).touch()
  return {
    "rows": [sum(line["rows"] for line in shards)],
    "shards": shards,
    "versions": cached_shards.versions(),
  }


def _made_from(work: Work) -> dict[str, Any]:
  """What all splits of a task have in common."""
  key = {k: v for k, v in work.key.items() if k not in ("split", "rows")}
  return {"key": key, "format": cached.FORMAT, "seed": work.seed}
