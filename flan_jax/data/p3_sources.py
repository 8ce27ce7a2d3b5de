"""Rows for prompts: from TFDS, or from a folder of Hugging Face datasets.

The folder, for datasets that TFDS does not serve (or instead of it):

  <P3_DATA_DIR>/<dataset>/<subset>/<split>.jsonl       one JSON object a line
  <P3_DATA_DIR>/<dataset>/<split>.jsonl.gz             no subset; gzip
  <P3_DATA_DIR>/<dataset>/<split>-00000-of-00002.parquet

with Hugging Face's own names and fields; `datasets.load_dataset(dataset,
subset)[split].to_json(path)` writes such a file.
"""

import dataclasses
import functools
import gzip
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from flan_jax.data import preprocessors, sources, spec
from flan_jax.data.p3_datasets import Dataset
from flan_jax.data.p3_jinja import PromptError
from flan_jax.data.p3_prompts import dataset_name
from flan_jax.data.p3_render import plain
from flan_jax.data.template import INDEX
from flan_jax.errors import UserError

Row = dict[str, Any]

# Features of a row that is still text.
TEXT, PLACE = "row", "place"
KINDS = (".jsonl", ".jsonl.gz", ".parquet")


class FolderSource(sources.Source):
  """JSON lines and Parquet files of one dataset; rows are read as they come.

  A row is its JSON text and its place in a file, for messages.
  """

  def __init__(self, task: str, splits: spec.Splits, folder: pathlib.Path):
    super().__init__(task, splits)
    self.folder = folder

  def __repr__(self):
    return f"FolderSource({self.folder})"

  def sizes(self) -> Mapping[str, int]:
    found = self._files()
    if not found:
      first = next(iter(self._spec_splits.names), "train")
      raise sources.NotPreparedError(
        self.folder.as_posix(),
        "",
        (),
        self.folder.parent,
        f"write {self.folder / first}.jsonl (Hugging Face's fields, one JSON"
        " object a line)",
      )
    return {s: sum(map(_count, files)) for s, files in found.items()}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    files = self._files()[split]
    if files[0].suffix == ".parquet":
      rows = tf.data.Dataset.from_generator(
        functools.partial(_parquet_rows, files),
        output_signature={
          TEXT: tf.TensorSpec((), tf.string),
          PLACE: tf.TensorSpec((), tf.string),
        },
      )
    else:
      rows = _lines(files[0])
      for file in files[1:]:
        rows = rows.concatenate(_lines(file))
    return rows.skip(start).take(stop - start)

  def fingerprint(self) -> str:
    """Eight hex digits of the names and sizes of the files."""
    from flan_jax.config import fingerprint

    files = sorted(self.folder.glob("*"))
    return fingerprint(repr([(f.name, f.stat().st_size) for f in files]))

  def _files(self) -> dict[str, list[pathlib.Path]]:
    """The files of each split; two kinds for one split are refused."""
    out: dict[str, list[pathlib.Path]] = {}
    for file in sorted(self.folder.glob("*")):
      if file.name.endswith(KINDS):
        stem = file.name.partition(".")[0]
        split = re.sub(r"-\d+-of-\d+$", "", stem)
        out.setdefault(split, []).append(file)
    for split, files in out.items():
      kinds = {"".join(f.suffixes) for f in files}
      if len(kinds) > 1:
        raise UserError(
          f"{self.folder}: split {split!r} has files of several kinds,"
          f" {', '.join(f.name for f in files)}; keep one."
        )
    return out


def _lines(file: pathlib.Path) -> tf.data.Dataset:
  compression = "GZIP" if file.suffix == ".gz" else None
  lines = tf.data.TextLineDataset(str(file), compression_type=compression)
  numbered = lines.enumerate(1).filter(
    lambda _, line: tf.strings.strip(line) != ""
  )
  return numbered.map(
    lambda number, line: {
      TEXT: line,
      PLACE: tf.strings.join([f"{file}, line ", tf.strings.as_string(number)]),
    }
  )


