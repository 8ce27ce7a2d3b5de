"""T5X's checkpoints, against those that the real T5X wrote."""

import dataclasses
import gzip
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from flan_jax.convert import load, optimiser_state, orbax, source, t5x, trees
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder
from flan_jax.models.t5_network import T5Config
from flan_jax.training import optimiser

KINDS = ("t5_1_1", "t5_1_1_factored", "t5_1_0", "decoder_only")
CHECKPOINTS = ("legacy/checkpoint_4", "legacy_bf16/checkpoint_4")
CONFIG = T5Config(
  vocab_size=128,
  emb_dim=32,
  num_heads=4,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=8,
  mlp_dim=64,
  dropout_rate=0.0,
)
CONFIGS = {
  "t5_1_1": CONFIG,
  "t5_1_1_factored": CONFIG,
  "t5_1_0": dataclasses.replace(
    CONFIG, mlp_activations=("relu",), logits_via_embedding=True
  ),
}
DECODER = DecoderConfig(
  vocab_size=128,
  emb_dim=32,
  num_heads=4,
  num_layers=2,
  head_dim=8,
  mlp_dim=64,
  mlp_activations=("gelu", "linear"),
  position="relative",
  query_scale=1.0,
  logits_via_embedding=True,
  logits_scale=32**-0.5,
)
# As the fixtures were trained.
OPTIMISERS = {
  "decoder_only": {},
  "t5_1_1": {},
  "t5_1_1_factored": {"beta1": 0.9, "min_dim_size_to_factor": 16},
  "t5_1_0": {},
}


def model_of(kind, *, scan=False):
  kinds = {**CONFIGS, "decoder_only": DECODER}
  config = dataclasses.replace(kinds[kind], scan_layers=scan)
  made = DecoderOnly if kind == "decoder_only" else EncoderDecoder
  return made(config)


def tree_of(file, prefix=""):
  with np.load(file) as arrays:
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files}


