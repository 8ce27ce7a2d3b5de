r"""Chat formats: what surrounds turns, as data, and what of it is trained.

A format is a few texts; `render` joins them to pieces, each of which is trained
or not. Loss is on what the assistant says and on the mark that ends its turn.

`{text}`, `{input}` and `{system}` stand for a record's texts, `{bos}` and
`{eos}` for the vocabulary's tokens. The BOS before the whole text is no part of
a format: the batch puts it there, where the vocabulary has one.

>>> from flan_jax.data.sft_records import ASSISTANT, USER, Turn, conversation
>>> record = conversation([Turn(USER, "2 + 2?"), Turn(ASSISTANT, "4")])
>>> print(text(render(record, FORMATS["chatml"]).pieces))
<|im_start|>user
2 + 2?<|im_end|>
<|im_start|>assistant
4<|im_end|>
<BLANKLINE>

Sources: Wang et al., 2023 (Tülu, arXiv 2306.04751); Taori et al., 2023
(Stanford Alpaca); Chiang et al., 2023 (Vicuna 1.1); Touvron et al., 2023 (Llama
2, arXiv 2307.09288); Llama 3's model card; OpenAI's ChatML; Gemma's
formatting guide.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flan_jax.data.sft_records import Record
from flan_jax.errors import SpecError

BOS, EOS = "{bos}", "{eos}"
_FIELD = re.compile(r"(\{(?:text|input|system|bos|eos)\})")


class Piece(NamedTuple):
  """A part of a conversation's text.

  Attributes:
    text: itself; `BOS` or `EOS` for these tokens.
    trained: whether its tokens are in the loss.
    special: whether it is one of these tokens.
  """

  text: str
  trained: bool = False
  special: bool = False


class Rendered(NamedTuple):
  """A conversation as text.

  Attributes:
    pieces: in order.
    ends: for each exchange, how many pieces there are up to the end of its
      answer, with the mark that ends it.
    behind_bos: whether the text is one that begins with BOS, which is left out
      of it. Some tokenizers part a text in another way behind it.
  """

  pieces: list[Piece]
  ends: list[int]
  behind_bos: bool = False


@dataclasses.dataclass(frozen=True)
class ChatFormat:
  """The texts around turns.

  Attributes:
    user: around what a user says, with the cue of the answer at its end.
    user_with_input: the same where a turn has an input of its own; "" joins
      instruction and input by a blank line.
    answer: around what the assistant says; all of it is trained. It ends with
      the mark that ends a turn.
    between: between an answer and the next turn; not trained.
    after: behind the last answer; not trained.
    system: around the system text, which comes first.
    system_in_user: whether that stands in the first user turn's text instead,
      before what the user says.
    default_system: the system text of records without; "": none.
    header: before the first turn of records without a system text, in place of
      `system`.
    header_with_input: the same where the first turn has an input.
    strip: whether texts lose white space at both ends.
    behind_bos: whether the format's own text begins with BOS; else a tokenizer
      puts it before the text. The batch has it in both cases.
    name: for messages.
  """

  user: str = "{text}\n\n"
  answer: str = "{text}{eos}"
  user_with_input: str = ""
  between: str = "\n\n"
  after: str = ""
  system: str = "{system}\n\n"
  system_in_user: bool = False
  default_system: str = ""
  header: str = ""
  header_with_input: str = ""
  strip: bool = False
  behind_bos: bool = False
  name: str = "a format of one's own"

  def __post_init__(self):
    needed = {
      "user": "{text}",
      "answer": "{text}",
      "user_with_input": "{input}",
      "system": "{system}",
    }
    for field, mark in needed.items():
      value = getattr(self, field)
      if (value or field != "user_with_input") and value.count(mark) != 1:
        raise SpecError(
          f"chat format {self.name!r}: {field} {value!r} must hold {mark} once."
        )
    if self.answer.endswith("{text}"):
      raise SpecError(
        f"chat format {self.name!r}: answer {self.answer!r} ends without a mark"
        " that ends the turn, so a model would never learn to stop; add {eos},"
        " or the format's own mark, after {text}."
      )


_ALPACA = "Below is an instruction that describes a task"
_ALPACA_END = "Write a response that appropriately completes the request.\n\n"

FORMATS: Mapping[str, ChatFormat] = {
  f.name: f
  for f in (
    ChatFormat(name="plain"),
    ChatFormat(
      name="alpaca",
      header=f"{_ALPACA}. {_ALPACA_END}",
      header_with_input=(
        f"{_ALPACA}, paired with an input that provides further context."
        f" {_ALPACA_END}"
      ),
      user="### Instruction:\n{text}\n\n### Response:",
      user_with_input=(
        "### Instruction:\n{text}\n\n### Input:\n{input}\n\n### Response:"
      ),
    ),
    ChatFormat(
      name="tulu",
      system="<|system|>\n{system}\n",
      user="<|user|>\n{text}\n<|assistant|>\n",
      between="\n",
      strip=True,
    ),
    ChatFormat(
      name="vicuna",
      default_system=(
        "A chat between a curious user and an artificial intelligence"
        " assistant. The assistant gives helpful, detailed, and polite answers"
        " to the user's questions."
      ),
      system="{system} ",
      user="USER: {text} ASSISTANT:",
      answer=" {text}{eos}",
      between="",
    ),
    ChatFormat(
      name="llama2",
      system="<<SYS>>\n{system}\n<</SYS>>\n\n",
      system_in_user=True,
      user="[INST] {text} [/INST]",
      answer=" {text} {eos}",
      between="{bos}",
      strip=True,
      behind_bos=True,
    ),
    ChatFormat(
      name="llama3",
      system=(
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
      ),
      user=(
        "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
      ),
      answer="{text}<|eot_id|>",
      between="",
      strip=True,
      behind_bos=True,
    ),
    ChatFormat(
      name="chatml",
      system="<|im_start|>system\n{system}<|im_end|>\n",
      user="<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
      answer="{text}<|im_end|>",
      between="\n",
      after="\n",
    ),
    ChatFormat(
      name="gemma",
      system="{system}\n\n",
      system_in_user=True,
      user=("<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"),
      answer="{text}<end_of_turn>",
      between="\n",
      after="\n",
      strip=True,
      behind_bos=True,
    ),
  )
}


def render(
  record: Record, how: ChatFormat, *, prompt: bool = False
) -> Rendered:
  """A conversation in a format.

  Args:
    record: the conversation.
    how: the format.
    prompt: leave the last answer out, as in what a model is asked.
  """
  pieces: list[Piece] = []
  ends: list[int] = []

  def add(template: str, trained: bool = False, **fields: str):
    for part in _FIELD.split(template):
      if part in (BOS, EOS):
        pieces.append(Piece(part, trained, special=True))
      elif part:
        said = fields[part[1:-1]] if _FIELD.fullmatch(part) else part
        if said:
          pieces.append(Piece(said, trained))

  def clean(value: str) -> str:
    return value.strip() if how.strip else value

  turns = record.turns
  system = clean(record.system or how.default_system)
  inside = ""
  if system and how.system_in_user:
    # Its text belongs to the user's: what a record says is not taken apart.
    before, _, behind = how.system.partition("{system}")
    inside = before + system + behind
  elif system:
    add(how.system, system=system)
  elif turns[0].input and how.header_with_input:
    add(how.header_with_input)
  else:
    add(how.header)
  for number in range(0, len(turns), 2):
    said, answer = turns[number : number + 2]
    words, about = clean(said.text), clean(said.input)
    template = how.user
    if about and how.user_with_input:
      template = how.user_with_input
    elif about:
      words = f"{words}\n\n{about}" if words else about
    add(template, text=(inside if number == 0 else "") + words, input=about)
    last = number + 2 == len(turns)
    if last and prompt:
      break
    add(how.answer, answer.trained, text=clean(answer.text))
    ends.append(len(pieces))
    add(how.after if last else how.between)
  return Rendered(pieces, ends, how.behind_bos)


def text(
  pieces: Sequence[Piece], bos: str = "<bos>", eos: str = "<eos>"
) -> str:
  """The pieces as one text, with texts for the two special tokens."""
  shown = {BOS: bos, EOS: eos}
  return "".join(shown[p.text] if p.special else p.text for p in pieces)
