"""Loss and gradients of tiny models on meshes of 8 fake devices, as JSON.

Run by `sharding_test.py` in a process of its own, since the number of devices
is fixed when jax starts:

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m \
      tests.training.meshes
"""

import dataclasses
import functools
import json
import sys
import tempfile

import jax
import numpy as np

from flan_jax.convert import load
from flan_jax.models import stack
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder, T5Config
from flan_jax.training import checkpoint, loss, optimiser, step
from flan_jax.training import state as state_lib
from flan_jax.training.sharding import Layout, Partition

B, S, T = 16, 16, 8
MESHES = {
  "1x1": {"data": 1},
  "8x1": {"data": 8},
  "2x4": {"data": 2, "tensor": 4},
  "fsdp 2x4": {"fsdp": 2, "tensor": 4},
  "2x2x2": {"data": 2, "fsdp": 2, "tensor": 2},
  "1x8": {"tensor": 8},
}
SIZES = {
  "vocab_size": 64,
  "emb_dim": 16,
  "num_heads": 8,
  "head_dim": 4,
  "mlp_dim": 32,
  "dropout_rate": 0.1,
}
MODELS = {
  "t5": EncoderDecoder(
    T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=3)
  ),
  "t5 v1.0": EncoderDecoder(
    T5Config(
      **SIZES,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_activations=("relu",),
      logits_via_embedding=True,
    )
  ),
  "decoder": DecoderOnly(
    DecoderConfig(
      **SIZES, num_kv_heads=8, num_layers=2, qkv_bias=True, mlp_bias=True
    )
  ),
  "lamda": DecoderOnly(
    DecoderConfig(
      **SIZES,
      num_layers=2,
      position="relative",
      query_scale=1.0,
      logits_via_embedding=True,
      logits_scale=0.25,
      qk_norm="head",
    )
  ),
}


def batch_for(model):
  """Ragged packed rows, the same for every mesh."""
  rng = np.random.default_rng(0)

  def tokens(length):
    real = np.arange(length) < rng.integers(2, length + 1, (B, 1))
    made = np.where(real, rng.integers(2, 64, (B, length)), 0)
    return made.astype(np.int32)

  targets = tokens(T)
  batch = {
    "decoder_input_tokens": np.roll(targets, 1, axis=1),
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.float32),
    "decoder_segment_ids": (targets > 0).astype(np.int32),
  }
  if model.kind == "encoder_decoder":
    inputs = tokens(S)
    batch["encoder_input_tokens"] = inputs
    batch["encoder_segment_ids"] = (inputs > 0).astype(np.int32)
  return batch


def gradients(state, batch, *, model, accumulate):
  """Loss and gradients of the step, by an optimiser that keeps them."""
  kept = optimiser.Optimiser(
    init=lambda params: params,
    update=lambda grads, _, params: (jax.tree.map(lambda x: -x, grads), grads),
    learning_rate=lambda count: np.float32(1.0),
  )
  state, metrics = step.train_step(
    state.replace(opt_state=state.params),
    batch,
    model=model,
    optimiser=kept,
    loss_config=loss.LossConfig(),
    accumulate=accumulate,
    dropout_seed=3,
  )
  return state.opt_state, metrics["loss"]


def on_mesh(model, sizes, accumulate):
  """Loss and named gradients, layers unstacked."""
  alone = sizes == MESHES["1x1"]
  partition = Partition.of(
    Layout(sizes),
    jax.devices()[:1] if alone else jax.devices(),
    config=model.config,
    batch_size=B,
    accumulate=accumulate,
  )
  # Made once on one device: `fresh` below compares what a mesh makes.
  params = parameters(model)
  where = partition.params(params)
  params = jax.device_put(params, where)
  state = state_lib.create(params, optimiser.adamw(1.0))
  function = functools.partial(gradients, model=model, accumulate=accumulate)
  take = partition.jit(function, out=(where, partition.everywhere))
  grads, value = take(state, partition.put(batch_for(model)))
  return float(value), named(grads)


