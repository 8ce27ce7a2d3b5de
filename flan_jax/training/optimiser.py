"""Optimisers: a transformation together with its learning rate.

Each function takes a schedule (`schedule.py`) or a number and returns an
`Optimiser`, which is used like an optax transformation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from flan_jax.errors import UserError
from flan_jax.training import adafactor as adafactor_lib
from flan_jax.training.schedule import Schedule


class Optimiser(NamedTuple):
  """An optax `init` and `update`, and the learning rate of an update.

  `learning_rate(count)` is the rate that the update after `count` updates
  uses; `update` counts by itself.
  """

  init: Callable[[Any], Any]
  update: Callable[..., tuple[Any, Any]]
  learning_rate: Callable[[jax.Array], jax.Array]


def adafactor(
  learning_rate: Schedule | float,
  *,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  beta1: float | None = None,
  weight_decay_rate: float | None = None,
  factored: bool = True,
  min_dim_size_to_factor: int | None = None,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  clip_global_norm: float | None = None,
  logical_axes: Any = None,
) -> Optimiser:
  """Adafactor as T5X has it; state and parameters agree with T5X's.

  >>> optimiser = adafactor(1e-3)
  >>> params = {"kernel": jnp.ones((512, 1024)), "scale": jnp.ones((512,))}
  >>> state = optimiser.init(params)
  >>> {slot: x.shape for slot, x in state.param_states["kernel"].items()}
  {'v_row': (512,), 'v_col': (1024,)}
  >>> state.param_states["scale"]["v"].shape
  (512,)

  Args:
    learning_rate: relative to the root mean square of the parameter if
      `multiply_by_parameter_scale` (T5's fine-tuning: 1e-3), else absolute.
    decay_rate: exponent of the decay of the second moment.
    step_offset: update at which the decay begins anew, for fine-tuning from a
      checkpoint whose optimiser state counts the steps of pre-training.
    clipping_threshold: largest root mean square of an update, or None.
    multiply_by_parameter_scale: see learning_rate.
    beta1: momentum; None keeps no `m` (and saves its memory).
    weight_decay_rate: share of every parameter taken off at each update; not
      multiplied by the learning rate.
    factored: keep row and column means of the second moment.
    min_dim_size_to_factor: factor where the second-largest dimension has at
      least this size; 128 if None.
    epsilon1: added to the squared gradient.
    epsilon2: smallest parameter scale.
    clip_global_norm: largest norm of the whole gradient, before anything
      else; None does not clip.
    logical_axes: tree like the parameters with their logical axes; needed
      only for parameters of more than two dimensions (stacked layers aside),
      see `adafactor.factoring`.

  Raises:
    UserError: a value outside its range or an option without effect.
  """
  _in_range("decay_rate", decay_rate, 0, 1)
  if beta1 is not None:
    _in_range("beta1", beta1, 0, 1)
  _positive("clipping_threshold", clipping_threshold)
  if weight_decay_rate is not None:
    _in_range("weight_decay_rate", weight_decay_rate, 0, 1)
  if not factored and min_dim_size_to_factor is not None:
    raise UserError(
      f"min_dim_size_to_factor={min_dim_size_to_factor} has no effect with"
      " factored=False: remove one of the two."
    )
  if not factored and logical_axes is not None:
    raise UserError(
      "logical_axes have no effect with factored=False: remove one of the two."
    )
  rate = _schedule(learning_rate)
  transformation = adafactor_lib.transformation(
    rate,
    decay_rate=decay_rate,
    step_offset=step_offset,
    clipping_threshold=clipping_threshold,
    multiply_by_parameter_scale=multiply_by_parameter_scale,
    beta1=beta1,
    weight_decay_rate=weight_decay_rate,
    factored=factored,
    min_dim_size_to_factor=(
      128 if min_dim_size_to_factor is None else min_dim_size_to_factor
    ),
    epsilon1=epsilon1,
    epsilon2=epsilon2,
    logical_axes=logical_axes,
  )
  return _optimiser(transformation, rate, clip_global_norm)


def adamw(
  learning_rate: Schedule | float,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.01,
  clip_global_norm: float | None = None,
) -> Optimiser:
  """AdamW; norms, biases and relative position biases do not decay.

  >>> params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2,))}
  >>> decays(params)
  {'kernel': True, 'scale': False}

  Source: Loshchilov and Hutter, 2019 (arXiv 1711.05101), algorithm 2.

  Args:
    learning_rate: absolute step size (T5 with AdamW: about 1e-4).
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: multiplied by the learning rate, as in the paper.
    clip_global_norm: largest norm of the whole gradient; None does not clip.

  Raises:
    UserError: a value outside its range.
  """
  _in_range("b1", b1, 0, 1, closed=True)
  _in_range("b2", b2, 0, 1)
  _positive("eps", eps)
  if weight_decay < 0:
    raise UserError(f"weight_decay={weight_decay}: it must be 0 or more.")
  rate = _schedule(learning_rate)
  transformation = optax.adamw(
    rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays
  )
  return _optimiser(transformation, rate, clip_global_norm)


def decays(params: Any) -> Any:
  """A tree of bools: which parameters weight decay applies to.

  By name, not by rank: the norm scales of stacked layers are matrices.
  """

  def decide(path, _):
    name = adafactor_lib.path_name(path).split("/")[-1]
    return name not in ("scale", "bias", "rel_embedding")

  return jax.tree_util.tree_map_with_path(decide, params)


def _optimiser(transformation, rate, clip_global_norm):
  if clip_global_norm is None:
    return Optimiser(transformation.init, transformation.update, rate)
  _positive("clip_global_norm", clip_global_norm)

  # Not `optax.chain`: clipping has no state, and a checkpoint's tree should
  # not depend on whether it is on.
  def update(gradients, state, params=None):
    norm = optax.tree.norm(gradients)
    scale = jnp.minimum(1.0, clip_global_norm / norm)
    clipped = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
    return transformation.update(clipped, state, params)

  return Optimiser(transformation.init, update, rate)


def _schedule(learning_rate):
  if callable(learning_rate):
    return learning_rate
  _positive("learning_rate", learning_rate)
  return lambda count: jnp.full((), learning_rate, jnp.float32)


def _positive(option, value):
  if value is not None and not value > 0:
    raise UserError(f"{option}={value}: it must be more than 0.")


def _in_range(option, value, low, high, *, closed=False):
  if not (low < value < high or (closed and value == low)):
    raise UserError(
      f"{option}={value}: it must be {'at least' if closed else 'more than'}"
      f" {low} and less than {high}."
    )
