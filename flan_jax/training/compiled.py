"""The compiled training step: what `train.py` runs and `plan.py` sizes up."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from flan_jax.training import step, trainable
from flan_jax.training.loss import LossConfig
from flan_jax.training.optimiser import Optimiser
from flan_jax.training.sharding import Partition


def train_step(
  partition: Partition,
  state: Any,
  *,
  model: Any,
  optimiser: Optimiser,
  loss_config: LossConfig,
  accumulate: int = 1,
  dropout_seed: int | None = None,
  frozen: bool = False,
) -> Callable:
  """`step.train_step`, compiled for a mesh; the state is overwritten in place.

      take = train_step(partition, state, model=model, ...)
      state, metrics = take(state, partition.put(batch))
      take.lower(partition.abstract_state(model, optimiser),
                 partition.abstract_batch(batch)).compile()

  With frozen parameters it is `take(state, frozen, batch)`; these are neither
  overwritten nor given back.

  Args:
    partition: where everything lies.
    state: a training state or its shapes, for the shardings of the result.
    model: as of `step.train_step`, and so are the others.
    optimiser: see there.
    loss_config: see there.
    accumulate: see there.
    dropout_seed: see there.
    frozen: whether the state holds a part of the parameters, and the others
      come beside it (`trainable.py`).
  """
  take = functools.partial(
    step.train_step,
    optimiser=optimiser,
    loss_config=loss_config,
    accumulate=accumulate,
    dropout_seed=dropout_seed,
  )

  def with_frozen(state, kept, batch):
    return take(state, batch, model=trainable.Bound(model, kept))

  def whole(state, batch):
    return take(state, batch, model=model)

  shapes = jax.eval_shape(lambda x: x, state)
  out = (partition.state(shapes), partition.everywhere)
  return partition.jit(with_frozen if frozen else whole, out=out, donate=0)
