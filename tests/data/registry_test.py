import pytest
import seqio

from flan_jax.data import registry
from flan_jax.errors import UserError


def task(name):
  def rows(split, shuffle_files, seed=None):
    raise AssertionError("nobody reads it")

  source = seqio.FunctionDataSource(rows, ["train"])
  return seqio.Task(name, source, {}, [])


def test_written_names_are_taken_back_and_no_others():
  written = registry.Written("a collection")
  theirs = task("registry_test_theirs")
  seqio.TaskRegistry.add_provider(theirs.name, theirs)
  try:
    assert not written.complete()
    written.add(seqio.Mixture("registry_test_ours", [("registry_test_theirs", 1.0)]))
    assert registry.taken("registry_test_ours")
    assert written.complete()
    with pytest.raises(UserError, match="'registry_test_theirs' already"):
      written.add(theirs)
    seqio.MixtureRegistry.remove("registry_test_ours")
    assert not written.complete()
    written.clear()
    assert written.names == []
    assert registry.taken("registry_test_theirs")
  finally:
    seqio.TaskRegistry.remove(theirs.name)
