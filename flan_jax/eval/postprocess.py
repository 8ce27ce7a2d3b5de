r"""Postprocessing: from a generated text to the answer that metrics are given.

A task names one of `FUNCTIONS` where white space at both ends is not all that
a model may write too much (`spec.Task.postprocess`); the raw text is kept
beside it. Where a task with choices is answered by generation, the text is
read as one of the choices (`choice`).
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

from flan_jax.errors import UserError

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def stripped(text: str) -> str:
  r"""The text without white space at both ends.

  >>> stripped(" yes\n")
  'yes'
  """
  return text.strip()


def first_line(text: str) -> str:
  r"""The first line that is not empty.

  >>> first_line("\n4/3\n\nQuestion: ...")
  '4/3'
  """
  return text.strip().partition("\n")[0].strip()


def first_word(text: str) -> str:
  """The first word, without punctuation after it.

  >>> first_word(" Gabriel, who had")
  'Gabriel'
  """
  words = text.split()
  return words[0].rstrip(".,;:!?\"'") if words else ""


def last_number(text: str) -> str:
  """The last number, without separators of thousands; "" where there is none.

  The answer of a chain of thought to a word problem (Wei et al., 2022,
  arXiv 2201.11903, section 3).

  >>> last_number("He buys 3 x $400. The answer is 1,200.")
  '1200'
  """
  found = _NUMBER.findall(text)
  return found[-1].replace(",", "") if found else ""


FUNCTIONS: Mapping[str, Callable[[str], str]] = {
  f.__name__: f for f in (stripped, first_line, first_word, last_number)
}


def get(name: str | None) -> Callable[[str], str]:
  """The function called `name`; None: `stripped`.

  Raises:
    UserError: there is none; names the nearest.
  """
  if name is None:
    return stripped
  if name not in FUNCTIONS:
    near = difflib.get_close_matches(name, FUNCTIONS, 1, 0.0)
    raise UserError(
      f"postprocess {name!r} is unknown; the nearest is {near[0]!r}, all are"
      f" {', '.join(FUNCTIONS)}."
    )
  return FUNCTIONS[name]


def choice(text: str, choices: Sequence[str]) -> int:
  """The index of the choice that a text is, or -1.

  Letter case, white space and punctuation at the ends do not count. Where all
  choices are numbers, a number is the nearest of them.

  >>> choice(" Yes.", ("no", "yes")), choice("perhaps", ("no", "yes"))
  (1, -1)
  >>> choice("3.1", ("2.8", "3.0", "3.2", "3.4"))
  1
  """
  said = _plain(text)
  for index, one in enumerate(choices):
    if said == _plain(one):
      return index
  numbers = [_number(c) for c in choices]
  value = _number(said)
  if value is None or None in numbers:
    return -1
  return min(range(len(numbers)), key=lambda i: abs(numbers[i] - value))


def _plain(text: str) -> str:
  return " ".join(text.split()).strip(" .,;:!?\"'").casefold()


def _number(text: str) -> float | None:
  try:
    value = float(text)
  except ValueError:
    return None
  return value if abs(value) < float("inf") else None
