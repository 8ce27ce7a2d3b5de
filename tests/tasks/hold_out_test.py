"""What is held out is not trained on: proved from the data, not the names."""

import itertools

import pytest

from flan_jax.data import catalogue, mixtures, preprocessors, sources, splits
from tests.data import made

HELD_OUT = ("natural_language_inference", "paraphrase")
LENGTHS = {"inputs": 4096, "targets": 2048}


@pytest.fixture
def registered():
  catalogue.register(made.BYTES)
  yield
  catalogue.unregister()


def source_texts(task) -> set[bytes]:
  """Each field of every row, of all splits, long enough to be its own."""
  texts = set()
  source = sources.source(task)
  for split in task.splits.names:
    rows = preprocessors.prepare_rows(task)(source.get_dataset(split))
    for row in rows.as_numpy_iterator():
      texts |= {row[f].strip() for f in task.inputs if len(row[f]) > 25}
  return texts


def held_out_texts() -> dict[bytes, str]:
  texts = {}
  for cluster in HELD_OUT:
    for name in catalogue.clusters()[cluster]:
      task = catalogue.get(name)
      if sources.source(task).is_prepared():
        texts |= dict.fromkeys(source_texts(task), name)
  return texts


def check(drawn: int):
  """No text of a held-out row is in what the training mixture yields."""
  held_out = held_out_texts()
  assert len(held_out) > 100
  resolved = mixtures.resolve("flan_holdout_nli_train", "skip")
  stream = mixtures.examples(
    resolved,
    LENGTHS,
    seed=0,
    passthrough=("inputs_pretokenized", "targets_pretokenized"),
  )
  # Texts are looked up by their first words, then compared as a whole.
  starts = {}
  for text in held_out:
    starts.setdefault(text[:25], []).append(text)
  found = set()
  for example in itertools.islice(stream, drawn):
    for part in ("inputs_pretokenized", "targets_pretokenized"):
      text = example[part]
      for at in range(len(text) - 24):
        for whole in starts.get(text[at : at + 25], ()):
          if text.startswith(whole, at):
            found.add((held_out[whole], whole))
  assert not found, sorted(found)[:3]


def test_what_is_looked_for_is_in_a_held_out_prompt(registered, sample_data):
  held_out = held_out_texts()
  stream = mixtures.examples(mixtures.resolve("flan_snli"), LENGTHS, seed=0)
  for example in itertools.islice(stream, 5):
    prompt = example["inputs_pretokenized"]
    assert any(text in prompt for text in held_out)


def test_nli_training_has_no_nli_and_no_paraphrase_row_sample(
  registered, sample_data
):
  check(2_000)


@pytest.mark.slow
def test_nli_training_has_no_nli_and_no_paraphrase_row_real(
  registered, real_data
):
  check(20_000)


@pytest.mark.parametrize("split", splits.all_splits(), ids=lambda s: s.name)
def test_mixtures_hold_what_the_split_says(registered, sample_data, split):
  for name, tasks in (
    (split.mixture("train"), split.train),
    (split.mixture("eval"), split.evaluation),
  ):
    resolved = mixtures.resolve(name)
    assert set(resolved.present) == {
      catalogue.registered_name(t) for t in tasks
    }
    assert sum(resolved.rates.values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.load())
def test_every_real_row_renders(name, real_data):
  """No label outside its choices, no choice repeated, in what is there."""
  from flan_jax.data import evaluation

  task = catalogue.get(name)
  if not sources.source(task).is_prepared():
    pytest.skip(f"{name} is not in the real data beside the checkout")
  for split in task.splits.names:
    rows = evaluation.evaluation_examples(
      task,
      split,
      vocabulary=made.BYTES,
      lengths=None,
      templates=task.rankable_templates[:1] or (0,),
    )
    assert rows


@pytest.mark.parametrize("split", splits.all_splits(), ids=lambda s: s.name)
def test_no_dataset_is_trained_on_and_held_out(split):
  """Nor another task's rows of one: tasks may share a dataset."""
  if split.name.startswith("all"):
    pytest.skip("holds nothing out")

  def datasets(names):
    return {catalogue.get(name).source.name for name in names}

  held_out = [
    task
    for cluster in split.left_out
    for task in catalogue.clusters()[cluster]
  ]
  shared = datasets(split.train) & datasets((*split.evaluation, *held_out))
  assert not shared
