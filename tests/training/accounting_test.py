import json
import os
import time

import jax
import jax.numpy as jnp
import pytest

from flan_jax.training import accounting
from flan_jax.training.accounting import CATEGORIES, Account


class Clock:
  def __init__(self, now):
    self.now = now

  def __call__(self):
    return self.now

  def passes(self, seconds):
    self.now += seconds


def opened(folder, clock, began=None, step=0):
  account = Account(folder, began, clock)
  account.resume(step)
  account.started()
  return account


def assert_sums_to_the_wall_time(totals):
  total = sum(totals[name] for name in CATEGORIES)
  assert total == pytest.approx(totals["wall"], abs=1e-3)


def test_every_second_has_one_category(tmp_path):
  clock = Clock(1000.0)
  account = Account(tmp_path, 996.0, clock)
  clock.passes(2)
  account.resume(0)
  clock.passes(1)
  account.started()
  with account.spending("step"):
    clock.passes(10)
    with account.spending("checkpoint"):
      clock.passes(0.5)
    with account.waiting(lambda: False):
      clock.passes(2)
    # The device was computing meanwhile: nothing was lost to the input.
    with account.waiting(lambda: True):
      clock.passes(3)
    clock.passes(1)
  clock.passes(0.25)
  with account.spending("evaluation"):
    clock.passes(7)
  assert account.working() == 16.5
  totals = account.totals()
  account.close()
  assert totals == {
    "start": 7,
    "compile": 0,
    "step": 14,
    "input": 2,
    "checkpoint": 0.5,
    "evaluation": 7,
    "lost": 0,
    "idle": 0.25,
    "wall": 30.75,
  }
  assert_sums_to_the_wall_time(totals)


def test_an_exception_ends_a_category(tmp_path):
  clock = Clock(0.0)
  account = opened(tmp_path, clock)

  def fails():
    with account.spending("evaluation"):
      clock.passes(1)
      raise KeyError

  with pytest.raises(KeyError):
    fails()
  clock.passes(1)
  totals = account.totals()
  account.close()
  assert (totals["evaluation"], totals["idle"]) == (1, 1)


def test_what_was_done_after_the_checkpoint_is_lost(tmp_path):
  clock = Clock(100.0)
  first = opened(tmp_path, clock, began=99.0)
  with first.spending("step"):
    clock.passes(10)
    first.record(10)  # The checkpoint is of this step.
    clock.passes(5)
    first.record(15)
    clock.passes(2)
  # Killed; the file was touched two seconds after its last line.
  os.utime(first.path, (clock.now, clock.now))
  clock.passes(30)
  began = clock.now
  clock.passes(4)
  second = opened(tmp_path, clock, began=began, step=10)
  with second.spending("step"):
    clock.passes(6)
  second.record(16)
  totals = second.totals()
  assert totals["start"] == 1 + 4
  assert totals["step"] == 10 + 6
  assert totals["lost"] == 5 + 2
  assert totals["idle"] == 30
  assert totals["wall"] == 58
  assert_sums_to_the_wall_time(totals)
  # The newest checkpoint was torn: back to the beginning.
  third = opened(tmp_path, clock, began=clock.now, step=0)
  totals = third.totals()
  assert totals["step"] == 0
  assert totals["lost"] == 7 + 16 + 4
  assert totals["idle"] == 30
  assert totals["start"] == 1
  assert_sums_to_the_wall_time(totals)


def test_going_back_in_a_run(tmp_path):
  clock = Clock(0.0)
  account = opened(tmp_path, clock)
  with account.spending("step"):
    clock.passes(4)
    account.record(4)
    clock.passes(3)
    account.record(7)
    account.lose(4)
    clock.passes(1)
  totals = account.totals()
  account.close()
  assert (totals["step"], totals["lost"]) == (5, 3)
  assert_sums_to_the_wall_time(totals)


def test_a_killed_run_s_half_line_is_left_out(tmp_path):
  clock = Clock(0.0)
  account = opened(tmp_path, clock)
  with account.spending("step"):
    clock.passes(4)
  account.record(4)
  account.close()
  with account.path.open("a") as file:
    file.write('{"step": 5, "fir')
  again = opened(tmp_path, clock, began=clock.now, step=4)
  assert again.totals()["step"] == 4
  rows = [json.loads(line) for line in again.path.read_text().splitlines()]
  assert [row["step"] for row in rows] == [0, 4, 4]


def test_compiling_is_taken_out_of_what_goes_on(tmp_path):
  account = Account(tmp_path)
  account.resume(0)
  account.started()

  @jax.jit
  def inner(x):
    time.sleep(0.05)  # While it is traced.
    return x * 2

  @jax.jit
  def outer(x):
    time.sleep(0.05)
    return inner(x) + inner(x + 1)

  x = jnp.ones((3,))
  with account.spending("evaluation"):
    account.totals()
    before, began = account.seconds["compile"], time.monotonic()
    jax.block_until_ready(outer(x))
    took = time.monotonic() - began
    spent = account.totals()["compile"] - before
    # Traces inside a trace are not counted twice.
    assert 0.1 <= spent <= took
    assert account.seconds["evaluation"] >= 0
    before = account.seconds["compile"]
    jax.block_until_ready(outer(x))
    assert account.totals()["compile"] == before
  totals = account.totals()
  assert_sums_to_the_wall_time(totals)
  account.close()
  before = account.seconds["compile"]
  jax.jit(lambda x: x - 3)(x)
  assert account.seconds["compile"] == before


def test_an_account_that_is_dropped_hears_nothing(tmp_path):
  import gc
  import weakref

  account = Account(tmp_path)
  gone = weakref.ref(account)
  del account
  gc.collect()
  assert gone() is None
  jax.jit(lambda x: x + 17)(1.0)


def test_the_steady_clock_is_the_time():
  clock = accounting._steady_clock()
  assert clock() == pytest.approx(time.time(), abs=5)
