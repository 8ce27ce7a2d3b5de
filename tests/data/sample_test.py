"""The embedded sample, written by TFDS's registered builders."""

import json
import pathlib
import shutil

import pytest
import seqio
import tensorflow_datasets as tfds

from flan_jax.data import catalogue, sample
from flan_jax.data import spec as spec_lib
from flan_jax.errors import UserError

RTE = spec_lib.tfds("super_glue/rte:1.0.2")
DART = spec_lib.tfds("gem/dart:1.1.0")


@pytest.fixture
def embedded(tmp_path):
  """A copy of a small sample, to be spoiled."""
  folder = tmp_path / "embedded"
  source = pathlib.Path(__file__).parents[1] / "testdata/sample"
  shutil.copytree(source, folder)
  return folder


def spoil(embedded, **changes):
  """Changes features of line 2 of RTE; None removes one."""
  file = embedded / "super_glue/rte/1.0.2.jsonl"
  lines = file.read_text().splitlines()
  row = json.loads(lines[1]) | changes
  lines[1] = json.dumps({k: v for k, v in row.items() if v is not None})
  file.write_text("\n".join(lines) + "\n")


def test_tfds_reads_it_as_real_data(embedded, tmp_path, capfd):
  directory = sample.write_sample(
    [RTE, DART], tmp_path / "out", embedded_in=embedded
  )
  assert capfd.readouterr().out == ""
  builder = tfds.builder("super_glue/rte:1.0.2", data_dir=directory)
  sizes = {k: v.num_examples for k, v in builder.info.splits.items()}
  assert sizes == {"train": 3, "validation": 1}
  assert builder.info.features["label"].names == [
    "entailment",
    "not_entailment",
  ]
  data, info = tfds.load(
    "super_glue/rte", split="train", data_dir=directory, with_info=True
  )
  rows = list(tfds.as_numpy(data))
  assert sorted(int(r["label"]) for r in rows) == [0, 0, 1]
  assert sorted(int(r["idx"]) for r in rows) == [0, 1, 2]
  assert str(info.version) == "1.0.2"
  ends = tfds.load("super_glue/rte", split="train[-1:]", data_dir=directory)
  assert len(ends) == 1


def test_nested_and_bookkeeping_features(embedded, tmp_path):
  directory = sample.write_sample(
    [DART], tmp_path / "out", embedded_in=embedded
  )
  rows = list(
    tfds.as_numpy(tfds.load("gem/dart", split="train", data_dir=directory))
  )
  by_id = {r["gem_id"]: r for r in rows}
  assert set(by_id) == {b"0", b"1"}
  assert by_id[b"0"]["tripleset"].tolist() == [
    b"Lake Siling | depth | 45 m",
    b"Lake Siling | country | China",
  ]
  assert by_id[b"1"]["references"].tolist() == []


def test_seqio_reads_it(embedded, tmp_path):
  directory = sample.write_sample([RTE], tmp_path / "out", embedded_in=embedded)
  source = seqio.TfdsDataSource(
    tfds_name=RTE.spec, tfds_data_dir=str(directory)
  )
  assert source.num_input_examples("train") == 3
  assert len(list(source.get_dataset("validation", shuffle=False))) == 1


def test_the_cache_is_named_by_the_content(embedded, tmp_path, monkeypatch):
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  first = sample.write_sample([RTE], embedded_in=embedded)
  assert first.parent == tmp_path / "cache" / "sample"
  info = first / "super_glue/rte/1.0.2/dataset_info.json"
  before = info.stat().st_mtime_ns
  assert sample.write_sample([RTE, DART], embedded_in=embedded) == first
  assert info.stat().st_mtime_ns == before
  assert (first / "gem/dart/1.1.0/dataset_info.json").exists()
  spoil(embedded, premise="Another premise.")
  assert sample.write_sample([RTE], embedded_in=embedded) != first
  assert not list(first.glob(".incomplete*"))


