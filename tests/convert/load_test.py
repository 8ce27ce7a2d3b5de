"""Any checkpoint into a model: the whole fit is checked, then tensor by tensor."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flan_jax.convert import drafts, hf, load, native, source, trees
from flan_jax.errors import UserError
from flan_jax.models import stack
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.rope import RopeScaling
from flan_jax.models.t5 import EncoderDecoder
from flan_jax.models.t5_network import T5Config
from flan_jax.training import checkpoint, optimiser, restore
from flan_jax.training import state as state_lib

T5 = T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=2,
  num_encoder_layers=2,
  num_decoder_layers=3,
  head_dim=8,
  mlp_dim=24,
)
DECODER = DecoderConfig(
  vocab_size=64,
  emb_dim=16,
  num_heads=2,
  num_layers=3,
  head_dim=8,
  mlp_dim=24,
  rope_scaling=RopeScaling(
    "longrope",
    factor=4.0,
    original_max_position=16,
    short_factor=(1.0,) * 4,
    long_factor=(2.0,) * 4,
  ),
)
MODELS = {"t5": EncoderDecoder(T5), "decoder": DecoderOnly(DECODER)}


def scanned(model):
  config = dataclasses.replace(model.config, scan_layers=True)
  return type(model)(config)


def numbers(model, seed=0):
  """Flat parameters of the unscanned model, random in every place."""
  random = np.random.default_rng(seed)
  shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
  return {
    name: random.standard_normal(x.shape).astype(np.float32)
    for name, x in shapes.items()
  }


def abstract(flat):
  return {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in flat.items()}


def write(folder, flat, **kwargs):
  return native.write_native(folder, abstract(flat), flat.items(), **kwargs)


def same(tree, flat):
  got = trees.flatten(tree)
  assert got.keys() == flat.keys()
  for name, want in flat.items():
    np.testing.assert_array_equal(got[name], want, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stored", [False, True])
def test_scanned_and_not_into_each_other(tmp_path, name, stored):
  model = MODELS[name]
  flat = numbers(model)
  write(
    tmp_path / "out", flat, step=7, config=model.config, scan_layers=stored
  )
  opened = source.open_source(tmp_path / "out")
  assert (opened.format, opened.step) == ("flan_jax", 7)
  assert opened.config == model.config
  assert opened.shapes == abstract(flat)
  for key, want in flat.items():
    np.testing.assert_array_equal(opened.read(key), want)
  same(load.load_params(tmp_path / "out", model), flat)
  params = load.load_params(tmp_path / "out", scanned(model))
  same(stack.unstack_layers(params), flat)
  # And by Orbax, as our own trainer restores.
  wanted = scanned(model) if stored else model
  shapes = jax.eval_shape(wanted.init, jax.random.key(0))
  got = restore.restore_params(tmp_path / "out", shapes)
  same(stack.unstack_layers(got) if stored else got, flat)


@pytest.mark.parametrize("scan", [False, True])
def test_what_our_trainer_saved(tmp_path, scan):
  model = scanned(MODELS["t5"]) if scan else MODELS["t5"]
  flat = numbers(MODELS["t5"])
  params = jax.tree.map(jnp.asarray, trees.unflatten(flat))
  params = stack.stack_layers(params) if scan else params
  state = state_lib.create(params, optimiser.adafactor(1e-3))
  checkpoints = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
  extra = {"model": native.describe(model.config)}
  checkpoints.save(3, state, extra, final=True)
  checkpoints.close()
  opened = source.open_source(tmp_path / "run")
  assert opened.config == model.config
  assert opened.left_out
  for key, want in flat.items():
    np.testing.assert_array_equal(opened.read(key), want)
  same(load.load_params(opened, MODELS["t5"]), flat)


def test_a_checkpoint_from_before_configs_were_kept(tmp_path):
  flat = numbers(MODELS["t5"])
  write(tmp_path / "out", flat)
  assert source.open_source(tmp_path / "out").config is None
  same(load.load_params(tmp_path / "out", MODELS["t5"]), flat)


def test_a_torn_checkpoint_is_passed_over(tmp_path, caplog):
  flat = numbers(MODELS["t5"])
  write(tmp_path / "checkpoint_1", flat, step=1)
  write(tmp_path / "checkpoint_2", flat, step=2)
  array = tmp_path / "checkpoint_2/state/params.token_embedder.embedding/0.0"
  array.write_bytes(array.read_bytes()[:50])
  with caplog.at_level(logging.WARNING):
    assert source.open_source(tmp_path).step == 1
  assert "embedding/0.0 has 50 bytes" in caplog.text
  with pytest.raises(UserError, match="(?s)no whole checkpoint.*has 50 bytes"):
    load.load_params(tmp_path / "checkpoint_2", MODELS["t5"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_parameters_are_float32(tmp_path, dtype):
  flat = numbers(MODELS["t5"])
  write(tmp_path / "out", flat, dtype=dtype)
  opened = source.open_source(tmp_path / "out")
  assert {x.dtype.name for x in opened.shapes.values()} == {dtype}
  params = load.load_params(tmp_path / "out", MODELS["t5"])
  assert {x.dtype.name for x in jax.tree.leaves(params)} == {"float32"}
  cast = {n: x.astype(dtype).astype(np.float32) for n, x in flat.items()}
  same(params, cast)


def test_placed_as_asked(tmp_path):
  model = MODELS["decoder"]
  flat = numbers(model)
  write(tmp_path / "out", flat)
  mesh = jax.make_mesh((1,), ("data",))
  everywhere = NamedSharding(mesh, PartitionSpec())
  params = load.load_params(tmp_path / "out", model, everywhere)
  assert all(x.sharding == everywhere for x in jax.tree.leaves(params))
  each = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), params)
  same(load.load_params(tmp_path / "out", model, each), flat)


def test_donated_parameters_leave_the_checkpoint_alone(tmp_path):
  """On a CPU jax may use numpy's memory; a training step writes over it."""
  model = MODELS["t5"]
  flat = numbers(model)
  write(tmp_path / "out", flat, scan_layers=True)
  opened = source.open_source(tmp_path / "out")
  params = load.load_params(opened, model)
  step = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0 + 1, tree), donate_argnums=0
  )
  jax.block_until_ready(step(params))
  same(load.load_params(opened, model), flat)


