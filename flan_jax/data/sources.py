"""Sources: where a task's rows come from, looked up when they are asked for.

Making a source touches no disk, so that registering hundreds of tasks is
quick. Splits are resolved against the sizes of the copy that is there, and a
source never downloads: a training job must not start one by itself.
"""

import abc
import functools
import glob
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax.data import preprocessors, remote, spec
from flan_jax.errors import UserError

SPLITS = ("train", "validation", "test")

_SLICE = re.compile(r"(.+)\[(\d*):(\d+)\]")


class NotPreparedError(UserError):
  """A dataset that is not on this machine.

  Attributes:
    name: as TFDS knows it, without the version; a glob for JSON-lines.
    version: the version that was looked for; "" for JSON-lines.
    found: versions that are there instead.
    folder: where it was looked for.
    command: what prepares it.
    by_hand: whether files have to be fetched by hand first.
  """

  def __init__(self, name, version, found, folder, command, note=""):
    self.name, self.version, self.found = name, version, tuple(found)
    self.folder, self.command, self.by_hand = str(folder), command, bool(note)
    wanted = f"{name}:{version}" if version else name
    there = f" (there: {', '.join(found)})" if found else ""
    super().__init__(
      f"Dataset {wanted} is not prepared in {folder}{there}. Prepare it with:"
      f" {command}{note}"
    )


