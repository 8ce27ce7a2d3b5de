"""A stack of equal layers: one after another or scanned, kept or recomputed.

Unscanned parameters are `layers_0`, `layers_1`, ... as in T5X; scanned ones are
`layers` with a first axis N. N layers.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flan_jax.models import dense

Params = Mapping[str, Any]

SIDES = ("encoder", "decoder")

REMAT_POLICIES = {
  "none": None,
  "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
}


def run_layers(layer, config, count, x, each, *shared, fields=()):
  """`count` layers in the scope of the module that calls.

  Args:
    layer: a module class, called with (x, what is its own, *shared) and
      returning x and its own output (a cache).
    config: the first field of each layer; its `scan_layers` and
      `remat_policy` decide how they run.
    x: the activations, passed from layer to layer.
    each: what is a layer's own: a list, or arrays stacked on a first axis N
      when scanned; or None.
    *shared: what every layer gets.
    fields: further fields of each layer, a mapping per layer. A scanned stack
      has one.

  Returns:
    the activations and the layers' outputs: a list, or stacked.
  """
  if config.remat_policy != "none":
    layer = nn.remat(
      layer,
      policy=REMAT_POLICIES[config.remat_policy],
      prevent_cse=not config.scan_layers,
    )
  if config.scan_layers:
    scanned = nn.scan(
      layer,
      variable_axes={"params": 0, dense.ADAPTERS: 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=(0, *[nn.broadcast] * len(shared)),
      length=count,
    )
    module = scanned(config, **(fields[0] if fields else {}), name="layers")
    return module(x, each, *shared)
  outputs = []
  for i in range(count):
    own = None if each is None else each[i]
    field = fields[i] if fields else {}
    module = layer(config, **field, name=f"layers_{i}")
    x, output = module(x, own, *shared)
    outputs.append(output)
  return x, outputs


def stack_layers(params: Params) -> Params:
  """`layers_0`, `layers_1`, ... of each side -> `layers` with a first axis N.

  The form `scan_layers` wants; `unstack_layers` is the inverse. Works for both
  kinds of model.
  """
  out = dict(params)
  for side in [side for side in SIDES if side in params]:
    part = dict(params[side])
    count = sum(name.startswith("layers_") for name in part)
    each = [part.pop(f"layers_{i}") for i in range(count)]
    part["layers"] = jax.tree.map(lambda *x: jnp.stack(x), *each)
    out[side] = part
  return out


def unstack_layers(params: Params) -> Params:
  """The inverse of `stack_layers`: T5X's names, one tree per layer."""
  out = dict(params)
  for side in [side for side in SIDES if side in params]:
    part = dict(params[side])
    stacked = part.pop("layers")
    for i in range(jax.tree.leaves(stacked)[0].shape[0]):
      part[f"layers_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
    out[side] = part
  return out


def take_rows(cache, rows, *, scanned: bool):
  """The cache of some rows of a batch, in another order or more than once.

  Args:
    cache: a named tuple whose `layers` has the batch as the first axis of
      every array, or the second when scanned; of all else it is the first.
    rows: numbers of rows, none outside the batch.
  """

  def take(axis):
    return lambda x: jnp.take(x, rows, axis=axis, mode="clip")

  out = jax.tree.map(take(0), cache._replace(layers=()))
  layers = jax.tree.map(take(1 if scanned else 0), cache.layers)
  return out._replace(layers=layers)
