"""The steps of a run, of a model that takes none of a test's time."""

import functools
import json
import logging
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from flan_jax.data.waiting import Waiting
from flan_jax.errors import Stopped, UserError
from flan_jax.training import (
  accounting,
  checkpoint,
  compilation,
  loop,
  loss,
  meter,
  nonfinite,
  optimiser,
  profile,
  progress,
  step,
  writers,
)
from flan_jax.training.survival import Survival
from tests.training import step_test

# A step with dropout, so that the key of a step matters too.
OPTIMISER = optimiser.adafactor(0.1, min_dim_size_to_factor=4)
STEP = jax.jit(
  functools.partial(
    step.train_step,
    model=step_test.TinyModel(dropout_rate=0.3),
    optimiser=OPTIMISER,
    loss_config=loss.LossConfig(),
    dropout_seed=7,
  ),
  donate_argnums=0,
)


class Numbers:
  """A vocabulary whose texts are the numbers of its tokens."""

  def decode(self, ids):
    return " ".join(map(str, ids))


def batches_after(number, bad=()):
  """Batch n is a function of n alone; those of `bad` make the loss NaN."""
  while True:
    number += 1
    batch = step_test.ragged_batch(number)
    if number in bad:
      batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * np.nan
    yield batch


class Run:
  """One start of a run in a folder, as train.py makes it."""

  def __init__(self, folder, *, bad=(), steps=12, period=3, **survival):
    folder.mkdir(exist_ok=True)
    self.folder = folder
    self.checkpoints = checkpoint.Checkpoints(
      folder / "checkpoints", keep=3, period=period
    )
    fresh = step_test.fresh(OPTIMISER)
    shapes = jax.eval_shape(lambda: fresh)
    restored = self.checkpoints.restore_latest(shapes)
    self.state, self.saved = fresh, {}
    if restored is not None:
      self.state, self.saved = restored.state, restored.extra
    self.start = int(self.state.step)
    self.account = accounting.Account(folder)
    self.account.resume(self.start)
    self.measured = []
    self.loop = loop.Loop(
      folder=folder,
      train_step=STEP,
      put_batch=jax.device_put,
      batches=functools.partial(batches_after, bad=bad),
      waiting=Waiting(),
      vocabulary=Numbers(),
      template=shapes,
      measure=self.measure,
      begun=lambda: None,
      extra={"details": None},
      periods=loop.Periods(steps, log=2, checkpoint=period, evaluation=6),
      survival=Survival(**survival),
      checkpoints=self.checkpoints,
      log=writers.MetricsLog(folder, self.start),
      account=self.account,
      meter=meter.Meter(self.account, step_test.TinyModel()),
      profile=profile.Profile(None, folder),
      compilations=compilation.Compilations(None),
      display=progress.Display(),
    )

  def measure(self, params, at):
    self.measured.append(at)
    return {}

  def __call__(self):
    try:
      return self.loop.run(self.state, self.start, self.saved)
    finally:
      self.checkpoints.close()
      self.loop.log.close()
      self.account.close()


def curve(folder):
  rows = writers.read(folder / "metrics.jsonl")
  return [(r["step"], r["train/loss"]) for r in rows if "train/loss" in r]


