"""Files of instruction data: JSON lines, JSON and Parquet, read to records.

Of every file it is kept how many lines (or rows) it has and what became of
each: read + skipped = lines, whatever is in it.
"""

import collections
import dataclasses
import glob
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flan_jax.data import sft_formats
from flan_jax.data.sft_records import REASONS, BadRowError, Record
from flan_jax.errors import UserError, check_known

AUTO = "auto"
ON_BAD_ROW = ("error", "skip")
SUFFIXES = (".jsonl", ".json", ".parquet")
# Deep nesting overflows the parser's stack, long numbers exceed Python's limit.
_NOT_JSON = (ValueError, RecursionError)


class Line(NamedTuple):
  """One line or row of a file: its number, and its object or what is wrong."""

  number: int
  row: Mapping[str, Any] | None
  wrong: BadRowError | None = None


@dataclasses.dataclass(frozen=True)
class FileCounts:
  """What became of the lines of one file.

  Attributes:
    file: its path.
    format: that its rows have; None where none was told.
    lines: of the file; of Parquet and of a JSON list, its rows.
    read: lines that were read.
    records: conversations they gave (Self-Instruct has several a line).
    skipped: for each of `REASONS` that occurred, how many lines.
  """

  file: str
  format: str | None
  lines: int
  read: int
  records: int
  skipped: Mapping[str, int]

  @property
  def bad(self) -> int:
    """Lines skipped that are no blank lines."""
    return sum(n for why, n in self.skipped.items() if why != "blank_line")


def listed(patterns: str | os.PathLike | Sequence[str] | None) -> tuple:
  """One pattern, several or none as a tuple."""
  one = isinstance(patterns, str | os.PathLike)
  return (patterns,) if one else tuple(patterns or ())


def files(patterns: str | Sequence[str], option: str = "SFT_FILES"):
  """The files that patterns name, in order, each once.

  Raises:
    UserError: none is given, a pattern matches no file, or a file's suffix is
      none of `SUFFIXES`.
  """
  patterns = listed(patterns)
  if not patterns:
    raise UserError(
      f"{option} is not set. Give files of instruction data, such as"
      f" --gin.{option}=data/rows.jsonl (suffixes: {', '.join(SUFFIXES)})."
    )
  found: dict[str, None] = {}
  for pattern in patterns:
    here = glob.glob(os.path.expanduser(str(pattern)), recursive=True)
    named = sorted(name for name in here if os.path.isfile(name))
    if not named:
      raise UserError(f"{option} {str(pattern)!r} names no file.")
    for name in named:
      if pathlib.Path(name).suffix not in SUFFIXES:
        raise UserError(
          f"{option}: {name} is none of {', '.join(SUFFIXES)}; rename or"
          " convert it."
        )
      found[name] = None
  return list(found)


def read(
  names: Sequence[str], how: str = AUTO, on_bad_row: str = "error"
) -> tuple[list[Record], list[FileCounts]]:
  """The conversations of files, and what became of their lines.

  Args:
    names: of `files`.
    how: a name of `sft_formats.FORMATS`, or "auto": each file has the format
      of its first row that has one.
    on_bad_row: "error" stops at a line that is no conversation, "skip" leaves
      it out and counts it.

  Raises:
    UserError: an unknown option; a bad line, with file, line and reason; a
      JSON list that breaks off, since no further row of it can be found; no
      conversation in all files.
  """
  check_known("SFT_FORMAT", how, (AUTO, *sft_formats.FORMATS))
  check_known("ON_BAD_ROW", on_bad_row, ON_BAD_ROW)
  out, counts = [], []
  for name in names:
    rows, counted = _file(name, how, on_bad_row == "skip")
    out += rows
    counts.append(counted)
  if not out:
    raise UserError(
      f"not one conversation in {', '.join(names)}: {describe(counts)}."
    )
  return out, counts


