"""The docstrings' examples are the first tests."""

import doctest
import importlib
import pkgutil

import pytest

from flan_jax import curation

MODULES = [
  "flan_jax.curate_compare",
  *(f"flan_jax.curation.{m.name}" for m in pkgutil.iter_modules(curation.__path__)),
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
  assert doctest.testmod(importlib.import_module(name)).failed == 0
