"""Metrics of answers to questions: exact match and F1 of words.

Values are per cent, as in `eval/metrics.py`, which lists them by name. Of
several accepted answers the best counts, for each value on its own. What is a
word, and what two answers may differ in, is each benchmark's own.
"""

import collections
import functools
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval.metric import (
  Metric,
  check,
  check_texts,
  means,
  ratio,
  sums,
)

EXACT, F1, HEQ = "exact_match", "f1", "heq"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What QuAC's tasks say for its mark CANNOTANSWER.
UNANSWERABLE = "unanswerable"
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


def quac(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """QuAC's F1 and the share of questions answered as well as people do (HEQ).

  With several references each is left out in turn, the best of the others
  counts, and the mean is taken: so people, who are scored by the others'
  answers, and models have the same number of references. References that say
  "unanswerable" count alone where they are more than half, and else not.

  The prediction has F1 2/3 against the first reference, 1 against the second;
  people have 4/5 against each other:

  >>> quac(["in May"], [["May", "in May 1966", "in May"]])
  {'f1': 93.33333333333333, 'heq': 100.0}

  Unlike QuAC's script, questions on which people disagree (F1 under 0.4) are
  kept, so that n is the same for every split.

  Source: Choi et al., 2018 (QuAC, arXiv 1808.07036), section 5.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  rows = _quac_rows(predictions, references)
  return {name: float(rows_R.mean()) for name, rows_R in rows.items()}


def _quac_rows(predictions, references) -> dict[str, np.ndarray]:
  check_texts("quac", predictions, references)
  f1, heq = [], []
  for prediction, texts in zip(predictions, references, strict=True):
    none = [t for t in texts if t == UNANSWERABLE]
    if 2 * len(none) > len(texts):
      kept = none
    else:
      kept = [t for t in texts if t != UNANSWERABLE] or none
    wanted = [_squad_words(t) for t in kept]
    given = _squad_words(prediction)
    others = [wanted[:i] + wanted[i + 1 :] for i in range(len(wanted))]
    # One reference alone is not left out, and people have no score by it.
    machine = human = 1.0
    if len(wanted) == 1:
      machine = _f1(given, wanted[0])
    else:
      machine = np.mean([max(_f1(given, w) for w in o) for o in others])
      human = np.mean(
        [
          max(_f1(one, w) for w in o)
          for one, o in zip(wanted, others, strict=True)
        ]
      )
    f1.append(100.0 * machine)
    heq.append(100.0 * (machine >= human))
  return {F1: np.array(f1), HEQ: np.array(heq)}


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
  exact, f1, turns = _turn_parts(predictions, references).sum(axis=0)
  return {EXACT: float(exact / turns), F1: float(f1 / turns)}


def _turn_parts(predictions, references) -> np.ndarray:
  """Sums of both values over a conversation's turns, and their number."""
  check_texts("squad_turns", predictions, references)
  parts = []
  for row, (prediction, texts) in enumerate(
    zip(predictions, references, strict=True)
  ):
    given = _turns(prediction)
    wanted = [_turns(text) for text in texts]
    if not wanted[0]:
      raise UserError(
        f"squad_turns: row {row} has the reference {texts[0]!r}; a line for"
        " each turn is needed, such as '1. yes'."
      )
    values = _rows(
      "squad_turns",
      _squad_words,
      _f1,
      [given.get(number, "") for number in wanted[0]],
      [[w[number] for w in wanted if number in w] for number in wanted[0]],
    )
    parts.append([values[EXACT].sum(), values[F1].sum(), len(wanted[0])])
  return np.array(parts)


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
  right = _questions_right(predictions, references)
  value = sklearn_metrics.f1_score(labels, predictions, zero_division=0)
  return {
    "f1a": 100.0 * float(value),
    EXACT: 100.0 * sum(right.values()) / len(right),
  }


def _questions_right(predictions, references) -> dict[str, bool]:
  right: dict[str, bool] = {}
  for prediction, (question, label) in zip(
    predictions, references, strict=True
  ):
    right[question] = right.get(question, True) and prediction == label
  return right


def _multirc_parts(predictions, references) -> np.ndarray:
  """Found, given and wanted right answers; and at each question's first row
  whether it is all right, and 1."""
  check(predictions, references)
  right = _questions_right(predictions, references)
  parts = []
  for prediction, (question, label) in zip(
    predictions, references, strict=True
  ):
    yes, wanted = prediction == 1, label == 1
    first = question in right
    parts.append([yes and wanted, yes, wanted, right.pop(question, 0), first])
  return np.array(parts, np.float64)


def _multirc_values(sums_XK) -> dict[str, np.ndarray]:
  found, given, wanted, right, questions = np.moveaxis(sums_XK, -1, 0)
  return {
    "f1a": 100.0 * ratio(2 * found, given + wanted),
    EXACT: 100.0 * ratio(right, questions),
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
  name: str, words: _Words, f1: Callable, predictions, references
) -> dict[str, np.ndarray]:
  check_texts(name, predictions, references)
  exact_R, f1_R = [], []
  for prediction, texts in zip(predictions, references, strict=True):
    given, wanted = words(prediction), [words(text) for text in texts]
    exact_R.append(100.0 * max(_exact(given, w) for w in wanted))
    f1_R.append(100.0 * max(f1(given, w) for w in wanted))
  return {EXACT: np.array(exact_R), F1: np.array(f1_R)}


def _means(name, words, predictions, references, f1=_f1) -> dict[str, float]:
  rows = _rows(name, words, f1, predictions, references)
  return {value: float(rows_R.mean()) for value, rows_R in rows.items()}


def _of_rows(function, words: _Words, primary: str, f1=_f1) -> Metric:
  name = function.__name__
  rows = functools.partial(_rows, name, words, f1)
  return Metric(name, function, "texts", primary, means(rows))


def _turn_values(sums_XK) -> dict[str, np.ndarray]:
  exact, f1, turns = np.moveaxis(sums_XK, -1, 0)
  return {EXACT: exact / turns, F1: f1 / turns}


METRICS = (
  # The published tables give F1 of SQuAD and DROP, exact match of the others.
  _of_rows(squad, _squad_words, F1),
  _of_rows(drop, _drop_words, F1, _drop_f1),
  _of_rows(trivia_qa, _trivia_words, EXACT),
  _of_rows(record, _squad_words, EXACT),
  Metric("quac", quac, "texts", F1, means(_quac_rows)),
  Metric(
    "squad_turns", squad_turns, "texts", F1, sums(_turn_parts, _turn_values)
  ),
  Metric(
    "multirc", multirc, "groups", "f1a", sums(_multirc_parts, _multirc_values)
  ),
)
