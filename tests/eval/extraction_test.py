import doctest

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import extraction


def test_docstrings():
  assert doctest.testmod(extraction).failed == 0


@pytest.mark.parametrize(
  ("text", "answer", "letter"),
  [
    ("So the answer is (B).", "(B)", "B"),
    ("The Answer is: No", "No", ""),
    # The last one counts, and the line ends it.
    ("The answer is 3? No, the answer is 4.\nDone.", "4", ""),
    # A sentence inside: one full stop at the end alone goes.
    ("the answer is 3.5.", "3.5", ""),
    ("cat dog.", "cat dog", ""),
    ("the answer is  ] ] .", "] ]", ""),
    # The next question of a model that goes on.
    ("(A)\n\nQ: Who?\nA: The answer is (C).", "(A)", "A"),
    ("The answer is B. Paris", "B. Paris", "B"),
    ("C", "C", "C"),
    ("Because", "Because", ""),
    ("A star", "A star", "A"),  # a letter alone begins it
    ("", "", ""),
    ("the answer is", "", ""),
    ("\n\n", "", ""),
    ("<script>the answer is 1</script>", "1</script>", ""),
  ],
)
def test_what_is_taken_for_the_answer(text, answer, letter):
  assert extraction.final_answer(text) == answer
  assert extraction.final_letter(text) == letter


def test_an_empty_answer_is_never_right():
  assert extraction.answer_match([""], [[""]]) == {"exact_match": 0.0}
  assert extraction.letter_match(["?"], [["?"]]) == {"accuracy": 0.0}


def test_case_counts():
  assert extraction.answer_match(["yes"], [["Yes"]]) == {"exact_match": 0.0}


def test_references_are_checked():
  with pytest.raises(UserError, match="final_answer: row 0 has references 'Yes'"):
    extraction.answer_match(["Yes"], ["Yes"])
