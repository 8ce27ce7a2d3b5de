"""`evaluate.evaluate` on meshes and as two processes: the answers of one device.

What each device computes, and what is sent, is read from the compiled programs:
no time is measured.
"""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from flan_jax.data import catalogue
from flan_jax.training import processes
from tests import evaluate_test

# model, folder of the run, folder of the evaluation, mesh, mixture
JOB = """
import json
import sys
from flan_jax.training import processes
several = processes.join()
from flan_jax import evaluate
from flan_jax.training import sharding
run, out, mesh, mixture = sys.argv[1:]
evaluate.evaluate(
  initial_checkpoint_path=run, output_dir=out,
  eval_mixture_or_task_name=mixture, allow_seen=True,
  task_feature_lengths={"inputs": 256, "targets": 8}, eval_examples=3,
  batch_size=8, layout=sharding.Layout(json.loads(mesh)),
)
if several:
  processes.leave()
"""

# run, output, mesh, strategy
GENERATE = """
import json
import sys
from flan_jax.training import processes
several = processes.join()
from flan_jax import generate
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.training import sharding
run, out, mesh, options = sys.argv[1:]
generate.generate(
  initial_checkpoint_path=run, output_path=out, batch_size=3,
  prompts=["one two", "three", "four five six", "seven", "eight"],
  decode=DecodeConfig(max_decode_len=6, **json.loads(options)),
  layout=sharding.Layout(json.loads(mesh)),
)
if several:
  processes.leave()
"""

COSTS = """
import math
import sys
import jax
import jax.numpy as jnp
import numpy as np
from flan_jax.eval import rank
from flan_jax.models import continuous, placement
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder, T5Config
from flan_jax.planning import costs, hlo
from flan_jax.training.sharding import Layout, Partition

sizes = {
  "vocab_size": 512, "emb_dim": 256, "num_heads": 8, "head_dim": 32,
  "mlp_dim": 512,
}
model = {
  "decoder": DecoderOnly(DecoderConfig(num_layers=2, **sizes)),
  "t5": EncoderDecoder(
    T5Config(num_encoder_layers=2, num_decoder_layers=2, **sizes)
  ),
}[sys.argv[1]]
B, S, C, T = 32, 32, 2, 8
config = DecodeConfig(max_decode_len=T, end_ids=(1,)).compiled

def of(compiled):
  return costs.of(hlo.parse(compiled.as_text()))

def shape(x):
  where = getattr(x, "sharding", None)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

found = {}
for mesh in ({"data": 1}, {"data": 8}, {"fsdp": 8}, {"data": 2, "tensor": 4}):
  devices = jax.devices()[: math.prod(mesh.values())]
  partition = Partition.of(Layout(mesh), devices, config=model.config)
  params = partition.abstract_params(model)
  size = 4 * sum(x.size for x in jax.tree.leaves(params))
  with partition.laid_out():
    placed = placement.current()
    inputs = placement.put(np.zeros((B, S), np.int32), "batch", None)
    choices = placement.put(np.zeros((B, C, T), np.int32), "batch", None, None)
    ranked = of(rank._log_probs.lower(
      model, params, shape(inputs), shape(choices), placed
    ).compile())
    state = continuous._empty(model, params, B, S, config)
    axes = continuous._row_axes(model, state.cache, B)
    group = continuous._group(B)
    new = continuous.New(
      np.zeros((group, S), np.int32), np.zeros(group, np.uint32),
      np.zeros(group, np.int32), np.zeros(B, bool),
    )
    read = of(jax.jit(lambda p, s, new: continuous._read(
      model, p, s, new, np.uint32(0), config, axes
    )).lower(params, jax.tree.map(shape, state), new).compile())
    step = of(jax.jit(lambda p, s: continuous._step(
      model, p, s, np.uint32(0), config, axes
    )).lower(params, jax.tree.map(shape, state)).compile())
  name = "x".join(map(str, mesh.values()))
  found[name] = ranked, read, step
  sent = sum(one.sent for one in step.traffic)
  print(mesh, [f"{c.flops:.3g}" for c in (ranked, read, step)], sent, size)
  if len(devices) > 1:
    for part, alone in zip((ranked, read, step), found["1"]):
      assert part.flops < alone.flops / 4, (mesh, part.flops, alone.flops)
    # Weights stay where they lie: what is sent is small beside them.
    assert sent < size / 4, (mesh, sent, size)
"""