@functools.cache
def parameters(model):
  return jax.device_get(model.init(jax.random.key(0)))


def named(grads):
  grads = jax.device_get(grads)
  if "layers" in grads["decoder"]:
    grads = stack.unstack_layers(grads)
  leaves, _ = jax.tree_util.tree_flatten_with_path(grads)
  return {jax.tree_util.keystr(k): v for k, v in leaves}


def differences(cases, meshes):
  """Case and mesh -> largest difference from one device.

  Of a gradient relative to its largest number, where that is above 1.
  """
  out = {}
  for name, scan, accumulate in cases:
    model = MODELS[name]
    config = dataclasses.replace(
      model.config,
      scan_layers=scan,
      remat_policy="minimal" if scan else "none",
    )
    model = dataclasses.replace(model, config=config)
    value, grads = on_mesh(model, MESHES["1x1"], accumulate)
    for mesh in meshes:
      other, others = on_mesh(model, MESHES[mesh], accumulate)
      far = [abs(other - value)]
      for key, one in grads.items():
        scale = max(1.0, float(np.abs(one).max()))
        far.append(float(np.abs(others[key] - one).max()) / scale)
      out[f"{name}, scan {scan}, x{accumulate}, {mesh}"] = max(far)
  return out


QUICK = [("t5", True, 2), ("decoder", False, 1)]
CASES = [
  *(
    (m, s, a) for m in ("t5", "decoder") for s in (False, True) for a in (1, 2)
  ),
  ("t5 v1.0", False, 1),
  ("lamda", True, 2),
]


def parts(params):
  """How many different parts of two arrays the devices hold."""
  arrays = {
    "kernel": params["decoder"]["layers"]["mlp"]["wi_0"]["kernel"],
    "embedding": params["token_embedder"]["embedding"],
  }
  return {
    name: len({str(s.index) for s in x.addressable_shards})
    for name, x in arrays.items()
  }


def far(one, other):
  """The largest difference of two trees."""
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(
    float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs
  )


def without_the_whole(folder):
  """A fresh state, one restored, and one of a checkpoint's parameters."""
  model = MODELS["t5"]
  config = dataclasses.replace(model.config, scan_layers=True)
  model = dataclasses.replace(model, config=config)
  made = optimiser.adafactor(1e-3, min_dim_size_to_factor=8)
  partition = Partition.of(Layout({"fsdp": 4, "tensor": 2}))
  state = partition.fresh_state(model, made, seed=0)
  alone = Partition.of(Layout(), jax.devices()[:1])
  whole = alone.fresh_state(model, made, seed=0)
  out = {
    "fresh parts": parts(state.params),
    "fresh differs": far(state, whole),
  }
  checkpoints = checkpoint.Checkpoints(folder)
  checkpoints.save(0, state, {}, final=True)
  template = partition.abstract_state(model, made)
  restored = checkpoints.restore_latest(template).state
  checkpoints.close()
  out |= {
    "restored parts": parts(restored.params),
    "restored differs": far(restored, whole),
  }
  source = Reading(load.opened(folder))
  where = partition.params(template.params)
  loaded = load.load_params(source, model, where)
  out |= {
    "loaded parts": parts(loaded),
    "loaded differs": far(loaded, whole.params),
    "largest read": source.largest,
    "largest parameter": max(x.nbytes for x in jax.tree.leaves(whole.params)),
  }
  return out


class Reading:
  """A source that remembers the most bytes it has read at once."""

  def __init__(self, source):
    self._source, self.largest = source, 0

  def __getattr__(self, name):
    return getattr(self._source, name)

  def read(self, name):
    array = self._source.read(name)
    self.largest = max(self.largest, array.nbytes)
    return array


if __name__ == "__main__":
  assert jax.device_count() == 8, jax.devices()
  quick = "--all" not in sys.argv
  meshes = [m for m in MESHES if m != "1x1"]
  results = {"differences": differences(QUICK if quick else CASES, meshes)}
  if quick:
    with tempfile.TemporaryDirectory() as scratch:
      results |= without_the_whole(scratch)
  print(json.dumps(results))
