"""Which prompt to try next: upper confidence bounds.

Source: Auer et al., 2002, "Finite-time analysis of the multiarmed bandit
problem", section 2; as in APE (Zhou et al., 2023, arXiv 2211.01910).
"""

import math
from collections.abc import Sequence

from flan_jax.errors import UserError


class Bandit:
  """Mean scores of arms, and bounds on what they may be.

  >>> bandit = Bandit(3)
  >>> bandit.add(0, [-1.0, -2.0]); bandit.add(2, [-9.0])
  >>> bandit.choose(1)           # what was never tried comes first
  [1]
  >>> bandit.ranking()           # and is never the best, even of scores below 0
  [0, 2, 1]
  >>> bandit.mean(1) is None
  True

  Args:
    arms: how many.
    c: weight of what is not known; the bound is mean + c sqrt(log N / n) with
      n scores of an arm and N of all.

  Raises:
    UserError: a weight below 0.
  """

  def __init__(self, arms: int, c: float = 1.0):
    if not c >= 0:
      raise UserError(f"UCB_C is {c}; give 0 or more.")
    self._c = c
    self._sums = [0.0] * arms
    self._counts = [0] * arms

  def add(self, arm: int, scores: Sequence[float]) -> None:
    """Notes scores of an arm."""
    self._sums[arm] += sum(scores)
    self._counts[arm] += len(scores)

  def count(self, arm: int) -> int:
    """Scores of an arm so far."""
    return self._counts[arm]

  def mean(self, arm: int) -> float | None:
    """The mean score of an arm; None: it was never tried."""
    count = self._counts[arm]
    return self._sums[arm] / count if count else None

  def bound(self, arm: int) -> float:
    """The upper confidence bound; infinite for what was never tried."""
    count = self._counts[arm]
    if not count:
      return math.inf
    total = sum(self._counts)
    return self._sums[arm] / count + self._c * math.sqrt(
      math.log(total) / count
    )

  def choose(self, count: int) -> list[int]:
    """The arms with the highest bounds, the earlier among equals."""
    arms = range(len(self._counts))
    return sorted(arms, key=lambda a: (-self.bound(a), a))[:count]

  def ranking(self) -> list[int]:
    """All arms, best mean first; those never tried at the end."""

    def key(arm):
      mean = self.mean(arm)
      return (mean is None, -(mean or 0.0), arm)

    return sorted(range(len(self._counts)), key=key)
