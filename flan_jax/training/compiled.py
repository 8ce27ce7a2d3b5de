"""The compiled training step: what `train.py` runs and `plan.py` sizes up."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from flan_jax.training import step
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
) -> Callable:
  """`step.train_step`, compiled for a mesh; the state is overwritten in place.

      take = train_step(partition, state, model=model, ...)
      state, metrics = take(state, partition.put(batch))
      take.lower(partition.abstract_state(model, optimiser),
                 partition.abstract_batch(batch)).compile()

  Args:
    partition: where everything lies.
    state: a training state or its shapes, for the shardings of the result.
    model: as of `step.train_step`, and so are the others.
    optimiser: see there.
    loss_config: see there.
    accumulate: see there.
    dropout_seed: see there.
  """
  function = functools.partial(
    step.train_step,
    model=model,
    optimiser=optimiser,
    loss_config=loss_config,
    accumulate=accumulate,
    dropout_seed=dropout_seed,
  )
  shapes = jax.eval_shape(lambda x: x, state)
  out = (partition.state(shapes), partition.everywhere)
  return partition.jit(function, out=out, donate=0)
