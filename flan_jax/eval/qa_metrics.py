"""Metrics of answers to questions: exact match and F1 of words.

Values are per cent, as in `eval/metrics.py`, which lists them by name. Of
several accepted answers the best counts, for each value on its own. What is a
word, and what two answers may differ in, is each benchmark's own.
"""

import collections
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval.metric import Metric, check, check_texts

EXACT, F1 = "exact_match", "f1"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# TriviaQA's: typographic quotes count as punctuation, all of which parts words.
_BLANKS = {ord(c): " " for c in string.punctuation + "‘’´`"}
_TURN = re.compile(r"^\s*(\d+)[.)]\s*(.*)$")


def squad(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """SQuAD's exact match and F1, without case, punctuation and articles.

  >>> squad(["The Nile, in Egypt"], [["Nile", "the river Nile"]])
  {'exact_match': 0.0, 'f1': 50.0}

  (One of three words is the reference's only one.) A question without an
  answer has a reference that says so, such as "unanswerable".

  Source: Rajpurkar et al., 2016 (arXiv 1606.05250), section 6.1; 2018
  (arXiv 1806.03822).

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return _means("squad", _squad_words, predictions, references)


def trivia_qa(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """TriviaQA's exact match and F1, with punctuation parting words.

  >>> trivia_qa(["Jean-Paul Sartre"], [["Sartre", "jean paul sartre"]])
  {'exact_match': 100.0, 'f1': 100.0}

  Source: Joshi et al., 2017 (arXiv 1705.03551), section 6.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return _means("trivia_qa", _trivia_words, predictions, references)


def drop(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """DROP's exact match and F1: an answer with a wrong number is worth nothing.

  >>> drop(["7.0 yards", "8 yards"], [["7 yards"], ["7 yards"]])
  {'exact_match': 50.0, 'f1': 50.0}

  Numbers are compared by value, and words part at hyphens. Every answer is one
  span, as TFDS has it.

  Source: Dua et al., 2019 (arXiv 1903.00161), section 5.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return _means("drop", _drop_words, predictions, references, _drop_f1)


def record(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """ReCoRD's exact match and F1: any of the accepted entities will do.

  >>> record(["Ann Lee", "Oslo"], [["Lee", "Ann Lee"], ["Bergen"]])
  {'exact_match': 50.0, 'f1': 50.0}

  Source: Zhang et al., 2018 (arXiv 1810.12885), section 5; the words are
  SQuAD's.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return _means("record", _squad_words, predictions, references)


def squad_turns(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  r"""`squad` over the turns of conversations that are answered as a list.

  A turn is a line that begins with its number. One that the prediction lacks
  counts as an empty answer, one that it has too many is passed over.

  >>> squad_turns(["1. Ann\n2. red"], [["1. Ann\n2. blue\n3. no\n4. the red"]])
  {'exact_match': 25.0, 'f1': 25.0}

  Source: Reddy et al., 2019 (CoQA, arXiv 1808.07042), section 6.1, whose mean
  is over turns too.

  Raises:
    UserError: no rows, other counts, or a reference without a numbered line.
  """
  check_texts("squad_turns", predictions, references)
  answers, accepted = [], []
  for row, (prediction, texts) in enumerate(
    zip(predictions, references, strict=True)
  ):
    given = _turns(prediction)
    wanted = [_turns(text) for text in texts]
    for number in wanted[0]:
      answers.append(given.get(number, ""))
      accepted.append([w[number] for w in wanted if number in w])
    if not wanted[0]:
      raise UserError(
        f"squad_turns: row {row} has the reference {texts[0]!r}; a line for"
        " each turn is needed, such as '1. yes'."
      )
  return squad(answers, accepted)


def multirc(
  predictions: Sequence[int], references: Sequence[tuple[str, int]]
) -> dict[str, float]:
  """MultiRC's F1 over all answers, and the share of questions all right.

  References are pairs (question, label); an answer is right with label 1. Of
  two questions one has both its answers judged rightly, and of two answers
  called right one is:

  >>> values = multirc([1, 0, 1], [("a", 1), ("a", 0), ("b", 0)])
  >>> {name: round(value, 1) for name, value in values.items()}
  {'f1a': 66.7, 'exact_match': 50.0}

  Source: Khashabi et al., 2018 (MultiRC), section 5; Wang et al., 2019
  (SuperGLUE, arXiv 1905.00537), section 3.

  Raises:
    UserError: no rows, or other counts.
  """
  from sklearn import metrics as sklearn_metrics

  check(predictions, references)
  labels = [label for _, label in references]
  right: dict[str, bool] = {}
  for prediction, (question, label) in zip(
    predictions, references, strict=True
  ):
    right[question] = right.get(question, True) and prediction == label
  value = sklearn_metrics.f1_score(labels, predictions, zero_division=0)
  return {
    "f1a": 100.0 * float(value),
    EXACT: 100.0 * sum(right.values()) / len(right),
  }


# -------------------------------------------------------------------- words


def _squad_words(text: str) -> list[str]:
  return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _trivia_words(text: str) -> list[str]:
  return _ARTICLES.sub(" ", text.lower().translate(_BLANKS)).split()


def _drop_words(text: str) -> list[str]:
  words = []
  for token in re.split(r"[\s-]+", text.lower()):
    bare = token.translate(_PUNCTUATION)
    number = _number(token)
    number = _number(bare) if number is None else number
    if number is not None:
      words.append(str(number))
    elif bare and not _ARTICLES.fullmatch(bare):
      words.append(bare)
  return words


def _number(token: str) -> float | None:
  """The value of digits; float() alone would take "nan" and "infinity"."""
  try:
    return float(token) if any(c.isdigit() for c in token) else None
  except ValueError:
    return None


def _turns(text: str) -> dict[int, str]:
  found = filter(None, map(_TURN.match, text.splitlines()))
  return {int(m.group(1)): m.group(2) for m in found}


# ------------------------------------------------------------------- values

_Words = Callable[[str], list[str]]


def _exact(prediction: list[str], reference: list[str]) -> float:
  return float(prediction == reference)


def _f1(prediction: list[str], reference: list[str]) -> float:
  if not prediction or not reference:
    return float(prediction == reference)
  common = collections.Counter(prediction) & collections.Counter(reference)
  shared = sum(common.values())
  return 2 * shared / (len(prediction) + len(reference))


def _drop_f1(prediction: list[str], reference: list[str]) -> float:
  numbers = {w for w in reference if _number(w) is not None}
  if numbers and not numbers & set(prediction):
    return 0.0
  # DROP compares sets of words.
  return _f1(sorted(set(prediction)), sorted(set(reference)))


def _rows(
  name: str, words: _Words, value: Callable, predictions, references
) -> np.ndarray:
  check_texts(name, predictions, references)
  return np.array([
    100.0 * max(value(words(p), words(text)) for text in texts)
    for p, texts in zip(predictions, references, strict=True)
  ])


def _means(name, words, predictions, references, f1=_f1) -> dict[str, float]:
  return {
    EXACT: float(_rows(name, words, _exact, predictions, references).mean()),
    F1: float(_rows(name, words, f1, predictions, references).mean()),
  }


METRICS = (
  # The published tables give F1 of SQuAD and DROP, exact match of the others.
  Metric(
    "squad", squad, "texts", F1,
    lambda p, r: _rows("squad", _squad_words, _f1, p, r),
  ),
  Metric(
    "drop", drop, "texts", F1,
    lambda p, r: _rows("drop", _drop_words, _drop_f1, p, r),
  ),
  Metric(
    "trivia_qa", trivia_qa, "texts", EXACT,
    lambda p, r: _rows("trivia_qa", _trivia_words, _exact, p, r),
  ),
  Metric(
    "record", record, "texts", EXACT,
    lambda p, r: _rows("record", _squad_words, _exact, p, r),
  ),
  Metric("squad_turns", squad_turns, "texts", F1),
  Metric("multirc", multirc, "groups", "f1a"),
)
