"""Metric: a function of predictions and references, and how to feed it.

Beside the value of a set of rows, every metric gives its values of weighted
sets of those rows: with whole numbers as weights a bootstrap sample, with a
weight of 0 or 1 for each of two systems' rows a permutation. Intervals and
paired tests (`bootstrap.py`, `compare.py`) need nothing else of a metric.

Dimension key: K sums, R rows, X weightings.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from flan_jax.errors import UserError

Values = dict[str, np.ndarray]
Weighted = Callable[[Float[np.ndarray, "X R"]], Values]


@dataclasses.dataclass(frozen=True)
class Metric:
  """A metric and how to feed it.

  Attributes:
    name: as tasks write it.
    function: (predictions, references) -> name -> value.
    takes: `labels` (indices of choices), `numbers` (the choices' texts as
      numbers), `groups` (indices of choices, and, as references, pairs of the
      row's `spec.Task.group` and its label) or `texts` (and, as references, a
      sequence of texts per row).
    primary: the value that picks the best development template.
    weighted: (predictions, references) -> a function of weights of the rows,
      [X, R], that gives each value for every weighting, [X]; with all weights
      1 it gives what `function` gives.
    signature: what a value must be told with, such as versions and tokens.
  """

  name: str
  function: Callable[[Sequence, Sequence], dict[str, float]]
  takes: str
  primary: str
  weighted: Callable[[Sequence, Sequence], Weighted]
  signature: Callable[[], str] | None = None

  def units(self, references: Sequence) -> np.ndarray:
    """For each row the number of the unit that it is drawn with.

    Rows of one group (the answers to one of MultiRC's questions) are drawn
    together; every other row is a unit.
    """
    if self.takes != "groups":
      return np.arange(len(references))
    number: dict[str, int] = {}
    return np.array(
      [number.setdefault(group, len(number)) for group, _ in references]
    )


def means(
  rows: Callable[[Sequence, Sequence], Mapping[str, np.ndarray]],
) -> Callable[[Sequence, Sequence], Weighted]:
  """`Metric.weighted` of values that are means over rows.

  >>> right = means(lambda p, r: {"exact": np.equal(p, r) * 100.0})
  >>> right([1, 2, 3], [1, 2, 4])(np.array([[1, 1, 1], [0, 1, 2]]))["exact"]
  array([66.66666667, 33.33333333])

  Args:
    rows: gives each value row by row.
  """

  def weighted(predictions, references):
    columns = rows(predictions, references)

    def values(weights_XR):
      count_X = weights_XR.sum(axis=-1)
      return {n: weights_XR @ c_R / count_X for n, c_R in columns.items()}

    return values

  return weighted


def sums(
  parts: Callable[[Sequence, Sequence], np.ndarray],
  values: Callable[[np.ndarray], Values],
) -> Callable[[Sequence, Sequence], Weighted]:
  """`Metric.weighted` of values that follow from sums over rows.

  Args:
    parts: what each row adds, [R, K].
    values: each value from the sums: [X, K] -> name -> [X].
  """

  def weighted(predictions, references):
    parts_RK = np.asarray(parts(predictions, references), np.float64)
    return lambda weights_XR: values(weights_XR @ parts_RK)

  return weighted


def ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
  """`over / under`, and 0 where `under` is 0."""
  return np.divide(
    over, under, out=np.zeros(np.shape(under)), where=np.not_equal(under, 0)
  )


def counts(
  predictions: Sequence[int], labels: Sequence[int], classes: Sequence[int]
) -> np.ndarray:
  """One-hot cells of the confusion matrix, [R, K * K], label by prediction.

  >>> counts([1, 0], [1, 1], classes=(0, 1)).astype(int)
  array([[0, 0, 0, 1],
         [0, 0, 1, 0]])
  """
  place = {c: k for k, c in enumerate(classes)}
  cell_R = [
    place[label] * len(place) + place[p]
    for p, label in zip(predictions, labels, strict=True)
  ]
  return np.eye(len(place) ** 2)[cell_R]


def check(predictions: Sequence, references: Sequence):
  """Refuses no rows, and other counts of predictions than of references.

  Raises:
    UserError: either is so.
  """
  if len(predictions) != len(references):
    raise UserError(
      f"{len(predictions)} predictions for {len(references)} references: they"
      " belong to different datasets or one of them is cut off."
    )
  if len(predictions) == 0:
    raise UserError("no rows to score: the split is empty after filtering.")


def check_texts(
  name: str,
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
):
  """`check`, and that each row has a non-empty sequence of references.

  Raises:
    UserError: a row has none, or one text where a sequence is needed.
  """
  check(predictions, references)
  for number, texts in enumerate(references):
    if isinstance(texts, str) or not texts:
      raise UserError(
        f"{name}: row {number} has references {texts!r}; a non-empty sequence"
        " of texts is needed."
      )