def describe(counts: Sequence[FileCounts]) -> str:
  """One line: lines, rows read, and why others were not.

  >>> describe([FileCounts("a.jsonl", "alpaca", 3, 2, 2, {"not_json": 1})])
  '3 lines, 2 read, 1 skipped (1 not JSON)'
  """
  skipped: collections.Counter[str] = collections.Counter()
  for one in counts:
    skipped.update(one.skipped)
  why = ", ".join(f"{n:,} {REASONS[reason]}" for reason, n in skipped.items())
  lines, used = (sum(getattr(c, a) for c in counts) for a in ("lines", "read"))
  return f"{lines:,} lines, {used:,} read, {skipped.total():,} skipped" + (
    f" ({why})" if why else ""
  )


def _file(name: str, how: str, skip: bool) -> tuple[list[Record], FileCounts]:
  chosen = None if how == AUTO else sft_formats.FORMATS[how]
  out: list[Record] = []
  lines = used = 0
  skipped: collections.Counter[str] = collections.Counter()
  for line in _lines(name):
    lines += 1
    try:
      if line.wrong is not None:
        raise line.wrong
      chosen = chosen or sft_formats.detect(line.row)
      found = sft_formats.records(line.row, chosen)
      for record in found:
        _check_text(record)
    except BadRowError as e:
      skipped[e.reason] += 1
      if not skip and e.reason != "blank_line":
        raise UserError(
          f"{name}, line {line.number}: {e}. Correct it, or set"
          " ON_BAD_ROW='skip' to leave such lines out and count them."
        ) from None
      continue
    used += 1
    out += [dataclasses.replace(r, file=name, line=line.number) for r in found]
  made = FileCounts(
    name, chosen and chosen.name, lines, used, len(out), dict(skipped)
  )
  return out, made


def _check_text(record: Record):
  """That all of it can be written in UTF-8: escapes may say half a pair."""
  for text in (
    record.system or "",
    *itertools.chain.from_iterable((t.text, t.input) for t in record.turns),
  ):
    try:
      text.encode()
    except UnicodeEncodeError as e:
      raise BadRowError(
        "not_utf8",
        f"{text[e.start]!r} is half of a surrogate pair, which is no character",
      ) from None


def _lines(name: str) -> Iterator[Line]:
  suffix = pathlib.Path(name).suffix
  if suffix == ".parquet":
    yield from _parquet(name)
  elif suffix == ".json":
    yield from _json(name)
  else:
    with open(name, "rb") as file:
      yield from _json_lines(file)


def _json_lines(file) -> Iterator[Line]:
  for number, raw in enumerate(file, 1):
    try:
      row, wrong = _object(_decoded(raw, number)), None
    except BadRowError as e:
      row, wrong = None, e
    yield Line(number, row, wrong)


def _decoded(raw: bytes, number: int) -> str:
  try:
    # A byte order mark may begin a file.
    return raw.decode("utf-8-sig" if number == 1 else "utf-8")
  except UnicodeDecodeError as e:
    raise BadRowError(
      "not_utf8",
      f"byte {e.start + 1} of the line ({raw[e.start]:#x}) is not UTF-8",
    ) from None


def _object(text: str) -> Mapping[str, Any]:
  if not text.strip():
    raise BadRowError("blank_line", "the line is blank")
  try:
    # At the end of a line the place is in it, not in the next.
    row = json.loads(text.rstrip("\r\n"))
  except json.JSONDecodeError as e:
    raise BadRowError(
      "not_json", f"column {e.colno}: not JSON ({e.msg})"
    ) from None
  except _NOT_JSON as e:
    raise BadRowError(
      "not_json", f"column 1: not JSON ({str(e).splitlines()[0]})"
    ) from None
  return _checked(row)


def _checked(row: Any) -> Mapping[str, Any]:
  if not isinstance(row, dict):
    raise BadRowError(
      "not_object", f"it is a JSON {type(row).__name__}, no object"
    )
  return row


