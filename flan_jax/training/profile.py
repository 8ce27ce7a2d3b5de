"""A trace of some steps, for TensorBoard's profiler: PROFILE_STEPS."""

import pathlib
from typing import Any

import jax

from flan_jax.errors import UserError


class Profile:
  """Traces the steps from `first` to `last` with `jax.profiler`.

  Kernels, host threads and gaps between them; look at it with
  `tensorboard --logdir MODEL_DIR/tensorboard` and its plugin `xprof`.
  """

  def __init__(
    self,
    steps: tuple[int, int] | None,
    directory: pathlib.Path,
    train_steps: int,
  ):
    """Args:
    steps: the first and the last; None traces nothing.
    directory: where to.
    train_steps: of the run.

    Raises:
      UserError: they are not two steps of the run.
    """
    if steps is not None and not (
      isinstance(steps, list | tuple)
      and len(steps) == 2
      and all(isinstance(n, int) for n in steps)
      and 1 <= steps[0] <= steps[1] <= train_steps
    ):
      raise UserError(
        f"PROFILE_STEPS is {steps!r}; give the first and the last step to"
        f" trace, from 1 to TRAIN_STEPS ({train_steps:,}): (20, 25), say."
      )
    self.first, self.last = steps or (0, -1)
    self.directory = directory
    self._on = False

  def before(self, step: int) -> bool:
    """Begins the trace if it is time; whether it did."""
    if self._on or not self.first <= step <= self.last:
      return False
    jax.profiler.start_trace(str(self.directory))
    self._on = True
    return True

  def after(self, step: int, result: Any) -> bool:
    """Ends the trace if it is time, once `result` is computed; whether so."""
    if not self._on or step < self.last:
      return False
    jax.block_until_ready(result)
    self.close()
    return True

  def close(self) -> None:
    """Ends a trace that goes on; what it has is kept."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
