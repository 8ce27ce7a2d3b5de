"""A run in a bucket: its checkpoints, its files, and what happens to both."""

import doctest
import json
import logging
import shutil

import pytest
from etils import epath

from flan_jax.data import remote
from flan_jax.errors import UserError
from flan_jax.training import (
  checkpoint,
  integrity,
  mirror,
  processes,
  restore,
  writers,
)
from tests import buckets, train_test
from tests.training.checkpoint_test import assert_same, train_state

RUN = "our-runs/nli"


@pytest.fixture
def store(sample_cache):
  with buckets.Store() as made, buckets.served(made):
    yield made


def opened(**options):
  return checkpoint.Checkpoints(f"gs://{RUN}/checkpoints", **options)


def saved(*steps, **options):
  checkpoints = opened(**options)
  for step in steps:
    assert checkpoints.save(step, train_state(step), {"at": step})
  checkpoints.close()


def restored():
  checkpoints = opened()
  try:
    return checkpoints.restore_latest(train_state(99))
  finally:
    checkpoints.close()


def test_a_checkpoint_counts_by_the_object_that_is_written_last(store):
  saved(3)
  names = [n for n in store.written if n in store.objects]
  assert names[-1] == f"{RUN}/checkpoints/checkpoint_3/{integrity.MANIFEST}"
  found = restored()
  assert (found.step, found.extra) == (3, {"at": 3})
  assert_same(found.state, train_state(3))
  # Nothing is left of trying whether the folder can be written.
  assert not [n for n in store.objects if ".can_write" in n]


def test_old_ones_go_and_a_run_goes_back(store):
  saved(2, 4, 6, keep=2)
  assert opened().steps == [4, 6]
  checkpoints = opened()
  found = checkpoints.go_back(6, train_state(99))
  checkpoints.close()
  assert found.step == 4
  assert opened().steps == [4]
  assert not store.below(f"{RUN}/checkpoints/checkpoint_6")


@pytest.mark.parametrize(
  ("damage", "fault"),
  [
    ("lost", "is missing"),
    ("cut", "bytes instead of"),
    ("changed", "differs from its checksum"),
    ("interrupted", "its save was interrupted"),
  ],
)
def test_a_torn_one_is_named_and_the_one_before_used(
  store, damage, fault, caplog
):
  saved(2, 4)
  newest = f"{RUN}/checkpoints/checkpoint_4"
  inner = store.below(newest)
  name = max(inner, key=lambda n: len(inner[n]) * (n != integrity.MANIFEST))
  if damage == "interrupted":
    del store.objects[f"{newest}/{integrity.MANIFEST}"]
  elif damage == "lost":
    del store.objects[f"{newest}/{name}"]
  else:
    content = inner[name]
    changed = content[:-1] + (
      b"" if damage == "cut" else bytes([content[-1] ^ 1])
    )
    store.objects[f"{newest}/{name}"] = changed
  with caplog.at_level(logging.WARNING):
    assert restored().step == 2
  assert fault in caplog.text
  assert "checkpoint_4.torn" in caplog.text
  assert opened().steps == [2]
  saved(4)


def test_a_save_that_fails_is_not_the_end(store, caplog):
  checkpoints = opened(max_failed_saves=1)
  store.full = True
  with caplog.at_level(logging.WARNING):
    assert not (checkpoints.save(2, train_state(2), {}) and checkpoints.wait())
  assert "The run goes on: failure 1 in a row" in caplog.text
  store.full = False
  assert checkpoints.save(3, train_state(3), {}, final=True)
  checkpoints.close()
  assert opened().steps == [3]
  store.full = True
  with pytest.raises(UserError, match=r"cannot be written: .*no more room"):
    opened()


def test_a_bucket_that_cannot_be_read_is_no_torn_checkpoint(store, monkeypatch):
  saved(2)
  checkpoints = opened()

  def refuse(self, path, mode):
    raise buckets.BucketError("503 try again")

  with monkeypatch.context() as m:
    m.setattr(buckets.Client, "open", refuse)
    with pytest.raises(OSError, match="503 try again"):
      checkpoints.restore_latest(train_state(99))
  checkpoints.close()
  assert restored().step == 2


