"""Adafactor with T5X's semantics, as an optax transformation.

optax has an Adafactor too; its factoring, its decay and its order of scaling
and clipping differ from T5X's, so a T5 checkpoint's optimiser state would not
continue under it.

A parameter's state is a dict that has only the slots it uses: `v`, or `v_row`
and `v_col` if it is factored, and `m` with momentum. T5X always writes all
four, with zeros of shape (1,) in the unused ones: `to_t5x_slots` and
`from_t5x_slots` map between the two.

Source: Shazeer and Stern, 2018 (arXiv 1804.04235), algorithms 4 to 6.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flan_jax.errors import UserError

SLOTS = ("m", "v", "v_row", "v_col")

# Logical axis -> the side of the factored matrix it belongs to, as T5X's
# standard rules have it. None is never factored; a batch axis (stacked
# layers) is one matrix per index.
_ROW, _COLUMN, _BATCH = "row", "column", "batch"
# Below this scope the first axis of a parameter is the layer (`models/t5.py`).
_STACK = "layers"
_SIDES = {
  "vocab": _COLUMN,
  "embed": _ROW,
  "mlp": _COLUMN,
  "heads": _COLUMN,
  "kv": _COLUMN,
  "joined_kv": _COLUMN,
  "relpos_buckets": None,
  "layers": _BATCH,
  "layer_norm_scale": None,
}


class AdafactorState(NamedTuple):
  """`count` updates made; `param_states` has one dict of slots a parameter."""

  count: jax.Array
  param_states: Any


class Factoring(NamedTuple):
  """Which axes of a parameter are averaged over.

  Attributes:
    average: axes of one matrix: all but the batch axes. The parameter scale
      and the clipping are computed over them.
    rows: axes that `v_row` keeps, or None if the parameter is not factored.
    columns: axes that `v_col` keeps, or None.
  """

  average: tuple[int, ...]
  rows: tuple[int, ...] | None = None
  columns: tuple[int, ...] | None = None


def factoring(
  shape: tuple[int, ...],
  axes: tuple[str, ...] | None = None,
  *,
  stacked: bool = False,
  min_dim_size_to_factor: int = 128,
  name: str = "parameter",
) -> Factoring:
  """How a parameter is factored, by T5X's rules.

  Of a matrix the shape decides: both dimensions must reach the minimum, and
  the smaller one is the rows. A stack of matrices is factored like each of
  them, so that scanned layers are updated as the same layers one by one.

  >>> factoring((32_128, 512))
  Factoring(average=(0, 1), rows=(1,), columns=(0,))
  >>> factoring((32, 12))  # relative position bias: too small
  Factoring(average=(0, 1), rows=None, columns=None)
  >>> factoring((6, 512, 1024), stacked=True)
  Factoring(average=(1, 2), rows=(1,), columns=(2,))

  Where there are more dimensions, the logical axes decide, whatever the sizes:

  >>> factoring((512, 6, 64), ("embed", "heads", "kv"))
  Factoring(average=(0, 1, 2), rows=(0,), columns=(1, 2))

  Args:
    shape: of the parameter.
    axes: its logical axes: `embed`, `mlp`, `heads`, `kv`, `joined_kv`,
      `vocab`, `relpos_buckets`, `layers`, `layer_norm_scale`.
    stacked: the first axis is layers; for parameters without `axes`.
    min_dim_size_to_factor: smallest second-largest dimension.
    name: of the parameter, for messages.

  Raises:
    UserError: axes are needed and missing, of another length than the shape,
      unknown, or only partly rows and columns.
  """
  every = tuple(range(len(shape)))
  if axes is not None and len(axes) != len(shape):
    raise UserError(
      f"Adafactor: {name} has shape {shape} and {len(axes)} logical axes"
      f" {axes}: there must be one axis a dimension."
    )
  sides = _sides(axes or (), name)
  if axes is None or (len(shape) <= 2 and _BATCH not in sides):
    average = every[1:] if stacked and axes is None else every
    return _by_size(shape, average, min_dim_size_to_factor, name)
  average = tuple(i for i in every if sides[i] != _BATCH)
  rows = tuple(i for i in every if sides[i] == _ROW)
  columns = tuple(i for i in every if sides[i] == _COLUMN)
  if not rows or not columns:
    return Factoring(average)
  if len(rows) + len(columns) < len(average):
    raise UserError(
      f"Adafactor: {name} has logical axes {axes}, of which some are rows"
      " or columns and some neither; that cannot be factored."
    )
  return Factoring(average, rows, columns)


def transformation(
  learning_rate: Callable[[jax.Array], jax.Array],
  *,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  beta1: float | None = None,
  weight_decay_rate: float | None = None,
  factored: bool = True,
  min_dim_size_to_factor: int = 128,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  logical_axes: Any = None,
) -> optax.GradientTransformation:
  """Adafactor; see `optimiser.adafactor` for the arguments.

  At update t (0 first) with gradient G and parameter X, per parameter:

      beta2 = 1 - (t - step_offset + 1) ** -decay_rate
      V     = beta2 V + (1 - beta2) (G**2 + epsilon1)      (row, column means)
      U     = G / sqrt(V);  U = U / max(1, rms(U) / clipping_threshold)
      M     = beta1 M + (1 - beta1) rate(t) max(epsilon2, rms(X)) U
      X     = (1 - weight_decay_rate) X - M

  Without `beta1`, M is the new term alone.
  """

  def layout(params):
    return _layout(params, logical_axes, factored, min_dim_size_to_factor)

  def init(params) -> AdafactorState:
    leaves, treedef = jax.tree.flatten(params)
    slots = [
      _init_slots(param, how, momentum=beta1 is not None)
      for param, how in zip(leaves, layout(params), strict=True)
    ]
    return AdafactorState(jnp.zeros((), jnp.int32), treedef.unflatten(slots))

  def update(gradients, state, params=None):
    if params is None:
      raise ValueError("Adafactor's update needs the parameters")
    leaves, treedef = jax.tree.flatten(params)
    rate = learning_rate(state.count)
    t = jnp.maximum(0, state.count - step_offset).astype(jnp.float32) + 1.0
    beta2 = 1.0 - t**-decay_rate
    updates, new_slots = [], []
    for param, gradient, slots, how in zip(
      leaves,
      treedef.flatten_up_to(gradients),
      treedef.flatten_up_to(state.param_states),
      layout(params),
      strict=True,
    ):
      gradient = gradient.astype(jnp.float32)
      step, slots = _second_moment(gradient, slots, how, beta2, epsilon1)
      if clipping_threshold is not None:
        step = step / jnp.maximum(1.0, _rms(step, how) / clipping_threshold)
      scale = rate
      if multiply_by_parameter_scale:
        scale = rate * jnp.maximum(_rms(param, how), epsilon2)
      step = scale * step
      if beta1 is not None:
        step = beta1 * slots["m"] + (1.0 - beta1) * step
        slots = {**slots, "m": step}
      if weight_decay_rate is not None:
        step = step + weight_decay_rate * param.astype(jnp.float32)
      updates.append(-step)
      new_slots.append(slots)
    return treedef.unflatten(updates), AdafactorState(
      state.count + 1, treedef.unflatten(new_slots)
    )

  return optax.GradientTransformation(init, update)


def to_t5x_slots(state: AdafactorState) -> dict[str, Any]:
  """T5X's `state` tree: `step`, and all four slots for every parameter."""

  def fill(slots):
    empty = np.zeros((1,), np.float32)
    return {slot: slots.get(slot, empty) for slot in SLOTS}

  states = jax.tree.map(fill, state.param_states, is_leaf=_is_slots)
  return {"step": state.count, "param_states": states}


