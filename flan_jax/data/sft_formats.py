"""Row formats: from one JSON object to conversations.

A format is told by the keys of a row (`detect`), or named. What a format does
not read stays in a record's metadata.

Sources: Taori et al., 2023 (Stanford Alpaca); Wang et al., 2023 (Self-Instruct,
arXiv 2212.10560); Wang et al., 2022 (Super-NaturalInstructions, arXiv
2204.07705); OpenAI's chat format for fine-tuning; ShareGPT's export; Cobbe et
al., 2021 (GSM8K, arXiv 2110.14168).
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.data import sft_records
from flan_jax.data.sft_records import (
  ASSISTANT,
  USER,
  BadRowError,
  Record,
  Turn,
)

Row = Mapping[str, Any]
SYSTEM = "system"

_MESSAGE_ROLES = {
  "system": SYSTEM,
  "developer": SYSTEM,
  "user": USER,
  "assistant": ASSISTANT,
}
# ShareGPT's names beside OpenAI's.
_SHARE_ROLES = {
  **_MESSAGE_ROLES,
  "human": USER,
  "gpt": ASSISTANT,
  "chatgpt": ASSISTANT,
}


@dataclasses.dataclass(frozen=True)
class RowFormat:
  """How rows of one kind are read.

  Attributes:
    name: as SFT_FORMAT has it.
    keys: what a row must have; of alternatives, one.
    optional: keys that it may have and that are read.
    read: row -> records, without place and metadata.
  """

  name: str
  keys: tuple[tuple[str, ...], ...]
  read: Callable[[Row], list[Record]]
  optional: tuple[str, ...] = ()

  def suits(self, row: Row) -> bool:
    """Whether a row has the keys; a value of null counts as absent."""
    return all(_present(row, names) is not None for names in self.keys)

  @property
  def needs(self) -> str:
    return ", ".join(" or ".join(names) for names in self.keys)

  def metadata(self, row: Row) -> dict[str, Any]:
    read = {*self.optional, *(n for names in self.keys for n in names)}
    return {k: v for k, v in row.items() if k not in read}


def _present(row: Row, names: Sequence[str]) -> str | None:
  return next((n for n in names if row.get(n) is not None), None)


def _text(row: Row, names: Sequence[str], *, default: str | None = None) -> str:
  """The text under one of the keys.

  Raises:
    BadRowError: none is there and there is no default, or it is no text.
  """
  name = _present(row, names)
  if name is None:
    if default is not None:
      return default
    raise BadRowError("missing_field", f"it has no {' or '.join(names)}")
  value = row[name]
  if not isinstance(value, str):
    raise BadRowError(
      "not_text", f"{name} is a {_kind(value)}; a text is needed"
    )
  return value


def _kind(value: Any) -> str:
  kinds = {list: "list", dict: "object", bool: "boolean", type(None): "null"}
  return kinds.get(type(value), "number")


def _system(row: Row) -> str | None:
  return _text(row, ("system",), default="") or None


def _alpaca(row: Row) -> list[Record]:
  turns = []
  for pair in _list(row, "history") if row.get("history") else ():
    if not (
      isinstance(pair, list)
      and len(pair) == 2
      and all(isinstance(text, str) for text in pair)
    ):
      raise BadRowError(
        "not_text", "history holds something else than pairs of texts"
      )
    turns += [Turn(USER, pair[0]), Turn(ASSISTANT, pair[1])]
  turns += [
    Turn(
      USER,
      _text(row, ("instruction",)),
      _text(row, ("input", "context"), default=""),
    ),
    Turn(ASSISTANT, _text(row, ("output", "response"))),
  ]
  return [sft_records.conversation(turns, _system(row))]


def _prompt_completion(row: Row) -> list[Record]:
  names = ("completion", "response")
  prompt, answer = row.get("prompt"), row.get(_present(row, names) or "")
  if isinstance(prompt, list) and isinstance(answer, list):
    return [_turned([*prompt, *answer], "role", "content", _MESSAGE_ROLES)]
  turns = [
    Turn(USER, _text(row, ("prompt",))),
    Turn(ASSISTANT, _text(row, names)),
  ]
  return [sft_records.conversation(turns, _system(row))]


def _question_answer(row: Row) -> list[Record]:
  turns = [
    Turn(USER, _text(row, ("question",))),
    Turn(ASSISTANT, _text(row, ("answer",))),
  ]
  return [sft_records.conversation(turns)]


def _list(row: Row, name: str) -> list:
  value = row.get(name)
  if value is None:
    raise BadRowError("missing_field", f"it has no {name}")
  if not isinstance(value, list):
    raise BadRowError(
      "not_text", f"{name} is a {_kind(value)}; a list is needed"
    )
  return value


def _messages(row: Row) -> list[Record]:
  found = _list(row, "messages")
  return [_turned(found, "role", "content", _MESSAGE_ROLES)]


def _sharegpt(row: Row) -> list[Record]:
  found = _list(row, "conversations")
  keys = ("from", "value")
  # Some write OpenAI's messages under this name.
  if found and isinstance(found[0], dict) and "role" in found[0]:
    keys = ("role", "content")
  record = _turned(found, *keys, _SHARE_ROLES)
  if (said := _system(row)) is not None:
    if record.system is not None:
      raise BadRowError(
        "system_not_first", "it has a system text and a system message"
      )
    record = dataclasses.replace(record, system=said)
  return [record]


def _turned(
  messages: list, role_key: str, text_key: str, roles: Mapping[str, str]
) -> Record:
  """A record of a list of messages."""
  system, turns = None, []
  for number, message in enumerate(messages, 1):
    if not isinstance(message, dict):
      raise BadRowError(
        "not_text", f"message {number} is a {_kind(message)}, no object"
      )
    name = message.get(role_key)
    if not isinstance(name, str) or name not in roles:
      near = difflib.get_close_matches(str(name), roles, 1, 0.0)
      raise BadRowError(
        "unknown_role",
        f"message {number}: {role_key} is {str(name)[:40]!r}; known are"
        f" {', '.join(roles)} (the nearest is {near[0]!r})",
      )
    text = _content(message, text_key, number)
    if roles[name] != SYSTEM:
      weight = message.get("weight", 1)
      if weight not in (0, 1):
        raise BadRowError(
          "not_text", f"message {number}: weight is {weight!r}; it is 0 or 1"
        )
      turns.append(Turn(roles[name], text, trained=bool(weight)))
    elif number > 1:
      raise BadRowError(
        "system_not_first",
        f"message {number} is a {name} message; it may only be the first",
      )
    else:
      system = text or None
  return sft_records.conversation(turns, system)


def _content(message: Row, key: str, number: int) -> str:
  """A text, or the texts of a list of text parts."""
  value = message.get(key)
  if isinstance(value, list) and value:
    parts = [
      part.get("text") if isinstance(part, dict) else None for part in value
    ]
    if all(isinstance(part, str) for part in parts):
      return "".join(parts)
  if not isinstance(value, str):
    what = "absent" if value is None else f"a {_kind(value)}"
    raise BadRowError(
      "not_text", f"message {number}: {key} is {what}; a text is needed"
    )
  return value


def _self_instruct(row: Row) -> list[Record]:
  instances = _list(row, "instances")
  if not instances:
    raise BadRowError("no_answer", "instances is empty")
  out = []
  for number, one in enumerate(instances, 1):
    if not isinstance(one, dict):
      raise BadRowError(
        "not_text", f"instance {number} is a {_kind(one)}, no object"
      )
    turns = [
      Turn(
        USER,
        _text(row, ("instruction",)),
        _text(one, ("input",), default=""),
      ),
      Turn(ASSISTANT, _text(one, ("output",))),
    ]
    out.append(sft_records.conversation(turns))
  return out


def _super_ni(row: Row) -> list[Record]:
  """An instance with its task's definition, as `sft_files` takes it apart."""
  found = row["Definition"]
  definition = found[0] if isinstance(found, list) and found else found
  if not isinstance(definition, str):
    raise BadRowError(
      "not_text", f"Definition is a {_kind(definition)}; a text is needed"
    )
  outputs = row["output"]
  if isinstance(outputs, list):
    if not outputs:
      raise BadRowError("no_answer", "output is an empty list of references")
    outputs = outputs[0]
  turns = [
    Turn(USER, definition, _text(row, ("input",))),
    Turn(ASSISTANT, _text({"output": outputs}, ("output",))),
  ]
  return [sft_records.conversation(turns)]