def files_of(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def check_same_files(ours, theirs):
  """Names, .zarray and index byte by byte; chunks when decompressed."""
  ours, theirs = files_of(ours), files_of(theirs)
  assert ours.keys() == theirs.keys()
  for name in ours:
    a, b = ours[name], theirs[name]
    if not name.endswith((".zarray", t5x.INDEX)):
      a, b = gzip.decompress(a), gzip.decompress(b)
    assert a == b, name


def copy_of(folder, to):
  """A writable copy."""
  shutil.copytree(folder, to)
  for path in (to, *to.rglob("*")):
    path.chmod(0o755)
  return to


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*CHECKPOINTS, "orbax/checkpoint_4"])
def test_reads_what_t5x_wrote(t5x_fixtures, kind, name):
  opened = source.open_source(t5x_fixtures / kind / name)
  assert opened.format == ("orbax" if "orbax" in name else "t5x")
  assert opened.step == 4
  params = tree_of(t5x_fixtures / kind / "params_step4.npz")
  assert opened.shapes.keys() == params.keys()
  for key, want in params.items():
    got = opened.read(key)
    assert got.dtype.name == ("bfloat16" if "bf16" in name else "float32")
    assert (got.shape, got.dtype) == (
      opened.shapes[key].shape,
      opened.shapes[key].dtype,
    )
    assert got.tobytes() == want.astype(got.dtype).tobytes(), key
  states = tree_of(t5x_fixtures / kind / "opt_state_step4.npz", "state/")
  got = trees.flatten(opened.state())
  assert got.keys() == states.keys()
  for key, want in states.items():
    np.testing.assert_array_equal(got[key], want, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_writes_what_t5x_wrote(t5x_fixtures, tmp_path, kind, name):
  """From float32 tensors; the same files down to the bytes of the index."""
  theirs = t5x_fixtures / kind / name
  params = tree_of(t5x_fixtures / kind / "params_step4.npz")
  prefix = "state/param_states/"
  states = tree_of(t5x_fixtures / kind / "opt_state_step4.npz", prefix)
  step = states.pop("state/step")
  t5x.write_t5x(
    tmp_path / "checkpoint_4",
    params.items(),
    step=int(step),
    dtype="bfloat16" if "bf16" in name else "float32",
    param_states=states.items(),
  )
  check_same_files(tmp_path / "checkpoint_4", theirs)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_without_optimiser_state(t5x_fixtures, tmp_path, name):
  """T5X saves so for inference: `state` has the step alone."""
  theirs = t5x_fixtures / "t5_1_1" / name
  opened = t5x.T5xSource(theirs)
  ours = tmp_path / "checkpoint_4"
  t5x.write_t5x(
    ours, ((n, opened.read(n)) for n in opened.shapes), step=opened.step
  )
  want = {
    name: data
    for name, data in files_of(theirs).items()
    if name.startswith("target.")
  }
  got = files_of(ours)
  index = serialization.msgpack_restore(got.pop(t5x.INDEX))
  assert got == want
  reference = serialization.msgpack_restore((theirs / t5x.INDEX).read_bytes())
  assert index["version"] == reference["version"]
  assert index["optimizer"]["target"] == reference["optimizer"]["target"]
  assert index["optimizer"]["state"].keys() == {"step"}
  step = index["optimizer"]["state"]["step"]
  assert step == 4
  assert step.dtype == np.int32
  assert source.open_source(ours).left_out == ()


@pytest.mark.parametrize(
  ("kind", "scan"),
  [
    *((kind, False) for kind in KINDS),
    ("t5_1_1", True),
    ("decoder_only", True),
  ],
)
def test_logits_scores_and_gradients(t5x_fixtures, kind, scan):
  model = model_of(kind, scan=scan)
  folder = t5x_fixtures / kind
  params = load.load_params(folder / "legacy/checkpoint_4", model)
  arrays = tree_of(folder / "batch.npz")
  batch = {
    name: jnp.asarray(array)
    for name, array in arrays.items()
    if name.startswith(("encoder_", "decoder_"))
  }
  targets_BT = batch["decoder_target_tokens"]
  real_BT = np.asarray(targets_BT) > 0

  @jax.jit
  def total(params):
    logits_BTV = model.logits(params, batch).astype(jnp.float32)
    log_z_BT = jax.nn.logsumexp(logits_BTV, -1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], -1)
    log_p_BT = picked_BT[..., 0] - log_z_BT
    each_BT = 1e-4 * log_z_BT**2 - log_p_BT
    weights_BT = batch["decoder_loss_weights"]
    scores_B = (log_p_BT * weights_BT).sum(1)
    return (each_BT * weights_BT).sum(), (logits_BTV, scores_B)

  (loss, (logits_BTV, scores_B)), gradients = jax.jit(
    jax.value_and_grad(total, has_aux=True)
  )(params)
  np.testing.assert_allclose(
    logits_BTV[real_BT], arrays["logits"][real_BT], atol=1e-5, rtol=1e-5
  )
  np.testing.assert_allclose(scores_B, arrays["score"], atol=1e-5, rtol=1e-5)
  np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-5)
  gradients = trees.flatten(gradients)
  for name, want in tree_of(folder / "grads_step4.npz").items():
    stacked, layer = trees.stacked(name) if scan else (name, None)
    got = gradients[stacked] if layer is None else gradients[stacked][layer]
    np.testing.assert_allclose(
      got, want, atol=1e-5 * max(1, np.abs(want).max()), err_msg=name
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["legacy/checkpoint_4", "orbax/checkpoint_4"])
def test_optimiser_state_there_and_back(
  t5x_fixtures, tmp_path, kind, scan, name
):
  model = model_of(kind, scan=scan)
  adafactor = optimiser.adafactor(1e-2, **OPTIMISERS[kind])
  state = optimiser_state.read_state(
    t5x_fixtures / kind / name, model, adafactor
  )
  assert int(state.step) == int(state.opt_state.count) == 4
  fresh = jax.eval_shape(adafactor.init, state.params)
  assert jax.tree.structure(state.opt_state) == jax.tree.structure(fresh)
  ours = optimiser_state.write_state(tmp_path / "checkpoint_4", state)
  check_same_files(ours, t5x_fixtures / kind / "legacy/checkpoint_4")