def _json(name: str) -> Iterator[Line]:
  """A list of rows, a Super-NaturalInstructions task, or JSON lines after all.

  Raises:
    UserError: a list that is not JSON to its end, a task without definition.
  """
  data = pathlib.Path(name).read_bytes()
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as e:
    number = data.count(b"\n", 0, e.start) + 1
    raise UserError(
      f"{name}, line {number}: {data[e.start]:#x} is not UTF-8; write the file"
      " in UTF-8."
    ) from None
  if text.lstrip()[:1] == "[":
    yield from _json_list(name, text)
    return
  try:
    whole = json.loads(text)
  except _NOT_JSON:
    yield from _json_lines(data.splitlines(keepends=True))
    return
  if isinstance(whole, dict) and "Instances" in whole:
    yield from _task(name, whole)
  else:
    try:
      yield Line(1, _checked(whole))
    except BadRowError as e:
      yield Line(1, None, e)


def _json_list(name: str, text: str) -> Iterator[Line]:
  decoder = json.JSONDecoder()
  at, line, seen = text.index("[") + 1, 1, 0

  def broken(where: int, why: str) -> UserError:
    number = text.count("\n", 0, where) + 1
    column = where - (text.rfind("\n", 0, where) + 1) + 1
    return UserError(
      f"{name}, line {number}, column {column}: not JSON ({why}). No further"
      " row of a JSON list can be found after this: correct it, or write one"
      " object a line (.jsonl)."
    )

  def blank(at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
      at += 1
    return at

  at = blank(at)
  while text[at : at + 1] != "]":
    line += text.count("\n", seen, at)
    seen = at
    try:
      row, at = decoder.raw_decode(text, at)
    except json.JSONDecodeError as e:
      raise broken(e.pos, e.msg) from None
    except _NOT_JSON as e:
      raise broken(at, str(e).splitlines()[0]) from None
    try:
      yield Line(line, _checked(row))
    except BadRowError as e:
      yield Line(line, None, e)
    at = blank(at)
    if text[at : at + 1] == ",":
      at = blank(at + 1)
      if text[at : at + 1] == "]":
        raise broken(at, "a comma before the end of the list")
    elif text[at : at + 1] != "]":
      raise broken(at, "a comma or the end of the list is missing")
  if text[at + 1 :].strip():
    raise broken(blank(at + 1), "something follows the list")


def _task(name: str, task: Mapping[str, Any]) -> Iterator[Line]:
  """Instances of a Super-NaturalInstructions task, each with its definition.

  Their numbers count instances, from 1.
  """
  if not task.get("Definition"):
    raise UserError(
      f"{name} has Instances but no Definition; a task file of"
      " Super-NaturalInstructions has both."
    )
  instances = task["Instances"]
  if not isinstance(instances, list):
    raise UserError(f"{name}: Instances is no list.")
  shared = {"Definition": task["Definition"], "task": pathlib.Path(name).stem}
  if isinstance(task.get("Categories"), list) and task["Categories"]:
    shared["category"] = task["Categories"][0]
  for number, one in enumerate(instances, 1):
    try:
      yield Line(number, {**_checked(one), **shared})
    except BadRowError as e:
      yield Line(number, None, e)


def _parquet(name: str) -> Iterator[Line]:
  try:
    import pyarrow
    from pyarrow import parquet
  except ModuleNotFoundError:
    raise UserError(
      f"{name} is Parquet, which pyarrow reads, and that is not installed: pip"
      " install 'flan_jax[sft]', or write the rows as JSON lines."
    ) from None
  try:
    with parquet.ParquetFile(name) as file:
      number = 0
      for batch in file.iter_batches(1024):
        for row in batch.to_pylist():
          number += 1
          yield Line(number, row)
  except (pyarrow.ArrowException, OSError) as e:
    raise UserError(
      f"{name} cannot be read as Parquet ({str(e).splitlines()[0]})."
    ) from None
