"""A judge compares the outputs of two models, pair by pair.

The judge is any text generator (`endpoint/request.py: Generator`): an HTTP
endpoint or a checkpoint of ours. It sees an instruction and the two outputs, A
and B, and says which is better, in one of two ways:

* weighted: one token; the preference is 2 - p(A) / (p(A) + p(B)), as in
  AlpacaEval 2 (Dubois et al., 2024, arXiv 2404.04475, section 2);
* verdict: reasons in free text and a last line with A, B or tie.

Judges like what stands in a certain place. So either the order is drawn for
each pair (AlpacaEval), from its texts, or both orders are asked and the two
preferences averaged (Chen et al., 2023, arXiv 2307.08701, section 4.3).
"""

import dataclasses
import hashlib
import json
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Generator, Reply, Request
from flan_jax.errors import UserError, check_known
from flan_jax.eval.pairs import Pair

SCORINGS = ("weighted", "verdict")
ORDERS = ("random", "both")
LETTERS = ("A", "B")
FIELDS = {"instruction", "first", "second"}
# Of a further draw, where the first verdict could not be read.
RETRY_TEMPERATURE = 0.7

SYSTEM = (
  "You compare answers to instructions. You judge fairly: neither the place of"
  " an answer nor its length speaks for it."
)
QUESTION = """\
Two assistants, A and B, were given the same instruction. Which of their answers
would the person who wrote the instruction prefer?

# Instruction

{instruction}

# Answer of A

{first}

# Answer of B

{second}

# Your judgement

"""
ENDINGS = {
  "weighted": "Say A or B and nothing else.",
  "verdict": (
    "Give your reasons in a few sentences. End with a line of its own:"
    " 'Verdict: A', 'Verdict: B', or 'Verdict: tie' if they are equally good."
  ),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """How a judge is asked.

  >>> Comparison(scoring="verdicts")
  Traceback (most recent call last):
  flan_jax.errors.UserError: SCORING is 'verdicts'; known are weighted, verdict\
 (the nearest is 'verdict').

  Attributes:
    scoring: "weighted" needs log-probabilities, which not every endpoint
      offers; "verdict" does not.
    order: "random", drawn for each pair; "both".
    seed: of the drawn orders.
    retries: further draws where a verdict cannot be read.
    max_tokens: of a verdict.
    question: the prompt, with {instruction}, {first} and {second}; None: ours.
    system: the system's message.

  Raises:
    UserError: an unknown name, a number out of range, a question with other
      fields, an option that the scoring does not read.
  """

  scoring: str = "weighted"
  order: str = "random"
  seed: int = 0
  retries: int = 2
  max_tokens: int = 512
  question: str | None = None
  system: str = SYSTEM

  def __post_init__(self):
    check_known("SCORING", self.scoring, SCORINGS)
    check_known("ORDER", self.order, ORDERS)
    if self.retries < 0:
      raise UserError(f"JUDGE_RETRIES is {self.retries}; give 0 or more.")
    if self.question is None:
      return
    try:
      fields = {f for _, f, _, _ in string.Formatter().parse(self.question)}
    except ValueError as e:
      raise UserError(f"QUESTION cannot be filled in: {e}.") from None
    if fields - {None} != FIELDS:
      raise UserError(
        "QUESTION must have {instruction}, {first} and {second}, each where its"
        f" text stands, and no other field; it has {sorted(fields - {None})}."
        " Write {{ for a brace."
      )

  def prompt(self, pair: Pair, swapped: bool) -> str:
    """What the judge reads of a pair; swapped, the model's output is A."""
    first, second = pair.output_1, pair.output_2
    if swapped:
      first, second = second, first
    question = self.question
    if question is None:
      question = QUESTION + ENDINGS[self.scoring]
    return question.format(
      instruction=pair.instruction, first=first, second=second
    )

  def swaps(self, pair: Pair) -> tuple[bool, ...]:
    """The orders in which a pair is asked."""
    if self.order == "both":
      return (False, True)
    content = json.dumps(
      [self.seed, pair.instruction, pair.output_1, pair.output_2]
    )
    return (bool(hashlib.sha256(content.encode()).digest()[0] & 1),)

  def request(self, pair: Pair, swapped: bool, draw: int = 0) -> Request:
    """The request for a pair in one order."""
    text = self.prompt(pair, swapped)
    if self.scoring == "weighted":
      return Request(text, self.system, choices=LETTERS, draw=draw)
    return Request(
      text,
      self.system,
      max_tokens=self.max_tokens,
      temperature=RETRY_TEMPERATURE if draw else 0.0,
      draw=draw,
    )


@dataclasses.dataclass(frozen=True)
class Judged:
  """A pair with the judge's preference.

  Attributes:
    pair: as it was given.
    preference: in [1, 2], 2 for the model; None: the judge gave none.
    error: why it gave none.
    by_order: (swapped, preference for the model) of each order that was
      answered.
    replies: all that the judge said.
  """

  pair: Pair
  preference: float | None
  error: str = ""
  by_order: tuple[tuple[bool, float], ...] = ()
  replies: tuple[Reply, ...] = ()

  @property
  def cost(self) -> float:
    return sum(r.cost for r in self.replies)

  @property
  def tokens(self) -> int:
    return sum(r.prompt_tokens + r.completion_tokens for r in self.replies)


def judge(
  pairs: Sequence[Pair],
  judge: Generator,
  comparison: Comparison,
  *,
  journal: Journal,
  progress: Callable[[int, int], None] | None = None,
) -> list[Judged]:
  """The judge's preference for every pair, in the order given.

  Equal outputs are a draw and are not asked. A pair without a readable answer,
  after the generator's own retries and `comparison.retries` further draws, has
  no preference and says why.

      with Journal("journal.jsonl") as journal:
        judge(pairs, endpoint, Comparison(), journal=journal)[0].preference

  Args:
    pairs: of `pairs.read`.
    judge: what answers; it journals and does not ask anything twice.
    comparison: how it is asked.
    journal: an open one.
    progress: called with (answers, questions of this round).

  Raises:
    UserError: what the generator raises, such as a budget that is spent.
  """
  asked = [
    (number, swapped)
    for number, pair in enumerate(pairs)
    if pair.output_1 != pair.output_2
    for swapped in comparison.swaps(pair)
  ]
  replies: dict[tuple[int, bool], list[Reply]] = {place: [] for place in asked}
  found: dict[tuple[int, bool], float] = {}
  why: dict[tuple[int, bool], str] = {}
  open_places = list(asked)
  for draw in range(comparison.retries + 1):
    requests = [
      comparison.request(pairs[number], swapped, draw)
      for number, swapped in open_places
    ]
    answers = judge.generate(
      requests, journal=journal, on_reply=_counter(len(requests), progress)
    )
    for place, reply in zip(open_places, answers, strict=True):
      replies[place].append(reply)
      preference, reason = _read(reply, comparison.scoring, place[1])
      if preference is None:
        why[place] = reason
      else:
        found[place] = preference
    # An answer without a verdict is drawn again; no answer at all is not: the
    # generator has tried that already.
    open_places = [
      p for p in open_places if p not in found and not replies[p][-1].error
    ]
    if not open_places:
      break
  return [
    _judged(number, pair, comparison, replies, found, why)
    for number, pair in enumerate(pairs)
  ]


def _counter(total: int, progress):
  done = 0

  def count(number: int, reply: Reply):
    nonlocal done
    done += 1
    if progress:
      progress(done, total)

  return count


def verdict(text: str) -> str | None:
  r"""A, B or tie, as the last verdict of a text says; None: it has none.

  >>> verdict("A is longer.\n**Verdict:** B"), verdict("B."), verdict("Both!")
  ('B', 'B', None)
  >>> verdict("Verdict: A or B?")
  """
  found = re.findall(
    r"verdict\W{0,8}(a|b|tie)\b(?!\s*(?:or|/|and)\b)", text, re.IGNORECASE
  )
  said = found[-1] if found else text.strip().strip(".*\"'`")
  said = {"a": "A", "b": "B", "tie": "tie"}.get(said.lower())
  return said


def _read(reply, scoring, swapped) -> tuple[float | None, str]:
  """The preference for the model in one order, or why there is none."""
  if reply.error:
    return None, f"no answer: {reply.error}"
  if scoring == "weighted":
    a, b = reply.log_probs
    most = max(a, b)
    p, q = math.exp(a - most), math.exp(b - most)
    shown = 2 - p / (p + q)
  else:
    said = verdict(reply.text)
    if said is None:
      return None, f"no verdict in {reply.text[-80:]!r}"
    shown = {"A": 1.0, "B": 2.0, "tie": 1.5}[said]
  return (3 - shown if swapped else shown), ""


def _judged(number, pair, comparison, replies, found, why) -> Judged:
  if pair.output_1 == pair.output_2:
    return Judged(pair, 1.5)
  places = [(number, swapped) for swapped in comparison.swaps(pair)]
  said = tuple(r for place in places for r in replies[place])
  by_order = tuple((p[1], found[p]) for p in places if p in found)
  errors = [why[p] for p in places if p not in found]
  preference = None
  if not errors:
    preference = sum(value for _, value in by_order) / len(by_order)
  return Judged(pair, preference, "; ".join(errors), by_order, said)


def annotations(
  judged: Sequence[Judged], annotator: str
) -> list[dict[str, Any]]:
  """The pairs with a preference, with the fields of AlpacaEval's files.

  Args:
    judged: of `judge`; those without a preference are left out.
    annotator: the judge's name.
  """
  return [
    {
      **j.pair.rest,
      "instruction": j.pair.instruction,
      "output_1": j.pair.output_1,
      "generator_1": j.pair.generator_1,
      "output_2": j.pair.output_2,
      "generator_2": j.pair.generator_2,
      "annotator": annotator,
      "preference": j.preference,
      "price_per_example": j.cost,
      "time_per_example": sum(r.seconds for r in j.replies),
      "raw_completion": _raw(j.replies),
    }
    for j in judged
    if j.preference is not None
  ]


def failures(judged: Sequence[Judged]) -> list[dict[str, Any]]:
  """The pairs without a preference, and why."""
  return [
    {
      "instruction": j.pair.instruction,
      "generator_1": j.pair.generator_1,
      "generator_2": j.pair.generator_2,
      "error": j.error,
      "said": [r.text for r in j.replies if r.text],
    }
    for j in judged
    if j.preference is None
  ]


def first_shown(judged: Sequence[Judged]) -> float | None:
  """The mean preference for the output shown first, in [0, 1].

  0.5 for a judge that does not look at the place, over both orders. None: no
  pair was asked.
  """
  values = [
    (value - 1 if swapped else 2 - value)
    for j in judged
    for swapped, value in j.by_order
  ]
  return sum(values) / len(values) if values else None


def _raw(replies: Sequence[Reply]) -> Mapping[str, Any] | list | None:
  said = [
    dict(r.raw)
    if r.raw
    else {"text": r.text, "log_probs": _finite(r.log_probs)}
    for r in replies
  ]
  return said[0] if len(said) == 1 else said or None


def _finite(log_probs):
  return [None if math.isinf(p) else p for p in log_probs]
