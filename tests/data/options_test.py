import doctest

import pytest

from flan_jax.data import catalogue, options, spec


def test_docstrings():
  assert doctest.testmod(options).failed == 0


@pytest.mark.parametrize("name", sorted(catalogue.load()))
def test_every_task_reads_well_without_its_options(name):
  task = catalogue.get(name)
  without = options.hidden(task)
  assert len(without.templates) == len(task.templates)
  assert without.name == task.name
  assert not any(t.shows_options for t in without.templates)
  for old, new in zip(task.templates, without.templates, strict=True):
    assert new.targets == old.targets
    if not old.shows_options:
      assert new == old
      continue
    # The words and the other fields stay, in their order.
    words = old.inputs.replace("{" + spec.OPTIONS + "}", "").split()
    assert new.inputs.split() == words
    assert "\n\n\n" not in new.inputs
