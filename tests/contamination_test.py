"""Rows that training has too are found, and named with where they are from."""

import json

import pytest
import seqio

from flan_jax import contamination
from flan_jax.data import catalogue, mixtures, vocabulary
from flan_jax.errors import UserError
from tests.data import made

LONG = "the ferry to the island leaves at nine and again at noon every day"


@pytest.fixture
def two(tmp_path):
  """A training task and one that is evaluated, with two shared rows."""
  seqio.set_tfds_data_dir_override(str(tmp_path))
  train, test = made.rows(40), made.rows(6)
  test["premise"][1] = train["premise"][30] = LONG
  test["premise"][4] = f"We know: {LONG.upper()}!"
  made.write_tfds(tmp_path, train=train, test=test)
  registered = []
  for name in ("trained", "asked"):
    task = catalogue.seqio_task(made.nli(name=name), vocabulary.load())
    seqio.TaskRegistry.add_provider(task.name, task)
    registered.append(task.name)
  yield [mixtures.resolve(name) for name in registered]
  for name in registered:
    seqio.TaskRegistry.remove(name)
  seqio.set_tfds_data_dir_override(None)


def test_shared_rows_are_found(two):
  (overlap,) = contamination.measure(*two, ngram=8)
  source = two[1].mixture.source.get_dataset("test").as_numpy_iterator()
  dirty = {i for i, r in enumerate(source) if b"ferry" in r["premise"].lower()}
  assert overlap.task == "flan_asked"
  assert overlap.dirty == len(dirty) == 2
  assert set(overlap.rows) - set(overlap.clean_rows) == dirty
  assert overlap.sources == {"flan_trained": 2}
  # "premise 0 holds hypothesis 0 follows" has six words.
  assert overlap.unchecked.sum() == 4


def run(tmp_path, sample_data, **changes):
  kwargs = {
    "mixture_or_task_name": "flan_rte",
    "eval_mixture_or_task_name": "flan_rte",
    "output_dir": str(tmp_path / "out"),
    "tfds_data_dir": str(sample_data),
    "split": "train",
  }
  return contamination.contamination(**{**kwargs, **changes})


def test_report_and_clean_subset(tmp_path, sample_data, capsys):
  """Of a split looked for in itself, nothing is clean."""
  path = run(tmp_path, sample_data)
  (task,) = json.loads(path.read_text())["tasks"]
  assert task["rows"] == task["shared"] + task["clean"] > 10
  assert task["clean"] == task["too_short_to_check"] == 0
  assert (path.parent / "clean" / "flan_rte.jsonl").read_text() == ""
  assert "flan_rte" in capsys.readouterr().out
  path = run(tmp_path, sample_data, split="test", ngram=40)
  (task,) = json.loads(path.read_text())["tasks"]
  lines = (path.parent / "clean" / "flan_rte.jsonl").read_text().splitlines()
  assert len(lines) == task["clean"] == task["rows"]


def test_bad_input(tmp_path, sample_data):
  with pytest.raises(UserError, match="nearest is 'flan_rte'"):
    run(tmp_path, sample_data, mixture_or_task_name="flan_rtee")
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="OUTPUT_DIR .*file/x"):
    run(tmp_path, sample_data, output_dir=str(tmp_path / "file" / "x"))
