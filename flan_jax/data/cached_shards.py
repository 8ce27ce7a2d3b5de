"""Writes cached input: one shard of one task at a time, anywhere.

A shard is a function of its `Work` alone, so that it does not matter which
machine writes it, after how many stops, or in which order. Files get their
names when they are whole; what has its `.json` is kept by a later start.
"""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio

from flan_jax.data import cached, catalogue, mixtures, remote, spec, template
from flan_jax.data import directory as directory_lib
from flan_jax.errors import UserError

# Rows of a dataset in a shard, and shards of a task at most: each of them
# reads the rows of the others too, though it renders its own alone.
SHARD_ROWS = 10_000
MOST_SHARDS = 16
# Every record is read by itself. Tokens compress badly, so they are not.
_OPTIONS = "group_size:1,uncompressed"
# Before the tokens of a record: inputs, row of the dataset, template, draw.
HEADER = np.dtype("<i4")
HEADER_SIZE = 4
_CHUNK_BYTES = 1 << 22
_PACKAGES = ("flan_jax", "seqio", "tensorflow", "sentencepiece", "tokenizers")


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a process needs before it can read a task; it travels to workers.

  Attributes:
    vocabulary, wrapper, task_collection, module, tfds_data_dir,
      train_examples: as `train` has them.
  """

  vocabulary: Any
  wrapper: template.Wrapper = template.PLAIN
  task_collection: Any = None
  module: str | None = None
  tfds_data_dir: str | None = None
  train_examples: int | None = None

  def prepare(self) -> directory_lib.Directory:
    """Registers the tasks and points seqio at the data."""
    from flan_jax.data import collection

    collection.register(
      self.task_collection,
      self.vocabulary,
      wrapper=self.wrapper,
      train_examples=self.train_examples,
    )
    if self.module is not None:
      importlib.import_module(self.module)
    return directory_lib.choose(self.tfds_data_dir, self.task_collection)


@dataclasses.dataclass(frozen=True)
class Work:
  """One shard to write.

  Attributes:
    key: of the task (`cached.key`).
    folder: where its files go.
    shard, shards: which one of how many.
    draws: how often templates are drawn for each row.
    seed: decides what is drawn.
  """

  key: Mapping[str, Any]
  folder: str
  shard: int
  shards: int
  draws: int
  seed: int

  @property
  def stem(self) -> str:
    return f"shard_{self.shard:05}"

  @property
  def line(self) -> remote.Path:
    """The file that says that the shard is written."""
    return remote.as_path(self.folder) / f"{self.stem}.json"


def plan(
  cache_dir: str | os.PathLike, key: Mapping, *, draws: int, seed: int
) -> list[Work]:
  """The shards of one task."""
  shards = min(max(-(-key["rows"] // SHARD_ROWS), 1), MOST_SHARDS)
  folder = str(cached.folder(cache_dir, key))
  return [
    Work(dict(key), folder, shard, shards, draws, seed)
    for shard in range(shards)
  ]


def options(work: Work) -> dict[str, Any]:
  """What decides a task's examples beside its key."""
  return {"draws": work.draws, "seed": work.seed, "shards": work.shards}


def clear_other(work: Work) -> bool:
  """Removes a folder that was written with other draws, seed or shards.

  Returns:
    Whether there was one.
  """
  folder = remote.as_path(work.folder)
  lines = [*folder.glob("shard_*.json"), *folder.glob(cached.MANIFEST)]
  for file in lines:
    try:
      if json.loads(file.read_text())["options"] == options(work):
        continue
    except (ValueError, KeyError):
      pass  # damaged: written anew
    remote.remove_tree(folder)
    return True
  return False


def is_written(work: Work, verify: bool = False) -> bool:
  """Whether a shard is there, whole; with `verify` its bytes are looked at."""
  try:
    with remote.own_errors(work.folder):
      line = json.loads(work.line.read_text())
      file = work.line.with_name(line["file"])
      sizes = work.line.with_name(line["sizes"])
      if remote.size(file) != line["bytes"] or not sizes.is_file():
        return False
      return sha256(sizes) == line["sizes_sha256"] and (
        not verify or sha256(file) == line["sha256"]
      )
  except (OSError, ValueError, KeyError):
    return False


def write(setting: Setting, work: Work) -> dict[str, Any]:
  """Writes one shard; the line about it that the manifest gets.

  Args:
    setting: of the job.
    work: which shard.

  Raises:
    UserError: the task has become another since the job began, a row cannot
      be rendered, or the folder cannot be written.
  """
  setting.prepare()
  task = mixtures.registered(work.key["task"])
  now = cached.key(
    task,
    split=work.key["split"],
    lengths=work.key["lengths"],
    wrapper=setting.wrapper,
  )
  if now != work.key:
    differing = cached.differences(work.key, now)
    raise UserError(
      f"task {task.name!r} is not the same here as where the job began:"
      f" {differing}. Give every worker the same flan_jax and the same data."
    )
  try:
    folder = remote.as_path(work.folder)
    with remote.own_errors(folder):
      if remote.is_remote(folder):
        # An object is written whole: the shard is first one of this machine.
        with tempfile.TemporaryDirectory() as here:
          return _write(task, work, folder, pathlib.Path(here))
      folder.mkdir(parents=True, exist_ok=True)
      return _write(task, work, folder, folder)
  except OSError as e:
    raise UserError(
      f"CACHE_DIR {work.folder!r} cannot be written: {e.strerror}."
    ) from None


