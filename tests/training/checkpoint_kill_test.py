"""SIGKILL at any point of a save leaves a checkpoint that can be used.

A child saves step after step, keeping one checkpoint, so that a save is made,
committed and its predecessor deleted. It kills itself at its k-th touch of the
file system (every one that Python sees: mkdir, open, rename, remove), or is
killed by the parent after a random time, in the midst of what Python does not
see. The next child goes on in the same folder.
"""

import multiprocessing
import os
import random
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.training import checkpoint

STEPS_PER_CHILD = 3
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def state_at(step):
  """What a run would hold: a function of the step, so that it can be checked."""
  values = np.arange(step, step + 50_000, dtype=np.float32)
  return {"step": jnp.int32(step), "params": {"w": jnp.asarray(values)}}


def die_at_touch(number, folder):
  """SIGKILL this process at its touch `number` of `folder`; 0 never."""
  seen = 0

  def watch(event, args):
    nonlocal seen
    if event in TOUCHES and str(folder) in str(args[0]):
      seen += 1
      if seen == number:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(watch)
  return lambda: seen


def child(folder, number, saved, touches):
  checkpoints = checkpoint.Checkpoints(folder, keep=1)
  restored = checkpoints.restore_latest(state_at(0))
  start = restored.step if restored else 0
  seen = die_at_touch(number, folder)
  for step in range(start + 1, start + STEPS_PER_CHILD + 1):
    checkpoints.save(step, state_at(step), {"step": step})
    checkpoints.wait()
    saved.value = step
  checkpoints.close()
  touches.value = seen()


@pytest.fixture(scope="module")
def processes():
  """A server that has imported JAX and forks, so that a child costs 0.5 s."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__, "jax", "orbax.checkpoint"])
  return context


def run_child(processes, folder, number, seconds=None):
  """The last step that the child knew to be saved, and its touches."""
  saved, touches = processes.Value("i", 0), processes.Value("i", 0)
  process = processes.Process(
    target=child, args=(folder, number, saved, touches)
  )
  process.start()
  if seconds is not None:
    process.join(seconds)
    process.kill()
  process.join(60)
  assert process.exitcode in (0, -signal.SIGKILL)
  return saved.value, touches.value


def check(folder, saved):
  """The newest whole checkpoint is at least the last that was acknowledged."""
  checkpoints = checkpoint.Checkpoints(folder, keep=1)
  restored = checkpoints.restore_latest(state_at(0))
  checkpoints.close()
  if restored is None:
    assert saved == 0
    return 0
  assert restored.step >= saved
  assert restored.extra == {"step": restored.step}
  expected = state_at(restored.step)
  jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
  return restored.step


def test_sigkill_anywhere_in_a_save(processes, tmp_path):
  _, touches = run_child(processes, tmp_path / "whole", 0)
  assert check(tmp_path / "whole", STEPS_PER_CHILD) == STEPS_PER_CHILD
  assert touches > 20
  rng = random.Random(0)
  newest = 0
  for number in sorted(rng.sample(range(1, touches + 1), 10)):
    saved, _ = run_child(processes, tmp_path / "killed", number)
    newest = check(tmp_path / "killed", max(newest, saved))
  assert newest >= 3
  for _ in range(4):
    saved, _ = run_child(
      processes, tmp_path / "killed", 0, seconds=rng.uniform(0.3, 1.5)
    )
    newest = check(tmp_path / "killed", max(newest, saved))
  # Neither old checkpoints nor interrupted saves pile up.
  names = [p.name for p in (tmp_path / "killed").iterdir()]
  assert len(names) <= 3, names
