"""Buckets: data read where it lies, checkpoints copied, folders refused."""

import doctest
import pathlib

import pytest
import seqio
from etils import epath

from flan_jax import config
from flan_jax.data import directory, remote, sources
from flan_jax.errors import UserError
from flan_jax.training import checkpoint, record
from tests import buckets


@pytest.fixture
def store():
  with buckets.Store() as made, buckets.served(made):
    yield made


def test_a_checkpoint_is_copied_once(store, tmp_path, monkeypatch):
  url, opened = "gs://our-runs/checkpoint_3", []
  folder = epath.Path(url)
  (folder / "state" / "0").write_bytes(bytes(1000))
  (folder / "manifest.json").write_text("{}")
  real = buckets.Client.open
  monkeypatch.setattr(
    buckets.Client, "open", lambda *a: opened.append(a) or real(*a)
  )
  copy = remote.local_copy(url, tmp_path / "cache")
  assert copy.name == "checkpoint_3"
  assert (copy / "state" / "0").read_bytes() == bytes(1000)
  assert len(opened) == 2
  # A second start copies nothing.
  assert remote.local_copy(url, tmp_path / "cache") == copy
  assert len(opened) == 2
  # What changed, went and came does not stay.
  (folder / "state" / "0").write_bytes(b"new")
  (folder / "manifest.json").unlink()
  (folder / "other").write_text("x")
  remote.local_copy(url, tmp_path / "cache")
  files = {p.name: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
  assert files == {"0": b"new", "other": b"x"}
  # Half a copy, such as of a start that was killed, is completed.
  (copy / "other").unlink()
  remote.local_copy(url, tmp_path / "cache")
  assert (copy / "other").exists()
  assert not list(copy.rglob("*.part"))


def test_one_file_is_copied_too_and_local_paths_stay(store, tmp_path):
  store.objects["our-runs/m.gguf"] = b"GGUF"
  copy = remote.local_copy("gs://our-runs/m.gguf", tmp_path / "cache")
  assert copy.read_bytes() == b"GGUF"
  assert remote.local_copy(tmp_path / "x", tmp_path / "cache") == tmp_path / "x"


def test_what_cannot_be_copied_is_said(store, tmp_path, monkeypatch):
  with pytest.raises(UserError, match="there is nothing at gs://our-runs/nope"):
    remote.local_copy("gs://our-runs/nope", tmp_path)
  store.objects["our-runs/m"] = bytes(2000)
  usage = remote.shutil.disk_usage(tmp_path)._replace(free=10)
  with monkeypatch.context() as m:
    m.setattr(remote.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"has 0\.0 GB.*FLAN_JAX_CACHE"):
      remote.local_copy("gs://our-runs/m", tmp_path)
  store.closed = True
  with pytest.raises(UserError, match=r"cannot be copied.*BucketError: 403"):
    remote.local_copy("gs://our-runs/m", tmp_path)
  with pytest.raises(UserError, match="cannot be looked at: BucketError: 403"):
    directory.choose("gs://our-runs/tfds")


def test_a_checkpoint_of_a_bucket_is_opened(
  store, tmp_path, monkeypatch, t5x_fixtures
):
  from flan_jax.convert import source

  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  fixture = t5x_fixtures / "t5_1_1"
  checkpoint = min(p.parent for p in fixture.rglob("checkpoint"))
  store.add(f"our-runs/{checkpoint.name}", checkpoint)
  opened = source.open_source(f"gs://our-runs/{checkpoint.name}")
  assert opened.format == "t5x"
  name = "decoder/decoder_norm/scale"
  local = source.open_source(checkpoint)
  assert (opened.read(name) == local.read(name)).all()


def test_of_a_run_the_newest_two_checkpoints_are_copied(
  store, tmp_path, monkeypatch
):
  from flan_jax import evaluated
  from flan_jax.convert import source
  from tests.training.mirror_test import saved

  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  saved(2, 4, 10, 12)
  store.objects["our-runs/nli/run.json"] = b"{}"
  with pytest.raises(UserError):  # It says nothing of its model.
    evaluated.open_model("gs://our-runs/nli")
  opened = source.open_source("gs://our-runs/nli")
  here = opened.path.parent
  assert sorted(p.name for p in here.iterdir()) == [
    "checkpoint_10", "checkpoint_12",
  ]
  assert (here.parent / "run.json").exists()
  assert evaluated.address("gs://our-runs/nli/", opened) == (
    "gs://our-runs/nli/checkpoints/checkpoint_12"
  )


def test_the_record_beside_a_checkpoint_of_a_bucket_is_read(store, tmp_path):
  made = record.make({"train": {"mixture": "m"}})
  record.claim(tmp_path / "run", made)
  store.add("our-runs/run", tmp_path / "run")
  found = record.lineage("gs://our-runs/run/checkpoints/checkpoint_2")
  assert [r.data for r in found] == [made.data]


def test_data_of_a_bucket_is_found(store, sample_dir):
  # Rows are TensorFlow's to read; what is there is looked at here.
  store.add("our-runs/tfds/glue", sample_dir / "glue")
  before = str(sources.data_dir())
  try:
    chosen = directory.choose("gs://our-runs/tfds")
    assert chosen.source == "gs://our-runs/tfds"
    assert chosen.label == "TFDS_DATA_DIR=gs://our-runs/tfds"
    assert str(sources.data_dir()) == "gs://our-runs/tfds"
    there = sources.tfds_builder("glue/sst2", "2.0.0")
    assert there.info.splits["train"].num_examples > 0
    with pytest.raises(UserError, match="'gs://our-runs/none' is not a folder"):
      directory.choose("gs://our-runs/none")
  finally:
    seqio.set_tfds_data_dir_override(before)


@pytest.mark.parametrize(
  ("name", "url", "message"),
  [
    ("MODEL_DIR", "s3://b/x", "MODEL_DIR is 's3://b/x', but has to be a path"),
    ("COMPILATION_CACHE", "gs://b/x", "COMPILATION_CACHE is 'gs://b/x'"),
    ("MODEL_DIR", "gs://b/x", None),
    ("INITIAL_CHECKPOINT_PATH", "s3://b/x", None),
    ("TFDS_DATA_DIR", "gs://b/x", None),
  ],
)
def test_folders_that_cannot_be_written_are_refused_at_once(name, url, message):
  def load():
    return config.load(
      ["gin/flan_holdout_nli.gin"],
      [(name, url)],
      [str(pathlib.Path(__file__).resolve().parents[2])],
    )

  if message is None:
    assert load().value(name) == url
    return
  with pytest.raises(UserError) as caught:
    load()
  assert message in str(caught.value)
  assert "Cloud Storage FUSE" in str(caught.value)


def test_so_are_they_without_a_gin_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="MODEL_DIR is 'gs://b/x'"):
    record.choose_directory("gs://b/x", record.make({}))
  with pytest.raises(UserError, match="MODEL_DIR is 's3://b/x'"):
    record.choose_directory("s3://b/x", record.make({}), buckets=True)
  with pytest.raises(UserError, match="MODEL_DIR is 's3://b/x'"):
    checkpoint.Checkpoints("s3://b/x")
  assert not list(tmp_path.iterdir())


def test_examples_in_docstrings():
  assert doctest.testmod(remote).failed == 0