@pytest.mark.parametrize("kind", ["t5_1_1"])
def test_a_t5x_run_goes_on_under_our_trainer(t5x_fixtures, kind):
  """The fifth update decays what T5X's four have gathered, at their count."""
  folder = t5x_fixtures / kind
  model = EncoderDecoder(CONFIGS[kind])
  adafactor = optimiser.adafactor(1e-2, **OPTIMISERS[kind])
  state = optimiser_state.read_state(
    folder / "legacy/checkpoint_4", model, adafactor
  )
  gradients = trees.unflatten(
    jax.tree.map(jnp.asarray, tree_of(folder / "grads_step4.npz"))
  )
  update = jax.jit(adafactor.update)
  updates, after = update(gradients, state.opt_state, state.params)
  assert int(after.count) == 5
  # beta2 at the fifth update, from the count that T5X saved.
  beta2 = 1 - 5.0**-0.8
  states = tree_of(folder / "opt_state_step4.npz", "state/param_states/")
  for name, slots in after.param_states["encoder"]["encoder_norm"].items():
    square = gradients["encoder"]["encoder_norm"]["scale"] ** 2 + 1e-30
    old = states["encoder/encoder_norm/scale/v"]
    assert name == "scale"
    np.testing.assert_allclose(
      slots["v"], beta2 * old + (1 - beta2) * square, rtol=1e-5
    )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))


def test_other_optimiser_options_are_refused(t5x_fixtures, tmp_path):
  path = t5x_fixtures / "t5_1_1_factored/legacy/checkpoint_4"
  model = EncoderDecoder(CONFIG)
  with pytest.raises(UserError, match="Set beta1, factored"):
    optimiser_state.read_state(path, model, optimiser.adafactor(1e-2))
  with pytest.raises(UserError, match=r"T5X's checkpoints\s+hold Adafactor's"):
    optimiser_state.read_state(path, model, optimiser.adamw(1e-2))
  opened = t5x.T5xSource(path)
  t5x.write_t5x(tmp_path / "c", ((n, opened.read(n)) for n in opened.shapes))
  with pytest.raises(UserError, match="no optimiser state"):
    optimiser_state.read_state(
      tmp_path / "c", model, optimiser.adafactor(1e-2)
    )


def test_inline_arrays_and_older_specs(tmp_path):
  """Small old checkpoints hold arrays in the index itself; before version 3
  bfloat16 was stored as uint16, and paths stood beside the kvstore."""
  values = np.arange(6, dtype=np.float32).reshape(2, 3)
  half = jnp.asarray(values, jnp.bfloat16)
  t5x.write_t5x(
    tmp_path / "new", [("b/kernel", np.asarray(half).view(np.uint16))]
  )
  index = serialization.msgpack_restore(
    (tmp_path / "new" / t5x.INDEX).read_bytes()
  )
  spec = index["optimizer"]["target"]["b"]["kernel"]
  spec["path"] = spec["kvstore"].pop("path")
  spec["kvstore"] |= {"driver": "gcs", "bucket": "t5x-dummy-bucket"}
  index["optimizer"]["target"]["a"] = {"kernel": values}
  for version, dtype in ((2, "bfloat16"), (3, "uint16")):
    index["version"] = version
    (tmp_path / "new" / t5x.INDEX).write_bytes(
      serialization.msgpack_serialize(index)
    )
    opened = t5x.T5xSource(tmp_path / "new")
    np.testing.assert_array_equal(opened.read("a/kernel"), values)
    assert opened.read("b/kernel").dtype.name == dtype
    assert opened.shapes["b/kernel"].dtype.name == dtype
  index["version"] = 2
  (tmp_path / "new" / t5x.INDEX).write_bytes(
    serialization.msgpack_serialize(index)
  )
  got = t5x.T5xSource(tmp_path / "new").read("b/kernel")
  np.testing.assert_array_equal(got, half)


