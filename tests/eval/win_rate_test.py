"""Win rates against counts by hand."""

import doctest
import math

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import win_rate


def test_docstrings():
  assert doctest.testmod(win_rate).failed == 0


def test_counts_and_errors():
  preferences = [2, 1, 1.5, 0, 1.2, 1.9, 1.9, 1.0]
  w = win_rate.win_rate(preferences)
  wins = np.array([1, 0, 0.5, 0.5, 0.2, 0.9, 0.9, 0])
  assert w.win_rate == pytest.approx(100 * wins.mean())
  assert w.standard_error == pytest.approx(
    100 * math.sqrt(((wins - wins.mean()) ** 2).sum() / 7 / 8)
  )
  assert (w.n_wins, w.n_wins_base, w.n_draws, w.n_total) == (3, 3, 2, 8)
  assert w.discrete_win_rate == pytest.approx(100 * (3 + 1) / 8)
  low, high = w.interval
  # About 1.96 standard errors, and the same each time.
  assert high - low == pytest.approx(2 * 1.96 * w.standard_error, rel=0.15)
  assert win_rate.win_rate(preferences) == w


def test_one_pair_has_no_error():
  w = win_rate.win_rate([2])
  assert w.win_rate == 100
  assert math.isnan(w.standard_error)


@pytest.mark.parametrize(
  ("preferences", "message"),
  [
    ([], "no preference to take"),
    ([1.5, 3], "preference number 1 is 3.0"),
    ([float("nan")], "number 0 is nan"),
  ],
)
def test_what_is_no_preference(preferences, message):
  with pytest.raises(UserError, match=message):
    win_rate.win_rate(preferences)


def test_both_orders():
  cases = {
    (2, 2): "wins", (2, 1.5): "wins", (1.5, 2): "wins", (1.5, 1.5): "ties",
    (2, 1): "ties", (1, 2): "ties", (1, 1.5): "losses", (1, 1): "losses",
  }
  for (first, second), kind in cases.items():
    assert win_rate.both_orders([first], [second])[kind] == 1
