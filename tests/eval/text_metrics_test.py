import doctest
import math

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import text_metrics


def test_docstrings():
  assert doctest.testmod(text_metrics).failed == 0


def test_bleu_by_hand():
  # Counts are added over rows: words 8 of 9, pairs 6 of 7, threes 4 of 5,
  # fours 2 of 3; 9 words against 10 expected.
  predictions = ["a b c d e", "f g h i"]
  references = [["a b c d x"], ["f g h i j"]]
  orders = (8 / 9, 6 / 7, 4 / 5, 2 / 3)
  value = 100 * math.exp(1 - 10 / 9) * math.prod(orders) ** 0.25
  assert text_metrics.bleu(predictions, references)["bleu"] == pytest.approx(
    value
  )


def test_bleu_is_sacrebleu_s_with_any_number_of_references():
  import sacrebleu

  predictions = ["Der Hund schläft heute.", "Es regnet in Köln, sagt sie."]
  references = [
    ["Der Hund schläft.", "Heute schläft der Hund."],
    ["Es regnet in Köln, sagt man."],
  ]
  expected = sacrebleu.corpus_bleu(
    predictions,
    [[references[0][0], references[1][0]], [references[0][1], None]],
  ).score
  assert 0 < expected < 100
  assert text_metrics.bleu(predictions, references) == {"bleu": expected}


def test_bleu_counts_case_and_punctuation():
  right = "The rain stopped at noon, and we left."
  assert text_metrics.bleu([right.lower()], [[right]])["bleu"] < 100
  assert text_metrics.bleu([right], [[right]])["bleu"] == pytest.approx(100)


def test_signature_says_what_was_counted():
  assert "tok:13a|smooth:exp" in text_metrics.bleu_signature()


def levenshtein(a: str, b: str) -> int:
  """The textbook recursion over prefixes, row by row."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    new = [i]
    for j, y in enumerate(b, 1):
      new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
    row = new
  return row[-1]


@pytest.mark.parametrize(
  ("prediction", "reference"),
  [
    ("kitten", "sitting"),
    ("", "abc"),
    ("Þetta er gott", "þetta er gott"),
    ("thequickfox", "the quick fox"),
    ("same", "same"),
  ],
)
def test_edit_similarity_against_the_textbook_form(prediction, reference):
  longer = max(len(prediction), len(reference))
  expected = 100 * (1 - levenshtein(prediction, reference) / longer)
  value = text_metrics.edit_distance([prediction], [[reference]])
  assert value["edit_similarity"] == pytest.approx(expected)


def test_edit_similarity_takes_the_nearest_reference_and_the_mean():
  value = text_metrics.edit_distance(["ab", ""], [["xy", "abcd"], [""]])
  assert value == {"edit_similarity": 75.0, "exact_match": 50.0}


def test_matthews_by_hand():
  # TP 3, TN 1, FP 1, FN 1: (3 - 1) / sqrt(4 * 4 * 2 * 2).
  value = text_metrics.matthews([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1])
  assert value["matthews"] == pytest.approx(100 * 2 / 8)


@pytest.mark.parametrize(
  ("predictions", "labels"), [([1, 1], [1, 0]), ([1, 0], [1, 1]), ([1], [1])]
)
def test_matthews_of_a_constant_is_0(predictions, labels):
  assert text_metrics.matthews(predictions, labels) == {"matthews": 0.0}


@pytest.mark.parametrize("name", ["bleu", "edit_distance", "exact_match"])
def test_a_row_without_a_sequence_of_references_is_named(name):
  function = getattr(text_metrics, name)
  with pytest.raises(UserError, match=f"{name}: row 1 has references 'b'"):
    function(["a", "b"], [["a"], "b"])
