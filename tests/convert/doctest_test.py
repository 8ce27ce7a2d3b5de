"""The docstrings' examples are the first tests."""

import doctest

import pytest

from flan_jax.convert import arrays, native, trees


@pytest.mark.parametrize(
  "module", [arrays, native, trees], ids=lambda module: module.__name__
)
def test_docstring_examples(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0