def test_files_are_written_here_and_kept_there(store):
  home = epath.Path(f"gs://{RUN}")
  first = mirror.Mirror(home)
  (first.folder / "predictions").mkdir()
  (first.folder / "predictions" / "step_0.jsonl").write_text("{}\n")
  log = (first.folder / "metrics.jsonl").open("a")
  log.write("1\n")
  log.flush()
  (first.folder / "run.tmp").write_text("half")
  first.push()
  assert store.below(RUN) == {
    "predictions/step_0.jsonl": b"{}\n",
    "metrics.jsonl": b"1\n",
  }
  written = len(store.written)
  first.push()
  assert len(store.written) == written
  # What is appended and replaced is written, what is gone goes.
  log.write("2\n")
  log.close()
  (first.folder / "predictions" / "step_0.jsonl").unlink()
  first.push()
  assert store.below(RUN) == {"metrics.jsonl": b"1\n2\n"}
  assert len(store.written) == written + 1
  # Of a start that was killed, what was not kept is gone, on any machine.
  (first.folder / "metrics.jsonl").write_text("1\n2\n3\n")
  (first.folder / "left_over").write_text("")
  saved(2)
  again = mirror.Mirror(home)
  assert again.folder == first.folder
  files = [p for p in again.folder.rglob("*") if p.is_file()]
  assert [(p.name, p.read_text()) for p in files] == [
    ("metrics.jsonl", "1\n2\n")
  ]
  store.full = True
  (again.folder / "new").write_text("x")
  with pytest.raises(OSError, match="no more room"):
    again.push()
  with again:  # what ends the run is said, not this
    pass
  with pytest.raises(UserError, match=f"MODEL_DIR gs://{RUN} .*no more room"):
    again.finish()


def test_a_log_that_is_not_kept_fails_the_first_process_alone(
  tmp_path, monkeypatch
):
  def refuse():
    raise PermissionError("not for you")

  checkpoints = checkpoint.Checkpoints(tmp_path, before_commit=refuse)
  monkeypatch.setattr(processes, "is_first", lambda: False)
  assert checkpoints.save(1, train_state(1), {})
  assert checkpoints.wait()
  # The first one's, whose manifest makes it count.
  assert (tmp_path / "checkpoint_1").is_dir()
  monkeypatch.undo()
  assert not (checkpoints.save(2, train_state(2), {}) and checkpoints.wait())
  assert not (tmp_path / "checkpoint_2").exists()
  checkpoints.close()


def test_a_bucket_that_cannot_be_asked_holds_no_fewer_checkpoints(store):
  saved(2)
  checkpoints = opened()
  store.closed = True
  with pytest.raises(UserError, match="checkpoints cannot be looked at: .*403"):
    checkpoints.restore_latest(train_state(99))
  store.closed = False
  checkpoints.close()


def test_the_log_is_kept_before_the_checkpoint_counts(store):
  kept = mirror.Mirror(epath.Path(f"gs://{RUN}"))
  checkpoints = opened(before_commit=kept.push)
  (kept.folder / "metrics.jsonl").write_text(json.dumps({"step": 2}) + "\n")
  checkpoints.save(2, train_state(2), {}, final=True)
  checkpoints.close()
  where = {
    name.removeprefix(f"{RUN}/"): i for i, name in enumerate(store.written)
  }
  manifest = f"checkpoints/checkpoint_2/{integrity.MANIFEST}"
  assert where["metrics.jsonl"] < where[manifest]


def test_parameters_are_found_in_the_folder_that_a_run_kept(store, tmp_path):
  saved(2)
  copy = remote.local_copy(f"gs://{RUN}", tmp_path / "copies")
  params = restore.restore_params(copy)
  assert_same(params["encoder"], train_state(2).params["encoder"])


@pytest.mark.slow
def test_a_run_lives_in_a_bucket(store, tmp_path, capsys):
  url = "gs://our-runs/nli"
  here = train_test.run(url, TRAIN_STEPS=3)
  kept = store.below(RUN)
  assert {"run.json", "metrics.jsonl", "time.jsonl", "report.html"} <= {*kept}
  assert kept["metrics.jsonl"] == (here / "metrics.jsonl").read_bytes()
  assert not (here / "checkpoints").exists()
  # As on another machine.
  shutil.rmtree(here)
  capsys.readouterr()
  assert train_test.run(url, TRAIN_STEPS=6) == here
  said = capsys.readouterr().out
  assert "going on with this run from step 3" in said
  for name in ("", "/checkpoints/checkpoint_6", "/report.html"):
    assert f" {url}{name}\n" in said
  copy = remote.local_copy(url, tmp_path / "copies")
  rows = writers.read(copy / "metrics.jsonl")
  assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4, 5, 6]
  before = [*map(json.loads, kept["metrics.jsonl"].splitlines())]
  assert rows[: len(before)] == before
  assert train_test.parameters(copy, 6)
  events = [n for n in store.below(RUN) if n.startswith("tensorboard/events")]
  assert len(events) == 2
  # Another configuration is no part of it.
  with pytest.raises(UserError, match="'gs://our-runs/nli' holds another run"):
    train_test.run(url, TRAIN_STEPS=9, RANDOM_SEED=1)


def test_examples_in_docstrings():
  assert doctest.testmod(mirror).failed == 0
