"""What a run lives through: how often, how long, and when it gives up."""

import dataclasses

from flan_jax.errors import UserError
from flan_jax.training import checks


@dataclasses.dataclass(frozen=True)
class Survival:
  """Limits of a run's patience; `gin/jobs/train.gin` has the macros.

  >>> Survival(grace_seconds=10).max_failed_saves
  3

  Attributes:
    grace_seconds: from SIGTERM or SIGINT to the end of the process at most.
    max_failed_saves: checkpoints in a row that may fail, by a full disk or a
      folder that cannot be written; one more ends the run.
    checkpoint_keep_period: checkpoints of every so many steps stay for good;
      None: only the newest and the best do.
    max_nonfinite_steps: steps in a row without a finite loss and gradient
      after which the run goes back to the checkpoint before them.
    max_rollbacks: how often it does; one more ends the run.
    input_stall_seconds: without a batch after which the task that is waited
      for is named, and again each time as long passes.
    process_stall_seconds: that one process of several may stay behind the
      others; then it is named, and all end.

  Raises:
    UserError: a value out of its range.
  """

  grace_seconds: float = 30.0
  max_failed_saves: int = 3
  checkpoint_keep_period: int | None = None
  max_nonfinite_steps: int = 20
  max_rollbacks: int = 2
  input_stall_seconds: float = 60.0
  process_stall_seconds: float = 300.0

  def __post_init__(self):
    period = self.checkpoint_keep_period
    checks.numbers(
      max_nonfinite_steps=self.max_nonfinite_steps,
      **({} if period is None else {"checkpoint_keep_period": period}),
    )
    for name in ("max_failed_saves", "max_rollbacks"):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 0:
        raise UserError(f"{name.upper()} is {value!r}; give 0 or more.")
    for name in (
      "grace_seconds",
      "input_stall_seconds",
      "process_stall_seconds",
    ):
      value = getattr(self, name)
      if not isinstance(value, int | float) or not value > 0:
        raise UserError(
          f"{name.upper()} is {value!r}; give seconds, more than 0."
        )

  def check_periods(self, checkpoint_period: int) -> None:
    """Raises UserError where checkpoints of the kept period are never made.

    >>> Survival(checkpoint_keep_period=100).check_periods(50)
    """
    period = self.checkpoint_keep_period
    if period is not None and period % checkpoint_period:
      low = max(period // checkpoint_period, 1) * checkpoint_period
      raise UserError(
        f"CHECKPOINT_KEEP_PERIOD is {period} and CHECKPOINT_PERIOD"
        f" {checkpoint_period}: only a multiple of it is saved. The nearest are"
        f" {low} and {low + checkpoint_period}."
      )


DEFAULT = Survival()
