"""The steps of a run, from its start or a checkpoint to the last one.

Metrics stay on the device until they are logged, so that the next step is
dispatched while this one computes. What a checkpoint covers is in the log
before it: a run that goes on from there leaves no gap in the curve.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flan_jax.data.waiting import Waiting
from flan_jax.errors import Stopped, UserError
from flan_jax.training import (
  accounting,
  checkpoint,
  compilation,
  meter,
  nonfinite,
  profile,
  progress,
  writers,
)
from flan_jax.training import input as input_lib
from flan_jax.training.state import TrainState
from flan_jax.training.stopping import Stopping
from flan_jax.training.survival import Survival
from flan_jax.training.watch import Watch

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Periods:
  """Every how many steps what is done, and after how many the run ends."""

  train_steps: int
  log: int
  checkpoint: int
  evaluation: int

  def saving(self, step: int) -> bool:
    return step == self.train_steps or step % self.checkpoint == 0

  def measuring(self, step: int) -> bool:
    return step == self.train_steps or step % self.evaluation == 0


@dataclasses.dataclass
class Loop:
  """What the steps need; `run` takes them.

  Attributes:
    folder: of the run.
    train_step: (state, batch) -> (state, metrics), compiled.
    put_batch: from the host to the devices.
    batches: makes the batches after a number of them.
    waiting: knows the task that the batches wait for.
    vocabulary: that decodes batches.
    template: shapes of the state and where it lies.
    measure: (params, step) -> scalars of an evaluation.
    begun: called after the first step is dispatched.
    extra: JSON for every checkpoint.
    periods, survival: see there.
    checkpoints, log, account, meter, profile, compilations, display: open.
  """

  folder: pathlib.Path
  train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping]]
  put_batch: Callable[[Mapping[str, np.ndarray]], Any]
  batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]]
  waiting: Waiting
  vocabulary: Any
  template: Any
  measure: Callable[[Any, int], dict[str, float]]
  begun: Callable[[], None]
  extra: Mapping[str, Any]
  periods: Periods
  survival: Survival
  checkpoints: checkpoint.Checkpoints
  log: writers.MetricsLog
  account: accounting.Account
  meter: meter.Meter
  profile: profile.Profile
  compilations: compilation.Compilations
  display: progress.Display

  def run(
    self, state: TrainState, start: int, saved: Mapping[str, Any]
  ) -> TrainState:
    """Takes the steps after `start`; the state after the last one.

    Args:
      state: at `start`; donated.
      start: steps done.
      saved: the `extra` of the checkpoint it is from, or {}.

    Raises:
      Stopped: a signal came; what was done is saved.
      UserError: too many checkpoints failed, or steps were not finite.
    """
    self._state, self._step, self._start = state, start, start
    self._passed_over = saved.get("passed_over", 0)
    self._rollbacks = saved.get("rollbacks", 0)
    self._counter = nonfinite.Counter(
      self.survival.max_nonfinite_steps, saved.get("nonfinite_in_a_row", 0)
    )
    self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
    self._open_batches()
    self.account.started()
    several = jax.process_count() > 1
    agree = multihost_utils.reached_preemption_sync_point if several else None
    with (
      Stopping(self.survival.grace_seconds, agree) as stopping,
      Watch(self.survival.process_stall_seconds) as self._watch,
    ):
      try:
        with (
          self.account.spending("step"),
          self.display.steps(self.periods.train_steps, start) as bar,
        ):
          while self._step < self.periods.train_steps:
            self._take_one(bar, stopping)
      except Stopped:
        raise self._stopped(stopping) from None
      finally:
        self._batches.close()
        self.profile.close()
    return self._state

  def _take_one(self, bar: progress.Steps, stopping: Stopping):
    step = self._step + 1
    with self.account.waiting(self._computing), stopping.interruptible():
      batch = next(self._batches)
    self._watch.passed()
    self.profile.before(step)
    self.meter.batch(batch)
    self._state, metrics = self.train_step(self._state, self.put_batch(batch))
    self._step = step
    self._pending.append((step, metrics))
    self.profile.after(step, metrics)
    if step == self._start + 1:
      self.begun()
      self.compilations.publish()
    periods = self.periods
    measuring, saving = periods.measuring(step), periods.saving(step)
    logged = step == self._start + 1 or step % periods.log == 0
    # A signal that comes from here on is for the next step.
    stop = stopping.at(step)
    if measuring or saving or logged or stop:
      series = self._write_log(bar)
      if series is not None:
        self._go_back(series)
        bar.go_back(self._step)
        return
    if stop:
      raise stopping.stopped()
    scalars = {}
    if measuring:
      bar.pause()
      with self.account.spending("evaluation"), stopping.interruptible():
        scalars = self.measure(self._state.params, step)
      bar.resume()
      self.compilations.publish()
    if saving:
      self._save(scalars, final=step == periods.train_steps)

  def _computing(self) -> bool:
    """Whether the last step that was dispatched is still being computed."""
    if not self._pending:
      return False
    return not self._pending[-1][1]["loss"].is_ready()

  def _write_log(self, bar=None) -> nonfinite.Series | None:
    rows = self.meter.rows(self._pending)
    self._pending = []
    if not rows:
      return None
    seconds = self.account.record(self._step)
    rows[-1] |= {f"time/{name}": value for name, value in seconds.items()}
    for row in rows:
      self.log.write(row["step"], {k: v for k, v in row.items() if k != "step"})
    if bar is not None:
      bar.update(self._step, rows[-1])
    return self._counter.see(rows)

  def _save(self, scalars: Mapping[str, float], *, final: bool):
    extra = {
      "step": self._step,
      **self.extra,
      "passed_over": self._passed_over,
      "rollbacks": self._rollbacks,
      "nonfinite_in_a_row": self._counter.in_a_row,
    }
    with self.account.spending("checkpoint"):
      self.checkpoints.save(
        self._step, self._state, extra, scalars, final=final
      )
    if final:
      self.account.record(self._step)

  def _stopped(self, stopping: Stopping) -> Stopped:
    """Saves what was done; the exception that ends the run."""
    if self._step == self._start:
      return stopping.stopped()
    # Where the steps ended in a series that is not finite, the checkpoint
    # before it stays the newest.
    if self._write_log() is None:
      self._save({}, final=True)
    else:
      self.checkpoints.wait()
    steps = self.checkpoints.steps
    return stopping.stopped(steps[-1] if steps else None)

  def _open_batches(self):
    self._batches = input_lib.ReadAhead(
      self.batches(self._step + self._passed_over),
      stall_seconds=self.survival.input_stall_seconds,
      on_stall=self._stalled,
    )

  def _stalled(self, seconds: float):
    task = self.waiting.task
    what = "its first example" if task is None else f"task {task!r}"
    _log.warning(
      "No batch for step %d after %.0f s (INPUT_STALL_SECONDS): the input waits"
      " for %s. Look at that dataset's files and where they lie.",
      self._step + 1,
      seconds,
      what,
    )

  def _go_back(self, series: nonfinite.Series):
    """To the checkpoint before `series`; its batches are passed over."""
    said = (
      f"the loss or its gradient was not finite for {len(series)} steps in a"
      f" row (MAX_NONFINITE_STEPS), {series.first:,} to {series.last:,}; no"
      " update was made in them"
    )
    self._batches.close()
    try:
      path = nonfinite.write_down(
        self.folder,
        series,
        passed_over=self._passed_over,
        batches=self.batches,
        vocabulary=self.vocabulary,
      )
      said += f", and their batches are in {path}"
    except OSError as error:
      said += f". Their batches could not be written down: {error.strerror}"
    way_out = "Lower LEARNING_RATE, or start from another checkpoint."
    if self._rollbacks >= self.survival.max_rollbacks:
      raise UserError(
        f"{said}. The run went back {self._rollbacks} times before"
        f" (MAX_ROLLBACKS); {way_out}"
      )
    self._state = None
    restored = self.checkpoints.go_back(series.first, self.template)
    if restored is None:
      raise UserError(
        f"{said}. There is no checkpoint from before them to go back to;"
        f" {way_out}"
      )
    self._rollbacks += 1
    self._passed_over += series.last - restored.step
    self._state, self._step = restored.state, restored.step
    self._pending = []
    self.log.go_back(restored.step)
    self.account.lose(restored.step)
    self.meter.restart()
    self._open_batches()
    _log.warning(
      "%s. Back at step %d; the batches up to the last of them are passed"
      " over.",
      said[0].upper() + said[1:],
      restored.step,
    )
