"""Checkpoints: saved in the background, verified before they are used.

    checkpoints = Checkpoints(model_dir, keep=3)
    restored = checkpoints.restore_latest(state)
    if restored:
      state, extra, step = restored
    ...
    checkpoints.save(step, state, {"data_position": 1600}, {"loss": 2.1})
    ...
    checkpoints.save(step, state, extra, final=True)
    checkpoints.close()

Orbax writes and reads the arrays, sharded as they are or as the template says.
What is added here: a manifest with checksums that is written last
(`integrity.py`), falling back past a torn checkpoint, and a failing save that
does not end the run.
"""

import concurrent.futures
import contextlib
import difflib
import json
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from flan_jax.data import remote
from flan_jax.errors import UserError
from flan_jax.training import integrity, processes, restore

restore_params = restore.restore_params

_log = logging.getLogger(__name__)
# What a failing disk or a full one raises, from Python and from TensorStore.
_SAVE_ERRORS = (OSError, ValueError, RuntimeError)
_CHUNK_BYTES = 1 << 26


class Restored(NamedTuple):
  """What `Checkpoints.restore_latest` found."""

  state: Any
  extra: dict[str, Any]
  step: int


class Checkpoints:
  """The checkpoints of one run, `directory/checkpoint_<step>`.

  Attributes:
    directory: where they are.
    steps: of the checkpoints that are there, ascending.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    *,
    keep: int = 3,
    best_metric: str | None = None,
    keep_best: int | None = None,
    best_mode: str = "max",
    keep_period: int | None = None,
    period: int = 1,
    max_failed_saves: int = 3,
    before_commit: Callable[[], None] = lambda: None,
  ):
    """Opens, or creates, the directory and tries to write in it.

    Args:
      directory: in MODEL_DIR; of a file system or of Cloud Storage.
      keep: how many of the newest to keep.
      best_metric: a key of the `metrics` given to `save`.
      keep_best: how many of the best by `best_metric` to keep besides; 1 if
        None.
      best_mode: "max" or "min": which value is better.
      keep_period: checkpoints of every so many steps stay for good.
      period: of the steps that are saved. One in between, where a signal
        stopped the run, stays until the next and counts for nothing else, so
        that a run that was stopped has the same ones as one that was not.
      max_failed_saves: saves in a row that may fail; one more ends the run.
      before_commit: called in every process when the arrays are written and
        before the checkpoint counts; an OSError of it fails the save, in the
        first process alone.

    Raises:
      UserError: the directory cannot be created or written, or an option is
        out of range or has no effect.
    """
    if keep < 1 or max_failed_saves < 0:
      raise UserError(
        f"keep={keep}, max_failed_saves={max_failed_saves}: keep at least 1"
        " checkpoint, and allow 0 or more failures."
      )
    if keep_best is None:
      keep_best = 0 if best_metric is None else 1
    elif best_metric is None or keep_best < 1:
      raise UserError(
        f"keep_best={keep_best} with best_metric={best_metric!r}: keep at least"
        " 1, by a metric, or leave both out."
      )
    if keep_period is not None and keep_period < 1:
      raise UserError(f"keep_period={keep_period}: give 1 step or more.")
    if best_mode not in ("max", "min"):
      raise UserError(f"best_mode={best_mode!r}: it is 'max' or 'min'.")
    self.directory = remote.writable(remote.run_folder(directory))
    self._keep = keep
    self._keep_best = keep_best
    self._keep_period = keep_period
    self._period = period
    self._best_metric = best_metric
    self._best_sign = 1.0 if best_mode == "max" else -1.0
    self._max_failed_saves = max_failed_saves
    self._before_commit = before_commit
    self._failed_saves = 0
    self._trusted = set()  # steps saved or restored by this object
    self._pending = None
    self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    restore.quieten_orbax()
    self._writer = _new_writer()
    if processes.is_first():
      for left_over in self.directory.glob("checkpoint_*.deleting"):
        remote.remove_tree(left_over)

  @property
  def steps(self) -> list[int]:
    return sorted(restore.checkpoints_in(self.directory))

  def latest_path(self) -> remote.Path | None:
    """The folder of the newest checkpoint, None if there is none."""
    steps = self.steps
    return self.directory / f"checkpoint_{steps[-1]}" if steps else None

  def save(
    self,
    step: int,
    state: Any,
    extra: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    *,
    final: bool = False,
  ) -> bool:
    """Copy the state, then write it in the background.

    Returns as soon as the arrays are copied, so that the next step may donate
    them. Waits for the save before it. The step of a checkpoint that this
    object saved or restored is not saved again.

    Args:
      step: names the checkpoint.
      state: pytree of arrays.
      extra: JSON values to get back from `restore_latest`: position in the
        data, seeds, whatever continues the run.
      metrics: measured at this step, for `best_metric`.
      final: wait until it is saved, and let a failure be an error.

    Returns:
      False if the save could not be started, which is reported and counted.

    Raises:
      UserError: more than `max_failed_saves` in a row failed; `final` and
        this one failed; the step is already there from elsewhere.
      TypeError: `extra` or `metrics` is not JSON.
    """
    metrics = {name: float(v) for name, v in (metrics or {}).items()}
    extra = json.loads(json.dumps(dict(extra)))
    self._collect()
    path = self.directory / f"checkpoint_{step}"
    if step in self._trusted:
      return True
    if processes.is_first() and path.exists():
      raise UserError(
        f"{path} exists, and this run neither wrote nor restored it: resume"
        " from it, move it away, or choose another MODEL_DIR."
      )
    if metrics and self._best_metric and self._best_metric not in metrics:
      near = difflib.get_close_matches(self._best_metric, metrics, 1, 0)[0]
      raise UserError(
        f"best_metric={self._best_metric!r} is not among the metrics saved at"
        f" step {step}: did you mean {near!r}? They are {', '.join(metrics)}."
      )
    tree, arrays = restore.named(state)
    try:
      with remote.own_errors(path):
        if processes.is_first():
          path.mkdir(parents=True)
        self._writer.save(path / restore.STATE, args=_save_args(tree))
    except _SAVE_ERRORS as error:
      self._failed(step, error, final=final)
      return False
    content = {
      "step": step,
      "arrays": {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)}
        for name, x in arrays.items()
      },
      "metrics": metrics,
      "extra": extra,
    }
    self._pending = step, self._worker.submit(self._commit, path, content)
    return self._collect(final=True) if final else True

  def wait(self) -> bool:
    """Wait for the save in progress; False if it failed.

    Raises:
      UserError: more than `max_failed_saves` in a row failed.
    """
    return self._collect()

  def close(self) -> None:
    """Wait for the save in progress and release the threads."""
    try:
      self._collect()
    finally:
      self._worker.shutdown()
      self._writer.close()

  def restore_latest(self, template: Any) -> Restored | None:
    """The newest whole checkpoint, or None if nothing was saved yet.

    A torn one is named in a warning, renamed to `checkpoint_N.torn` and passed
    over.

    Args:
      template: pytree of arrays or `jax.ShapeDtypeStruct`; the result has its
        structure, shapes, dtypes and, where given, shardings.

    Returns:
      state, the `extra` it was saved with, and its step.

    Raises:
      UserError: every checkpoint that was once whole is damaged; or the newest
        whole one does not fit the template: every missing, unexpected and
        differing array is named.
      OSError: the bucket cannot be read.
    """
    self._collect()
    with remote.own_errors(self.directory):
      return self._restore_latest(template)

  def _restore_latest(self, template):
    found = sorted(restore.checkpoints_in(self.directory).items())
    torn = []
    while found:
      step, path = found.pop()
      try:
        manifest = integrity.check(path)
        break
      except integrity.Torn as one:
        torn.append(one)
    else:
      damaged = [f"  {one}" for one in torn if one.finished]
      if damaged:
        # Nothing is renamed: starting again must say the same again.
        raise UserError(
          f"no usable checkpoint is left in {self.directory}:\n"
          + "\n".join(damaged)
          + "\nPut back a copy of one, or start from the beginning in another"
          " MODEL_DIR."
        )
      manifest = None
    # All have looked at what is there before the first one moves it.
    processes.wait_for_all("looked at checkpoints")
    if processes.is_first():
      for one in torn:
        integrity.set_aside(one)
    if manifest is None:
      return None
    state = restore.read(path, manifest, template)
    self._trusted.add(step)
    return Restored(state, manifest["extra"], step)

  def go_back(self, before: int, template: Any) -> Restored | None:
    """The newest whole checkpoint, of those of `period`, from before a step.

    Later ones are deleted, since their steps are run again. None, with nothing
    deleted, where no whole one is from before it.

    Args:
      before: a step.
      template: as for `restore_latest`.
    """
    self._collect()
    with remote.own_errors(self.directory):
      return self._go_back(before, template)

  def _go_back(self, before, template):
    found = restore.checkpoints_in(self.directory)
    earlier = (s for s in found if s < before and s % self._period == 0)
    whole = (
      s for s in sorted(earlier, reverse=True) if integrity.is_whole(found[s])
    )
    target = next(whole, None)
    # All have looked at what is there before the first one deletes of it, and
    # it is gone before they look again.
    processes.wait_for_all("looked for where to go back")
    if target is None:
      return None
    for step in sorted(found, reverse=True):
      if step > target:
        if processes.is_first():
          integrity.remove(found[step])
        self._trusted.discard(step)
    processes.wait_for_all("went back")
    return self._restore_latest(template)

  def _commit(self, path, content):
    """In the worker: when Orbax is done, make it count, then tidy up."""
    with remote.own_errors(path):
      self._writer.wait_until_finished()
      if processes.is_first():
        self._before_commit()
        integrity.commit(path, content)
    if not processes.is_first():
      # Whether it counts is for the first one alone to say.
      try:
        self._before_commit()
      except OSError as error:
        _log.warning("Its log is kept with the next checkpoint: %s", error)
      return
    try:
      with remote.own_errors(path):
        self._retain()
    except (OSError, UserError) as error:
      _log.warning("An old checkpoint could not be deleted: %s", error)

  def _retain(self):
    found = restore.checkpoints_in(self.directory)
    metrics = {}
    for step, path in found.items():
      try:
        metrics[step] = integrity.read(path)["metrics"]
      except integrity.Torn:
        continue
    if not metrics:
      return
    regular = {s: m for s, m in metrics.items() if s % self._period == 0}
    kept = {max(metrics)} | retained(
      regular,
      keep=self._keep,
      keep_best=self._keep_best,
      keep_period=self._keep_period,
      score=lambda m: self._best_sign * m.get(self._best_metric, math.nan),
    )
    for step in metrics.keys() - kept:
      integrity.remove(found[step])

  def _collect(self, *, final=False):
    """The outcome of the save in progress, if there is one."""
    if self._pending is None:
      return True
    step, future = self._pending
    self._pending = None
    try:
      future.result()
    except _SAVE_ERRORS as error:
      self._failed(step, error, final=final)
      return False
    self._trusted.add(step)
    self._failed_saves = 0
    return True

  def _failed(self, step, error, *, final):
    path = self.directory / f"checkpoint_{step}"
    # What was written counts for nothing, and a full disk needs the room. The
    # first process alone knows that it does not count.
    if processes.is_first():
      remote.remove_tree(path)
    with contextlib.suppress(*_SAVE_ERRORS):
      self._writer.close()
    self._writer = _new_writer()
    self._failed_saves += 1
    reason = " ".join(str(error).split())[:500]
    # As it is remembered: what cannot be written may not be read either.
    newest = max(self._trusted, default=None)
    kept = None if newest is None else self.directory / f"checkpoint_{newest}"
    message = (
      f"Saving {path} failed: {type(error).__name__}: {reason}"
      f" (newest kept: {kept})"
    )
    if final or self._failed_saves > self._max_failed_saves:
      raise UserError(
        f"{message}. {self._failed_saves} in a row failed"
        f" (max_failed_saves={self._max_failed_saves}). Make room or make the"
        " folder writable, and start again with the same command."
      ) from error
    _log.warning(
      "%s. The run goes on: failure %d in a row; more than %d end it.",
      message,
      self._failed_saves,
      self._max_failed_saves,
    )


def retained(metrics, *, keep, keep_best, score, keep_period=None) -> set[int]:
  """Which steps stay: the newest, the best, and every `keep_period`-th step.

  >>> metrics = {10: {"a": 3.0}, 20: {"a": 9.0}, 30: {}, 40: {"a": 1.0}}
  >>> sorted(retained(metrics, keep=2, keep_best=1,
  ...                 score=lambda m: m.get("a", math.nan)))
  [20, 30, 40]
  >>> sorted(retained(metrics, keep=1, keep_best=0, keep_period=20, score=None))
  [20, 40]

  Args:
    metrics: step -> metrics.
    keep: number of newest.
    keep_best: number of best besides; of equal ones the newer is better.
    score: of a checkpoint's metrics; NaN is never among the best.
    keep_period: in steps; None: no others stay.
  """
  newest = sorted(metrics)[-keep:]
  best = []
  if keep_best:
    ranked = sorted(
      (score(m), step) for step, m in metrics.items() if score(m) == score(m)
    )
    best = [step for _, step in ranked[-keep_best:]]
  every = [s for s in metrics if keep_period and s % keep_period == 0]
  return {*newest, *best, *every}


def _new_writer():
  return ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())


def _save_args(tree):
  """In chunks, so that a conversion reads a large array in parts."""
  each = jax.tree.map(
    lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree
  )
  return ocp.args.PyTreeSave(tree, save_args=each)
