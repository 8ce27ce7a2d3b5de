r"""Chain-of-thought files: question, answer and rationale, a line each.

The files of FLAN 2022 have three columns between tabs and no header; a line
break inside a column is written as the two characters `\n`:

  How many legs have 3 cats?<tab>12<tab>A cat has 4 legs.\n3 x 4 = 12.

A folder holds `<dataset>_train.tsv` for each dataset: `COT_DIR`, or `cot` in
the TFDS data directory.

Source: Longpre et al., 2023 (arXiv 2301.13688); the files were released with
it (google-research/FLAN).
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import tensorflow as tf

from flan_jax.data import sources, spec
from flan_jax.errors import UserError

COLUMNS = ("question", "answer", "rationale")
# The folder in a TFDS data directory.
FOLDER = "cot"

Row = dict[str, str]


def parse(line: str) -> Row:
  r"""One line's columns, its line breaks restored, both ends stripped.

  >>> parse("2 + 2?\t4\t1 + 1 = 2.\\nTwice that is 4.")["rationale"]
  '1 + 1 = 2.\nTwice that is 4.'

  Raises:
    ValueError: there are not three columns, or one is empty; says which.
  """
  parts = line.split("\t")
  if len(parts) != len(COLUMNS):
    raise ValueError(
      f"{len(parts)} columns between tabs, not {len(COLUMNS)}"
      f" ({', '.join(COLUMNS)})"
    )
  row = {
    name: part.replace("\\n", "\n").strip()
    for name, part in zip(COLUMNS, parts, strict=True)
  }
  for name, value in row.items():
    if not value:
      raise ValueError(f"its {name} is empty")
  return row


def read(path: pathlib.Path) -> tuple[Row, ...]:
  """The rows of a file, in order.

  Raises:
    UserError: a line is malformed or is not UTF-8; names file, line and
      reason. Or the file has no line.
  """
  rows = []
  lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
  if not lines[-1]:
    lines.pop()
  for number, line in enumerate(lines, 1):
    try:
      rows.append(parse(line.removesuffix(b"\r").decode("utf-8")))
    except UnicodeDecodeError as e:
      raise UserError(
        f"{path}, line {number}: byte {e.start} is not UTF-8; convert the file"
        " to UTF-8."
      ) from None
    except ValueError as e:
      raise UserError(
        f"{path}, line {number}: {e}. A line is question, answer and"
        " rationale between tabs; a line break inside one is written \\n."
      ) from None
  if not rows:
    raise UserError(f"{path} is empty; a chain-of-thought file has rows.")
  return tuple(rows)


@functools.lru_cache(maxsize=16)
def _read(path: pathlib.Path, size: int, changed: int) -> tuple[Row, ...]:
  del size, changed  # another file then
  return read(path)


class CotSource(sources.Source):
  """Rows of a chain-of-thought file, which is held in memory."""

  def __init__(self, task: str, splits: spec.Splits, file: spec.Cot):
    super().__init__(task, splits)
    self.file = file

  def __repr__(self):
    return f"CotSource({self.file.file})"

  @property
  def path(self) -> pathlib.Path:
    folder = self.file.folder
    if folder is None:
      return sources.data_dir() / FOLDER / self.file.file
    return pathlib.Path(folder).expanduser() / self.file.file

  def sizes(self) -> Mapping[str, int]:
    return {"train": len(self._rows())}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    del split  # there is one
    rows = self._rows()[start:stop]
    return tf.data.Dataset.from_tensor_slices(
      {name: [row[name] for row in rows] for name in COLUMNS}
    )

  def fingerprint(self) -> str:
    """Eight hex digits of the file's content."""
    self._rows()
    return hashlib.sha256(self.path.read_bytes()).hexdigest()[:8]

  def _rows(self) -> tuple[Row, ...]:
    path = self.path
    try:
      found = path.stat()
    except FileNotFoundError:
      raise sources.NotPreparedError(
        f"{FOLDER}/{self.file.file}",
        "",
        (),
        path.parent,
        f"put the chain-of-thought file {self.file.file} there, or set COT_DIR"
        " to the folder that holds it",
      ) from None
    return _read(path, found.st_size, found.st_mtime_ns)
