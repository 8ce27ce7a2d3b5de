"""Sub-mixtures: their shares, and what happens where one is absent."""

import functools
import re

import pytest
import seqio

from flan_jax.data import catalogue, flan_2022, mixtures, spec, submixtures
from flan_jax.errors import UserError
from tests.data import made

LENGTHS = {"inputs": 300, "targets": 60}


def one(name, source="made_nli:1.0.0"):
  task = made.nli(name=name, source=spec.tfds(source))
  return catalogue.seqio_task(task, made.BYTES)


def mixture(**kwargs):
  rate = functools.partial(mixtures.rate, maximum=20)
  part = functools.partial(submixtures.Part, rate=rate)
  return submixtures.Submixtures(
    "made_parts",
    (
      part("a", 0.5, (one("first"), one("second")), ()),
      part("b", 0.3, (one("third"),), ()),
      part("c", 0.2, (), ("joined_task",)),
      part("d", 0.0625, (one("gone", "gone/one:2.0.0"),), ()),
    ),
    **kwargs,
  )


@pytest.fixture
def registered(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  made.write_tfds(tmp_path, train=made.rows(40), test=made.rows(6))
  added = []

  def add(made_mixture):
    seqio.MixtureRegistry.add_provider("made_parts", made_mixture)
    added.append((seqio.MixtureRegistry, "made_parts"))

  def join():
    task = made.seqio_task(made.nli(name="joined_task"), made.rows(8))
    seqio.TaskRegistry.add_provider("joined_task", task)
    added.append((seqio.TaskRegistry, "joined_task"))

  yield add, join
  for registry, name in added:
    registry.remove(name)
  seqio.set_tfds_data_dir_override(None)


def test_absent_parts_are_named_and_refused(registered):
  registered[0](mixture())
  message = (
    'made_parts: 2 of 4 sub-mixtures are absent; MISSING_SUBMIXTURES = "skip"'
    " goes on with the others, which then have its share.\n"
    "  c (20 % of the examples): nothing is registered as joined_task.\n"
    "  d (6 % of the examples): none of its 1 tasks can be read; flan_gone:"
    " Dataset gone/one:2.0.0 is not prepared in"
  )
  with pytest.raises(UserError, match=re.escape(message)):
    mixtures.resolve("made_parts", "skip")


def test_nobody_gets_examples_of_less_than_all(registered):
  with pytest.raises(UserError, match="sub-mixtures are absent"):
    mixture().get_dataset(LENGTHS, "train")


def test_skipped_parts_give_their_share_to_the_others(registered):
  registered[0](mixture(missing="skip"))
  resolved = mixtures.resolve("made_parts", "skip")
  shares = resolved.parts
  assert shares["a"].share == pytest.approx(0.5 / 0.8)
  assert shares["b"].share == pytest.approx(0.3 / 0.8)
  assert shares["c"].share == shares["d"].share == 0
  assert shares["c"].absent
  assert shares["d"].absent
  assert not shares["a"].absent
  assert shares["a"].tasks == ("flan_first", "flan_second")
  assert (shares["d"].tasks, shares["d"].known) == ((), 1)
  assert resolved.rates["flan_first"] == pytest.approx(0.25 / 0.8)
  stream = mixtures.examples(resolved, LENGTHS, seed=0)
  assert len(next(stream)["inputs"]) > 0


def test_parts_are_found_by_name_when_a_job_starts(registered):
  add, join = registered
  add(mixture(missing="skip"))
  join()
  shares = mixtures.resolve("made_parts", "skip").parts
  assert shares["c"].share == pytest.approx(0.2)
  assert shares["c"].tasks == ("joined_task",)


def test_unbalanced_rates_are_those_of_the_tasks(registered):
  registered[0](mixture(missing="skip", balanced=False))
  resolved = mixtures.resolve("made_parts", "skip")
  assert list(resolved.rates.values()) == pytest.approx([1 / 3] * 3)


def test_not_one_is_left(registered):
  empty = submixtures.Part("d", 1.0, (one("gone", "gone/one:2.0.0"),), (), 1)
  registered[0](submixtures.Submixtures("made_parts", (empty,), missing="skip"))
  with pytest.raises(UserError, match="Not one is left"):
    mixtures.resolve("made_parts", "skip")


def test_other_mixtures_have_no_parts():
  task = one("first")
  plain = seqio.Mixture("plain", [(task, 1.0)])
  assert submixtures.absent(plain, {}) == {}
  assert submixtures.shares(plain, {}, {}) == {}
  assert submixtures.now(task) is task


def test_misspelt_choice():
  with pytest.raises(UserError, match="MISSING_SUBMIXTURES is 'ignore'; known"):
    flan_2022.Flan2022(missing_submixtures="ignore")