def test_cache_directory(monkeypatch, tmp_path):
  monkeypatch.delenv("FLAN_JAX_CACHE", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert sample.cache_directory() == tmp_path / "flan_jax"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert sample.cache_directory() == tmp_path / ".cache/flan_jax"


def test_another_process_may_be_first(embedded, tmp_path, monkeypatch):
  out = tmp_path / "out"
  prepare = sample._prepare

  def overtaken(builder, rows):
    prepare(builder, rows)
    monkeypatch.setattr(sample, "_prepare", prepare)
    sample.write_sample([RTE], out, embedded_in=embedded)

  monkeypatch.setattr(sample, "_prepare", overtaken)
  assert sample.write_sample([RTE], out, embedded_in=embedded) == out
  assert not list(out.glob(".incomplete*"))
  assert len(tfds.load("super_glue/rte", split="train", data_dir=out)) == 3


def test_a_failed_write_leaves_nothing(embedded, tmp_path):
  spoil(embedded, label=2)
  out = tmp_path / "out"
  with pytest.raises(UserError):
    sample.write_sample([RTE], out, embedded_in=embedded)
  assert list(out.iterdir()) == []


def test_other_data_is_never_replaced(embedded, tmp_path):
  out = tmp_path / "out"
  sample.write_sample([RTE], out, embedded_in=embedded)
  spoil(embedded, premise="Another premise.")
  with pytest.raises(UserError, match="already holds super_glue/rte:1.0.2"):
    sample.write_sample([RTE], out, embedded_in=embedded)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"premise": None}, "line 2: feature 'premise' is missing"),
    ({"premis": "x"}, "line 2: unknown feature 'premis'; .*'premise'"),
    ({"premise": 3}, "line 2, feature 'premise': 3 does not fit"),
    ({"label": 7}, "line 2, feature 'label': 7 does not fit"),
    ({"label": "maybe"}, "line 2, feature 'label': 'maybe' does not fit"),
    ({"split": None}, "line 2: split is None"),
    ({"idx": 4}, "line 1: feature 'idx' is missing"),
  ],
)
def test_a_wrong_row_is_named(embedded, tmp_path, changes, message):
  spoil(embedded, **changes)
  with pytest.raises(UserError, match=r"rte/1\.0\.2\.jsonl, " + message):
    sample.write_sample([RTE], tmp_path / "out", embedded_in=embedded)


def test_a_line_that_is_not_json(embedded, tmp_path):
  file = embedded / "super_glue/rte/1.0.2.jsonl"
  file.write_text('{"split": "train",\n')
  with pytest.raises(UserError, match="line 1: not JSON"):
    sample.write_sample([RTE], tmp_path, embedded_in=embedded)


def test_a_feature_that_a_task_reads_is_not_filled_in(embedded, tmp_path):
  file = embedded / "super_glue/rte/1.0.2.jsonl"
  row = {"split": "train", "premise": "It rains.", "hypothesis": "It is wet."}
  file.write_text(json.dumps(row) + "\n")
  with pytest.raises(UserError, match="'label' is missing, and task 'rte'"):
    sample.write_sample(
      [catalogue.get("rte")], tmp_path / "out", embedded_in=embedded
    )


def test_no_sample_for_a_dataset(embedded, tmp_path):
  with pytest.raises(UserError, match="No embedded sample for snli:1.1.0"):
    sample.write_sample(
      [spec_lib.tfds("snli:1.1.0"), RTE], tmp_path, embedded_in=embedded
    )


def test_a_folder_that_cannot_be_written(embedded, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="choose another directory"):
    sample.write_sample([RTE], tmp_path / "file", embedded_in=embedded)
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "file"))
  with pytest.raises(UserError, match="set FLAN_JAX_CACHE"):
    sample.write_sample([RTE], embedded_in=embedded)


def test_the_whole_embedded_sample(tmp_path):
  tasks = catalogue.load().values()
  directory = sample.write_sample(tasks, tmp_path)
  for task in tasks:
    builder = tfds.builder(task.source.spec, data_dir=directory)
    sizes = {k: v.num_examples for k, v in builder.info.splits.items()}
    if "train" in task.splits.names:
      assert sizes[task.splits.train_split] >= 24, task.name
    task.splits.resolve(sizes, task.name)
