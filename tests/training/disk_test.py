"""A disk that fills up, or turns read-only, in the midst of a run: for real.

The run is `loop_test.py`'s, in a tmpfs of 2 MiB that is filled to the last
byte, and with its checkpoints in a folder that is mounted read-only.
"""

import logging

import jax
import pytest

from flan_jax.errors import UserError
from flan_jax.training import checkpoint, integrity
from tests.training import full_disk
from tests.training.loop_test import Run, assert_bits, curve

# Orbax's writers of a save that failed are collected after their event loop.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


def at(run, **things):
  """Does things at steps of the run, when the save before is done."""
  steps = {int(name[1:]): thing for name, thing in things.items()}
  count = iter(range(1, 1000))

  def put(batch):
    step = next(count)
    if step in steps:
      run.checkpoints.wait()
      steps[step]()
    return jax.device_put(batch)

  run.loop.put_batch = put


@pytest.fixture
def disk(tmp_path):
  with full_disk.mounted(tmp_path / "disk", 2048) as disk:
    yield disk


def test_a_full_disk_fails_saves_and_not_the_run(tmp_path, disk, caplog):
  whole = Run(tmp_path / "whole")()
  run = Run(disk.folder / "run")
  at(run, _4=disk.fill, _11=disk.free)
  with caplog.at_level(logging.WARNING):
    assert_bits(run(), whole)
  # Those of step 6 and 9 failed, and left nothing behind.
  assert "checkpoint_6 failed" in caplog.text
  assert "No space left on device" in caplog.text
  assert "failure 2 in a row; more than 3 end it" in caplog.text
  assert run.checkpoints.steps == [3, 12]
  integrity.check(run.checkpoints.latest_path())
  # No line of the log is lost.
  assert curve(disk.folder / "run") == curve(tmp_path / "whole")
  # It is started again from there as if nothing had been.
  assert Run(disk.folder / "run").start == 12


def test_a_disk_that_stays_full_ends_the_run_at_last(disk):
  run = Run(disk.folder / "run", steps=40)
  at(run, _4=disk.fill)
  with pytest.raises(UserError) as caught:
    run()
  message = str(caught.value)
  assert "checkpoint_15 failed" in message
  assert "4 in a row failed (max_failed_saves=3)" in message
  assert "Make room or make the folder writable" in message
  assert "checkpoint_3" in message
  disk.free()
  assert Run(disk.folder / "run").start == 3


def test_a_folder_that_turns_read_only(tmp_path, caplog):
  whole = Run(tmp_path / "whole")()
  run = Run(tmp_path / "run")
  folder = full_disk.ReadOnly(tmp_path / "run" / "checkpoints")
  at(run, _4=folder.begin, _11=folder.end)
  try:
    with caplog.at_level(logging.WARNING):
      assert_bits(run(), whole)
  finally:
    folder.end()
  assert "Read-only file system" in caplog.text
  assert run.checkpoints.steps == [3, 12]


def test_a_read_only_folder_is_refused_at_the_start(tmp_path):
  folder = full_disk.ReadOnly(tmp_path / "run")
  folder.folder.mkdir()
  folder.begin()
  try:
    with pytest.raises(UserError, match=r"cannot be written: Read-only"):
      checkpoint.Checkpoints(tmp_path / "run")
  finally:
    folder.end()