def _write(
  task: seqio.Task, work: Work, folder: remote.Path, here: pathlib.Path
) -> dict[str, Any]:
  """Writes into `here`, and moves what is whole to `folder`."""
  from array_record.python import array_record_module

  vocabulary = task.output_features["inputs"].vocabulary
  tokens = "<u2" if vocabulary.vocab_size <= 1 << 16 else "<i4"
  kind = np.dtype(tokens)
  file = folder / f"{work.stem}.array_record"
  draft = here / f"{work.stem}.{os.getpid()}.part"
  writer = array_record_module.ArrayRecordWriter(str(draft), _OPTIONS)
  sizes, rows, trimmed = [], [], 0
  for draw in range(work.draws):
    before = len(sizes)
    for example in _examples(task, work, draw):
      ids = [np.asarray(example[n]) for n in ("inputs", "targets")]
      _check(task, example, ids, work.key["lengths"])
      header = np.array(
        [
          len(ids[0]),
          example.get("example_index", -1),
          example.get("template", -1),
          draw,
        ],
        HEADER,
      )
      body = np.concatenate(ids).astype(kind)
      writer.write(header.tobytes() + body.tobytes())
      sizes.append((len(ids[0]), len(ids[1])))
      trimmed += int(example.get("trimmed", 0) > 0)
    rows.append(len(sizes) - before)
  writer.close()
  sizes_N2 = np.array(sizes, np.int32).reshape(-1, 2)
  sizes_file = folder / f"{work.stem}.sizes.npy"
  sizes_draft = here / f"{work.stem}.{os.getpid()}.part.npy"
  np.save(sizes_draft, sizes_N2)
  line = {
    "options": options(work),
    "file": file.name,
    "sizes": sizes_file.name,
    "rows": rows,
    "bytes": draft.stat().st_size,
    "sha256": sha256(draft),
    "sizes_sha256": sha256(sizes_draft),
    "dtype": tokens,
    "trimmed": trimmed,
    "longest": [int(x) for x in sizes_N2.max(0)] if sizes else [0, 0],
    "tokens": [int(x) for x in sizes_N2.sum(0, dtype=np.int64)],
  }
  remote.move(sizes_draft, sizes_file)
  remote.move(draft, file)
  replace_json(work.line, line)
  return line


def finish(works: list[Work]) -> dict[str, Any]:
  """Writes the manifest of a task of which every shard is there.

  Raises:
    UserError: a shard is missing.
  """
  missing = [w.stem for w in works if not is_written(w)]
  if missing:
    raise UserError(
      f"{works[0].folder}: {', '.join(missing)} were not written; run the job"
      " once more."
    )
  lines = [json.loads(work.line.read_text()) for work in works]
  manifest = {
    "key": works[0].key,
    "options": options(works[0]),
    "versions": versions(),
    "dtype": lines[0]["dtype"],
    "only_these_lengths": _depends_on_lengths(works[0]),
    "rows": [sum(c) for c in zip(*(x["rows"] for x in lines), strict=True)],
    "shards": [
      {k: v for k, v in line.items() if k not in ("options", "dtype")}
      for line in lines
    ],
  }
  folder = remote.as_path(works[0].folder)
  for left in folder.glob("*.part*"):
    left.unlink(missing_ok=True)
  path = folder / cached.MANIFEST
  old = cached.read_manifest(folder) if path.exists() else None
  if old is None or old["shards"] != manifest["shards"]:
    replace_json(path, manifest)
  return manifest


def _depends_on_lengths(work: Work) -> bool:
  """Whether examples differ by the lengths though nothing is cut.

  Exemplars are as many as fit; a row is left out if its own options do not.
  """
  task = mixtures.registered(work.key["task"])
  ours = catalogue.of_seqio(task)
  if not isinstance(ours, spec.Task):
    return True
  shots = catalogue.form_of(task).shots
  return shots > 0 or isinstance(ours.choices, spec.Features)


def _examples(task: seqio.Task, work: Work, draw: int):
  """Tokenised rows of a shard, in order, templates drawn once."""
  name = f"{work.seed}/{task.name}/{draw}/{work.shard}"
  seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
  info = seqio.ShardInfo(work.shard, work.shards)
  dataset = task.get_dataset(
    work.key["lengths"],
    split=work.key["split"],
    shuffle=False,
    seed=seed >> 1,
    num_epochs=1,
    shard_info=info if work.shards > 1 else None,
  )
  names = ("inputs", "targets", "template", "example_index", "trimmed")
  kept = [n for n in names if n in dataset.element_spec]
  dataset = dataset.map(lambda row: {n: row[n] for n in kept})
  return template.user_errors(dataset.as_numpy_iterator())


def _check(task, example, ids, lengths):
  for name, tokens in zip(("inputs", "targets"), ids, strict=True):
    if tokens.ndim != 1 or not 0 < len(tokens) <= lengths[name]:
      raise UserError(
        f"task {task.name!r}, row {int(example.get('example_index', -1))}: its"
        f" {name} have shape {tokens.shape}; 1 to {lengths[name]} tokens in"
        " one row are needed."
      )


def replace_json(path: remote.Path, value: Any):
  """Writes JSON so that the file is whole at every moment."""
  if remote.is_remote(path):
    path.write_text(json.dumps(value, indent=1, sort_keys=True))
    return
  draft = path.with_name(f"{path.name}.{os.getpid()}.part")
  draft.write_text(json.dumps(value, indent=1, sort_keys=True))
  os.replace(draft, path)


def sha256(path: remote.Path) -> str:
  """Of a file's bytes, as hexadecimal digits."""
  digest = hashlib.sha256()
  with path.open("rb") as file:
    while chunk := file.read(_CHUNK_BYTES):
      digest.update(chunk)
  return digest.hexdigest()


def versions() -> dict[str, str]:
  """Of the packages that decide how a row is written."""
  out = {}
  for name in _PACKAGES:
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return out
