import doctest
import re
import string

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import metrics, protocol, qa_metrics
from tests.data import made


def test_docstrings():
  assert doctest.testmod(qa_metrics).failed == 0


@pytest.mark.parametrize(
  ("metric", "prediction", "references", "exact", "f1"),
  [
    # Case, punctuation and articles do not count.
    (qa_metrics.squad, "the Eiffel tower!", ["Eiffel Tower"], 100, 100),
    # "in 1889" against "1889": one word of two, all of one.
    (qa_metrics.squad, "in 1889", ["1889"], 0, 200 / 3),
    # Each value has the reference that is best for it.
    (qa_metrics.squad, "red fox", ["fox", "a red fox sleeps"], 0, 80),
    # A word given twice is found once.
    (qa_metrics.squad, "no no", ["no"], 0, 200 / 3),
    (qa_metrics.squad, "unanswerable", ["unanswerable"], 100, 100),
    (qa_metrics.squad, "the", ["a"], 100, 100),  # nothing against nothing
    (qa_metrics.squad, "the", ["fox"], 0, 0),
    # SQuAD drops a hyphen, TriviaQA puts a space in its place.
    (qa_metrics.squad, "e-mail", ["e mail"], 0, 0),
    (qa_metrics.trivia_qa, "e-mail", ["e mail"], 100, 100),
    (qa_metrics.trivia_qa, "rock_n_roll", ["Rock ’n’ Roll"], 100, 100),
    (qa_metrics.trivia_qa, "The Beatles (band)", ["Beatles"], 0, 200 / 3),
    # DROP: the number decides, and is compared by value.
    (qa_metrics.drop, "45", ["45.0"], 100, 100),
    (qa_metrics.drop, "1,200 men", ["1200 men"], 100, 100),
    (qa_metrics.drop, "5 yards", ["15 yards"], 0, 0),
    (qa_metrics.drop, "15 yard", ["15 yards"], 0, 50),
    (qa_metrics.drop, "two yards", ["a few yards"], 0, 50),
    (qa_metrics.drop, "1967-6-9", ["1967 6 9"], 100, 100),
    (qa_metrics.drop, "nan", ["nan"], 100, 100),
    (qa_metrics.record, "Ann Lee", ["Bo Yun", "Ann Lee"], 100, 100),
    (qa_metrics.record, "Lee", ["Ann Lee"], 0, 200 / 3),
  ],
)
def test_values_by_hand(metric, prediction, references, exact, f1):
  values = metric([prediction], [references])
  assert values["exact_match"] == exact
  assert values["f1"] == pytest.approx(f1)


def official_squad(prediction, truths):
  """Exact match and F1 as SQuAD's script prints them, in its own steps."""

  def normal(s):
    s = "".join(c for c in s.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())

  def f1(p, t):
    p, t = normal(p).split(), normal(t).split()
    same = sum(min(p.count(w), t.count(w)) for w in set(p))
    if not same:
      return 0.0
    precision, recall = same / len(p), same / len(t)
    return 2 * precision * recall / (precision + recall)

  exact = max(normal(prediction) == normal(t) for t in truths)
  return 100.0 * exact, 100.0 * max(f1(prediction, t) for t in truths)


def test_squad_is_the_official_arithmetic():
  rows = [
    ("Nikola Tesla's coil", ["Tesla coil", "the coil of Nikola Tesla"]),
    ("on 4 July, 1776", ["July 4, 1776", "4 July 1776"]),
    ("An apple a day", ["apples", "the day"]),
    ("nothing", ["everything at once"]),
  ]
  expected = [official_squad(p, t) for p, t in rows]
  got = qa_metrics.squad(*zip(*rows, strict=True))
  assert got["exact_match"] == pytest.approx(sum(e for e, _ in expected) / 4)
  assert got["f1"] == pytest.approx(sum(f for _, f in expected) / 4)


def test_quac_leaves_each_annotator_out():
  # Against (b, c), (a, c), (a, b) for "red fox": 0, 1, 1.
  values = qa_metrics.quac(["red fox"], [["red fox", "dog", "cat"]])
  assert values["f1"] == pytest.approx(200 / 3)
  # People: "red fox", "dog" and "cat" have nothing in common.
  assert values["heq"] == 100.0
  # Two of three say that there is no answer: they alone count.
  texts = ["unanswerable", "dog", "unanswerable"]
  assert qa_metrics.quac(["dog"], [texts]) == {"f1": 0.0, "heq": 0.0}
  assert qa_metrics.quac(["unanswerable"], [texts])["f1"] == 100.0
  # One of two is not more than half.
  assert qa_metrics.quac(["dog"], [texts[:2]]) == {"f1": 100.0, "heq": 100.0}
  assert qa_metrics.quac(["a dog"], [["dog"]])["f1"] == 100.0


def test_multirc_by_hand():
  # Three questions of 2, 2 and 1 answers; the second has one wrong. Of three
  # answers called right two are, of three right ones two are found.
  predictions = [1, 0, 1, 0, 1]
  references = [("a", 1), ("a", 0), ("b", 0), ("b", 1), ("c", 1)]
  values = qa_metrics.multirc(predictions, references)
  assert values["f1a"] == pytest.approx(200 / 3)
  assert values["exact_match"] == pytest.approx(200 / 3)


def test_turns_are_paired_by_their_number():
  reference = "1. Ann\n2. yes\n3. in May"
  values = qa_metrics.squad_turns(["3) May\nwell\n1. Ann"], [[reference]])
  assert values["exact_match"] == pytest.approx(100 / 3)
  assert values["f1"] == pytest.approx((100 + 0 + 200 / 3) / 3)


def test_perfect_predictions_score_100():
  references = [["Ann Lee", "Lee"], ["7 yards"]]
  for name in ("squad", "drop", "trivia_qa", "record"):
    values = metrics.get(name).function(["Ann Lee", "7 yards"], references)
    assert set(values.values()) == {100.0}


def test_what_is_refused():
  with pytest.raises(UserError, match="squad: row 0 has references 'yes'"):
    qa_metrics.squad(["yes"], ["yes"])
  with pytest.raises(UserError, match="squad_turns: row 0 has the reference"):
    qa_metrics.squad_turns(["1. yes"], [["yes"]])
  with pytest.raises(UserError, match="no rows to score"):
    qa_metrics.multirc([], [])


def answer(index, prediction, label, **kwargs):
  return protocol.Answer(
    index, 0, label, prediction, ("yes", "no"), ("yes", "no")[prediction],
    kwargs.pop("references", ()), **kwargs,
  )


def test_a_group_reaches_its_metric():
  task = made.nli(metrics=("multirc",), group="note")
  rows = [
    answer(0, 1, 1, group="a"), answer(1, 0, 1, group="a"),
    answer(2, 0, 0, group="b"),
  ]
  result = protocol.summarise(task, rows)
  assert result.primary == "f1a"
  assert result.metrics["exact_match"].scores == {0: 50.0}
  assert result.main.scores[0] == pytest.approx(200 / 3)


def test_any_accepted_choice_is_right():
  task = made.choosing(metrics=("record",), references="accepted")
  rows = [
    answer(0, 1, 0, references=("yes", "no")),
    answer(1, 1, 0, references=("yes",)),
  ]
  result = protocol.summarise(task, rows)
  assert result.metrics["exact_match"].scores == {0: 50.0}
  with pytest.raises(UserError, match="is a classification task, but its"):
    protocol.summarise(made.choosing(metrics=("record",)), rows)
