"""A trace of some steps, for TensorBoard's profiler: PROFILE_STEPS."""

import pathlib
from typing import Any

import jax


class Profile:
  """Traces the steps from `first` to `last` with `jax.profiler`.

  Kernels, host threads and gaps between them; look at it with
  `tensorboard --logdir MODEL_DIR/tensorboard` and its plugin `xprof`.
  """

  def __init__(self, steps: tuple[int, int] | None, directory: pathlib.Path):
    """Args:
    steps: the first and the last; None traces nothing.
    directory: where to.
    """
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
