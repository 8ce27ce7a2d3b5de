"""Every task of the catalogue: its literal, and its embedded sample."""

import collections
import difflib
import itertools
import statistics

import pytest

from flan_jax.data import catalogue, evaluation, preprocessors, sources, spec
from tests.data import made

NAMES = tuple(catalogue.load())
TEST_ROWS, TRAIN_ROWS = 12, 24


def examples(name, split, templates):
  return evaluation.evaluation_examples(
    catalogue.get(name),
    split,
    vocabulary=made.BYTES,
    lengths=None,
    templates=templates,
  )


@pytest.mark.parametrize("name", NAMES)
def test_task_is_a_literal_of_the_paper_s_form(name):
  task = catalogue.get(name)
  assert task.name == name
  assert len(task.templates) == spec.NUM_TEMPLATES
  if task.kind == "classification":
    assert len(task.rankable_templates) >= 7
    shown = [task.templates[i].shows_options for i in task.rankable_templates]
    # With options, and without; CosmosQA's answers need them (its notes).
    assert 3 <= sum(shown) < len(shown) + (task.name == "cosmos_qa")


def test_wording_is_nowhere_repeated():
  """Families share their templates; nobody else does."""
  owner = {}
  for name in NAMES:
    task = catalogue.get(name)
    for template in task.templates:
      # A bare field is a form, not a wording.
      if template.inputs.strip("{}").isidentifier():
        continue
      key = task.family or task.name
      assert owner.setdefault(template.inputs, key) == key, template.inputs


@pytest.mark.parametrize("name", NAMES)
def test_sample_has_enough_rows(name, sample_data):
  task = catalogue.get(name)
  source = sources.source(task)
  sizes = source.sizes()
  if "train" in task.splits.names:
    assert sizes[task.splits.train_split] >= TRAIN_ROWS
  assert source.rows("test") >= TEST_ROWS
  assert len(examples(name, "test", [0])) >= TEST_ROWS
  if "train" not in task.splits.names:
    return
  used = len(examples(name, "train", [0]))
  assert used + len(examples(name, "validation", [0])) >= TRAIN_ROWS


@pytest.mark.parametrize("name", NAMES)
def test_sample_labels_are_balanced(name, sample_data):
  task = catalogue.get(name)
  if task.kind != "classification":
    pytest.skip("not a classification task")
  best = task.rankable_templates[0]
  train = [
    example
    for split in task.splits.names
    if split != "test"
    for example in examples(name, split, [best])
  ]
  for rows in filter(None, (train, examples(name, "test", [best]))):
    counts = collections.Counter(e.label for e in rows)
    # A few rows of a dataset may have more choices, or fewer.
    labels = statistics.mode(len(e.choices) for e in rows)
    assert set(counts) == set(range(labels)), counts
    assert max(counts.values()) - min(counts.values()) <= 2, counts


@pytest.mark.parametrize("name", NAMES)
def test_no_two_sample_rows_are_nearly_the_same(name, sample_data):
  """Rows of one group are, and count once."""
  task = catalogue.get(name)
  rows = [row for s in task.splits.names for row in prepared_rows(task, s)]
  if task.group:
    first = next(iter(task.inputs))
    rows = {(row["group"], row[first]): row for row in rows}.values()
  texts = [
    "\n".join(row[field].decode() for field in task.inputs) for row in rows
  ]
  assert len(set(texts)) == len(texts)
  matcher = difflib.SequenceMatcher(autojunk=False)
  for a, b in itertools.combinations(texts, 2):
    matcher.set_seqs(a, b)
    if matcher.real_quick_ratio() > 0.75 and matcher.quick_ratio() > 0.75:
      assert matcher.ratio() <= 0.75, f"{a}\n{b}"


def prepared_rows(task, split):
  """The fields of every row of a split."""
  rows = preprocessors.prepare_rows(task)(
    sources.source(task).get_dataset(split)
  )
  return list(rows.as_numpy_iterator())
