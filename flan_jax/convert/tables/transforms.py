"""How a tensor of another program becomes ours, by name."""

from typing import NamedTuple

import numpy as np


class Transform(NamedTuple):
  """One way, and the way back, as views; and what it does to a shape."""

  to_ours: object
  to_theirs: object
  shape: object


def _same(x):
  return x


def _transpose(x: np.ndarray) -> np.ndarray:
  return x.T


def _reverse(shape: tuple[int, ...]) -> tuple[int, ...]:
  return shape[::-1]


TRANSFORMS = {
  "same": Transform(_same, _same, _same),
  # torch's Linear has [out, in], our kernels [in, out].
  "transpose": Transform(_transpose, _transpose, _reverse),
}