def from_t5x_slots(
  tree: Mapping[str, Any], like: AdafactorState
) -> AdafactorState:
  """The state of T5X's `state` tree, in the shape of `like`.

  Raises:
    UserError: a slot that `like` uses is missing or has another shape: the
      two optimisers factor differently, or one has momentum.
  """
  wanted, treedef = jax.tree_util.tree_flatten_with_path(
    like.param_states, is_leaf=_is_slots
  )
  slots = []
  for path, leaf in wanted:
    source = tree["param_states"]
    for key in path:
      source = source[key.key]
    for slot, value in leaf.items():
      if slot not in source or source[slot].shape != value.shape:
        found = source[slot].shape if slot in source else "nothing"
        raise UserError(
          f"Adafactor state {path_name(path)}/{slot}: the checkpoint has"
          f" {found}, the optimiser needs {value.shape}. Set beta1, factored"
          " and min_dim_size_to_factor as they were when it was trained."
        )
    slots.append({slot: jnp.asarray(source[slot]) for slot in leaf})
  return AdafactorState(
    jnp.asarray(tree["step"], jnp.int32), treedef.unflatten(slots)
  )


def path_name(path: tuple[Any, ...]) -> str:
  """`encoder/encoder_norm/scale` for a jax key path."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_slots(node):
  return isinstance(node, dict) and bool(node) and set(node) <= set(SLOTS)


def _by_size(shape, average, min_dim_size_to_factor, name):
  """The factoring of the matrix that the axes `average` of `shape` span."""
  if len(average) > 2:
    raise UserError(
      f"Adafactor: {name} has {len(shape)} dimensions {shape}; which of them"
      " are rows and columns must be said by its logical axes"
      " (logical_axes=...)."
    )
  sizes = [shape[i] for i in average]
  if len(sizes) < 2 or min(sizes) < min_dim_size_to_factor:
    return Factoring(average)
  # Stable, so that of two equal dimensions the first is the rows.
  row, column = np.argsort(sizes, kind="stable")
  return Factoring(average, (average[row],), (average[column],))


def _sides(axes, name):
  unknown = [axis for axis in axes if axis not in _SIDES]
  if unknown:
    raise UserError(
      f"Adafactor: logical axis {unknown[0]!r} of {name} is unknown; known:"
      f" {', '.join(_SIDES)}."
    )
  return tuple(_SIDES[axis] for axis in axes)


def _layout(params, logical_axes, factored, min_dim_size_to_factor):
  """A `Factoring` for every leaf of `params`, in the order of its leaves."""
  leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
  if logical_axes is None:
    axes = [None] * len(leaves)
  else:
    axes = treedef.flatten_up_to(logical_axes)
  if not factored:
    return [Factoring(tuple(range(leaf.ndim))) for _, leaf in leaves]
  return [
    factoring(
      leaf.shape,
      leaf_axes,
      stacked=_STACK in path_name(path).split("/"),
      min_dim_size_to_factor=min_dim_size_to_factor,
      name=path_name(path),
    )
    for (path, leaf), leaf_axes in zip(leaves, axes, strict=True)
  ]


def _init_slots(param, how, *, momentum):
  slots = {}
  if momentum:
    slots["m"] = jnp.zeros(param.shape, jnp.float32)
  if how.rows is None:
    slots["v"] = jnp.zeros(param.shape, jnp.float32)
  else:
    for slot, gone in (("v_row", how.columns), ("v_col", how.rows)):
      shape = [n for i, n in enumerate(param.shape) if i not in gone]
      slots[slot] = jnp.zeros(shape, jnp.float32)
  return slots


def _second_moment(gradient, slots, how, beta2, epsilon1):
  """The gradient over the root of its second moment, and the new slots."""
  square = gradient * gradient + epsilon1
  mix = 1.0 - beta2
  if how.rows is None:
    v = beta2 * slots["v"] + mix * square
    return gradient * v**-0.5, {**slots, "v": v}
  v_row = beta2 * slots["v_row"] + mix * jnp.mean(square, axis=how.columns)
  v_col = beta2 * slots["v_col"] + mix * jnp.mean(square, axis=how.rows)
  # Algorithm 4: V = v_row v_col / mean(v_row). The mean is over the rows of
  # `v_row`, from which the columns are gone.
  kept = [i for i in range(gradient.ndim) if i not in how.columns]
  rows = tuple(kept.index(i) for i in how.rows)
  mean = jnp.mean(v_row, axis=rows, keepdims=True)
  row_factor = jnp.expand_dims((v_row / mean) ** -0.5, axis=how.columns)
  col_factor = jnp.expand_dims(v_col**-0.5, axis=how.rows)
  step = gradient * row_factor * col_factor
  return step, {**slots, "v_row": v_row, "v_col": v_col}


def _rms(value, how):
  square = jnp.square(value.astype(jnp.float32))
  return jnp.sqrt(jnp.mean(square, axis=how.average, keepdims=True))
