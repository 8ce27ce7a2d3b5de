"""Metric: a function of predictions and references, and how to feed it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.errors import UserError


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
    rows: optional: the values of `primary` row by row, where it is their
      mean; intervals come from it.
  """

  name: str
  function: Callable[[Sequence, Sequence], dict[str, float]]
  takes: str
  primary: str
  rows: Callable[[Sequence, Sequence], np.ndarray] | None = None


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
