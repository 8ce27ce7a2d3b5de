"""Win rates of pairwise preferences, as AlpacaEval counts them.

A preference is in [1, 2]: 1, the first output (the reference's) is better; 2,
the second one (the model's); 1.5, neither. (0 is an old way to write 1.5.)

Source: Dubois et al., 2023 (arXiv 2305.14387), section 4; AlpacaEval 0.6.6.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import bootstrap


@dataclasses.dataclass(frozen=True)
class WinRate:
  """How often a model's outputs are preferred to the reference's.

  Attributes:
    win_rate: mean preference for the model, in percent.
    standard_error: of that mean, in percent points; NaN for one pair.
    interval: 95 % bootstrap interval, in percent.
    discrete_win_rate: wins and half the draws, in percent, where a preference
      is rounded to a win, a loss or (1.5 alone) a draw.
    n_wins, n_wins_base, n_draws: pairs above, below and at 1.5.
    n_total: pairs.
  """

  win_rate: float
  standard_error: float
  interval: tuple[float, float]
  discrete_win_rate: float
  n_wins: int
  n_wins_base: int
  n_draws: int
  n_total: int


def checked(preferences: Sequence[float]) -> np.ndarray:
  """Preferences in [1, 2], 0 as 1.5.

  Raises:
    UserError: there is none, or one that is no preference, with its number.
  """
  values = np.asarray(preferences, np.float64)
  if not len(values):
    raise UserError("there is no preference to take a win rate of.")
  values = np.where(values == 0, 1.5, values)
  bad = np.flatnonzero(~((values >= 1) & (values <= 2)))
  if len(bad):
    raise UserError(
      f"preference number {bad[0]} is {values[bad[0]]}; a preference is in 1"
      " (the first output) to 2 (the second one). Leave out pairs without one."
    )
  return values


def win_rate(preferences: Sequence[float]) -> WinRate:
  """The win rate of preferences, with its error.

  >>> w = win_rate([2, 2, 1.5, 1.2])
  >>> round(w.win_rate, 1), w.n_wins, w.n_wins_base, w.n_draws
  (67.5, 2, 1, 1)
  >>> w.discrete_win_rate
  62.5

  Raises:
    UserError: see `checked`.
  """
  values = checked(preferences)
  wins = values - 1
  n = len(wins)
  weights = bootstrap.weights(np.arange(n), bootstrap.generator("win_rate"))
  means = np.concatenate([w @ wins / n for w in weights])
  error = float(wins.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
  drawn = wins == 0.5
  return WinRate(
    win_rate=100 * float(wins.mean()),
    standard_error=100 * error,
    interval=tuple(100 * x for x in bootstrap.interval(means)),
    discrete_win_rate=100 * float(((wins > 0.5) + 0.5 * drawn).mean()),
    n_wins=int((wins > 0.5).sum()),
    n_wins_base=int((wins < 0.5).sum()),
    n_draws=int(drawn.sum()),
    n_total=n,
  )


def both_orders(
  first: Sequence[float], second: Sequence[float]
) -> dict[str, float]:
  """Wins, ties and losses of pairs that were judged in both orders.

  A pair is won if it is won in both orders, or won in one and tied in the
  other; tied if tied in both, or won in one and lost in the other; lost
  otherwise. The score is (wins - losses) / pairs + 1 (Chen et al., 2023,
  arXiv 2307.08701, section 4.3).

  >>> both_orders([2, 2, 1.5], [2, 1, 1])
  {'wins': 1, 'ties': 1, 'losses': 1, 'winning_score': 1.0}

  Args:
    first, second: preferences for the model in one order and the other.
  """
  sign = np.sign(checked(first) - 1.5) + np.sign(checked(second) - 1.5)
  wins, losses = int((sign > 0).sum()), int((sign < 0).sum())
  return {
    "wins": wins,
    "ties": len(sign) - wins - losses,
    "losses": losses,
    "winning_score": (wins - losses) / len(sign) + 1,
  }
