r"""Super-NaturalInstructions' prompts: what is in them, and what fits.

  Definition: Say whether it rains.

   Positive Example 1 -
  Input: Drops fall.
   Output: Yes.

  Now complete the following example -
  Input: Is it wet?
  Output:

Examples are taken while the prompt fits, in the published way: an example is
in if definition, the examples before it joined by a blank, itself and the
instance have at most as many tokens as the inputs, EOS included; the first
that does not fit ends its kind. The instance is never cut, nor are name and
definition; the published code cuts the end of the prompt there, where the
instance stands (and does not count the task's name, as is done here).

Source: Wang et al., 2022 (arXiv 2204.07705), sections 4 and 5, and the code
released with it (allenai/natural-instructions, Tk-Instruct).
"""

import dataclasses
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

MOST_EXAMPLES = 4
_PIECE = re.compile(r"name|def|explanation|(pos|neg)(\d)")


@dataclasses.dataclass(frozen=True)
class Encoding:
  """What stands before an instance.

  Attributes:
    definition: whether the task's definition does.
    positives, negatives: examples of each kind, at most; 0 to 4.
    explanations: whether examples are explained.
    name: whether the task's name stands before everything.
  """

  definition: bool = True
  positives: int = 0
  negatives: int = 0
  explanations: bool = False
  name: bool = False


def encoding(text: str, name: str = "SUPER_NI_ENCODING") -> Encoding:
  """The encoding of that name: pieces of a prompt with `+` between them.

  >>> encoding("def+pos2+neg2")  # doctest: +NORMALIZE_WHITESPACE
  Encoding(definition=True, positives=2, negatives=2, explanations=False,
  name=False)

  Args:
    text: of `name`, `def`, `pos1` to `pos4`, `neg1` to `neg4` and
      `explanation`.
    name: of the option, for messages.

  Raises:
    UserError: another piece, one of them twice, or an explanation of nothing.
  """
  found: dict[str, int] = {}
  for piece in text.split("+"):
    match = _PIECE.fullmatch(piece)
    kind = (match and match.group(1)) or piece
    count = int((match and match.group(2)) or 1)
    if match is None or not 1 <= count <= MOST_EXAMPLES:
      raise UserError(
        f"{name} is {text!r}: {piece!r} is none of name, def, pos1 to"
        f" pos{MOST_EXAMPLES}, neg1 to neg{MOST_EXAMPLES} and explanation."
        " Write 'def+pos2', for example"
        f"{', or mix' if name == 'SUPER_NI_ENCODING' else ''}."
      )
    if kind in found:
      raise UserError(f"{name} is {text!r}: {kind} is in it twice; keep one.")
    found[kind] = count
  made = Encoding(
    "def" in found,
    found.get("pos", 0),
    found.get("neg", 0),
    "explanation" in found,
    "name" in found,
  )
  if made.explanations and not made.positives + made.negatives:
    raise UserError(
      f"{name} is {text!r}: an explanation without examples has no effect; add"
      " pos2, for example."
    )
  return made


# Of these, one is drawn for each instance.
MIX = tuple(
  map(
    encoding,
    ("def", "pos2", "def+pos2", "def+pos2+neg2", "def+pos2+explanation"),
  )
)


def encodings(text: str, name: str = "SUPER_NI_ENCODING"):
  """`MIX` for "mix", else the one encoding of that name, in a tuple."""
  return MIX if text == "mix" else (encoding(text, name),)


def ended(text: str) -> str:
  """The text with a full stop where it ends without punctuation.

  >>> ended(" Is it so? "), ended("so"), ended("")
  ('Is it so?', 'so.', '.')
  """
  text = text.strip()
  return text if text and text[-1] in string.punctuation else f"{text}."


def title(name: str) -> str:
  """The task's name as it stands in a prompt (`add_task_name` there)."""
  return f"{name}. "


def heading(definition: str) -> str:
  """The definition as it stands in a prompt."""
  return f"Definition: {ended(definition)}\n\n"


