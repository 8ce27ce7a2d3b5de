"""OUTPUT_DIR in a bucket: what a job writes is there, whatever ends it."""

import json
import pathlib
import threading

import pytest

from flan_jax import config, output
from flan_jax.errors import Stopped, UserError
from tests import buckets

HOME = "our-runs/eval"
JOB = """
from __gin__ import dynamic_registration

from flan_jax import config
from tests import output_test

config.run.job = @output_test.job
OUTPUT_DIR = 'gs://our-runs/eval'
output_test.job.output_dir = %OUTPUT_DIR
output_test.job.lines = 1
"""


def job(output_dir, lines, stop=False):
  """Appends lines, and renames a file over another."""
  folder = pathlib.Path(output_dir)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "answers.jsonl").open("a") as file:
    file.write("line\n" * lines)
  draft = folder / "report.tmp"
  draft.write_text(json.dumps(lines))
  draft.replace(folder / "report.json")
  if stop:
    raise Stopped("stopped by SIGTERM")
  return folder


@pytest.fixture
def store(sample_cache):
  with buckets.Store() as made, buckets.served(made):
    yield made


def run(tmp_path, **changes):
  path = tmp_path / "job.gin"
  path.write_text(JOB)
  flags = [(f"output_test.job.{n}", repr(v)) for n, v in changes.items()]
  loaded = config.load([str(path)], flags)
  with output.kept(loaded):
    return config.call_job(loaded)


def test_files_are_here_and_in_the_bucket(store, tmp_path, capsys):
  folder = run(tmp_path, lines=2)
  assert (folder / "answers.jsonl").read_text() == "line\n" * 2
  assert store.below(HOME) == {
    "answers.jsonl": b"line\n" * 2, "report.json": b"2",
  }
  assert capsys.readouterr().out == f"{folder} is kept in gs://{HOME}\n"


def test_a_job_that_is_stopped_goes_on_elsewhere(store, tmp_path, monkeypatch):
  with pytest.raises(Stopped):
    run(tmp_path, lines=2, stop=True)
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "another_machine"))
  run(tmp_path, lines=3)
  assert store.below(HOME)["answers.jsonl"] == b"line\n" * 5


def test_what_is_there_is_pushed_while_the_job_runs(
  store, tmp_path, monkeypatch
):
  monkeypatch.setattr(output, "PUSH_SECONDS", 0.01)
  loaded_path = tmp_path / "job.gin"
  loaded_path.write_text(JOB)
  loaded = config.load([str(loaded_path)])
  with output.kept(loaded):
    config.call_job(loaded)
    for _ in range(3000):
      if store.below(HOME).get("report.json") == b"1":
        break
      threading.Event().wait(0.01)
    assert store.below(HOME)["answers.jsonl"] == b"line\n"


def test_a_bucket_that_does_not_answer_is_one_error(store, tmp_path):
  store.closed = True
  with pytest.raises(UserError, match="OUTPUT_DIR gs://our-runs/eval cannot be"):
    run(tmp_path)


def test_a_bucket_that_is_full_at_the_end_is_one_error(store, tmp_path):
  store.full = True
  with pytest.raises(UserError, match="OUTPUT_DIR .* cannot be written.* All of"):
    run(tmp_path)


def test_a_job_that_trains_wants_a_file_system(store, tmp_path, monkeypatch):
  monkeypatch.setattr(config, "_TRAINING", ("tests.output_test.job",))
  with pytest.raises(UserError, match="trains runs below it.*or mount"):
    run(tmp_path)
  assert not store.objects


def test_jobs_that_train_are_known_by_their_names():
  import importlib

  for name in config._TRAINING:
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", ["OUTPUT_DIR", "output_test.job.output_dir"])
def test_other_buckets_and_other_names_are_refused(tmp_path, name):
  path = tmp_path / "job.gin"
  macro = name == "OUTPUT_DIR"
  path.write_text(JOB if macro else JOB.replace("%OUTPUT_DIR", "'x'").replace(
    "OUTPUT_DIR = 'gs://our-runs/eval'\n", ""
  ))
  where = "s3://b/x" if macro else "gs://b/x"
  with pytest.raises(UserError, match="has to be a path of a file system"):
    config.load([str(path)], [(name, where)])
