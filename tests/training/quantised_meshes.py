"""LoRA on a base in few bits, on meshes of 8 fake devices, as JSON.

Run by `quantised_meshes_test.py` in a process of its own, as `meshes.py` is:

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m \
      tests.training.quantised_meshes
"""

import json
import tempfile

import jax
import numpy as np

from flan_jax.convert import load, native, shapes
from flan_jax.models import lora
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.training import optimiser, trainable
from flan_jax.training import state as state_lib
from flan_jax.training.sharding import Layout, Partition
from tests.training import meshes

# Two blocks of 64 inputs a kernel at least.
BASE = DecoderOnly(
  DecoderConfig(
    vocab_size=64, emb_dim=128, num_heads=8, head_dim=32, num_layers=2,
    mlp_dim=256, dropout_rate=0.0, scan_layers=True,
  )
)  # fmt: skip
MESHES = {
  # More parts than a kernel has blocks.
  "nf4": {"fsdp": 4, "tensor": 2},
  "int8": {"fsdp": 2, "tensor": 4},
}


def write_base(folder):
  random = np.random.default_rng(0)
  wanted = shapes.parameter_shapes(BASE.config)
  arrays = (
    (name, 0.1 * random.standard_normal(x.shape).astype(np.float32))
    for name, x in wanted.items()
  )
  native.write_native(folder, wanted, arrays, config=BASE.config)


def on_mesh(folder, model, sizes):
  """Loss, gradients of the adapter, and the codes and where they lie."""
  devices = jax.devices() if sizes else jax.devices()[:1]
  partition = Partition.of(
    Layout(sizes or {"data": 1}),
    devices,
    config=model.config,
    batch_size=meshes.B,
  )
  params = load.load_params(folder, model, partition.params)
  # B is no longer zero, so that A has a gradient.
  own = jax.tree.map(lambda x: x + 0.01, params["lora"])
  params["lora"] = jax.device_put(own, partition.params({"lora": own})["lora"])
  trained, frozen = trainable.split(params, model.trainable)
  where = partition.params(trained)

  def gradients(state, kept, batch):
    bound = trainable.Bound(model, kept)
    return meshes.gradients(state, batch, model=bound, accumulate=1)

  take = partition.jit(gradients, out=(where, partition.everywhere))
  state = state_lib.create(trained, optimiser.adamw(1.0))
  batch = partition.put(meshes.batch_for(model))
  grads, value = take(state, frozen, batch)
  codes = frozen["decoder"]["layers"]["mlp"]["wo"]["kernel"]
  codes = codes[model.options.base_type]
  parts = len({str(s.index) for s in codes.addressable_shards})
  return float(value), jax.device_get(grads), np.asarray(codes), parts


def differences(folder):
  """Type of the base -> how far a mesh is from one device."""
  out = {}
  for kind, sizes in MESHES.items():
    options = lora.Lora(2, targets=r".*layers_\d+/.*kernel", base_type=kind)
    model = options.on(BASE)
    value, grads, codes, _ = on_mesh(folder, model, None)
    other, others, own, parts = on_mesh(folder, model, sizes)
    largest = max(float(abs(x).max()) for x in jax.tree.leaves(grads))
    out[kind] = {
      "loss": abs(other - value),
      "gradients": meshes.far(grads, others) / largest,
      "codes": float((codes != own).mean()),
      "parts": parts,
    }
  return out


if __name__ == "__main__":
  assert jax.device_count() == 8, jax.devices()
  with tempfile.TemporaryDirectory() as scratch:
    write_base(f"{scratch}/base")
    print(json.dumps(differences(f"{scratch}/base")))