class Source(seqio.DataSource):
  """Rows of one task's splits, each numbered as `example_index`.

  A row also says whether it is of the training split (`spec.TRAINING`), for
  the task's `keep`.

  Rows come in the order they are stored in; seqio's shuffle buffer and the
  mixture shuffle them. A shard is every n-th row.
  """

  def __init__(self, task: str, splits: spec.Splits):
    self.task, self._spec_splits = task, splits
    super().__init__(splits=splits.names)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  @abc.abstractmethod
  def sizes(self) -> Mapping[str, int]:
    """The source's own splits and their rows.

    Raises:
      NotPreparedError: it is not there.
    """

  @abc.abstractmethod
  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    """Rows [start, stop) of the source's own split, in order."""

  def is_prepared(self) -> bool:
    try:
      self.sizes()
    except NotPreparedError:
      return False
    return True

  def slices(self) -> dict[str, tuple[str, int, int]]:
    """Our splits as (source split, start, stop) of the copy that is there.

    Raises:
      NotPreparedError: it is not there.
      spec.SpecError: a split is missing or empty.
    """
    resolved = self._spec_splits.resolve(self.sizes(), self.task)
    out = {}
    for ours, text in resolved.items():
      name, start, stop = _SLICE.fullmatch(text).groups()
      out[ours] = (name, int(start or 0), int(stop))
    return out

  def rows(self, split: str) -> int:
    """Rows of one of our splits, before `keep` drops any."""
    _, start, stop = self._slice(split)
    return stop - start

  def _slice(self, split: str) -> tuple[str, int, int]:
    names = self._spec_splits.names
    if split not in names:
      raise UserError(
        f"task {self.task!r} has no split {split!r}, only {', '.join(names)}."
      )
    return self.slices()[split]

  def num_input_examples(self, split: str) -> int:
    return self.rows(split)

  def list_shards(self, split: str) -> Sequence[str]:
    return [split]

  def get_dataset(
    self,
    split: str = "train",
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    del shuffle, seed, sequence_length, use_cached, num_epochs
    rows = self.read(*self._slice(split))
    dataset = preprocessors.number(rows, training=split == "train")
    if shard_info and shard_info.num_shards > 1:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    return dataset


class TfdsSource(Source):
  """A prepared TFDS dataset in seqio's data directory or TFDS's default."""

  def __init__(self, task: str, splits: spec.Splits, tfds_spec: spec.Tfds):
    super().__init__(task, splits)
    self.tfds = tfds_spec

  def __repr__(self):
    return f"TfdsSource({self.tfds.spec})"

  def sizes(self) -> Mapping[str, int]:
    info = self._builder().info
    return {name: s.num_examples for name, s in info.splits.items()}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    return self._builder().as_dataset(
      split=f"{split}[{start}:{stop}]",
      shuffle_files=False,
      # One file after another: a row's position is its number.
      read_config=tfds.ReadConfig(
        interleave_cycle_length=1, skip_prefetch=True, try_autocache=False
      ),
    )

  def fingerprint(self) -> str:
    """Eight hex digits of the copy that is there.

    From its features, its splits with rows, bytes and shards, and the names
    and sizes of its files; the rows themselves are not read.
    """
    builder = self._builder()
    folder = remote.as_path(builder.data_dir)
    splits = sorted(
      (name, s.num_examples, s.num_bytes, tuple(s.shard_lengths or ()))
      for name, s in builder.info.splits.items()
    )
    files = sorted(
      (path.name, remote.size(path)) for path in folder.glob("*tfrecord*")
    )
    text = repr((splits, files, repr(builder.info.features)))
    return hashlib.sha256(text.encode()).hexdigest()[:8]

  def _builder(self):
    return tfds_builder(self.tfds.name, self.tfds.version, self.tfds.manual)


def data_dir() -> pathlib.Path:
  """Where TFDS datasets are looked for.

  seqio's override (`seqio.set_tfds_data_dir_override`), else $TFDS_DATA_DIR,
  else TFDS's default folder.
  """
  # seqio has no other public way to read its override.
  override = seqio.LazyTfdsLoader("any:1.0.0").data_dir
  chosen = (
    override or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
  )
  if remote.is_remote(chosen):
    return remote.as_path(chosen)
  return pathlib.Path(chosen).expanduser()


def tfds_builder(name: str, version: str, manual: str | None = None):
  """The read-only builder of a prepared dataset, from its folder alone.

  `manual` is said of files to be fetched by hand (`spec.Tfds`).

  Raises:
    NotPreparedError: naming the version, those that are there, the folder and
      the command that prepares it.
  """
  folder = data_dir()
  try:
    return _builder_in(folder, name, version)
  except FileNotFoundError:
    raise _not_prepared(folder, name, version, manual) from None


@functools.cache
def _builder_in(folder: pathlib.Path, name: str, version: str):
  # A FileNotFoundError is not kept, so a dataset prepared later is found.
  directory = _dataset_folder(folder, name) / version
  if not (directory / "dataset_info.json").is_file():
    raise FileNotFoundError(directory)
  return tfds.builder_from_directory(directory)


def _dataset_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
  """`name` below `folder`; with its default config where none is named."""
  directory = folder / name
  metadata = directory / ".config" / "metadata.json"
  if "/" not in name and metadata.is_file():
    config = json.loads(metadata.read_text()).get("default_config_name")
    if config:
      return directory / config
  return directory


def _not_prepared(folder: pathlib.Path, name: str, version: str, manual):
  there = _dataset_folder(folder, name)
  found = sorted(p.parent.name for p in there.glob("*.*.*/dataset_info.json"))
  note = ""
  if manual is None:
    try:
      builder = tfds.builder_cls(name.partition("/")[0])
      manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    except Exception:  # whatever the installed TFDS cannot say is left out
      manual = None
  if manual:
    asked = " ".join(manual.split())
    note = (
      f" (its files have to be fetched by hand into {folder}/downloads/manual"
      f" first: {asked})"
    )
  return NotPreparedError(
    name,
    version,
    found,
    folder,
    f"tfds build {name}:{version} --data_dir={folder}",
    note,
  )


class JsonlSource(Source):
  """JSON-lines files, one object a line; they are read into memory."""

  def __init__(self, task: str, splits: spec.Splits, jsonl: spec.Jsonl):
    super().__init__(task, splits)
    self.pattern = jsonl.pattern

  def __repr__(self):
    return f"JsonlSource({self.pattern})"

  def content(self) -> str:
    """Twelve hex digits of the lines of all splits that are used."""
    used = {name for name, _, _ in self.slices().values()}
    lines = [
      (name, line) for name in sorted(used) for *_, line in self._lines(name)
    ]
    return hashlib.sha256(repr(lines).encode()).hexdigest()[:12]

  def sizes(self) -> Mapping[str, int]:
    s = self._spec_splits
    theirs = [getattr(s, ours) for ours in s.names]
    named = [x if isinstance(x, str) else x.split for x in theirs]
    found = {name: len(self._lines(name)) for name in dict.fromkeys(named)}
    if not any(found.values()):
      raise NotPreparedError(
        self.pattern,
        "",
        (),
        pathlib.Path(self.pattern).parent,
        f"write {self.pattern.replace('{split}', named[0])}, one JSON object"
        " a line",
      )
    return {name: count for name, count in found.items() if count}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    lines = self._lines(split)[start:stop]
    rows = [self._parse(*line) for line in lines]
    keys = rows[0].keys()
    for (file, number, _), row in zip(lines, rows, strict=True):
      if row.keys() != keys:
        odd = sorted(row.keys() ^ keys)[0]
        raise UserError(
          f"task {self.task!r}: {file}, line {number}: key {odd!r} is in some"
          " rows and not in others; give every row the same keys."
        )
    columns = {k: self._column(k, [r[k] for r in rows]) for k in keys}
    return tf.data.Dataset.from_tensor_slices(columns)

  def _column(self, key: str, values: list):
    try:
      if isinstance(values[0], list):
        kind = next((type(x) for v in values for x in v), str)
        dtype = tf.string if kind is str else None
        return tf.ragged.constant(values, dtype, ragged_rank=1)
      return tf.constant(values)
    except (TypeError, ValueError) as e:
      raise UserError(
        f"task {self.task!r}: key {key!r} of {self.pattern} is not the same"
        f" kind of value in every row ({str(e).splitlines()[0]})."
      ) from None

  def _lines(self, split: str) -> list[tuple[str, int, str]]:
    """(file, line number, line) of a split's files, blank lines left out."""
    pattern = os.path.expanduser(self.pattern.replace("{split}", split))
    out = []
    for file in sorted(glob.glob(pattern, recursive=True)):
      text = self._text(file)
      numbered = enumerate(text.split("\n"), 1)
      out += [(file, n, line) for n, line in numbered if line.strip()]
    return out

  def _text(self, file: str) -> str:
    data = pathlib.Path(file).read_bytes()
    try:
      return data.decode("utf-8")
    except UnicodeDecodeError as e:
      number = data.count(b"\n", 0, e.start) + 1
      raise UserError(
        f"task {self.task!r}: {file}, line {number} is not UTF-8 text (byte"
        f" {data[e.start]:#x}); write the file in UTF-8."
      ) from None

  def _parse(self, file: str, number: int, line: str) -> dict:
    try:
      row = json.loads(line)
    except json.JSONDecodeError as e:
      raise UserError(
        f"task {self.task!r}: {file}, line {number} is not JSON ({e.msg} at"
        f" character {e.pos})."
      ) from None
    if not isinstance(row, dict):
      raise UserError(
        f"task {self.task!r}: {file}, line {number} is a"
        f" {type(row).__name__}; write one JSON object a line."
      )
    return row


def source(task: spec.Task) -> Source:
  """The source of a task; nothing is read yet.

  >>> source(rte)  # doctest: +SKIP
  TfdsSource(super_glue/rte:1.0.2)
  """
  if isinstance(task.source, spec.Tfds):
    return TfdsSource(task.name, task.splits, task.source)
  if isinstance(task.source, spec.Cot):
    from flan_jax.data import cot  # which imports this module

    return cot.CotSource(task.name, task.splits, task.source)
  return JsonlSource(task.name, task.splits, task.source)
