import doctest

import pytest

from flan_jax.data import catalogue
from flan_jax.errors import UserError
from flan_jax.eval import postprocess


def test_docstrings():
  result = doctest.testmod(postprocess)
  assert (result.failed, result.attempted > 5) == (0, True)


def test_names():
  assert postprocess.get(None)(" a \n") == "a"
  with pytest.raises(UserError, match="'first_words' is .* 'first_word', all"):
    postprocess.get("first_words")


def test_every_task_names_a_function_that_there_is():
  named = {t.postprocess for t in catalogue.load().values()}
  assert {postprocess.get(name).__name__ for name in named} > {"stripped"}


@pytest.mark.parametrize(
  ("text", "choices", "index"),
  [
    ("It is not possible to tell.", ("yes", "it is not possible to tell"), 1),
    ('"No"', ("yes", "no"), 1),
    ("no way", ("yes", "no"), -1),
    ("", ("yes", "no"), -1),
    ("4", ("0.0", "2.6", "5.0"), 2),
    ("nan", ("0.0", "2.6"), -1),
    ("inf", ("0.0", "2.6"), -1),
    ("four", ("0.0", "2.6"), -1),
    ("4", ("0.0", "many"), -1),
  ],
)
def test_choices(text, choices, index):
  assert postprocess.choice(text, choices) == index


@pytest.mark.parametrize(
  ("function", "text", "expected"),
  [
    ("first_word", "", ""),
    ("first_line", "", ""),
    ("last_number", "none", ""),
    ("last_number", "It costs $1,000.50.", "1000.50"),
    ("last_number", "From 5 to -3.", "-3"),
  ],
)
def test_texts(function, text, expected):
  assert postprocess.get(function)(text) == expected
