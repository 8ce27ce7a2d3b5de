import re

import pytest
import seqio

from flan_jax.data import catalogue, counts, mixtures, spec
from flan_jax.errors import UserError
from tests.data import made

LENGTHS = {"inputs": 200, "targets": 60}


@pytest.fixture
def registered(tmp_path):
  """Two tasks and a mixture of them; `made_nli` is prepared, `gone` is not."""
  seqio.set_tfds_data_dir_override(str(tmp_path))
  made.write_tfds(tmp_path, train=made.rows(40), test=made.rows(6))
  tasks = {
    "made": made.nli(),
    "again": made.nli(name="again"),
    "gone": made.nli(name="gone", source=spec.tfds("gone/one:2.0.0")),
  }
  added = [catalogue.seqio_task(t, made.BYTES) for t in tasks.values()]
  for task in added:
    seqio.TaskRegistry.add_provider(task.name, task)
  names = [t.name for t in added]
  seqio.MixtureRegistry.add("made_mix", [(n, mixtures.train_rate) for n in names])
  seqio.MixtureRegistry.add(
    "made_nested", [("made_mix", 3), ("flan_made", mixtures.train_rate)]
  )
  yield tmp_path
  seqio.set_tfds_data_dir_override(None)
  for name in (*names, "made_mix", "made_nested"):
    seqio.TaskRegistry.remove(name)
    seqio.MixtureRegistry.remove(name)


class Sized:
  """As much of a seqio task as a rate needs."""

  cache_dir = None

  def __init__(self, train):
    self.train = train
    self.splits = ("train", "test")

  def num_input_examples(self, split):
    assert split == "train"
    return self.train


@pytest.mark.parametrize(("rows", "rate"), [(250, 250), (30_000, 3_000)])
def test_rates_are_proportional_with_a_maximum_in_training_alone(rows, rate):
  assert mixtures.train_rate(Sized(rows)) == rate
  assert mixtures.rate(Sized(rows)) == rows


def test_the_rate_of_a_task_for_evaluation_alone_is_its_test_rows():
  task = made.nli(splits=spec.Splits(train=None, validation=None, test="test"))
  seqio_task = catalogue.seqio_task(task, made.BYTES)
  seqio_task.num_input_examples = {"test": 273}.get
  assert mixtures.rate(seqio_task) == 273


def test_cap_comes_before_the_rate():
  sizes = {"train": 500_000, "test": 10}
  splits = spec.Splits(validation=spec.last("train", 200), test="test")
  assert splits.resolve(sizes, "t")["train"] == "train[:30000]"


def test_missing_is_an_error_that_names_each(registered):
  with pytest.raises(UserError) as e:
    mixtures.resolve("made_mix")
  assert str(e.value) == (
    "made_mix: 1 of 3 datasets are not prepared. Prepare them, or set"
    ' MISSING_DATASETS="skip" to go on without them.\n'
    f"  flan_gone: Dataset gone/one:2.0.0 is not prepared in {registered}."
    f" Prepare it with: tfds build gone/one:2.0.0 --data_dir={registered}"
  )


def test_missing_skipped(registered):
  resolved = mixtures.resolve("made_mix", "skip")
  assert resolved.present == ("flan_again", "flan_made")
  (gone,) = resolved.missing
  assert (gone.task, gone.dataset) == ("flan_gone", "gone/one")
  assert (gone.version, gone.folder) == ("2.0.0", str(registered))
  assert resolved.rows["flan_made"] == {
    "train": 36, "validation": 4, "test": 6}
  assert resolved.rates == {"flan_again": 0.5, "flan_made": 0.5}
  assert {t.name for t in resolved.mixture.tasks} == set(resolved.present)


def test_mixture_in_a_mixture(registered):
  resolved = mixtures.resolve("made_nested", "skip")
  assert resolved.present == ("flan_again", "flan_made")
  assert resolved.rates["flan_again"] == pytest.approx(1.5 / 39)


def test_single_task(registered):
  resolved = mixtures.resolve("flan_made")
  assert resolved.rates == {"flan_made": 1.0}
  out = mixtures.examples(resolved, LENGTHS, seed=0, num_epochs=1)
  assert len(list(out)) == 36


def test_not_one_is_left(registered):
  with pytest.raises(UserError, match="1 of 1 .* Not one is left"):
    mixtures.resolve("flan_gone", "skip")


