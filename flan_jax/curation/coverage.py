"""How well chosen rows cover all: distances to the nearest chosen one, a map.

Dimensions: N rows, D size of an embedding, K chosen rows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

_ROWS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Covered:
  """Distances of all rows to the nearest of the first `count` chosen ones."""

  count: int
  radius: float
  mean: float


def curve(
  x_ND: Float[np.ndarray, "N D"],
  rows: Int[np.ndarray, " K"],
  counts: Sequence[int] | None = None,
) -> list[Covered]:
  """The covering radius and the mean distance against the number of rows.

  >>> x = np.array([[0.0], [1.0], [4.0]], np.float32)
  >>> [(c.count, c.radius) for c in curve(x, np.array([0, 2]))]
  [(1, 4.0), (2, 1.0)]

  Args:
    x_ND: float32.
    rows: chosen rows in their order.
    counts: where to measure; None: 1, 2, 4, ... and all.

  Returns:
    one for each of `counts`, ascending.
  """
  K = len(rows)
  if counts is None:
    counts = [2**i for i in range(K.bit_length()) if 2**i < K]
    counts += [K] * (K > 0)
  norms_N = np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64)
  nearest_N = np.full(len(x_ND), np.inf)
  out, done = [], 0
  for count in counts:
    chosen = rows[done:count]
    for first in range(0, len(chosen), _ROWS_AT_ONCE):
      some = chosen[first : first + _ROWS_AT_ONCE]
      for start in range(0, len(x_ND), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        away_NK = norms_N[some] - 2 * (x_ND[part] @ x_ND[some].T)
        least_N = away_NK.min(axis=1) + norms_N[part]
        nearest_N[part] = np.minimum(nearest_N[part], least_N)
    # Rounding leaves a chosen row a little off itself.
    nearest_N[chosen] = 0
    done = count
    distances = np.sqrt(np.maximum(nearest_N, 0))
    out.append(Covered(count, float(distances.max()), float(distances.mean())))
  return out


def plane(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N 2"]:
  """Every row on the two axes along which rows differ most (PCA).

  >>> plane(np.array([[0, 0], [0, 2], [0, 4]], np.float32))[:, 0].tolist()
  [-2.0, 0.0, 2.0]

  An axis points to where its largest component is positive. With fewer than
  two dimensions the missing axis is 0.
  """
  mean_D = x_ND.mean(axis=0, dtype=np.float64)
  D = x_ND.shape[1]
  spread_DD = np.zeros((D, D))
  for start in range(0, len(x_ND), _ROWS_AT_ONCE):
    part = x_ND[start : start + _ROWS_AT_ONCE] - mean_D
    spread_DD += part.T @ part
  axes = np.linalg.eigh(spread_DD)[1][:, ::-1][:, :2]
  signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
  out = (x_ND @ (axes * signs) - mean_D @ (axes * signs)).astype(np.float64)
  return np.pad(out, ((0, 0), (0, 2 - out.shape[1])))


def nearest_cosines(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
  """The cosine of each unit vector with the nearest other one; 0 alone.

  >>> x = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
  >>> nearest_cosines(x).round(2).tolist()
  [0.6, 0.8, 0.8]
  """
  out_N = np.zeros(len(x_ND))
  if len(x_ND) < 2:
    return out_N
  for start in range(0, len(x_ND), _ROWS_AT_ONCE):
    part_ND = x_ND[start : start + _ROWS_AT_ONCE]
    cosines_NN = part_ND @ x_ND.T
    own = np.arange(len(part_ND))
    cosines_NN[own, start + own] = -np.inf
    out_N[start : start + len(part_ND)] = cosines_NN.max(axis=1)
  return out_N
