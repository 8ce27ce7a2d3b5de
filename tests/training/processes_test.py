"""Several processes on loopback: one run, one checkpoint, the same curve."""

import doctest
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from flan_jax.data import remote
from flan_jax.errors import EXIT_STOPPED, UserError
from flan_jax.training import checkpoint, processes, writers
from tests import buckets

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": {"inputs": 128, "targets": 32},
  "BATCH_SIZE": 4,
  "TRAIN_STEPS": 4,
  "LOG_PERIOD": 1,
  "CHECKPOINT_PERIOD": 2,
  "EVAL_PERIOD": 100,
  "DROPOUT_RATE": 0.1,
  "t5.T5Config.emb_dim": 16,
}

# launch/run.py, where gs:// is the store of `tests/buckets.py`.
IN_BUCKETS = """
import os, sys
sys.path[:0] = [".", "launch"]
import run
from tests import buckets
with buckets.served():
  code = run.main(sys.argv[1:])
  run.part(code)
sys.stdout.flush()
os._exit(code)
"""


def command(folder, program=("launch/run.py",), **changes):
  values = {**SMALL, "MODEL_DIR": str(folder), **changes}
  flags = [f"--gin.{name}={value!r}" for name, value in values.items()]
  job = "--gin_file=gin/flan_holdout_nli.gin"
  return [sys.executable, *program, job, *flags]


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def start(folder, count, cache, devices=1, **changes):
  """The run as so many processes, so many CPU devices each."""
  port, started = free_port(), []
  for index in range(count):
    env = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "FLAN_JAX_CACHE": str(cache),
      **({} if count == 1 else {
        processes.ADDRESS: f"127.0.0.1:{port}",
        processes.COUNT: str(count),
        processes.INDEX: str(index),
      }),
    }  # fmt: skip
    env.pop("TFDS_DATA_DIR", None)
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    started.append(
      subprocess.Popen(
        command(folder, **changes),
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  return started


def finish(started, timeout=900):
  outputs = [one.communicate(timeout=timeout)[0] for one in started]
  for one, output in zip(started, outputs, strict=True):
    assert one.returncode == 0, output[-3000:]
  return outputs


def wait_for_a_step(folder):
  log = folder / "metrics.jsonl"
  deadline = time.monotonic() + 600
  while time.monotonic() < deadline and not (
    log.exists() and log.stat().st_size
  ):
    time.sleep(0.2)


def curve(folder):
  rows = writers.read(folder / "metrics.jsonl")
  return [row["train/loss"] for row in rows if "train/loss" in row]


def parameters(folder, step):
  import jax

  path = folder / "checkpoints" / f"checkpoint_{step}"
  return jax.tree.leaves(checkpoint.restore_params(path))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp("alone")
  cache = tmp_path_factory.mktemp("cache")
  finish(start(folder / "run", 1, cache))
  return folder / "run", cache


LONG = pytest.mark.skipif(
  "FLAN_JAX_LONG_TESTS" not in os.environ,
  reason="needs a machine to itself; set FLAN_JAX_LONG_TESTS=1",
)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("count", "mesh"),
  [
    (2, {"data": 2}),
    pytest.param(4, {"fsdp": 2, "tensor": 2}, marks=LONG),
  ],
)
def test_processes_train_as_one_does_and_save_one_checkpoint(
  alone, tmp_path, count, mesh
):
  one, cache = alone
  folder = tmp_path / "run"
  outputs = finish(start(folder, count, cache, MESH=mesh))
  np.testing.assert_allclose(curve(folder), curve(one), rtol=1e-5)
  for a, b in zip(parameters(folder, 4), parameters(one, 4), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
  saved = sorted(p.name for p in (folder / "checkpoints").iterdir())
  assert saved == ["checkpoint_2", "checkpoint_4"]
  # The first one speaks and writes; the others keep their own logs.
  assert "report:" in outputs[0]
  assert "report:" not in outputs[1]
  assert curve(folder / "processes" / "1") == curve(folder)


@pytest.mark.slow
def test_the_job_with_its_evaluation_runs_on_eight_devices(alone, tmp_path):
  one, cache = alone
  folder = tmp_path / "run"
  finish(
    start(
      folder,
      1,
      cache,
      devices=8,
      MESH={"data": 2, "fsdp": 2, "tensor": 2},
      EVAL_MIXTURE_OR_TASK_NAME="flan_wnli",
      EVAL_EXAMPLES=2,
    )
  )
  np.testing.assert_allclose(curve(folder), curve(one), rtol=1e-5)
  assert (folder / "report.html").exists()


@pytest.mark.slow
def test_a_run_of_two_goes_on_as_one(alone, tmp_path):
  one, cache = alone
  folder = tmp_path / "run"
  finish(start(folder, 2, cache, TRAIN_STEPS=2))
  finish(start(folder, 1, cache))
  np.testing.assert_allclose(curve(folder), curve(one), rtol=1e-5)


@LONG
@pytest.mark.slow
def test_several_save_one_checkpoint_in_a_bucket(alone, tmp_path):
  one, cache = alone
  url, words = "gs://our-runs/nli", ("-c", IN_BUCKETS)
  with pytest.MonkeyPatch.context() as m, buckets.Store() as store:
    for name, value in store.environment.items():
      m.setenv(name, value)
    finish(start(url, 2, cache, program=words, TRAIN_STEPS=2))
    # On other machines, and another number of them.
    finish(start(url, 1, tmp_path / "cache", program=words))
    with buckets.served(store):
      copy = remote.local_copy(url, tmp_path / "copies")
  np.testing.assert_allclose(curve(copy), curve(one), rtol=1e-5)
  for a, b in zip(parameters(copy, 4), parameters(one, 4), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
  assert curve(copy / "processes" / "1") == curve(copy)[:2]


@pytest.mark.slow
def test_one_that_is_told_to_stop_stops_all_of_them(alone, tmp_path):
  one, cache = alone
  folder = tmp_path / "run"
  both = start(folder, 2, cache, TRAIN_STEPS=10**6, CHECKPOINT_PERIOD=10**6)
  wait_for_a_step(folder)
  both[1].send_signal(signal.SIGTERM)
  outputs = [each.communicate(timeout=300)[0] for each in both]
  for each, output in zip(both, outputs, strict=True):
    assert each.returncode == EXIT_STOPPED, output[-3000:]
    assert "is saved; the same command goes on" in output
    # None was gone while another still asked how it is.
    assert "error" not in output.lower(), output[-3000:]
  (saved,) = (folder / "checkpoints").iterdir()
  losses = curve(folder)
  assert saved.name == f"checkpoint_{len(losses)}"
  # A fast machine may be told after one step, a slow one after many.
  steps = min(len(losses), 4)
  assert steps
  np.testing.assert_allclose(losses[:steps], curve(one)[:steps], rtol=1e-5)


@LONG
@pytest.mark.slow
def test_one_that_dies_ends_the_others_and_is_named(alone, tmp_path):
  folder = tmp_path / "run"
  both = start(folder, 2, alone[1], TRAIN_STEPS=10**6, CHECKPOINT_PERIOD=10**6)
  wait_for_a_step(folder)
  both[1].send_signal(signal.SIGKILL)
  killed = time.monotonic()
  try:
    output, _ = both[0].communicate(timeout=processes.DEAD_SECONDS + 60)
  finally:
    for one in both:
      one.kill()
  assert time.monotonic() - killed < processes.DEAD_SECONDS + 60
  assert both[0].returncode != 0
  # JAX calls a process a task.
  assert "Task 1 heartbeat timeout" in output, output[-3000:]


@pytest.mark.slow
def test_processes_of_other_configurations_are_refused(alone, tmp_path):
  folder, port = tmp_path / "run", free_port()
  started = []
  for index in range(2):
    env = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "FLAN_JAX_CACHE": str(alone[1]),
      processes.ADDRESS: f"127.0.0.1:{port}",
      processes.COUNT: "2",
      processes.INDEX: str(index),
    }
    env.pop("TFDS_DATA_DIR", None)
    words = command(folder, RANDOM_SEED=index)
    started.append(
      subprocess.Popen(
        words,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  outputs = [one.communicate(timeout=600)[0] for one in started]
  assert [one.returncode for one in started] == [2, 2]
  assert all("processes 1 run with another" in text for text in outputs)


@pytest.mark.parametrize(
  ("env", "message"),
  [
    ({processes.ADDRESS: "a:1"}, "JAX_NUM_PROCESSES, JAX_PROCESS_ID is not"),
    (
      {
        processes.ADDRESS: "a:1",
        processes.COUNT: "two",
        processes.INDEX: "0",
      },
      "JAX_NUM_PROCESSES is 'two'",
    ),
    (
      {processes.ADDRESS: "a:1", processes.COUNT: "2", processes.INDEX: "2"},
      "JAX_PROCESS_ID is 2, but there are 2",
    ),
  ],
)
def test_variables_that_do_not_fit_are_named(env, message):
  with pytest.raises(UserError, match=message):
    processes.join(env)


def test_alone_there_is_nothing_to_join():
  assert not processes.join({})
  processes.wait_for_all("here")
  processes.check_equal("abc")
  assert doctest.testmod(processes).failed == 0
