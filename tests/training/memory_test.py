"""What a compiled step holds in memory, and where it works on many devices."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.benchmarks import memory
from tests.training.step_test import fresh, ragged_batch, step_function

DEVICES = """
import functools, json
import jax
import numpy as np
from flan_jax.training import loss, optimiser, sharding, step, vocabulary_loss
from tests.training.step_test import TinyModel, fresh, ragged_batch

vocabulary_loss.CHUNK = 8 * 13 * 2
take = jax.jit(functools.partial(
  step.train_step, model=TinyModel(), optimiser=optimiser.adamw(0.1),
  loss_config=loss.LossConfig()))
alone, alone_metrics = take(fresh(), ragged_batch())
partition = sharding.Partition.of(sharding.Layout())
mesh = partition.mesh
state = jax.device_put(fresh(), partition.everywhere)
batch = partition.put(ragged_batch())
compiled = take.lower(state, batch).compile()
state, metrics = take(state, batch)
for one, many in zip(
    jax.tree.leaves((alone, alone_metrics)), jax.tree.leaves((state, metrics)),
    strict=True):
  np.testing.assert_allclose(many, one, rtol=2e-5, atol=1e-6)
print(json.dumps({"devices": mesh.devices.size, "text": compiled.as_text()}))
"""


def test_chunks_of_rows_on_eight_devices_are_those_of_one():
  env = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
    "PATH": "",
  }
  done = subprocess.run(
    [sys.executable, "-c", DEVICES],
    capture_output=True,
    text=True,
    env=env,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  out = json.loads(done.stdout.splitlines()[-1])
  assert out["devices"] == 8
  # A chunk is two positions of one row on each device: rows stay in place.
  assert "f32[2,13]" in out["text"]
  assert "all-gather" not in out["text"]


def test_donated_state_is_written_in_place():
  start, batch = fresh(), ragged_batch()
  held = sum(np.asarray(x).nbytes for x in jax.tree.leaves(start))
  compiled = jax.jit(step_function(), donate_argnums=0).lower(start, batch)
  analysis = compiled.compile().memory_analysis()
  assert analysis.alias_size_in_bytes >= held


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["t5", "untied", "tied"])
def test_a_step_takes_a_third_of_the_plain_forms_memory(kind, monkeypatch):
  monkeypatch.setattr(memory, "VOCABULARY", 32_000)
  _, model = list(memory._models())[kind]
  ours = memory.temporary_bytes(model)
  plain = memory.temporary_bytes(model, memory._plain)
  assert ours <= plain / 3