def environment(devices, **more):
  env = {
    **os.environ, "JAX_PLATFORMS": "cpu", **more,
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  env.pop("TFDS_DATA_DIR", None)
  return env


def start(run, out, mesh, last, devices=1, count=1, job=JOB):
  with socket.socket() as held:
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
  several = [{}] if count == 1 else [
    {
      processes.ADDRESS: f"127.0.0.1:{port}", processes.COUNT: str(count),
      processes.INDEX: str(index),
    }
    for index in range(count)
  ]
  return [
    subprocess.Popen(
      [sys.executable, "-c", job, str(run), str(out), json.dumps(mesh), last],
      env=environment(devices, **env), stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True,
    )
    for env in several
  ]


def finish(started):
  for one in started:
    said = one.communicate(timeout=900)[0]
    assert one.returncode == 0, said[-3000:]


def lines(folder, name):
  text = (folder / f"{name}.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def assert_equal(one, other):
  """Scores within float32, texts token for token, in the same order."""
  for name in ("ranked", "generated"):
    if not (one / f"{name}.jsonl").exists():
      assert not (other / f"{name}.jsonl").exists()
      continue
    pairs = zip(lines(one, name), lines(other, name), strict=True)
    for a, b in pairs:
      assert (a["task"], a["number"]) == (b["task"], b["number"])
      for x, y in zip(a["answers"], b["answers"], strict=True):
        assert x["tokens"] == y["tokens"]
        if name == "ranked":
          assert x["scores"] == pytest.approx(y["scores"], abs=1e-4)


MIXTURES = {
  "ranked": catalogue.registered_name("wnli"),
  "generated": catalogue.registered_name("e2e_nlg"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  model = evaluate_test.made("decoder_only", 4096, heads=8)
  yield evaluate_test.saved(model, folder / "decoder")
  catalogue.unregister()


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("alone")
  for name, mixture in MIXTURES.items():
    finish(start(run, folder / name, {"data": -1}, mixture))
  return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mesh_answers_as_one_device_does(run, alone, tmp_path, name):
  mesh = {"data": 2, "fsdp": 2, "tensor": 2}
  finish(start(run, tmp_path / "out", mesh, MIXTURES[name], devices=8))
  assert_equal(alone / name, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_two_processes_answer_as_one_and_go_on_from_the_first_one_s(
  run, alone, tmp_path, name
):
  # The first one was stopped with half of the answers on its disk, the other
  # with none of them: both have to compute the same.
  out = tmp_path / "out"
  shutil.copytree(alone / name, out)
  kept = out / f"{name}.jsonl"
  content = kept.read_text().splitlines(keepends=True)
  marked = [json.loads(line) for line in content[: len(content) // 2]]
  kept.unlink()
  kept.with_suffix(".partial.jsonl").write_text(
    "".join(json.dumps(line) + "\n" for line in marked)
  )
  mesh = {"data": 2, "fsdp": 2}
  finish(start(run, out, mesh, MIXTURES[name], devices=2, count=2))
  assert_equal(alone / name, out)
  assert_equal(alone / name, out / "processes" / "1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_devices_share_the_work_and_send_no_weights_for_a_token(kind):
  done = subprocess.run(
    [sys.executable, "-c", COSTS, kind], env=environment(8),
    capture_output=True, text=True, timeout=900,
  )
  assert done.returncode == 0, done.stdout + done.stderr[-3000:]


STRATEGIES = {
  "beam": {"strategy": "beam", "beam_size": 2},
  "sample": {"strategy": "sample", "num_samples": 2, "seed": 1},
  "greedy": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_processes_generate_as_one(run, tmp_path, name):
  """Three prompts at a time, which four devices do not divide."""
  options, made = json.dumps(STRATEGIES[name]), []
  for label, mesh, count in (
    ("one", {"data": -1}, 1), ("two", {"data": 2, "fsdp": 2}, 2),
  ):
    out = tmp_path / f"{label}.jsonl"
    finish(start(run, out, mesh, options, count, count, GENERATE))
    made.append([json.loads(line) for line in out.read_text().splitlines()])
  assert made[0] == made[1]
  assert len(made[0]) == 5
