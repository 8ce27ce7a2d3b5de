"""The docstrings' examples are the first tests."""

import doctest

import pytest

from flan_jax.training import (
  adafactor,
  checkpoint,
  checks,
  chips,
  compilation,
  input,
  loss,
  nonfinite,
  optimiser,
  schedule,
  state,
  step,
  survival,
)


@pytest.mark.parametrize(
  "module",
  [
    adafactor,
    checkpoint,
    checks,
    chips,
    compilation,
    input,
    loss,
    nonfinite,
    optimiser,
    schedule,
    state,
    step,
    survival,
  ],
  ids=lambda module: module.__name__,
)
def test_docstring_examples(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0
