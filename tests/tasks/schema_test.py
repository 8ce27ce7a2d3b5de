"""Every task against the features that the installed TFDS registers.

No data is needed: the registered builder describes each dataset with the sizes
of its splits, and rows are made up to fit its features (`schemas.py`). All 74
tasks are read so; FROM_SAMPLE are those whose rows are the embedded sample's,
as a row made up at random has nothing that they look for.
"""

import csv
import json

import numpy as np
import pytest
import seqio
import tensorflow_datasets as tfds
from flan_jax.tasks import published_rows

from flan_jax.data import (
  catalogue,
  preprocessors,
  sources,
  spec,
  template,
  vocabulary,
)
from tests.tasks import schemas

NAMES = tuple(catalogue.load())
LENGTHS = {"inputs": 192, "targets": 64}


def test_what_is_made_up_and_what_is_not():
  assert set(schemas.FROM_SAMPLE) <= set(NAMES)
  assert (len(NAMES), len(schemas.FROM_SAMPLE)) == (74, 9)
  assert all(isinstance(catalogue.get(n).source, spec.Tfds) for n in NAMES)


@pytest.fixture(scope="module")
def words():
  return vocabulary.load()


def check(task, example, words):
  """What any rendered and tokenised example is."""
  inputs, targets = example["inputs"], example["targets"]
  for ids, length in ((inputs, "inputs"), (targets, "targets")):
    assert ids.dtype == np.int32
    assert 1 < len(ids) <= LENGTHS[length]
    assert ids[-1] == words.eos_id
  assert 0 <= example["template"] < 10
  asked = example["inputs_pretokenized"].decode()
  answered = example["targets_pretokenized"].decode()
  assert "{" not in asked + answered
  assert words.decode(inputs.tolist()) == asked
  if not example["trimmed"]:
    assert words.decode(targets.tolist()) == answered
  chosen = task.templates[example["template"]]
  if task.choices is None:
    assert len(example["references"])
  elif chosen.targets == "{answer}":
    choices = task.choices
    if isinstance(choices, spec.Features):
      choices = [c.decode() for c in example["choices"]]
    assert answered == choices[example["label"]]


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_the_registered_features(name, made_up, words):
  task = catalogue.get(name)
  source = sources.source(task)
  for split, (theirs, start, stop) in source.slices().items():
    assert source.rows(split) == stop - start
    assert stop <= schemas.sizes(task)[theirs]
  first = task.splits.names[0]
  made = catalogue.seqio_task(task, words)
  assert made.num_input_examples(first) == source.rows(first)
  examples = list(
    template.user_errors(
      made.get_dataset(LENGTHS, first, seed=0).as_numpy_iterator()
    )
  )
  # Sample rows may be fewer than those that are made up.
  assert len(examples) >= (12 if name in schemas.FROM_SAMPLE else schemas.SERVED)
  for example in examples:
    check(task, example, words)


@pytest.mark.parametrize("name", NAMES)
def test_training_rows_are_the_published_ones(name, made_up):
  task = catalogue.get(name)
  published = published_rows.TRAIN_ROWS.get(task.source.name)
  if task.splits.train is None or published is None:
    assert name in ("wsc273", "lambada", "unified_qa_science")
    return
  assert sources.source(task).rows("train") == published


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_that_is_missing_is_named(name, made_up):
  """Each in turn: either nobody reads it, or the error names it."""
  task = catalogue.get(name)
  rows = sources.source(task).get_dataset(task.splits.names[0])
  refused = 0
  for gone in set(rows.element_spec) - {template.INDEX, spec.TRAINING}:
    message = without(task, rows, gone)
    if message:
      assert f"task {name!r}" in message
      assert f"'{gone}" in message
      refused += 1
  assert refused


def without(task, rows, gone):
  """What is said of rows that lack a feature; "" if nobody reads it."""
  less = rows.map(lambda row: {k: v for k, v in row.items() if k != gone})
  try:
    preprocessors.examine(task, less)
  except spec.SpecError as e:
    return str(e)
  return ""


@pytest.mark.parametrize("name", NAMES)
def test_a_split_that_is_missing_is_named(name):
  task = catalogue.get(name)
  for ours in task.splits.names:
    rows = getattr(task.splits, ours)
    gone = rows.split if isinstance(rows, spec.Rows) else rows
    left = {k: v for k, v in schemas.sizes(task).items() if k != gone}
    with pytest.raises(spec.SpecError, match=f"{name!r}: .*no split {gone!r}"):
      task.splits.resolve(left, name)


@pytest.mark.parametrize("name", NAMES)
def test_another_version_is_named(name, tmp_path):
  source = catalogue.get(name).source
  folder = tmp_path / source.name / "9.9.9"
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text("{}")
  seqio.set_tfds_data_dir_override(str(tmp_path))
  try:
    with pytest.raises(sources.NotPreparedError) as e:
      sources.source(catalogue.get(name)).sizes()
  finally:
    seqio.set_tfds_data_dir_override(None)
  assert e.value.found == ("9.9.9",)
  for said in (f"{source.name}:{source.version}", "(there: 9.9.9)"):
    assert said in str(e.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_split_is_one_that_tfds_makes(name):
  task = catalogue.get(name)
  for ours in task.splits.names:
    rows = getattr(task.splits, ours)
    theirs = rows.split if isinstance(rows, spec.Rows) else rows
    assert theirs in schemas.split_names(task.source.name)


# ------------------------------------------------------ against the facts


@pytest.fixture(scope="module")
def facts(shared):
  """TFDS dataset -> what TFDS 4.9.10 was found to register."""
  path = shared / "facts" / "tfds_features.csv"
  with path.open(newline="", encoding="utf-8") as f:
    return {row["dataset"]: row for row in csv.DictReader(f)}


def spelled(feature):
  """A feature as the facts write it."""
  features = tfds.features
  if isinstance(feature, features.FeaturesDict):
    return {k: spelled(f) for k, f in feature.items()}
  if isinstance(feature, features.Sequence):
    return [spelled(feature.feature)]
  if isinstance(feature, features.ClassLabel):
    return f"class:{feature.num_classes}"
  if isinstance(feature, features.Text):
    return "text"
  dtype = np.dtype(feature.np_dtype)
  return "string" if dtype.kind in "OSU" else dtype.name


def test_registered_features_are_those_of_the_facts(facts, described):
  checked = 0
  for task in catalogue.load().values():
    known = facts.get(task.source.name)
    if known is None or not known["feature_spec"]:
      # Of the paper's list and not in the released code.
      assert task.name in ("para_crawl_ende", "para_crawl_enfr")
      continue
    folder = described / task.source.name / task.source.version
    features = tfds.builder_from_directory(folder).info.features
    assert spelled(features) == json.loads(known["feature_spec"])
    assert task.source.version in known["version_available"].split(", ")
    if task.name != "xsum":  # its files are fetched by hand
      splits = schemas.split_names(task.source.name)
      assert set(splits) <= set(known["splits"].split()), task.name
    checked += 1
  assert checked == 72
