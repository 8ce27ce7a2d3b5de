"""Rates rows by a judge, on a scale, and reads what it says.

Source: Chen et al., 2023, "AlpaGasus: training a better Alpaca with fewer data"
(arXiv 2307.08701), section 2 and figure 3: one grade from 0 to 5 of the
response's accuracy on the first line, then the reasons. The form of the three
parts is the published one, the sentences are ours.
"""

import dataclasses
import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.curation.asking import Asker, Decoding
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError

SYSTEM = (
  "You grade responses that a language model gave to instructions. You are"
  " strict and fair, and a response's length does not count."
)
QUESTION = """\
###Instruction:
{instruction}

### Input:
{input}

### Response:
{output}

Grade the {dimension} of the response to the instruction and its input, from \
{low} to {high}; a higher grade means a better {dimension}. Write the grade \
alone on the first line, as a number, and your reasons on the lines below it."""
FIELDS = {"instruction", "input", "output", "dimension", "low", "high"}
# Of a further draw, where a rating could not be read.
RETRY_TEMPERATURE = 0.7
# Requests that are on their way before decisions are written.
AT_ONCE = 256

_NUMBER = r"[-+]?\d+(?:[.,]\d+)?"
_OF = r"(?:\s*(?:/|out\s+of|分?[，,]?\s*满分)\s*(?P<most>\d+(?:[.,]\d+)?))?"
_LABEL = r"(?:score|rating|grade|评分|得分|分数)"
_END = r"\s*(?:points?|stars?|分)?\s*[.。!！]?\s*"
# The first line: a number, perhaps after a label.
_LINE = re.compile(
  rf"\s*(?:[^\d\n]{{0,60}}?(?:[:：=]|\bis\b|{_LABEL})\s*)?"
  rf"(?P<score>{_NUMBER}){_OF}{_END}",
  re.IGNORECASE,
)
# Anywhere else: only after a label.
_ANYWHERE = re.compile(
  rf"{_LABEL}\s*(?:[:：=]|\bis\b|为|是)?\s*(?P<score>{_NUMBER}){_OF}"
  rf"(?!\s*(?:[-–~]|to\b|or\b)\s*\d)",
  re.IGNORECASE,
)
_MARKS = re.compile(r"[*_#`\"'|()\[\]<>]")


@dataclasses.dataclass(frozen=True)
class Rating:
  """How a judge is asked for a grade.

  Attributes:
    dimension: what is graded; published: "accuracy", and "helpfulness" in an
      ablation.
    scale: lowest and highest grade.
    retries: further draws where a grade cannot be read; published: none.
    max_tokens: of the judge's answer.
    question: the prompt, with {instruction}, {input}, {output}, and, where you
      want them, {dimension}, {low} and {high}; None: ours.
    system: the system's message.

  Raises:
    UserError: a scale without room, a question with other fields.
  """

  dimension: str = "accuracy"
  scale: tuple[float, float] = (0, 5)
  retries: int = 0
  max_tokens: int = 256
  question: str | None = None
  system: str = SYSTEM

  def __post_init__(self):
    if (
      len(self.scale) != 2
      or not all(map(math.isfinite, self.scale))
      or not self.scale[0] < self.scale[1]
    ):
      raise UserError(
        f"SCALE is {self.scale!r}; give the lowest and the highest grade, such"
        " as (0, 5)."
      )
    if self.retries < 0:
      raise UserError(f"RATING_RETRIES is {self.retries}; give 0 or more.")
    if not self.dimension.strip():
      raise UserError("DIMENSION is empty; say what is graded: 'accuracy'.")
    if self.question is None:
      return
    try:
      found = {f for _, f, _, _ in string.Formatter().parse(self.question)}
    except ValueError as e:
      raise UserError(f"QUESTION cannot be filled in: {e}.") from None
    found -= {None}
    if not {"instruction", "input", "output"} <= found <= FIELDS:
      raise UserError(
        "QUESTION must have {instruction}, {input} and {output}, and of other"
        f" fields only {{dimension}}, {{low}} and {{high}}; it has"
        f" {sorted(found)}. Write {{{{ for a brace."
      )

  def prompt(self, row: Mapping[str, Any]) -> str:
    """What the judge reads of a row."""
    low, high = (f"{x:g}" for x in self.scale)
    return (self.question or QUESTION).format(
      instruction=row["instruction"],
      input=row["input"],
      output=row["output"],
      dimension=self.dimension,
      low=low,
      high=high,
    )


@dataclasses.dataclass(frozen=True)
class Rated:
  """A row's grade.

  Attributes:
    score: on the scale; None: it has none that could be read.
    error: why it has none.
    said: the judge's last answer.
  """

  score: float | None
  error: str = ""
  said: str = ""


UNREADABLE = "unreadable rating"
NO_ANSWER = "no answer"


def read(text: str, scale: tuple[float, float] = (0, 5)) -> float | None:
  r"""The grade in a judge's answer; None: none, or not one alone.

  >>> read("4.5\nIt is right."), read("**Score: 4/5**"), read("评分：4.5分")
  (4.5, 4.0, 4.5)
  >>> read("4 or 5"), read("7"), read("8/10"), read("Good!")
  (None, None, None, None)

  The first line is read, then labels such as "score:" in the rest. A grade
  outside the scale, or of another scale, is none.

  Args:
    text: of the answer.
    scale: lowest and highest grade.
  """
  cleaned = _MARKS.sub(" ", text).strip()
  first = cleaned.split("\n", 1)[0]
  found = _LINE.fullmatch(first)
  matches = [found] if found else list(_ANYWHERE.finditer(cleaned))
  scores = set()
  for match in matches:
    most = match["most"]
    if most is not None and _number(most) != scale[1]:
      return None
    scores.add(_number(match["score"]))
  if len(scores) != 1:
    return None
  (score,) = scores
  return score if scale[0] <= score <= scale[1] else None


def rate(
  rows: Sequence[Mapping[str, Any]], rating: Rating, asker: Asker
) -> list[Rated]:
  """The judge's grade of every row, in order.

  Args:
    rows: with `instruction`, `input` and `output`.
    rating: how it is asked.
    asker: the judge.

  Raises:
    UserError: what the generator raises.
  """
  out: list[Rated] = [Rated(None)] * len(rows)
  left = list(range(len(rows)))
  for draw in range(rating.retries + 1):
    decoding = Decoding(
      rating.max_tokens, temperature=RETRY_TEMPERATURE if draw else 0.0
    )
    for start in range(0, len(left), AT_ONCE):
      places = left[start : start + AT_ONCE]
      replies = asker.ask(
        [
          decoding.request(rating.prompt(rows[n]), draw, system=rating.system)
          for n in places
        ]
      )
      for n, reply in zip(places, replies, strict=True):
        out[n] = _rated(reply, rating)
    left = [n for n in left if out[n].error == UNREADABLE]
  return out


def _rated(reply: Reply, rating: Rating) -> Rated:
  if reply.error:
    return Rated(None, NO_ANSWER, reply.error)
  score = read(reply.text, rating.scale)
  return Rated(score, UNREADABLE if score is None else "", reply.text)


def histogram(scores: Sequence[float]) -> dict[str, int]:
  """Grade -> how many rows have it, lowest first.

  >>> histogram([4.5, 3.0, 4.5])
  {'3': 1, '4.5': 2}
  """
  return {f"{score:g}": scores.count(score) for score in sorted(set(scores))}


def _number(text: str) -> float:
  return float(text.replace(",", "."))
