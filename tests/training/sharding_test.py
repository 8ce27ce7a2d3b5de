"""Meshes: what lies where, that nothing is whole, and that numbers agree."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from flan_jax import config
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder, T5Config
from flan_jax.training import adafactor, axes, mesh, sharding, slots
from flan_jax.training.sharding import Layout, Partition

ROOT = pathlib.Path(__file__).resolve().parents[2]
HARDWARE = sorted((ROOT / "gin" / "hardware").glob("*.gin"))
T5 = EncoderDecoder(T5Config(vocab_size=64, emb_dim=16, num_heads=4))


def on_eight_devices(*args, module="tests.training.meshes", timeout=580):
  # Nearly all of the time is LLVM's; what is compiled runs once.
  fast = "--xla_backend_optimization_level=0"
  flags = f"--xla_force_host_platform_device_count=8 {fast}"
  env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    [sys.executable, "-m", module, *args],
    cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def eight():
  return on_eight_devices()


@pytest.mark.slow
def test_loss_and_gradients_agree_on_a_mesh(eight):
  assert len(eight["differences"]) == 2 * 5
  for case, difference in eight["differences"].items():
    assert difference < 1e-5, case


@pytest.mark.slow
def test_no_device_makes_or_reads_the_whole_model(eight):
  # fsdp 4 x tensor 2: every large array lies in 8 different parts.
  assert eight["fresh parts"] == {"kernel": 8, "embedding": 8}
  assert eight["fresh differs"] == 0.0
  assert eight["restored differs"] == 0.0
  assert eight["restored parts"] == {"kernel": 8, "embedding": 8}


@pytest.mark.slow
def test_a_foreign_checkpoint_is_placed_shard_by_shard(eight):
  assert eight["loaded differs"] == 0.0
  assert eight["loaded parts"] == {"kernel": 8, "embedding": 8}
  # Layer by layer: the stack of them is never whole.
  assert eight["largest read"] < eight["largest parameter"]


@pytest.mark.slow
@pytest.mark.skipif(
  "FLAN_JAX_LONG_TESTS" not in os.environ,
  reason="compiles 60 programs for eight devices; set FLAN_JAX_LONG_TESTS=1",
)
def test_loss_and_gradients_of_every_case_agree_on_every_mesh():
  found = on_eight_devices("--all", timeout=3000)["differences"]
  assert len(found) == (2 * 2 * 2 + 2) * 5
  assert max(found.values()) < 1e-5, found


def shapes_of(model, optimiser=None):
  from flan_jax.training import optimiser as optimisers
  from flan_jax.training import state

  made = optimiser or optimisers.adafactor(1e-3, min_dim_size_to_factor=8)
  return jax.eval_shape(
    lambda: state.create(model.init(jax.random.key(0)), made)
  )


class Grid:
  """As many devices as a mesh has, for what only looks at its shape."""

  def __init__(self, **sizes):
    self.shape = {name: sizes.get(name, 1) for name in mesh.AXES}
    self.size = int(np.prod(list(self.shape.values())))


def specs(tree, **sizes):
  """Partition specs by name, without devices."""
  partition = Partition(Grid(**sizes), sharding.RULES)
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    axes.path_name(path): partition.spec(
      axes.of_parameter(axes.path_name(path), len(x.shape))
    )
    for path, x in leaves
  }


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
  "model",
  [
    T5,
    EncoderDecoder(
      T5Config(
        vocab_size=64, mlp_activations=("relu",), logits_via_embedding=True
      )
    ),
    DecoderOnly(
      DecoderConfig(
        vocab_size=64, num_kv_heads=4, qk_norm="head", qkv_bias=True,
        out_bias=True, mlp_bias=True, post_norm=True,
      )
    ),
    DecoderOnly(
      DecoderConfig(
        vocab_size=64, position="relative", query_scale=1.0,
        logits_via_embedding=True, norm="layer", qk_norm="width",
      )
    ),
  ],
  ids=["t5", "t5 v1.0", "llama", "lamda"],
)  # fmt: skip
def test_every_parameter_has_axes_in_both_layouts(model, scan):
  import dataclasses

  changed = dataclasses.replace(model.config, scan_layers=scan)
  params = shapes_of(dataclasses.replace(model, config=changed)).params
  found = specs(params, fsdp=4, tensor=2)
  wo = [spec for name, spec in found.items() if name.endswith("mlp/wo/kernel")]
  one = ("tensor", "fsdp")
  assert {tuple(spec) for spec in wo} == {(None, *one) if scan else one}
  table = [s for n, s in found.items() if n.endswith("embedder/embedding")]
  assert tuple(table[0]) == ("tensor", "fsdp")


def test_a_parameter_without_axes_is_named_with_the_nearest():
  with pytest.raises(UserError, match=r"decoder/mlp/w9/kernel.*nearest"):
    axes.of_parameter("decoder/mlp/w9/kernel", 2)
  with pytest.raises(UserError, match="has 3 dimensions"):
    axes.of_parameter("encoder/layers_0/mlp/wo/kernel", 3)


def test_slots_of_adafactor_keep_the_axes_that_its_means_keep():
  shape = (3, 16, 32)
  how = adafactor.factoring(shape, stacked=True, min_dim_size_to_factor=8)
  row = tuple(n for i, n in enumerate(shape) if i not in how.columns)
  column = tuple(n for i, n in enumerate(shape) if i not in how.rows)
  params = {"encoder/layers/mlp/wi_0/kernel": shape}
  name = "param_states/encoder/layers/mlp/wi_0/kernel"
  assert slots.kept_axes(f"{name}/v_row", row, params)[1] == (0, 1)
  assert slots.kept_axes(f"{name}/v_col", column, params)[1] == (0, 2)
  # A square one: rows are the first of two equal dimensions.
  square = {"a/kernel": (16, 16)}
  how = adafactor.factoring((16, 16), min_dim_size_to_factor=8)
  assert slots.kept_axes("x/a/kernel/v_row", (16,), square)[1] == how.rows
  assert slots.kept_axes("x/a/kernel/v_col", (16,), square)[1] == how.columns
  assert slots.kept_axes("x/a/kernel/v", (16, 16), square)[1] == (0, 1)
  assert slots.kept_axes("count", (), square) is None


def test_a_mesh_that_is_not_the_devices_names_the_nearest():
  with pytest.raises(UserError, match=r"needs 256 devices, here are 1") as e:
    Partition.of(Layout({"fsdp": 16, "tensor": 16}), jax.devices()[:1])
  assert "{'data': 1, 'fsdp': 1, 'tensor': 1}" in str(e.value)
  with pytest.raises(UserError, match="a multiple of 3 devices, here are 8"):
    mesh.sizes({"data": -1, "tensor": 3}, 8)
  assert mesh.nearest({"fsdp": 3, "tensor": 3}, 8) == {
    "data": 1, "fsdp": 2, "tensor": 4
  }  # fmt: skip


def test_heads_batch_and_sizes_that_do_not_divide_name_the_nearest():
  with pytest.raises(UserError, match=r"num_heads is 6.*of 4.*nearest.* is 3"):
    mesh.check_heads(T5Config(vocab_size=8, num_heads=6), 4)
  grouped = DecoderConfig(vocab_size=8, num_heads=8, num_kv_heads=2)
  with pytest.raises(UserError, match=r"num_kv_heads is 2.*nearest.* is 2"):
    mesh.check_heads(grouped, 4)
  with pytest.raises(UserError, match=r"BATCH_SIZE 20 .* are 16 and 32"):
    mesh.check_batch_size(20, 8, 2)
  with pytest.raises(UserError, match="smaller than the 8 devices"):
    mesh.check_batch_size(4, 8)
  partition = Partition(Grid(fsdp=3), sharding.RULES)
  params = {"token_embedder": shapes_of(T5).params["token_embedder"]}
  with pytest.raises(UserError, match=r"16 along 'embed'.*of 3.*nearest.*is 4"):
    partition.params(params)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"mesh": {"model": 2}}, r"MESH: the axis is 'model'.*nearest"),
    ({"mesh": {"fsdp": 0}}, r"MESH\['fsdp'\] is 0"),
    ({"mesh": {"fsdp": -1, "data": -1}}, "at most one axis"),
    ({"rules": {"embeds": "fsdp"}}, "'embeds'.*nearest is 'embed'"),
    ({"rules": {"embed": "fdsp"}}, "'fdsp'.*nearest is 'fsdp'"),
  ],
)
def test_a_layout_that_is_wrong_is_refused(change, message):
  with pytest.raises(UserError, match=message):
    Layout(**change)


def test_one_device_has_no_constraints_and_whole_parameters():
  partition = Partition.of(Layout(), jax.devices()[:1])
  where = partition.state(shapes_of(T5))
  assert all(x.is_fully_replicated for x in jax.tree.leaves(where))


@pytest.mark.parametrize("path", HARDWARE, ids=lambda path: path.stem)
def test_hardware_files_load_and_their_meshes_fit_their_machines(path):
  if path.stem == "rules":
    pytest.skip("included by the others")
  loaded = config.load(
    ["gin/flan_holdout_nli.gin", str(path)], search_paths=[str(ROOT)]
  )
  layout = Layout(
    loaded.value("MESH"), loaded.value("AXIS_RULES"), loaded.value("TOPOLOGY")
  )
  assert layout.rules == sharding.RULES
  if layout.topology is not None:
    from flan_jax.planning import topology

    assert np.prod(list(layout.mesh.values())) == (
      topology.named(layout.topology).size
    )
