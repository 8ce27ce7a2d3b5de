"""Agreement between raters: percentage, and Krippendorff's alpha.

Raters need not have rated everything. A unit is what several of them rated; a
unit with one rating says nothing of agreement and is left out.

Source: Krippendorff, 2011, "Computing Krippendorff's alpha-reliability".

Dimension key: C categories, U units, X samples.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from flan_jax.errors import check_known
from flan_jax.eval import bootstrap

LEVELS = ("nominal", "ordinal", "interval")


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How far raters agree.

  Attributes:
    percent: of all pairs of ratings of one unit, those that are equal; every
      unit counts alike.
    alpha: 1 for perfect agreement, 0 for that of chance, less for worse; NaN
      where all ratings are one value, since chance agrees as well then.
    interval: 95 % bootstrap interval of alpha, units drawn; samples in which
      all ratings are one value are left out.
    units: with two ratings or more.
    ratings: of these units.
  """

  percent: float
  alpha: float
  interval: tuple[float, float]
  units: int
  ratings: int


def agreement(
  units: Sequence[Sequence[float]], level: str, name: str = ""
) -> Agreement:
  """Agreement on one question.

  >>> found = agreement([(1, 1), (0, 0), (1, 0), (1,)], "nominal")
  >>> round(found.percent, 1), round(found.alpha, 3), found.units
  (66.7, 0.444, 3)

  Args:
    units: the ratings of each unit, in any order.
    level: what a difference means: "nominal", equal or not; "ordinal", by how
      many ratings lie between; "interval", the square of the difference.
    name: of the question; others have other bootstrap draws.

  Raises:
    UserError: an unknown level.
  """
  check_known("level", level, LEVELS)
  units = [tuple(map(float, u)) for u in units if len(u) > 1]
  if not units:
    nan = float("nan")
    return Agreement(nan, nan, (nan, nan), 0, 0)
  values = sorted({v for u in units for v in u})
  counts_UC = np.array([[u.count(v) for v in values] for u in units])
  equal_U = _equal_pairs(counts_UC)
  drawn = np.concatenate(
    [
      _alphas(weights_XU, counts_UC, np.array(values), level)
      for weights_XU in bootstrap.weights(
        np.arange(len(units)), bootstrap.generator(f"agreement {name}")
      )
    ]
  )
  drawn = drawn[np.isfinite(drawn)]
  whole = _alphas(np.ones((1, len(units))), counts_UC, np.array(values), level)
  return Agreement(
    percent=100 * float(equal_U.mean()),
    alpha=float(whole[0]),
    interval=bootstrap.interval(drawn) if len(drawn) else (np.nan, np.nan),
    units=len(units),
    ratings=int(counts_UC.sum()),
  )


def alpha(units: Sequence[Sequence[float]], level: str) -> float:
  """Krippendorff's alpha alone; see `agreement`."""
  return agreement(units, level).alpha


def _equal_pairs(counts_UC: Int[np.ndarray, "U C"]):
  """Share of the pairs of each unit's ratings that are equal."""
  n_U = counts_UC.sum(1)
  return (counts_UC * (counts_UC - 1)).sum(1) / (n_U * (n_U - 1))


def _alphas(
  weights_XU: Float[np.ndarray, "X U"],
  counts_UC: Int[np.ndarray, "U C"],
  values_C: np.ndarray,
  level: str,
) -> Float[np.ndarray, " X"]:
  """Alpha of each weighting of the units, by matrices of coincidences."""
  n_U = counts_UC.sum(1)
  # A unit's ordered pairs of ratings, each worth 1 / (ratings - 1).
  pairs_UCC = counts_UC[:, :, None] * counts_UC[:, None, :]
  own = np.arange(len(values_C))
  pairs_UCC[:, own, own] -= counts_UC
  pairs_UCC = pairs_UCC / (n_U - 1)[:, None, None]
  coincidences_XCC = np.tensordot(weights_XU, pairs_UCC, 1)
  marginals_XC = coincidences_XCC.sum(2)
  total_X = marginals_XC.sum(1)
  difference_XCC = _differences(marginals_XC, values_C, level)
  observed_X = (coincidences_XCC * difference_XCC).sum((1, 2))
  expected_XCC = marginals_XC[:, :, None] * marginals_XC[:, None, :]
  expected_X = (expected_XCC * difference_XCC).sum((1, 2)) / (total_X - 1)
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(expected_X > 0, 1 - observed_X / expected_X, np.nan)


def _differences(marginals_XC, values_C, level: str):
  """Squared difference of each pair of values."""
  shape = (*marginals_XC.shape, marginals_XC.shape[1])
  if level == "nominal":
    return np.broadcast_to(1.0 - np.eye(shape[-1]), shape)
  if level == "interval":
    return np.broadcast_to((values_C[:, None] - values_C) ** 2, shape)
  # Ratings from the one value to the other, half of those at either end.
  middle_XC = np.cumsum(marginals_XC, 1) - marginals_XC / 2
  return (middle_XC[:, :, None] - middle_XC[:, None, :]) ** 2
