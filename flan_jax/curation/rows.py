"""Instruction rows: read from files, and written as JSON lines.

A row is a mapping with the texts `instruction`, `input` and `output` and with
`id`; further fields are kept as they are. Files:

* `.jsonl`: an object a line; `.json`: a list of objects. Fields: `instruction`
  (or `prompt`), `input` (may be absent), `output` (or `completion`,
  `response`); or `instances`, as in Self-Instruct's seeds, one row for each.
* `.tsv`: chain-of-thought files, see `data/cot.py`: the question, and the
  rationale followed by the answer.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from flan_jax.data import cot
from flan_jax.errors import UserError, check_known

Row = dict[str, Any]

TEXTS = ("instruction", "input", "output")
PARTS = ("instruction", "prompt", "output", "row")
_OTHER_NAMES = {
  "instruction": ("prompt",),
  "output": ("completion", "response"),
}
# Between the rationale and the answer of a chain of thought.
ANSWER = "\nThe answer is {answer}"


def read(
  paths: str | os.PathLike | Sequence[str | os.PathLike],
  name: str = "DATA_PATH",
) -> list[Row]:
  """Rows of one file, or of several one after the other.

      read("dolly_3k.json")[0]["instruction"]
      # 'How do I start running?'

  `id` is the row's own; without one, the file's stem and the row's number.
  `source` is the file's stem where the row has no such field.

  Args:
    paths: of files.
    name: what messages call the option that names them.

  Raises:
    UserError: a file cannot be read, a row lacks a field or has one of another
      type, or an id comes twice; file and row are named.
  """
  paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
  if not paths:
    raise UserError(f"{name} names no file; give one or more.")
  out: list[Row] = []
  for path in map(pathlib.Path, paths):
    found = _READERS.get(path.suffix)
    if found is None:
      raise UserError(
        f"{name} {path}: its ending is {path.suffix!r}; known are"
        f" {', '.join(_READERS)}."
      )
    try:
      rows = found(path, name)
    except OSError as e:
      raise UserError(f"{name} {path} cannot be read: {e.strerror}.") from None
    except UnicodeDecodeError as e:
      raise UserError(
        f"{name} {path}: byte {e.start} is not UTF-8; convert it to UTF-8."
      ) from None
    if not rows:
      raise UserError(f"{name} {path} has no row.")
    for number, row in enumerate(rows):
      row.setdefault("id", f"{path.stem}-{number}")
      row.setdefault("source", path.stem)
    out += rows
  _check_ids(out, name)
  return out


def write(path: str | os.PathLike, rows: Iterable[Row]) -> None:
  """Rows as JSON lines, by one rename.

  Raises:
    UserError: the file cannot be written.
  """
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.name}.tmp")
  try:
    with open(draft, "w", encoding="utf-8") as file:
      for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)
  except OSError as e:
    raise UserError(f"{path} cannot be written: {e.strerror}.") from None


def prompt(row: Row) -> str:
  r"""The instruction, and the input after an empty line where there is one.

  >>> prompt({"instruction": "Sort it.", "input": "b a"})
  'Sort it.\n\nb a'
  """
  if not row["input"]:
    return row["instruction"]
  return f"{row['instruction']}\n\n{row['input']}"


def text(row: Row, of: str) -> str:
  """A part of a row: "instruction", "prompt", "output", or "row", the whole.

  >>> text({"instruction": "Sort it.", "input": "", "output": "a b"}, "output")
  'a b'

  Raises:
    UserError: another `of`.
  """
  check_known("the part of a row", of, PARTS)
  if of == "prompt":
    return prompt(row)
  return f"{prompt(row)}\n\n{row['output']}" if of == "row" else row[of]


def _read_jsonl(path: pathlib.Path, name: str) -> list[Row]:
  out: list[Row] = []
  lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
  for number, line in enumerate(lines, 1):
    if line.strip():
      where = f"{name} {path}, line {number}"
      try:
        value = json.loads(line.decode("utf-8"))
      except ValueError as e:
        raise UserError(f"{where}: {e}.") from None
      out += _rows_of(value, where)
  return out


def _read_json(path: pathlib.Path, name: str) -> list[Row]:
  try:
    value = json.loads(path.read_text(encoding="utf-8-sig"))
  except json.JSONDecodeError as e:
    raise UserError(f"{name} {path}: {e}.") from None
  if not isinstance(value, list):
    raise UserError(
      f"{name} {path} holds a {type(value).__name__}; it must be a list of"
      " rows."
    )
  out: list[Row] = []
  for number, one in enumerate(value):
    out += _rows_of(one, f"{name} {path}, row {number}")
  return out


def _read_tsv(path: pathlib.Path, name: str) -> list[Row]:
  del name
  return [
    {
      "instruction": row["question"],
      "input": "",
      "output": row["rationale"] + ANSWER.format(answer=row["answer"]),
    }
    for row in cot.read(path)
  ]


_READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".tsv": _read_tsv}


def _rows_of(value: Any, where: str) -> list[Row]:
  """One row, or one for each of `instances`."""
  if not isinstance(value, dict):
    raise UserError(
      f"{where} is a {type(value).__name__}; a row is an object with"
      f" {', '.join(TEXTS)}."
    )
  row = dict(value)
  instances = row.pop("instances", None)
  if instances is None:
    return [_checked(row, where)]
  if not isinstance(instances, list) or not instances:
    raise UserError(f"{where}: its 'instances' must be a list with some.")
  out = []
  for number, instance in enumerate(instances):
    if not isinstance(instance, dict):
      raise UserError(f"{where}: its instance {number} is no object.")
    one = {**row, **instance}
    if "id" in row and len(instances) > 1:
      one["id"] = f"{row['id']}-{number}"
    out.append(_checked(one, f"{where}, instance {number}"))
  return out


def _checked(row: Row, where: str) -> Row:
  for wanted, others in _OTHER_NAMES.items():
    for other in others:
      if wanted not in row and other in row:
        row[wanted] = row.pop(other)
  row.setdefault("input", "")
  if row["input"] is None:
    row["input"] = ""
  for wanted in TEXTS:
    value = row.get(wanted)
    if not isinstance(value, str):
      said = "no" if value is None else f"a {type(value).__name__} as its"
      raise UserError(
        f"{where} has {said} {wanted!r}; it must be a text. Its fields are"
        f" {', '.join(row)}."
      )
  return row


def _check_ids(rows: Sequence[Row], name: str) -> None:
  first: dict[str, int] = {}
  for number, row in enumerate(rows):
    row["id"] = str(row["id"])
    if row["id"] in first:
      raise UserError(
        f"{name}: rows {first[row['id']]:,} and {number:,} have the same id"
        f" {row['id']!r}; make ids unique, or leave them out."
      )
    first[row["id"]] = number