def test_unknown_name_and_unknown_choice(registered):
  with pytest.raises(UserError, match="no mixture or task 'made_mx'; .*mix"):
    mixtures.resolve("made_mx")
  with pytest.raises(UserError, match="MISSING_DATASETS is 'ignore'; write"):
    mixtures.resolve("made_mix", "ignore")


def test_foreign_tasks(registered):
  seqio.TaskRegistry.add(
    "made_foreign",
    source=seqio.TfdsDataSource("gone/one:2.0.0"),
    output_features={},
  )
  try:
    with pytest.raises(UserError, match="Dataset gone/one:2.0.0 is not prep"):
      mixtures.resolve("made_foreign")
  finally:
    seqio.TaskRegistry.remove("made_foreign")


def with_task(task, run):
  added = catalogue.seqio_task(task, made.BYTES)
  seqio.TaskRegistry.add_provider(added.name, added)
  try:
    return run(added.name)
  finally:
    seqio.TaskRegistry.remove(added.name)


def test_not_one_usable_row(registered):
  task = made.nli(name="picky", keep=lambda row: row["label"] > 5)
  message = (
    "flan_picky: not one of the 36 rows of split 'train' is usable: all are"
    " dropped by keep="
  )
  with pytest.raises(UserError, match=re.escape(message)):
    with_task(task, mixtures.resolve)


def test_not_one_complete_row_is_an_error_of_the_stream(registered):
  columns = made.rows(40)
  columns["premise"] = [" "] * 40
  made.write_tfds(registered, "blank", train=columns, test=made.rows(2))
  task = made.nli(name="blank", source=spec.tfds("blank:1.0.0"))

  def run(name):
    return next(mixtures.examples(mixtures.resolve(name), LENGTHS, seed=0))

  with pytest.raises(UserError, match="flan_blank: not one of the 36 rows"):
    with_task(task, run)


def test_empty_split(registered):
  made.write_tfds(registered, "small", train=made.rows(1), test=made.rows(2))
  task = made.nli(name="small", source=spec.tfds("small:1.0.0"))
  with pytest.raises(UserError, match="'small': split 'validation' is empty"):
    with_task(task, mixtures.resolve)


def test_counts(registered):
  columns = made.rows(40)
  columns["label"][3] = -1
  columns["premise"][5] = ""
  columns["hypothesis"][6] = " "
  made.write_tfds(registered, "odd", train=columns, test=made.rows(2))
  task = made.nli(
    name="odd",
    source=spec.tfds("odd:1.0.0"),
    keep=lambda row: row["label"] >= 0,
  )
  found = with_task(
    task, lambda name: counts.count(mixtures.resolve(name))[name]
  )
  assert found == counts.Counts(read=36, not_kept=1, incomplete=2)
  assert found.used == 33


def test_counts_of_options_that_do_not_fit(tmp_path):
  lines = [
    {"premise": "p", "hypothesis": "h", "label": 0, "endings": ["a", "b"]}
    for _ in range(12)
  ]
  lines[1]["endings"] = ["x" * 90, "y" * 90]
  pattern = made.write_jsonl(tmp_path, train=lines, test=lines[:2])
  task = made.choosing(
    name="wordy",
    source=spec.Jsonl(pattern),
    splits=spec.Splits(validation=spec.last("train", 2), test="test"),
  )
  found = with_task(
    task,
    lambda name: counts.count(
      mixtures.resolve(name), lengths={"inputs": 120, "targets": 20}
    )[name],
  )
  # Templates 0 (options) and 9 (answer) of row 1.
  assert found.too_long == 2


def test_examples_are_decided_by_the_seed(registered):
  resolved = mixtures.resolve("made_mix", "skip")

  def first(seed):
    stream = mixtures.examples(resolved, LENGTHS, seed=seed)
    return [
      (e["inputs"].tolist(), int(e["template"]), int(e["example_index"]))
      for e, _ in zip(stream, range(60), strict=False)
    ]

  assert first(1) == first(1)
  assert first(1) != first(2)


def test_data_error_is_one_sentence(registered):
  columns = made.rows(40)
  columns["label"][7] = 2
  made.write_tfds(registered, "wrong", train=columns, test=made.rows(2))
  task = made.nli(name="wrong", source=spec.tfds("wrong:1.0.0"))

  def run(name):
    list(mixtures.examples(
      mixtures.resolve(name), LENGTHS, seed=0, num_epochs=1))

  with pytest.raises(UserError, match="^task 'wrong': label 2 is outside"):
    with_task(task, run)
