"""The training state: what a step reads and returns, and a checkpoint holds."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from flan_jax.training.optimiser import Optimiser


@flax.struct.dataclass
class TrainState:
  """Everything that changes from step to step.

  Attributes:
    step: batches consumed, int32 scalar; the position in the data and, folded
      into the seed, the dropout key.
    params: nested dict of arrays, T5X's names.
    opt_state: the optimiser's; it counts the updates that were made.
    skipped: steps without an update, int32 scalar, because the loss or the
      gradient was not finite or the batch had no target token; `step` counts
      them, the optimiser does not.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  skipped: jax.Array


def create(params: Any, optimiser: Optimiser) -> TrainState:
  """The state before the first step.

  >>> from flan_jax.training import optimiser
  >>> state = create({"w": jnp.ones((2, 3))}, optimiser.adafactor(1e-3))
  >>> int(state.step), state.opt_state.param_states["w"]["v"].shape
  (0, (2, 3))
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimiser.init(params),
    skipped=jnp.zeros((), jnp.int32),
  )
