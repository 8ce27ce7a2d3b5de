"""Bootstrap intervals of any metric, over rows or groups of rows.

A sample draws as many units as there are, with replacement; a unit is a row
with all its templates, or a group of rows (`Metric.units`). So ten templates
of one row are no more evidence than one, and answers to one question are drawn
together.

Source: Efron and Tibshirani, 1993, chapter 13 (percentile intervals); Koehn,
2004, for metrics that are no means over rows.

Dimension key: R rows, T templates, U units, X samples.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from flan_jax.eval import answers as answers_lib
from flan_jax.eval.metric import Metric, Weighted

SAMPLES = 1000
_SEED = 0
# Numbers of one block of weights: 2 M, 16 MiB.
_BLOCK = 2**21


def generator(name: str) -> np.random.Generator:
  """Draws that are the same for everyone, and others for another `name`."""
  return np.random.default_rng([_SEED, zlib.crc32(name.encode())])


def weights(
  unit_R: np.ndarray, draw: np.random.Generator, samples: int = SAMPLES
) -> Iterator[Float[np.ndarray, "X R"]]:
  """How often each row is in each sample, some samples at a time.

  >>> (block,) = weights(np.array([0, 0, 1]), generator("demo"), samples=4)
  >>> bool((block[:, 0] == block[:, 1]).all())
  True

  Args:
    unit_R: the number of each row's unit, from 0.
    draw: of `generator`.
    samples: how many.
  """
  units = int(unit_R.max()) + 1
  block = max(1, _BLOCK // max(units, len(unit_R)))
  for start in range(0, samples, block):
    size = min(block, samples - start)
    picked_XU = draw.integers(units, size=(size, units))
    offset_XU = picked_XU + units * np.arange(size)[:, None]
    times_XU = np.bincount(offset_XU.ravel(), minlength=size * units)
    yield times_XU.reshape(size, units)[:, unit_R].astype(np.float64)


def weighted_templates(
  metric: Metric, by_template: answers_lib.ByTemplate
) -> tuple[dict[int, Weighted], np.ndarray]:
  """For each template the function of weights, and each row's unit.

  Weights are of all rows, of which a template may have a part. Where a sample
  has none of these, the template's value is that of all of them.
  """
  out, reference_of = {}, {}
  places = answers_lib.places(by_template)
  for template, rows in by_template.items():
    predictions, references = answers_lib.pairs(metric, rows)
    weighted = metric.weighted(predictions, references)
    out[template] = _of_part(weighted, places[template])
    for row, reference in zip(rows, references, strict=True):
      reference_of.setdefault(row.index, reference)
  rows = answers_lib.row_numbers(by_template)
  return out, metric.units([reference_of[row] for row in rows])


def _of_part(weighted: Weighted, place: slice | np.ndarray) -> Weighted:
  if isinstance(place, slice):
    return weighted

  def values(weights_XR):
    own_XR = weights_XR[:, place]
    own_XR[own_XR.sum(axis=-1) == 0] = 1.0
    return weighted(own_XR)

  return values


@dataclasses.dataclass(frozen=True)
class Draws:
  """Values of every template, as they are and in every sample.

  Attributes:
    values: value -> [T], of all rows; templates in the order given.
    samples: value -> [X, T].
    units: rows, or groups of them, that are drawn.
  """

  values: Mapping[str, np.ndarray]
  samples: Mapping[str, np.ndarray]
  units: int


def draws(
  metric: Metric,
  by_template: answers_lib.ByTemplate,
  name: str,
  samples: int = SAMPLES,
) -> Draws:
  """Every value of every template, of all rows and of every sample.

  Args:
    metric: what is measured.
    by_template: of `answers.by_template`.
    name: of the task; other tasks have other draws.
    samples: how many.
  """
  functions, unit_R = weighted_templates(metric, by_template)

  def values(weights_XR):
    columns = [function(weights_XR) for function in functions.values()]
    return {v: np.stack([c[v] for c in columns], -1) for v in columns[0]}

  whole = values(np.ones((1, len(unit_R))))
  blocks: dict[str, list[np.ndarray]] = {value: [] for value in whole}
  for weights_XR in weights(unit_R, generator(name), samples):
    for value, drawn_XT in values(weights_XR).items():
      blocks[value].append(drawn_XT)
  return Draws(
    {value: whole_1T[0] for value, whole_1T in whole.items()},
    {value: np.concatenate(parts) for value, parts in blocks.items()},
    int(unit_R.max()) + 1,
  )


def interval(draws_X: np.ndarray) -> tuple[float, float]:
  """The 95 % percentile interval of a bootstrap distribution.

  >>> interval(np.arange(101.0))
  (2.5, 97.5)
  """
  low, high = np.percentile(draws_X, (2.5, 97.5))
  return float(low), float(high)
