import doctest

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import metrics


def test_docstrings():
  assert doctest.testmod(metrics).failed == 0


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_perfect_predictions_are_100(name):
  metric = metrics.get(name)
  answers = {
    "labels": ([0, 1, 2, 1], [0, 1, 2, 1]),
    "numbers": ([0.0, 1.0, 5.0, 2.0], [0.0, 1.0, 5.0, 2.0]),
    "groups": ([0, 1, 1], [("a", 0), ("a", 1), ("b", 1)]),
    "texts": (["a big cat . it sat", "b c"], [["a big cat . it sat"], ["x", "b c"]]),
    "squad_turns": (["1. a cat\n2. no"], [["1. a cat\n2. no"]]),
    "final_letter": (["So the answer is (B)."], [["B"]]),
    # Each annotator's answer is left out in turn.
    "quac": (["a cat", "x"], [["the cat", "a cat"], ["x"]]),
  }
  takes = name if name in answers else metric.takes
  values = metric.function(*answers[takes])
  assert metric.primary in values
  for value in values.values():
    assert value == pytest.approx(100.0)


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_no_rows_and_unequal_rows_are_refused(name):
  function = metrics.get(name).function
  with pytest.raises(UserError, match="no rows to score"):
    function([], [])
  with pytest.raises(UserError, match="2 predictions for 1 references"):
    function(["a", "b"], [["a"]])


def test_f1_of_the_positive_label_by_hand():
  # 2 true positives, 1 false positive, 2 false negatives: 2*2 / (2*2 + 1 + 2).
  value = metrics.f1_binary([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0])
  assert value["f1_binary"] == pytest.approx(100 * 4 / 7)


@pytest.mark.parametrize("predictions", [[0, 0], [2, 2]])
def test_f1_without_a_positive_prediction_is_0(predictions):
  assert metrics.f1_binary(predictions, [1, 0]) == {"f1_binary": 0.0}


def test_mean_3class_f1_by_hand():
  # Class 0: P 1/2, R 1/1 -> 2/3. Class 1: P 1, R 1/2 -> 2/3. Class 2: 1.
  value = metrics.mean_3class_f1([0, 0, 1, 2], [0, 1, 1, 2])
  assert value["mean_3class_f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)


def test_mean_3class_f1_of_one_constant_answer():
  # CB's majority: 28 of 56 are class 1: P 1/2, R 1 -> 2/3, over three classes.
  labels = [1] * 28 + [0] * 23 + [2] * 5
  value = metrics.mean_3class_f1([1] * 56, labels)["mean_3class_f1"]
  assert value == pytest.approx(100 * (2 / 3) / 3)


def test_correlations_by_hand():
  # Deviations (-1.5, -.5, .5, 1.5) and (-1.5, .5, -.5, 1.5): 4 / 5.
  assert metrics.pearson([1, 2, 3, 4], [1, 3, 2, 4])["pearson"] == pytest.approx(80)
  assert metrics.spearman([1, 2, 3, 4], [1, 3, 2, 4])["spearman"] == pytest.approx(80)
  assert metrics.pearson([1, 2, 3], [3, 2, 1])["pearson"] == pytest.approx(-100)
  # Ties share the mean rank: ranks (1.5, 1.5, 3) and (1, 2, 3): 1.5 / sqrt(3).
  tied = metrics.spearman([4, 4, 9], [1, 2, 3])["spearman"]
  assert tied == pytest.approx(100 * 1.5 / np.sqrt(1.5 * 2))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_predictions_have_no_correlation(name):
  assert metrics.get(name).function([3, 3, 3], [1, 2, 3]) == {name: 0.0}
  assert metrics.get(name).function([3], [3]) == {name: 0.0}


def test_rouge_by_hand():
  # Words: the cat sat on the mat (6); the cat lay on a mat (6).
  # Common words 4 (the once, cat, on, mat): F 4/6. Pairs: "the cat": 1 of 5.
  # Longest common subsequence: the cat on mat: 4/6.
  value = metrics.rouge(["the cat sat on the mat"], [["The cat lay on a mat."]])
  assert value == pytest.approx(
    {"rouge1": 400 / 6, "rouge2": 20, "rougeL": 400 / 6, "rougeLsum": 400 / 6}
  )


def test_rouge_takes_the_best_reference_and_the_mean_over_rows():
  value = metrics.rouge(["b c", "x"], [["a", "b c"], ["y", "z"]])
  assert value["rouge1"] == pytest.approx(50)


def test_rouge_lsum_reads_sentences():
  # Two sentences in the other order: L finds one of them, Lsum both.
  value = metrics.rouge(["c d . a b"], [["a b . c d"]])
  assert value["rougeL"] == pytest.approx(50)
  assert value["rougeLsum"] == pytest.approx(100)


@pytest.mark.parametrize("text", ["", "\n", "...", "<script>", "\u00e9\u4e2d"])
def test_rouge_of_nothing_that_is_said_is_0(text):
  assert set(metrics.rouge([text], [["a cat"]]).values()) == {0.0}


def test_rouge_wants_a_sequence_of_references():
  with pytest.raises(UserError, match="row 0 has references 'a cat'"):
    metrics.rouge(["a"], ["a cat"])


def test_unknown_name_gets_the_nearest():
  with pytest.raises(UserError, match="'acuracy' is unknown; the nearest is 'accuracy'"):
    metrics.get("acuracy")


def some_rows(name, rng, rows=12):
  """Predictions and references, some of them right, of the kind it takes."""
  takes = metrics.get(name).takes
  labels = rng.integers(3, size=rows).tolist()
  guesses = rng.integers(3, size=rows).tolist()
  if takes in ("labels", "numbers"):
    return guesses, labels
  if takes == "groups":
    groups = [str(i // 3) for i in range(rows)]
    yes = [int(label > 0) for label in labels]
    return [int(g > 0) for g in guesses], list(zip(groups, yes, strict=True))
  words = ["1.", "a", "red", "cat", ".", "ran", "up", "the", "2.", "old", "hill", "."]

  def text():
    picked = " ".join(rng.choice(words, size=rng.integers(1, 9)))
    return f"1. {picked}\n2. hill" if name == "squad_turns" else picked

  references = [[text() for _ in range(rng.integers(1, 4))] for _ in labels]
  said = [
    refs[0] if rng.random() < 0.4 else text() for refs in references
  ]
  return said, references


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_weighted_values_are_those_of_rows_repeated(name):
  """Weight 2 is a row given twice, 0 one left out; all 1 is the metric."""
  metric = metrics.get(name)
  rng = np.random.default_rng(len(name))
  for _ in range(5):
    predictions, references = some_rows(name, rng)
    unit_R = metric.units(references)
    times_U = rng.integers(3, size=unit_R.max() + 1)
    times_U[0] = 1
    times_R = times_U[unit_R]
    values = metric.weighted(predictions, references)(
      np.stack([np.ones(len(unit_R)), times_R])
    )
    again_p, again_r = [], []
    for copy in range(2):
      for p, r, n in zip(predictions, references, times_R, strict=True):
        if n > copy:
          again_p.append(p)
          # A question drawn twice is two questions.
          again_r.append((f"{copy}{r[0]}", r[1]) if metric.takes == "groups" else r)
    whole = metric.function(predictions, references)
    drawn = metric.function(again_p, again_r)
    assert list(values) == list(whole)
    for value, (one, some) in values.items():
      assert one == pytest.approx(whole[value])
      assert some == pytest.approx(drawn[value])
