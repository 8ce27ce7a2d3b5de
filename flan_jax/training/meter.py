"""What the steps of a run give per second, and what they hold.

`train/tokens_per_second` counts tokens, not padding, of inputs and targets;
`train/mfu` is the share of the chips' peak that the model's own operations take
(recomputation and the optimiser not counted: Chowdhery et al., 2022, PaLM,
arXiv 2204.02311, appendix B). Both are over the time of the steps, waits for
input and checkpoints included, compiling and evaluation not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flan_jax.training import accounting, chips

GIB = 2.0**30


class Meter:
  """Turns the metrics of steps into rows for the log."""

  def __init__(self, account: accounting.Account, model: Any):
    """Args:
    account: of the run's time.
    model: has `model_flops(shapes)`; without, there is no MFU.
    """
    local = jax.local_devices()
    self.device = local[0]
    peak = chips.peak_flops(self.device, len(local))
    # Of all devices that train; None: not in the table.
    self.peak_flops = None if peak is None else peak * jax.device_count()
    self._account = account
    self._model_flops = getattr(model, "model_flops", None)
    self.step_flops: float | None = None
    self._before = account.working()

  def batch(self, batch: Mapping[str, Any]) -> None:
    """Learns the shapes of a batch, from which the operations follow."""
    if self.step_flops is None and self._model_flops is not None:
      shapes = {name: tuple(x.shape) for name, x in batch.items()}
      self.step_flops = float(self._model_flops(shapes))

  def restart(self) -> None:
    """Rates begin anew: the account took back time that was spent."""
    self._before = self._account.working()

  def rows(
    self, pending: Sequence[tuple[int, Mapping[str, jax.Array]]]
  ) -> list[dict[str, float]]:
    """Rows of metrics off the device; waits for the last step."""
    values = jax.device_get([metrics for _, metrics in pending])
    working = self._account.working()
    seconds = max(working - self._before, 1e-9)
    self._before = working
    tokens = sum(v["input_tokens"] + v["target_tokens"] for v in values)
    common = {"train/tokens_per_second": float(tokens) / seconds}
    if self.step_flops is not None and self.peak_flops is not None:
      done = self.step_flops * len(pending) / seconds
      common["train/mfu"] = done / self.peak_flops
    rows = [
      {
        "step": step,
        **{f"train/{name}": float(x) for name, x in value.items()},
        **common,
      }
      for (step, _), value in zip(pending, values, strict=True)
    ]
    held = chips.memory_bytes(self.device)
    if rows and held is not None:
      rows[-1]["memory/peak_gib"] = held / GIB
    return rows

  def summary(self) -> dict[str, Any]:
    """For the report: the device, its peak, and what it has held."""
    held = chips.memory_bytes(self.device)
    return {
      "device": self.device.device_kind,
      "devices": jax.device_count(),
      "peak_flops": self.peak_flops,
      "measured": self.device.platform == "cpu",
      "step_flops": self.step_flops,
      "peak_gib": None if held is None else held / GIB,
    }
