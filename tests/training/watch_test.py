"""One process that hangs ends all of them, named; fast ones end none."""

import doctest
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from flan_jax.errors import UserError
from flan_jax.training import processes, watch
from flan_jax.training.survival import Survival
from tests.training import processes_test

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Texts:
  """What the coordination service keeps, in this process."""

  def __init__(self):
    self.texts = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    assert allow_overwrite or key not in self.texts
    self.texts[key] = value

  def key_value_dir_get(self, key):
    return [(k, v) for k, v in self.texts.items() if k.startswith(key)]


def test_one_is_behind_only_if_others_go_on():
  comparison = watch.Comparison(seconds=10)
  # All compile for long, or evaluate.
  for now in range(0, 1000, 100):
    assert comparison.behind({0: 3, 1: 3, 2: 3}, now) is None
  # One is slow, but takes steps.
  for n in range(50):
    assert comparison.behind({0: n + 9, 1: n, 2: n + 9}, 1000 + 9 * n) is None
  assert comparison.behind({0: 70, 1: 59, 2: 59}, 2000) is None
  # It comes up again and falls behind anew.
  assert comparison.behind({0: 70, 1: 70, 2: 69}, 2009) is None
  assert comparison.behind({0: 71, 1: 70, 2: 71}, 2010) is None
  assert comparison.behind({0: 71, 1: 70, 2: 71}, 2019.9) is None
  assert comparison.behind({0: 71, 1: 70, 2: 71}, 2020) == (1, 70, 71)


@pytest.mark.parametrize("hanging", [0, 1])
def test_every_process_ends_and_names_the_one_that_hangs(hanging, capfd):
  store, ended = Texts(), {0: threading.Event(), 1: threading.Event()}
  codes = {}

  def ending(index):
    def end(code):
      codes[index] = code
      ended[index].set()

    return end

  with (
    watch.Watch(1, store=store, index=0, count=2, end=ending(0)) as a,
    watch.Watch(1, store=store, index=1, count=2, end=ending(1)) as b,
  ):
    began = time.monotonic()
    for n in range(3):
      for index, one in enumerate((a, b)):
        if n < 2 or index != hanging:
          one.passed()
    assert ended[0].wait(20)
    assert ended[1].wait(20)
    assert time.monotonic() - began < 10
  assert codes == {0: watch.EXIT_HANGING, 1: watch.EXIT_HANGING}
  said = capfd.readouterr().err
  named = f"process {hanging} of 2 hangs: it began 2 steps since its start and"
  assert f"{named} others 3, for 1 s (PROCESS_STALL_SECONDS)" in said
  assert "(this one) hangs" in said
  # Where: its stacks.
  assert "most recent call first" in said


def test_nothing_ends_where_all_go_on_or_leave():
  store, codes = Texts(), []
  both = [
    watch.Watch(0.5, store=store, index=i, count=2, end=codes.append)
    for i in (0, 1)
  ]
  with both[0], both[1]:
    for n in range(15):
      both[n % 2].passed()
      time.sleep(0.1)
  # The second one has a step more than the first, and both have left.
  time.sleep(0.8)
  assert codes == []


def test_a_service_that_is_gone_is_left_to_jax():
  class Gone(Texts):
    def key_value_dir_get(self, key):
      raise RuntimeError("UNAVAILABLE")

  codes = []
  with watch.Watch(
    0.2, store=Gone(), index=0, count=2, end=codes.append
  ) as one:
    one.passed()
    time.sleep(0.6)
  assert codes == []


def test_alone_there_is_no_thread():
  before = threading.active_count()
  with watch.Watch(1) as one:
    one.passed()
    assert threading.active_count() == before


def test_seconds_out_of_range():
  with pytest.raises(UserError, match="PROCESS_STALL_SECONDS is 0"):
    Survival(process_stall_seconds=0)


def test_examples_in_docstrings():
  assert doctest.testmod(watch).failed == 0


TWO = """
import sys, time, jax
from flan_jax.errors import UserError
from flan_jax.training import processes, watch
processes.join()
me = jax.process_index()
for _ in range(2):
  processes.wait_for_all("begun")
if me == 0:
  try:
    processes.wait_for_all("come here", seconds=1)
  except UserError as error:
    print(error, flush=True)
else:
  time.sleep(3)
with watch.Watch(2) as watched:
  for step in range(40):
    if step == 5 and me == 1:
      time.sleep(1000)
    watched.passed()
    time.sleep(0.05)
  time.sleep(1000)
"""


def start(code, **more):
  port, started = processes_test.free_port(), []
  for index in range(2):
    env = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      processes.ADDRESS: f"127.0.0.1:{port}",
      processes.COUNT: "2",
      processes.INDEX: str(index),
      **more,
    }
    env.pop("TFDS_DATA_DIR", None)
    started.append(
      subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  return started


def outputs(started, seconds):
  try:
    return [one.communicate(timeout=seconds)[0] for one in started]
  finally:
    for one in started:
      one.kill()


@pytest.mark.slow
def test_two_processes_of_jax_end_by_it():
  both = start(TWO)
  first, second = outputs(both, 120)
  assert "process 1 of 2 has not come here in 1 s, and the others" in first
  assert "process 1 of 2 hangs: it began 5 steps" in first
  assert both[0].returncode == watch.EXIT_HANGING
  assert "process 1 of 2 (this one) hangs" in second
  assert "time.sleep(1000)" in second or 'File "<string>", line 19' in second
  assert both[1].returncode != 0


# The whole job, one process of which waits for a batch that never comes.
RUN = """
import os, runpy, sys, time
from flan_jax.training import input as input_lib
real, taken = input_lib.ReadAhead.__next__, []
def next_one(self):
  taken.append(1)
  if len(taken) == 6 and os.environ["JAX_PROCESS_ID"] == "1":
    time.sleep(10**6)
  return real(self)
input_lib.ReadAhead.__next__ = next_one
sys.argv = ["launch/run.py", *{flags!r}]
runpy.run_path("launch/run.py", run_name="__main__")
"""


@processes_test.LONG
@pytest.mark.slow
def test_a_run_ends_by_it_and_goes_on(tmp_path):
  folder, cache = tmp_path / "run", tmp_path / "cache"
  options = {"TRAIN_STEPS": 8, "PROCESS_STALL_SECONDS": 60.0}
  flags = processes_test.command(folder, **options)[2:]
  both = start(RUN.format(flags=flags), FLAN_JAX_CACHE=str(cache))
  first, second = outputs(both, 900)
  assert "process 1 of 2 hangs: it began 5 steps since its start" in first
  assert "(this one) hangs" in second
  # Where: in the function that waits.
  assert "in next_one" in second
  assert both[0].returncode == watch.EXIT_HANGING
  # The same command goes on, as one process here.
  processes_test.finish(processes_test.start(folder, 1, cache, **options))
  assert len(processes_test.curve(folder)) == 8