def query(text: str) -> str:
  """An instance's input as it stands at the end of a prompt."""
  return f"Now complete the following example -\nInput: {ended(text)}\nOutput: "


def example(
  kind: str, number: int, one: Mapping[str, Any], explained: bool = False
) -> str:
  r"""An example as it stands in a prompt.

  >>> example("Positive", 1, {"input": "Fog", "output": "No"})
  ' Positive Example 1 -\nInput: Fog.\n Output: No.\n\n'

  Args:
    kind: "Positive" or "Negative".
    number: from 1.
    one: with `input`, `output` and perhaps `explanation`.
    explained: whether the explanation is shown, where there is one.
  """
  output = one["output"]
  output = output if isinstance(output, str) else output[0]
  text = (
    f" {kind} Example {number} -\nInput: {ended(one['input'])}\n"
    f" Output: {ended(output)}\n"
  )
  if explained and one.get("explanation"):
    text += f" Explanation: {ended(one['explanation'])}\n"
  return f"{text}\n"


@dataclasses.dataclass(frozen=True)
class Parts:
  """A prompt before it is known what fits: its texts, in order."""

  heading: str
  positives: tuple[str, ...]
  negatives: tuple[str, ...]
  query: str


def parts(task: Mapping[str, Any], text: str, how: Encoding) -> Parts:
  """The parts of an instance's prompt.

  Args:
    task: as `super_ni_files.read` gives it.
    text: the instance's input.
    how: what stands before it.
  """

  def examples(kind, count):
    chosen = task[f"{kind} Examples"][:count]
    return tuple(
      example(kind, number, one, how.explanations)
      for number, one in enumerate(chosen, 1)
    )

  return Parts(
    (title(task["Name"]) if how.name else "")
    + (heading(task["Definition"]) if how.definition else ""),
    examples("Positive", how.positives),
    examples("Negative", how.negatives),
    query(text),
  )


def fitted(
  prompts: Sequence[Parts],
  count: Callable[[list[str]], list[int]],
  limit: int | None,
) -> list[str | None]:
  """Each prompt's text with the examples that fit; None where none makes it.

  >>> words = lambda texts: [len(text.split()) for text in texts]
  >>> one = Parts("Say it. ", ("a b ", "c d "), (), "And?")
  >>> fitted([one], words, 7), fitted([one], words, 6), fitted([one], words, 2)
  (['Say it. a b c d And?'], ['Say it. a b And?'], [None])

  Args:
    prompts: a batch of them.
    count: tokens of each of several texts, all that surrounds them included.
    limit: tokens at most; None: all examples are taken.
  """
  if limit is None:
    return [_joined(p, p.positives, p.negatives) for p in prompts]
  positives = _fitting(
    prompts, [""] * len(prompts), [p.positives for p in prompts], count, limit
  )
  before = [" ".join(chosen) for chosen in positives]
  negatives = _fitting(
    prompts, before, [p.negatives for p in prompts], count, limit
  )
  texts = [
    _joined(p, *chosen)
    for p, *chosen in zip(prompts, positives, negatives, strict=True)
  ]
  sizes = count(texts)
  return [
    text if size <= limit else None
    for text, size in zip(texts, sizes, strict=True)
  ]


def _joined(p: Parts, positives, negatives) -> str:
  return "".join((p.heading, *positives, *negatives, p.query))


def _fitting(prompts, before, examples, count, limit):
  """Of each prompt's examples those before the first that does not fit."""
  texts = [
    p.heading + first + " ".join(those[:at]) + those[at] + p.query
    for p, first, those in zip(prompts, before, examples, strict=True)
    for at in range(len(those))
  ]
  sizes = iter(count(texts) if texts else ())
  out = []
  for those in examples:
    fits = [next(sizes) <= limit for _ in those]
    out.append(those[: fits.index(False)] if False in fits else those)
  return out