def _count(file: pathlib.Path) -> int:
  stat = file.stat()
  return _counted(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _counted(file: pathlib.Path, size: int, mtime: int) -> int:
  del size, mtime  # what the file was when it was counted
  if file.suffix == ".parquet":
    return _parquet(file).metadata.num_rows
  opened = gzip.open if file.suffix == ".gz" else open
  with opened(file, "rb") as lines:
    return sum(bool(line.strip()) for line in lines)


def _parquet(file: pathlib.Path):
  try:
    from pyarrow import parquet
  except ModuleNotFoundError:
    raise UserError(
      f"{file} is a Parquet file, which needs pyarrow: pip install pyarrow, or"
      " write JSON lines."
    ) from None
  return parquet.ParquetFile(file)


def _parquet_rows(files) -> Iterator[dict[str, str]]:
  for file in files:
    number = 0
    for batch in _parquet(file).iter_batches(1024):
      for row in batch.to_pylist():
        number += 1
        yield {
          TEXT: json.dumps(plain(row), ensure_ascii=False),
          PLACE: f"{file}, row {number}",
        }


def source(
  dataset: Dataset, task: str, data_dir: pathlib.Path | None
) -> sources.Source:
  """The rows of a dataset: the folder's where it has them, else TFDS's.

  Nothing is read yet.
  """
  name = dataset_name(dataset.dataset, dataset.subset)
  folder = (data_dir or pathlib.Path("<P3_DATA_DIR>")) / name
  if dataset.tfds is None or (data_dir is not None and folder.is_dir()):
    return FolderSource(task, _present(dataset.splits, folder), folder)
  splits = dataset.tfds_splits or dataset.splits
  return sources.TfdsSource(task, splits, spec.tfds(dataset.tfds))


def _present(splits: spec.Splits, folder: pathlib.Path) -> spec.Splits:
  """Without the splits that a folder has not; training alone is enough."""
  there = {f.name.partition(".")[0].partition("-")[0] for f in folder.glob("*")}
  if splits.train not in there:
    return splits
  gone = {
    n: None for n in ("validation", "test") if getattr(splits, n) not in there
  }
  return dataclasses.replace(splits, **gone)


# --------------------------------------------------------- tensors to rows


def leaves(structure, path=()) -> list[tuple[tuple[str, ...], Any]]:
  """The tensors of a batch of rows with their paths, in a fixed order."""
  if isinstance(structure, Mapping):
    return [
      leaf
      for key in sorted(structure)
      for leaf in leaves(structure[key], (*path, key))
    ]
  return [(path, structure)]


def components(batch) -> list[list[Any]]:
  """For each leaf, its values and, if it is ragged, its row splits."""
  return [
    [value.flat_values, *value.nested_row_splits]
    if isinstance(value, tf.RaggedTensor)
    else [value]
    for _, value in leaves(batch)
  ]


def rows_of(paths, columns) -> list[Row]:
  """Rows of Python's own values from the leaves of a batch.

  Args:
    paths: of the leaves, from `leaves`.
    columns: for each leaf its numpy arrays, as `components` orders them.
  """
  out: list[Row] = [{} for _ in range(len(columns[0][-1]))]
  if len(columns[0]) > 1:
    out = [{} for _ in range(len(columns[0][1]) - 1)]
  for path, arrays in zip(paths, columns, strict=True):
    *tables, name = path
    try:
      column = _column(*arrays)
    except UnicodeDecodeError as e:
      raise PromptError(
        f"field {'/'.join(path)!r} of a row is not UTF-8 text ({e.reason})."
        " Write the data in UTF-8."
      ) from None
    for row, value in zip(out, column, strict=True):
      for table in tables:
        row = row.setdefault(table, {})
      row[name] = value
  return out


def _column(values: np.ndarray, *splits: np.ndarray) -> list:
  column = values.tolist()
  if values.dtype == object:
    one = values.ndim == 1
    column = [b.decode() for b in column] if one else plain(column)
  for ends in reversed(splits):
    column = [column[a:b] for a, b in itertools.pairwise(ends.tolist())]
  return column


def parsed(
  rows: list[Row], dataset: Dataset, on_bad_row: str
) -> list[tuple[int, Row | None]]:
  """Numbered rows with the prompts' fields; None for a line that is no row.

  A row that a dataset's adapter takes apart gives several of one number.

  Raises:
    PromptError: a line is no JSON object (file, line, column, reason), and
      `on_bad_row` is "error".
  """
  out: list[tuple[int, Row | None]] = []
  for row in rows:
    index = row.pop(INDEX)
    row.pop(spec.TRAINING, None)
    if PLACE not in row:
      out += [(index, named(one)) for one in dataset.adapter(row)]
      continue
    try:
      found = json.loads(row[TEXT])
      if not isinstance(found, dict):
        kind = type(found).__name__
        raise PromptError(f"{row[PLACE]}: a {kind}, not an object of fields.")
      out.append((index, named(found)))
    except (json.JSONDecodeError, PromptError) as e:
      if on_bad_row == "skip":
        out.append((index, None))
        continue
      if isinstance(e, PromptError):
        raise
      raise PromptError(
        f"{row[PLACE]}, column {e.colno}: not JSON ({e.msg}). Mend the line, or"
        " set P3_ON_BAD_ROW='skip'."
      ) from None
  return out


def named(row: Mapping[str, Any]) -> Row:
  """Names that Jinja can say: `label-coarse` is `label_coarse`, as in T0."""
  return {str(k).replace("-", "_"): v for k, v in row.items()}


def numbered_rows(
  inner: sources.Source, split: str, dataset: Dataset, on_bad_row: str
) -> Iterator[tuple[int, Row | None]]:
  """Every row of a split, outside of any graph; see `parsed`."""
  for batch in inner.get_dataset(split).ragged_batch(preprocessors.BATCH):
    paths = [path for path, _ in leaves(batch)]
    columns = [[a.numpy() for a in part] for part in components(batch)]
    yield from parsed(rows_of(paths, columns), dataset, on_bad_row)