def assert_bits(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_steps_are_logged_saved_and_accounted(tmp_path):
  run = Run(tmp_path)
  state = run()
  assert int(state.step) == 12
  assert run.checkpoints.steps == [6, 9, 12]
  assert run.measured == [6, 12]
  rows = writers.read(tmp_path / "metrics.jsonl")
  assert [r["step"] for r in rows] == list(range(1, 13))
  logged = [r["step"] for r in rows if "time/step" in r]
  assert logged == [1, 2, 3, 4, 6, 8, 9, 10, 12]
  assert rows[-1]["memory/peak_gib"] > 0.01
  assert rows[-1]["train/tokens_per_second"] > 0
  totals = run.account.totals()
  total = sum(totals[name] for name in accounting.CATEGORIES)
  assert total == pytest.approx(totals["wall"], rel=0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_started_again(tmp_path, number):
  whole = Run(tmp_path / "whole")()
  run = Run(tmp_path / "run")
  seen = []

  def put(batch):
    seen.append(batch)
    if len(seen) == 5:
      signal.raise_signal(number)  # In the midst of a step: it is finished.
    return jax.device_put(batch)

  run.loop.put_batch = put
  with pytest.raises(Stopped, match=f"{number.name}: step 5 is saved"):
    run()
  assert run.checkpoints.steps == [3, 5]
  again = Run(tmp_path / "run")
  assert again.start == 5
  assert_bits(again(), whole)
  assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_stopped_while_it_evaluates(tmp_path):
  whole = Run(tmp_path / "whole")()
  run = Run(tmp_path / "run")
  run.loop.measure = lambda params, at: (
    signal.raise_signal(signal.SIGTERM) or {}
  )
  with pytest.raises(Stopped, match="step 6 is saved"):
    run()
  assert_bits(Run(tmp_path / "run")(), whole)


def test_stopped_before_the_first_step(tmp_path):
  run = Run(tmp_path)

  def never(number):
    time.sleep(60)
    yield {}

  run.loop.batches = never
  timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
  timer.start()
  with pytest.raises(Stopped, match="SIGTERM: the same command"):
    run()
  assert run.checkpoints.steps == []


def test_stopped_in_a_series_before_the_first_checkpoint(tmp_path):
  """Nothing is saved of steps that are not finite, and nothing was before."""
  run = Run(tmp_path, max_nonfinite_steps=2)
  run.loop.periods = loop.Periods(12, log=50, checkpoint=50, evaluation=50)
  waiting = threading.Event()

  def three(number):
    batches = batches_after(number, bad={2, 3})
    for _ in range(3):
      yield next(batches)
    waiting.wait(60)

  taken = []

  def put(batch):
    taken.append(batch)
    if len(taken) == 3:
      threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return jax.device_put(batch)

  run.loop.batches, run.loop.put_batch = three, put
  try:
    with pytest.raises(Stopped, match="SIGTERM: the same command"):
      run()
  finally:
    waiting.set()
  assert run.checkpoints.steps == []


def test_a_step_that_is_not_finite_changes_nothing(tmp_path, caplog):
  state = Run(tmp_path / "run", bad={5, 8}, max_nonfinite_steps=2)()
  assert int(state.skipped) == 2
  rows = writers.read(tmp_path / "run" / "metrics.jsonl")
  assert [r["step"] for r in rows if r["train/nonfinite"]] == [5, 8]
  assert [r["step"] for r in rows if r["train/skipped"]] == [5, 8]
  assert "Back at" not in caplog.text
  # Parameters and optimiser are those of a run without these steps' updates.
  norms = [r["train/param_norm"] for r in rows]
  assert norms[4] == norms[3]
  assert norms[7] == norms[6]


BAD = {8, 9, 10}


def test_after_some_in_a_row_it_goes_back_and_passes_over(tmp_path, caplog):
  limits = {"max_nonfinite_steps": 3, "max_rollbacks": 1}
  run = Run(tmp_path / "run", bad=BAD, **limits)
  with caplog.at_level(logging.WARNING):
    state = run()
  assert "3 steps in a row (MAX_NONFINITE_STEPS), 8 to 10" in caplog.text
  assert "Back at step 6" in caplog.text
  # What came of it is the six steps before, and six with batches 11 to 16.
  expected = step_test.fresh(OPTIMISER)
  order = [*range(1, 7), *range(11, 17)]
  for number in order:
    batch = next(batches_after(number - 1))
    expected, _ = STEP(expected, batch)
  assert_bits(state, expected)
  assert [at for at, _ in curve(tmp_path / "run")] == list(range(1, 13))
  assert run.account.totals()["lost"] > 0
  # The batches are written down, by number, checksum and text.
  written = json.loads((tmp_path / "run" / "nonfinite_8_10.json").read_text())
  assert [s["batch"] for s in written["steps"]] == [8, 9, 10]
  bad = next(batches_after(7, BAD))
  assert written["steps"][0]["crc32"] == nonfinite.checksum(bad)
  (example,) = written["steps"][0]["rows"][0]
  ids = [int(i) for i in bad["decoder_target_tokens"][0]]
  assert example["targets"] == " ".join(str(i) for i in ids)
  # A checkpoint knows what was passed over.
  again = Run(tmp_path / "run", bad=BAD, steps=15, **limits)
  assert (again.start, again.saved["passed_over"]) == (12, 4)
  assert again.saved["rollbacks"] == 1
  final = again()
  for number in (17, 18, 19):
    expected, _ = STEP(expected, next(batches_after(number - 1)))
  assert_bits(final, expected)


@pytest.mark.parametrize("at", [7, 9, 10, 11])
def test_stopped_around_a_series_the_same_comes_of_it(tmp_path, at):
  """The count in a row survives a restart in the midst of the series."""
  limits = {"max_nonfinite_steps": 3, "max_rollbacks": 1, "bad": BAD}
  whole = Run(tmp_path / "whole", **limits)()
  run = Run(tmp_path / "run", **limits)
  seen = []

  def put(batch):
    seen.append(batch)
    if len(seen) == at:
      signal.raise_signal(signal.SIGTERM)
    return jax.device_put(batch)

  run.loop.put_batch = put
  with pytest.raises(Stopped):
    run()
  assert_bits(Run(tmp_path / "run", **limits)(), whole)
  assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_it_does_not_go_back_for_ever(tmp_path):
  run = Run(
    tmp_path, bad=range(8, 100), max_nonfinite_steps=2, max_rollbacks=2
  )
  with pytest.raises(UserError) as caught:
    run()
  message = str(caught.value)
  assert "went back 2 times before (MAX_ROLLBACKS)" in message
  assert "2 steps in a row" in message
  assert "Lower LEARNING_RATE" in message
  assert len(list(tmp_path.glob("nonfinite_*.json"))) >= 1


def test_nothing_to_go_back_to(tmp_path):
  run = Run(tmp_path, bad={1, 2}, max_nonfinite_steps=2)
  with pytest.raises(UserError, match="no checkpoint from before them"):
    run()


def test_a_stalled_input_names_what_it_waits_for(tmp_path, caplog):
  run = Run(tmp_path, input_stall_seconds=0.2)
  run.loop.waiting = type("Waits", (), {"task": "flan_sst2"})()
  plain = run.loop.batches

  def slow(number):
    for i, batch in enumerate(plain(number)):
      if i == 4:
        time.sleep(0.7)
      yield batch

  run.loop.batches = slow
  with caplog.at_level(logging.WARNING):
    run()
  said = [r.getMessage() for r in caplog.records if "No batch" in r.message]
  assert said
  assert "No batch for step 5 after 0 s (INPUT_STALL_SECONDS)" in said[0]
  assert "waits for task 'flan_sst2'" in said[0]
  assert run.account.totals()["input"] > 0.3


@pytest.mark.parametrize("name", ["max_failed_saves", "max_rollbacks"])
def test_limits_out_of_range(name):
  with pytest.raises(UserError, match=f"{name.upper()} is -1"):
    Survival(**{name: -1})
  with pytest.raises(UserError, match="GRACE_SECONDS is 0"):
    Survival(grace_seconds=0)
  with pytest.raises(UserError, match="MAX_NONFINITE_STEPS is 0"):
    Survival(max_nonfinite_steps=0)
  with pytest.raises(UserError, match="nearest are 100 and 150"):
    Survival(checkpoint_keep_period=120).check_periods(50)
