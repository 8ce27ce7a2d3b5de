"""Buckets: data read where it lies, checkpoints copied, folders refused."""

import doctest
import pathlib

import pytest
import seqio
from etils.epath import backend, gpath

from flan_jax import config
from flan_jax.data import directory, remote, sources
from flan_jax.errors import UserError
from flan_jax.training import checkpoint, record


class Bucket(backend._OsPathBackend):
  """gs:// paths as folders of this machine."""

  def __init__(self, root: pathlib.Path):
    self.root, self.opened = root, []

  def _here(self, path):
    return str(self.root / str(path).removeprefix("gs://"))

  def open(self, path, mode):
    self.opened.append(str(path))
    if "forbidden" in str(path):
      raise PermissionError(f"403 for {path}")
    return super().open(self._here(path), mode)

  def exists(self, path):
    return super().exists(self._here(path))

  def isdir(self, path):
    if "forbidden" in str(path):
      raise PermissionError(f"403 for {path}")
    return super().isdir(self._here(path))

  def listdir(self, path):
    return super().listdir(self._here(path))

  def glob(self, path):
    found = super().glob(self._here(path))
    return [f"gs://{pathlib.Path(p).relative_to(self.root)}" for p in found]

  def stat(self, path):
    return super().stat(self._here(path))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  made = Bucket(tmp_path / "buckets")
  (made.root / "b").mkdir(parents=True)
  real = gpath._GPath._backend.fget
  monkeypatch.setattr(
    gpath._GPath,
    "_backend",
    property(lambda self: made if self._uri_scheme else real(self)),
  )
  return made


def test_a_checkpoint_is_copied_once(bucket, tmp_path):
  folder = bucket.root / "b" / "checkpoint_3"
  (folder / "state").mkdir(parents=True)
  (folder / "manifest.json").write_text("{}")
  (folder / "state" / "0").write_bytes(bytes(1000))
  copy = remote.local_copy("gs://b/checkpoint_3", tmp_path / "cache")
  assert copy.name == "checkpoint_3"
  assert (copy / "state" / "0").read_bytes() == bytes(1000)
  assert len(bucket.opened) == 2
  # A second start copies nothing.
  assert remote.local_copy("gs://b/checkpoint_3", tmp_path / "cache") == copy
  assert len(bucket.opened) == 2
  # What changed, went and came does not stay.
  (folder / "state" / "0").write_bytes(b"new")
  (folder / "manifest.json").unlink()
  (folder / "other").write_text("x")
  remote.local_copy("gs://b/checkpoint_3", tmp_path / "cache")
  files = {p.name: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
  assert files == {"0": b"new", "other": b"x"}
  # Half a copy, such as of a start that was killed, is completed.
  (copy / "other").unlink()
  remote.local_copy("gs://b/checkpoint_3", tmp_path / "cache")
  assert (copy / "other").exists()
  assert not list(copy.rglob("*.part"))


def test_one_file_is_copied_too_and_local_paths_stay(bucket, tmp_path):
  (bucket.root / "b" / "m.gguf").write_bytes(b"GGUF")
  copy = remote.local_copy("gs://b/m.gguf", tmp_path / "cache")
  assert copy.read_bytes() == b"GGUF"
  assert remote.local_copy(tmp_path / "x", tmp_path / "cache") == tmp_path / "x"


def test_what_cannot_be_copied_is_said(bucket, tmp_path, monkeypatch):
  with pytest.raises(UserError, match="there is nothing at gs://b/nope"):
    remote.local_copy("gs://b/nope", tmp_path)
  (bucket.root / "b" / "forbidden").mkdir()
  (bucket.root / "b" / "forbidden" / "x").write_text("x")
  with pytest.raises(UserError, match=r"cannot be copied.*PermissionError"):
    remote.local_copy("gs://b/forbidden", tmp_path)
  with pytest.raises(UserError, match="cannot be looked at: PermissionError"):
    directory.choose("gs://b/forbidden")
  (bucket.root / "b" / "m").write_bytes(bytes(2000))
  usage = remote.shutil.disk_usage(tmp_path)._replace(free=10)
  monkeypatch.setattr(remote.shutil, "disk_usage", lambda folder: usage)
  with pytest.raises(UserError, match=r"has 0\.0 GB.*FLAN_JAX_CACHE"):
    remote.local_copy("gs://b/m", tmp_path)


def test_a_checkpoint_of_a_bucket_is_opened(
  bucket, tmp_path, monkeypatch, t5x_fixtures
):
  from flan_jax.convert import source

  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  fixture = t5x_fixtures / "t5_1_1"
  checkpoint = min(p.parent for p in fixture.rglob("checkpoint"))
  (bucket.root / "b" / checkpoint.name).symlink_to(checkpoint)
  opened = source.open_source(f"gs://b/{checkpoint.name}")
  assert opened.format == "t5x"
  name = "decoder/decoder_norm/scale"
  local = source.open_source(checkpoint)
  assert (opened.read(name) == local.read(name)).all()


def test_the_record_beside_a_checkpoint_of_a_bucket_is_read(bucket):
  made = record.make({"train": {"mixture": "m"}})
  run = bucket.root / "b" / "run"
  (run / "checkpoints" / "checkpoint_2").mkdir(parents=True)
  record.claim(run, made)
  found = record.lineage("gs://b/run/checkpoints/checkpoint_2")
  assert [r.data for r in found] == [made.data]


def test_data_of_a_bucket_is_found(bucket, sample_dir):
  (bucket.root / "b" / "tfds").symlink_to(sample_dir)
  before = str(sources.data_dir())
  try:
    chosen = directory.choose("gs://b/tfds")
    assert chosen.source == "gs://b/tfds"
    assert chosen.label == "TFDS_DATA_DIR=gs://b/tfds"
    assert str(sources.data_dir()) == "gs://b/tfds"
    there = sources.tfds_builder("glue/sst2", "2.0.0")
    assert there.info.splits["train"].num_examples > 0
    with pytest.raises(UserError, match="'gs://b/none' is not a folder"):
      directory.choose("gs://b/none")
  finally:
    seqio.set_tfds_data_dir_override(before)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("MODEL_DIR", "MODEL_DIR is 'gs://b/x', but has to be a path of a file"),
    ("COMPILATION_CACHE", "COMPILATION_CACHE is 'gs://b/x'"),
    ("INITIAL_CHECKPOINT_PATH", None),
    ("TFDS_DATA_DIR", None),
  ],
)
def test_folders_that_are_written_are_refused_at_once(name, message):
  def load():
    return config.load(
      ["gin/flan_holdout_nli.gin"],
      [(name, "gs://b/x")],
      [str(pathlib.Path(__file__).resolve().parents[2])],
    )

  if message is None:
    assert load().value(name) == "gs://b/x"
    return
  with pytest.raises(UserError) as caught:
    load()
  assert message in str(caught.value)
  assert "Cloud Storage FUSE" in str(caught.value)


def test_so_are_they_without_a_gin_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="MODEL_DIR is 'gs://b/x'"):
    record.choose_directory("gs://b/x", record.make({}))
  with pytest.raises(UserError, match="MODEL_DIR is 'gs://b/x'"):
    checkpoint.Checkpoints("gs://b/x")
  assert not list(tmp_path.iterdir())


def test_examples_in_docstrings():
  assert doctest.testmod(remote).failed == 0
