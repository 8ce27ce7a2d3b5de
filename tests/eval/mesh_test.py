"""Evaluation on a mesh: as many programs as shapes, as on one device."""

import os
import subprocess
import sys

import pytest

WORKER = """
import math
import sys
import jax
import numpy as np
from flan_jax.eval import generation
from flan_jax.training import optimiser
from flan_jax.training.sharding import Layout, Partition
from tests.eval.fakes import example
from tests.training import meshes

model = meshes.MODELS[sys.argv[1]]
examples = [
  example(2 + np.arange(n) % 60, index=n) for n in (3, 4, 5, 9, 70, 80, 90, 100)
]
planned = generation.plan(
  examples, batch_size=4, lengths={"inputs": 128, "targets": 4}
)
compiled = []

def listen(event, *_, **__):
  if event == "/jax/core/compile/backend_compile_duration":
    compiled.append(event)

answers = []
for mesh in (
  {"data": 4}, {"fsdp": 4}, {"data": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2},
  {"data": 1},
):
  devices = jax.devices()[: math.prod(mesh.values())]
  partition = Partition.of(Layout(mesh), devices)
  params = partition.fresh_state(model, optimiser.adafactor(1e-3), 0).params
  jax.block_until_ready(params)
  compiled.clear()
  jax.monitoring.register_event_duration_secs_listener(listen)
  with partition.laid_out():
    made = [
      generation.generate(model, params, planned, decode=str, end_ids=(1,))
      for _ in range(2)
    ]
  jax.monitoring.unregister_event_duration_listener(listen)
  assert len(compiled) == len(planned.shapes) == 2, (mesh, len(compiled))
  answers.append([a.text for a in made[0]])
assert all(one == answers[0] for one in answers), answers
"""


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_a_length_compiles_one_program_on_a_mesh(kind):
  env = {
    **os.environ, "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
  }
  done = subprocess.run(
    [sys.executable, "-c", WORKER, kind], env=env, capture_output=True, text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr[-3000:]