def test_an_orbax_folder_of_another_program(tmp_path):
  """Saved by Orbax itself, with and without OCDBT, under `params`."""
  import orbax.checkpoint as ocp

  tree = {
    "params": {"layers_0": {"kernel": jnp.arange(12.0).reshape(3, 4)}},
    "opt": {"count": jnp.ones(())},
  }
  for ocdbt in (True, False):
    path = tmp_path / f"ocdbt_{ocdbt}"
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    with ocp.Checkpointer(handler) as writer:
      writer.save(path, args=ocp.args.PyTreeSave(tree))
    opened = source.open_source(path)
    assert list(opened.shapes) == ["layers_0/kernel"]
    assert opened.step is None
    np.testing.assert_array_equal(
      opened.read("layers_0/kernel"), tree["params"]["layers_0"]["kernel"]
    )
    assert opened.left_out == ("1 arrays besides the parameters",)


@pytest.fixture
def broken(t5x_fixtures, tmp_path):
  return copy_of(
    t5x_fixtures / "t5_1_1/legacy/checkpoint_4", tmp_path / "checkpoint_4"
  )


def edit_index(folder, change):
  path = folder / t5x.INDEX
  tree = serialization.msgpack_restore(path.read_bytes())
  change(tree)
  path.write_bytes(serialization.msgpack_serialize(tree))


def test_half_a_checkpoint(broken):
  names = ["target.encoder.encoder_norm.scale", "target.token_embedder.embedding"]
  shutil.rmtree(broken / names[0])
  (broken / names[1] / "0.0").unlink()
  with pytest.raises(UserError, match="2 of its 52 arrays") as error:
    source.open_source(broken)
  for text in (*names, "1 of its 1 chunks are missing"):
    assert text in str(error.value)


def test_without_its_index(broken):
  (broken / t5x.INDEX).unlink()
  with pytest.raises(UserError, match="half a T5X checkpoint"):
    source.open_source(broken)


@pytest.mark.parametrize("keep", [0, 1, 5000, 23000])
def test_truncated_index(broken, keep):
  path = broken / t5x.INDEX
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match="truncated|no T5X checkpoint"):
    source.open_source(broken)


def test_truncated_array(broken):
  path = broken / "target.token_embedder.embedding" / "0.0"
  path.write_bytes(path.read_bytes()[:1000])
  opened = source.open_source(broken)
  with pytest.raises(UserError, match="target.token_embedder.embedding.*trunc"):
    opened.read("token_embedder/embedding")
  path.write_bytes(gzip.compress(bytes(100)))
  with pytest.raises(UserError, match="fewer bytes than its shape"):
    opened.read("token_embedder/embedding")
  path.write_bytes(b"not gzip at all")
  with pytest.raises(UserError, match="target.token_embedder.embedding"):
    opened.read("token_embedder/embedding")


def test_damaged_metadata(broken):
  path = broken / "target.token_embedder.embedding" / ".zarray"
  path.write_text(path.read_text()[:40])
  with pytest.raises(UserError, match="its .zarray cannot be read"):
    source.open_source(broken)


def test_index_and_arrays_differ(broken):
  path = broken / "target.encoder.encoder_norm.scale" / ".zarray"
  meta = json.loads(path.read_text()) | {"shape": [16], "chunks": [16]}
  path.write_text(json.dumps(meta))
  with pytest.raises(UserError, match=r"index says \[32\], .zarray \[16\]"):
    source.open_source(broken)