def test_everything_that_does_not_fit_is_in_one_error(tmp_path):
  flat = numbers(MODELS["t5"])
  flat["encoder/new/kernel"] = np.zeros((2, 2), np.float32)
  del flat["decoder/layers_0/mlp/wo/kernel"]
  del flat["decoder/layers_1/mlp/wo/kernel"]
  flat["encoder/encoder_norm/scale"] = np.zeros(3, np.float32)
  write(tmp_path / "out", flat)
  for model in (MODELS["t5"], scanned(MODELS["t5"])):
    with pytest.raises(UserError) as error:
      load.load_params(tmp_path / "out", model)
    text = str(error.value)
    assert "missing: 2, extra: 1, reshaped: 1" in text
    for line in (
      "  missing: decoder/layers_{0-1}/mlp/wo/kernel: [24, 16]",
      "  extra: encoder/new/kernel: [2, 2]",
      "  reshaped: encoder/encoder_norm/scale: [3], MODEL needs [16]",
    ):
      assert line in text.splitlines()


def test_fields_that_contradict_are_named(tmp_path):
  write(tmp_path / "out", numbers(MODELS["t5"]), config=T5)
  other = dataclasses.replace(
    T5, mlp_activations=("silu", "linear"), vocab_size=96, dropout_rate=0.0
  )
  with pytest.raises(UserError) as error:
    load.load_params(tmp_path / "out", EncoderDecoder(other))
  text = str(error.value)
  assert "mlp_activations: ('gelu', 'linear')" in text
  assert "vocab_size: 64" in text
  assert "96" in text
  assert "dropout_rate" not in text
  assert "num_heads" not in text
  with pytest.raises(UserError, match="is encoder-decoder, MODEL is decoder-"):
    load.load_params(tmp_path / "out", MODELS["decoder"])


def test_nowhere_is_named_with_the_macro(tmp_path):
  with pytest.raises(UserError, match="INITIAL_CHECKPOINT_PATH=.*no_such"):
    load.load_params(tmp_path / "no_such", MODELS["t5"])
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="(?s)holds nothing.*Known are"):
    load.load_params(tmp_path / "empty", MODELS["t5"])


@pytest.mark.parametrize("config", [T5, DECODER], ids=["t5", "decoder"])
def test_config_through_json(config):
  text = json.dumps(native.describe(config))
  assert native.recalled(json.loads(text), "x") == config


def test_config_of_another_version():
  said = native.describe(T5) | {"mixture_of_experts": 8}
  with pytest.raises(UserError, match="another version.*mixture_of_experts"):
    native.recalled(said, "runs/x/checkpoint_3")


def test_through_every_format_nothing_changes(tmp_path):
  """hf -> t5x -> flan_jax (stacked) -> hf: byte-equal, no name more or less."""
  from flan_jax.convert import t5x

  config = dataclasses.replace(T5, logits_via_embedding=True)
  flat = numbers(EncoderDecoder(config))

  def tensors(opened):
    return ((name, opened.read(name)) for name in opened.shapes)

  hf.write_hf(tmp_path / "a", config, flat.items())
  t5x.write_t5x(tmp_path / "b", tensors(source.open_source(tmp_path / "a")))
  b = source.open_source(tmp_path / "b")
  native.write_native(
    tmp_path / "c", b.shapes, tensors(b), config=config, scan_layers=True
  )
  c = source.open_source(tmp_path / "c")
  hf.write_hf(tmp_path / "d", c.config, tensors(c))
  name = "model.safetensors"
  assert (tmp_path / "a" / name).read_bytes() == (
    tmp_path / "d" / name
  ).read_bytes()
  assert (tmp_path / "a/config.json").read_text() == (
    tmp_path / "d/config.json"
  ).read_text()


def test_draft_is_gone_after_an_error(tmp_path):
  def fail():
    with drafts.folder(tmp_path / "a/b") as draft:
      (draft / "x").write_text("half")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert list((tmp_path / "a").iterdir()) == []
  (tmp_path / "file").write_text("mine")
  with pytest.raises(UserError, match="is a file"), drafts.folder(
    tmp_path / "file", overwrite=True
  ):
    pass
  assert (tmp_path / "file").read_text() == "mine"
