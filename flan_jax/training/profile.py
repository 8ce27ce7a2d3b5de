"""A trace of some steps, for TensorBoard's profiler: PROFILE_STEPS."""

import importlib.util
import pathlib
from typing import Any

import jax

from flan_jax.errors import UserError


class Profile:
  """Traces the steps from `first` to `last` with `jax.profiler`.

  Kernels, host threads and gaps between them; look at it with
  `tensorboard --logdir MODEL_DIR/tensorboard` and its plugin `xprof`.
  """

  def __init__(self, steps: tuple[int, int] | None, directory: pathlib.Path):
    """Args:
    steps: the first and the last; None traces nothing.
    directory: where to.

    Raises:
      UserError: libtpu, which traces TPUs, is installed where there is none.
    """
    if steps is not None:
      _check_libtpu()
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


def _check_libtpu():
  """Its tracer, which JAX loads unless told, ends a process without a TPU."""
  if (
    importlib.util.find_spec("libtpu") is not None
    and jax.default_backend() != "tpu"
    and not jax.config.jax_platforms
  ):
    raise UserError(
      f"PROFILE_STEPS: libtpu is installed, but this runs on a"
      f" {jax.default_backend()}, where its tracer ends the process. Set"
      f" JAX_PLATFORMS={jax.default_backend()}, or uninstall libtpu."
    )
