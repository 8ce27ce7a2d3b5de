"""Records: one conversation of instruction data, whatever file it came from.

A conversation is user and assistant turns that alternate; it begins with a user
and ends with an assistant. `sft_formats.py` makes records of rows,
`chat_formats.py` makes text of records.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

USER, ASSISTANT = "user", "assistant"

# Why a row is not used, in the words of reports.
REASONS = {
  "blank_line": "blank lines",
  "not_utf8": "not UTF-8",
  "not_json": "not JSON",
  "not_object": "no JSON object",
  "unknown_format": "of no known format",
  "other_format": "of another format than the rows before",
  "missing_field": "without a field that the format has",
  "not_text": "with something else than text where text belongs",
  "unknown_role": "with an unknown role",
  "system_not_first": "with a system message that is not the first",
  "starts_with_assistant": "that start with the assistant",
  "not_alternating": "with two turns of one role in a row",
  "no_answer": "without an answer",
  "empty_turn": "with an empty turn",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """What one side says.

  Attributes:
    role: `USER` or `ASSISTANT`.
    text: as the row has it.
    input: of a user's turn, what the instruction is about, where the row keeps
      the two apart (Alpaca); else "".
    trained: of an assistant's turn, whether its tokens are in the loss.
  """

  role: str
  text: str
  input: str = ""
  trained: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
  """One conversation and where it stands.

  Attributes:
    turns: user and assistant in turn; an even number, at least two.
    system: what comes before the first turn; None: the row says nothing.
    file: path of its file.
    line: of the file, from 1; of Parquet the row, from 1.
    metadata: what else the row holds, such as `category` or `user_id`.
  """

  turns: tuple[Turn, ...]
  system: str | None = None
  file: str = ""
  line: int = 0
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def where(self) -> str:
    """As messages name it."""
    return f"{self.file}, line {self.line}"

  @property
  def prompt(self) -> str:
    """All that stands before the last answer, one text; to compare by."""
    said = [self.system or ""]
    for turn in self.turns[:-1]:
      said += (turn.text, turn.input)
    return "\n".join(text for text in said if text)

  @property
  def answer(self) -> str:
    """The last answer."""
    return self.turns[-1].text

  def first(self, exchanges: int) -> "Record":
    """The conversation cut after so many exchanges of two turns."""
    return dataclasses.replace(self, turns=self.turns[: 2 * exchanges])


# What an SFT_FILTERS entry is: records in, records out, in any order.
Filter = Callable[[Sequence[Record]], Sequence[Record]]


class BadRowError(UserError):
  """A row that is no conversation.

  Attributes:
    reason: one of `REASONS`.
  """

  def __init__(self, reason: str, message: str):
    assert reason in REASONS, reason
    super().__init__(message)
    self.reason = reason


def conversation(
  turns: Sequence[Turn], system: str | None = None, **fields: Any
) -> Record:
  """A record of turns that are checked.

  >>> conversation([Turn(USER, "2 + 2?"), Turn(ASSISTANT, "4")]).answer
  '4'

  Raises:
    BadRowError: no turn, the assistant begins, roles do not alternate, a turn
      is empty, or the last turn is not the assistant's.
  """
  if not turns:
    raise BadRowError("no_answer", "the conversation has no turn")
  if turns[0].role == ASSISTANT:
    raise BadRowError(
      "starts_with_assistant",
      "the conversation starts with the assistant; the first turn is a user's",
    )
  for number, turn in enumerate(turns):
    expected = ASSISTANT if number % 2 else USER
    if turn.role != expected:
      raise BadRowError(
        "not_alternating",
        f"turns {number} and {number + 1} are both of the {turn.role}; user and"
        " assistant alternate",
      )
    if not (turn.text.strip() or turn.input.strip()):
      raise BadRowError(
        "empty_turn", f"turn {number + 1}, of the {turn.role}, is empty"
      )
  if len(turns) % 2:
    raise BadRowError(
      "no_answer",
      "the conversation ends with a user's turn, which nothing answers",
    )
  return Record(tuple(turns), system, **fields)
