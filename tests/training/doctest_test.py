"""The docstrings' examples are the first tests."""

import doctest

import pytest

from flan_jax.training import (
  adafactor,
  checkpoint,
  loss,
  optimiser,
  schedule,
  state,
  step,
)


@pytest.mark.parametrize(
  "module",
  [adafactor, checkpoint, loss, optimiser, schedule, state, step],
  ids=lambda module: module.__name__,
)
def test_docstring_examples(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0
