"""Copies: a dataset, its state in a TFDS data directory, and its checks.

Nothing here imports seqio: the processes that prepare datasets start quickly.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

PREPARED = "prepared"
DAMAGED = "damaged"
DOWNLOADABLE = "downloadable"
BY_HAND = "by hand"
GONE = "gone"
STATES = (PREPARED, DOWNLOADABLE, BY_HAND, GONE, DAMAGED)

# What the known sizes of a download are of the whole.
EXACTLY, AT_LEAST, AT_MOST = "", "at least", "at most"


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A dataset that tasks of a mixture read.

  Attributes:
    name: as TFDS knows it, `super_glue/rte`; a glob for JSON-lines.
    version: of TFDS; "" for JSON-lines.
    tasks: names in seqio's registry of the tasks that read it.
    manual: as `spec.Tfds.manual`; None leaves it to TFDS.
    source: of JSON-lines.
  """

  name: str
  version: str
  tasks: tuple[str, ...]
  manual: str | None = None
  source: Any = dataclasses.field(default=None, repr=False, compare=False)

  @property
  def spec(self) -> str:
    """As TFDS and the table name it, `super_glue/rte:1.0.2`."""
    return f"{self.name}:{self.version}" if self.version else self.name

  @property
  def builder(self) -> str:
    """TFDS's name without the config; configs share their downloads."""
    return self.name.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class Status:
  """What is known of a dataset.

  Attributes:
    dataset: which.
    state: one of `STATES`.
    where: its folder, of a prepared or damaged one.
    urls: addresses to download -> bytes, those that TFDS knows.
    bound: `EXACTLY`; `AT_LEAST`, TFDS knows only some of the sizes; `AT_MOST`,
      they are those of all configs.
    generated: bytes of the prepared dataset; None where TFDS does not know.
    note: what is missing or served instead, or the steps to be done by hand.
    try_it: whether preparing it may succeed.
  """

  dataset: Dataset
  state: str
  where: pathlib.Path | None = None
  urls: Mapping[str, int] = dataclasses.field(default_factory=dict)
  bound: str = EXACTLY
  generated: int | None = None
  note: str = ""
  try_it: bool = False

  @property
  def download(self) -> int | None:
    """Bytes to download, see `bound`; None where TFDS does not know."""
    return sum(self.urls.values()) if self.urls else None


def import_builders(modules: Sequence[str]) -> None:
  """Imports modules that define TFDS builders of the user's own.

  Raises:
    UserError: one cannot be imported.
  """
  for name in modules:
    try:
      importlib.import_module(name)
    except ImportError as e:
      raise UserError(
        f"BUILDER_MODULES names {name!r}, which cannot be imported ({e}). Put"
        " its folder on PYTHONPATH, or take the name out."
      ) from None


def manual_folder(folder: pathlib.Path) -> pathlib.Path:
  """Where TFDS looks for files that were fetched by hand."""
  return folder / "downloads" / "manual"


def check(dataset: Dataset, builder) -> Status:
  """Whether all files of a prepared copy are there, empty ones not counted."""
  where = pathlib.Path(builder.data_dir)
  files = [
    pathlib.Path(path)
    for split in builder.info.splits.values()
    for path in split.filepaths
  ]
  bad = [p for p in files if not p.is_file() or not p.stat().st_size]
  # TFDS writes an empty shard as an empty file.
  bad = [p for p in bad if not p.is_file() or not _may_be_empty(builder, p)]
  if bad or not files:
    what = (
      f"{len(bad)} of its {len(files)} files are missing or empty, the first"
      f" {bad[0].name}"
      if bad
      else "its dataset_info.json lists no file"
    )
    note = f"{what}; remove {where} and run this again"
    return Status(dataset, DAMAGED, where, note=note)
  generated = sum(p.stat().st_size for p in files)
  return Status(dataset, PREPARED, where, generated=generated)


def _may_be_empty(builder, path: pathlib.Path) -> bool:
  for split in builder.info.splits.values():
    names = [pathlib.Path(p).name for p in split.filepaths]
    if path.name in names and split.shard_lengths:
      return split.shard_lengths[names.index(path.name)] == 0
  return False


def reason(error: BaseException) -> str:
  r"""What an exception says, on one line of at most 400 characters.

  >>> reason(OSError("no\n route"))
  'OSError: no route'
  """
  text = " ".join(str(error).split())
  text = text.partition(" To debug, see:")[0]
  if len(text) > 400:
    text = f"{text[:397]}..."
  kind = type(error).__name__
  return f"{kind}: {text}" if text else kind
