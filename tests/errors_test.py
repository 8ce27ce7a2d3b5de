"""What a user is told of a name that is not known."""

import doctest

import pytest

from flan_jax import errors


def test_docstring_examples():
  result = doctest.testmod(errors)
  assert result.failed == 0
  assert result.attempted > 0


@pytest.mark.parametrize("value", ["h5", None, 3])
def test_a_name_that_is_not_known(value):
  message = rf"FORMAT is {value!r}; known are hf, t5x \(the nearest is"
  with pytest.raises(errors.UserError, match=message):
    errors.check_known("FORMAT", value, ("hf", "t5x"))
  errors.check_known("FORMAT", "t5x", {"hf": 1, "t5x": 2})