@pytest.mark.parametrize("path", ["/etc/", "../elsewhere/", "", "a/../.."])
def test_nothing_outside_is_read(broken, path):
  def change(tree):
    spec = tree["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"]
    spec["kvstore"]["path"] = path

  edit_index(broken, change)
  with pytest.raises(UserError, match="is not inside the checkpoint"):
    source.open_source(broken)


def test_other_versions_and_other_msgpack(broken):
  edit_index(broken, lambda tree: tree.update(version=4))
  with pytest.raises(UserError, match="version 4 of T5X's format; up to 3"):
    source.open_source(broken)
  edit_index(broken, lambda tree: tree.pop("optimizer"))
  with pytest.raises(UserError, match="needs optimizer/target, and has version"):
    source.open_source(broken)


def test_damaged_orbax(t5x_fixtures, tmp_path):
  whole = t5x_fixtures / "t5_1_1/orbax/checkpoint_4"
  folder = copy_of(whole, tmp_path / "checkpoint_4")
  for path in (folder / "state/ocdbt.process_0/d").iterdir():
    path.write_bytes(path.read_bytes()[:100])
  opened = orbax.OrbaxSource(folder)
  with pytest.raises(UserError, match="target.*cannot be read; it is trunc"):
    [opened.read(name) for name in opened.shapes]
  unfinished = copy_of(whole, tmp_path / "c.orbax-checkpoint-tmp-7")
  with pytest.raises(UserError, match="did not finish"):
    orbax.OrbaxSource(unfinished)
  text = (folder / "state/_METADATA").read_text()
  (folder / "state/_METADATA").write_text(text[:100])
  with pytest.raises(UserError, match="_METADATA cannot be read"):
    orbax.OrbaxSource(folder)


def test_an_array_that_orbax_lists_is_missing(tmp_path):
  import orbax.checkpoint as ocp

  tree = {"params": {"a": jnp.ones(3), "b": jnp.ones(2)}}
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as writer:
    writer.save(tmp_path / "c", args=ocp.args.PyTreeSave(tree))
  shutil.rmtree(tmp_path / "c" / "params.b")
  with pytest.raises(UserError, match=r"(?s)1 of its 2.*params.b is missing"):
    source.open_source(tmp_path / "c")


def test_prompt_tuning_checkpoint_has_more_than_the_model(t5x_fixtures):
  path = t5x_fixtures / "prompt_tuning/run/checkpoint_7"
  with pytest.raises(UserError, match=r"holds an adapter \(soft_prompt\)"):
    load.load_params(path, EncoderDecoder(CONFIG))


def test_a_checkpoint_of_tensorflow_is_named(tmp_path):
  lines = ['model_checkpoint_path: "model.ckpt-1000000"']
  lines += ['all_model_checkpoint_paths: "model.ckpt-1000000"']
  (tmp_path / "checkpoint").write_text("\n".join(lines))
  (tmp_path / "model.ckpt-1000000.index").write_bytes(b"")
  with pytest.raises(UserError, match=r"mesh-TensorFlow.* to T5X's format f"):
    source.open_source(tmp_path)


def test_existing_folder_is_kept(tmp_path):
  folder = tmp_path / "checkpoint_0"
  t5x.write_t5x(folder, [("a", np.zeros(2, np.float32))])
  before = files_of(folder)
  with pytest.raises(UserError, match="exists and is kept"):
    t5x.write_t5x(folder, [("a", np.ones(2, np.float32))])
  assert files_of(folder) == before

  def fails():
    yield "a", np.ones(2, np.float32)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    t5x.write_t5x(folder, fails(), overwrite=True)
  assert files_of(folder) == before
  assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_0"]
  t5x.write_t5x(folder, [("a", np.ones(2, np.float32))], overwrite=True)
  assert t5x.T5xSource(folder).read("a").tolist() == [1, 1]
  assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_0"]
