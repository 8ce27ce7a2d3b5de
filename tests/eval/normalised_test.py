import doctest
import types

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import normalised, protocol
from flan_jax.eval.answers import Answer


def result(name, right, chance, family=None):
  task = types.SimpleNamespace(
    name=name, paper_name=name, family=family, kind="generation",
    metrics=("exact_match",), references=None, templates=("one",),
    chance=chance, scored_templates=lambda form: (0,),
  )
  rows = [
    Answer(i, 0, -1, -1, (), "x" if i < right else "y", ("x",))
    for i in range(10)
  ]
  return protocol.summarise(task, rows)


def test_docstrings():
  assert doctest.testmod(normalised).failed == 0


def test_tasks_of_a_family_count_once():
  tasks = [
    result("a", 5, 0.0), result("b3", 10, 50.0, "b"), result("b5", 5, 25.0, "b")
  ]
  score = normalised.score("bbh", tasks)
  # a: 50; b: (100 + 100 * 25 / 75) / 2.
  assert score.normalised == pytest.approx((50 + (100 + 100 / 3) / 2) / 2)
  assert score.raw == pytest.approx((50 + (100 + 50) / 2) / 2)
  assert score.chance == pytest.approx((0 + 37.5) / 2)
  assert (score.tasks, score.n) == (3, 30)
  assert score.interval[0] < score.normalised < score.interval[1]
  assert score.raw_interval[0] < score.raw < score.raw_interval[1]


def test_the_interval_is_stretched_as_the_score_is():
  plain = normalised.score("x", [result("a", 6, 0.0)])
  shifted = normalised.score("x", [result("a", 6, 50.0)])
  assert shifted.normalised == pytest.approx(20.0)
  width = np.diff(plain.interval), np.diff(shifted.interval)
  assert width[1] == pytest.approx(2 * width[0])


def test_average_of_benchmarks():
  one = normalised.score("one", [result("a", 5, 0.0)])
  two = normalised.score("two", [result("b", 5, 50.0)])
  both = normalised.average([one, two])
  assert both.normalised == pytest.approx(25.0)
  assert (both.name, both.raw, both.n) == (normalised.AVERAGE, None, 20)
  assert both.interval[0] < 25 < both.interval[1]


def test_what_cannot_be_normalised():
  with pytest.raises(UserError, match="benchmark 'x' has no task"):
    normalised.score("x", [])
  with pytest.raises(UserError, match="'a': guessing gives 100"):
    normalised.score("x", [result("a", 5, 100.0)])
  with pytest.raises(UserError, match="needs a benchmark"):
    normalised.average([])
