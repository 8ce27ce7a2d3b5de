"""The journal: every request and response, on disk before it is used.

A file of JSON lines that only grows. Each line is written at once and synced,
so what was answered is answered still after the process is killed, and a later
run takes it from here. One process writes to a journal at a time.

Records have `record`: `request` (asked), `response` (answered, with the
`reply`), `failure` (an attempt that came to nothing), `given_up` (a request
that stays without an answer, see `curation/asking.py`), `torn` (the line before
was cut and has been taken away). All but `torn` have the request's `key`.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax.errors import UserError


@dataclasses.dataclass
class Totals:
  """What a journal's responses add up to, over all runs that wrote to it.

  Attributes:
    responses, failures: records of these kinds.
    prompt_tokens, completion_tokens: as the responses say.
    cost: in the currency of the prices at that time.
  """

  responses: int = 0
  failures: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0
  cost: float = 0.0

  @property
  def tokens(self) -> int:
    return self.prompt_tokens + self.completion_tokens

  def add(self, record: Mapping[str, Any]) -> None:
    """Counts one record."""
    kind = record["record"]
    self.responses += kind == "response"
    self.failures += kind == "failure"
    used = record.get("reply") or record.get("used")
    if used:
      self.prompt_tokens += used["prompt_tokens"]
      self.completion_tokens += used["completion_tokens"]
      self.cost += used["cost"]


class Journal:
  """An open journal.

      with Journal("runs/judge/journal.jsonl") as journal:
        journal.append({"record": "request", "key": key, "request": {...}})
        journal.get(key)      # None: not answered
        journal.notes         # what was found wrong in the file

  In memory is only where each answer stands, not the answers.

  Attributes:
    path: of the file.
    totals: see `Totals`.
    notes: sentences about what was mended when it was opened.
    written: responses since it was opened.
    unanswered: keys that were asked and neither answered nor failed: requests
      that were on their way when an earlier run was killed.

  Raises:
    UserError: the file cannot be written, another process has it open, or a
      line in its middle is not one of ours, with its number.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    self.totals = Totals()
    self.notes: list[str] = []
    self.written = 0
    self.unanswered: set[str] = set()
    self._places: dict[str, tuple[int, int]] = {}
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._file = os.open(
        self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666
      )
    except OSError as e:
      raise UserError(
        f"the journal {self.path} cannot be written: {e.strerror}."
      ) from None
    try:
      self._lock()
      self._read()
    except BaseException:
      os.close(self._file)
      raise

  def get(self, key: str) -> dict[str, Any] | None:
    """The reply to the request with that key, as JSON; None: not answered."""
    place = self._places.get(key)
    if place is None:
      return None
    start, length = place
    return json.loads(os.pread(self._file, length, start))["reply"]

  def append(self, *records: Mapping[str, Any]) -> None:
    """Writes records, all in one, and returns when the disk has them.

    Raises:
      OSError: the disk is full, for example; what was written of it is then
        the torn line that the next run takes away.
    """
    lines = [_line(r) for r in records]
    start = os.fstat(self._file).st_size
    rest = memoryview(b"".join(lines))
    while rest:
      rest = rest[os.write(self._file, rest) :]
    os.fsync(self._file)
    for record, line in zip(records, lines, strict=True):
      self.written += record["record"] == "response"
      self._note(record, start, len(line))
      start += len(line)

  def records(self) -> Iterator[dict[str, Any]]:
    """All records in the order they were written."""
    with self.path.open("rb") as file:
      for line in file:
        yield json.loads(line)

  def close(self) -> None:
    """Lets another process open it."""
    if self._file >= 0:
      os.close(self._file)
      self._file = -1

  def __len__(self) -> int:
    """Answered requests."""
    return len(self._places)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *_):
    self.close()

  def _lock(self):
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UserError(
        f"the journal {self.path} is in use by another process. Wait for it,"
        " or name another journal."
      ) from None

  def _read(self):
    with self.path.open("rb") as file:
      start = 0
      for number, line in enumerate(file, 1):
        try:
          whole = line.endswith(b"\n")
          record = json.loads(line) if whole else None
        except ValueError:
          record = None
        if record is None and not file.peek(1) and _ours(number, line):
          self._take_away(start, number, line)
          return
        try:
          self._note(record, start, len(line))
        except (KeyError, TypeError, AttributeError):
          raise UserError(
            f"{self.path}, line {number}: {line[:60]!r} is no record of a"
            " journal. Repair the line, or name another journal."
          ) from None
        start += len(line)

  def _take_away(self, start, number, line):
    """The write that a killed process did not finish."""
    os.ftruncate(self._file, start)
    note = (
      f"{self.path}, line {number}: the last line was cut after"
      f" {len(line):,} bytes, as when a process is killed while it writes; it"
      " has been taken away, and what it was about is asked again."
    )
    self.notes.append(note)
    self.append(
      {"record": "torn", "line": number, "bytes": len(line), "note": note}
    )

  def _note(self, record, start, length):
    kind = record["record"]
    self.totals.add(record)
    if kind == "torn":
      return
    key = record["key"]
    if kind == "request":
      self.unanswered.add(key)
      return
    self.unanswered.discard(key)
    if kind == "response":
      self._places[key] = start, length


def _line(record) -> bytes:
  try:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
  except UnicodeEncodeError:  # half of a character in an endpoint's words
    text = json.dumps(record, allow_nan=False).encode()
  return text + b"\n"


def _ours(number: int, line: bytes) -> bool:
  """Whether a cut line is of a journal, and not of somebody's other file."""
  start = b'{"record": '
  return number > 1 or line[: len(start)] == start[: len(line)]