# In the order in which they are looked for: the first whose keys are there.
FORMATS: Mapping[str, RowFormat] = {
  f.name: f
  for f in (
    RowFormat("messages", (("messages",),), _messages),
    RowFormat("sharegpt", (("conversations",),), _sharegpt, ("system",)),
    RowFormat(
      "super_ni", (("Definition",), ("input",), ("output",)), _super_ni
    ),
    RowFormat(
      "self_instruct", (("instruction",), ("instances",)), _self_instruct
    ),
    RowFormat(
      "alpaca",
      (("instruction",), ("output", "response")),
      _alpaca,
      ("input", "context", "system", "history"),
    ),
    RowFormat(
      "prompt_completion",
      (("prompt",), ("completion", "response")),
      _prompt_completion,
      ("system",),
    ),
    RowFormat(
      "question_answer", (("question",), ("answer",)), _question_answer
    ),
  )
}


def detect(row: Row) -> RowFormat:
  """The format of a row, by its keys.

  >>> detect({"instruction": "Add 2 and 2.", "output": "4"}).name
  'alpaca'

  Raises:
    BadRowError: no format has such keys; the known ones are listed.
  """
  found = next((f for f in FORMATS.values() if f.suits(row)), None)
  if found is None:
    known = "; ".join(f"{f.name} ({f.needs})" for f in FORMATS.values())
    keys = ", ".join(sorted(map(str, row))[:12]) or "none"
    raise BadRowError(
      "unknown_format",
      f"its keys ({keys}) are those of no format; known are {known}",
    )
  return found


def records(row: Row, how: RowFormat) -> list[Record]:
  """The conversations of a row, with its other keys as metadata.

  Raises:
    BadRowError: the row is not of the format, or is no conversation.
  """
  if not how.suits(row):
    missing = next(n for n in how.keys if _present(row, n) is None)
    try:
      other = detect(row)
    except BadRowError:
      other = None
    if other is not None and other is not how:
      raise BadRowError(
        "other_format",
        f"it is a row of format {other.name}, the others are {how.name}; write"
        " one format a file",
      )
    raise BadRowError(
      "missing_field",
      f"it has no {' or '.join(missing)}, which format {how.name} needs",
    )
  metadata = how.metadata(row)
  return [dataclasses.replace(r, metadata=metadata) for r in how.read(row)]
