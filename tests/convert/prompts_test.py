"""Soft prompts of T5X and of PEFT: read, written, and the same logits."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from flan_jax.convert import fingerprint, job, load, part, peft, prompts
from flan_jax.convert.native import extra_of
from flan_jax.convert.source import open_source
from flan_jax.errors import UserError
from flan_jax.models.soft_prompt import KEY, SoftPrompt
from flan_jax.training import checkpoint
from tests.models import fixtures

P = 4


@pytest.fixture(scope="module")
def t5x(t5x_fixtures):
  folder = t5x_fixtures / "prompt_tuning"
  return folder / "run", fixtures.load(folder / "batch.npz")


def test_t5xs_checkpoint_with_a_prompt_loads(t5x):
  run, arrays = t5x
  source = open_source(run / "checkpoint_7")
  base = fixtures.t5.EncoderDecoder(fixtures.t5x_config("t5_1_1"))
  model = load.model_of(source, base)
  assert isinstance(model, SoftPrompt)
  assert (model.length, model.side) == (5, "encoder")
  params = load.load_params(source, model)
  batch = fixtures.batch_of(arrays)
  logits = jax.jit(model.logits)(params, batch)
  real = batch["decoder_target_tokens"] > 0
  error = fixtures.relative_error(logits[real], arrays["logits"][real])
  assert error < 1e-5
  read = prompts.read(run / "checkpoint_7")
  np.testing.assert_array_equal(read["encoder"], arrays["prompt_after_3"])
  with pytest.raises(UserError, match=r"holds an adapter \(soft_prompt\)"):
    load.load_params(source, base)


def test_t5xs_numpy_prompts_are_read_and_written(t5x, tmp_path):
  run, arrays = t5x
  name = "encoder.prompt.prompt.prompt"
  theirs = run / "numpy_checkpoints" / "checkpoint_7" / name
  read = prompts.read(theirs)["encoder"]
  np.testing.assert_array_equal(read, arrays["prompt_after_3"])
  written = prompts.write_numpy(tmp_path / "prompt.npy", read)
  np.testing.assert_array_equal(np.load(written), read)
  with pytest.raises(UserError, match="exists"):
    prompts.write_numpy(written, read)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "does not exist"),
    (b"text", "cannot be read as a numpy array"),
    (np.zeros(3, np.float32), "two dimensions"),
    (np.zeros((2, 3), np.int32), "array of int32"),
    (np.array([{}]), "cannot be read"),
  ],
)
def test_numpy_files_that_are_no_prompts(tmp_path, content, message):
  path = tmp_path / "prompt.npy"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content is not None:
    np.save(path, content)
  with pytest.raises(UserError, match=message):
    prompts.read(path)


@pytest.fixture(scope="module", params=["causal", "seq2seq"])
def pair(request, tmp_path_factory):
  """A model of transformers with random weights, and a run of ours on it."""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  folder = tmp_path_factory.mktemp(request.param)
  torch.manual_seed(0)
  if request.param == "causal":
    theirs = transformers.LlamaForCausalLM(
      transformers.LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=64,
      )
    )
  else:
    theirs = transformers.T5ForConditionalGeneration(
      transformers.T5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
      )
    )
  theirs = theirs.eval()
  theirs.save_pretrained(folder / "base")
  base = load.model_of(open_source(folder / "base"))
  model = SoftPrompt(base, P)
  params = load.load_params(str(folder / "base"), base)
  rng = np.random.default_rng(0)
  own = {
    s: {"prompt": rng.normal(0, 0.5, (P, 16)).astype(np.float32)}
    for s in model.sides
  }
  write_run(folder / "run", folder / "base", model, params, own)
  return theirs, folder, model, {**params, KEY: own}


def write_run(folder, base, model, params, own):
  mark = fingerprint.fingerprint(params)
  saved = checkpoint.Checkpoints(folder / "checkpoints")
  extra = {
    **extra_of(model.config),
    **part.extra_of(base, mark, model.trainable, model.described()),
  }
  saved.save(1, {"params": {KEY: own}}, extra, final=True)
  saved.close()


# PEFT asks transformers for what that is about to drop.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_peft_gives_the_same_logits(pair, tmp_path):
  library = pytest.importorskip("peft")
  torch = pytest.importorskip("torch")
  theirs, folder, model, params = pair
  peft.write(open_source(folder / "run"), tmp_path / "peft")
  adapted = library.PeftModel.from_pretrained(theirs, tmp_path / "peft").eval()
  tokens = np.array([[5, 9, 3, 1], [7, 2, 30, 1]], np.int32)
  ids = torch.tensor(tokens, dtype=torch.long)
  mask = torch.ones_like(ids)
  with torch.no_grad():
    if model.kind == "decoder_only":
      expected = adapted(input_ids=ids, attention_mask=mask).logits
      batch = {"decoder_input_tokens": tokens}
    else:
      read = np.array([[0, 4, 8], [0, 6, 7]], np.int32)
      expected = adapted(
        input_ids=ids,
        attention_mask=mask,
        decoder_input_ids=torch.tensor(read, dtype=torch.long),
        decoder_attention_mask=torch.ones(2, 3, dtype=torch.long),
      ).logits
      batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": read,
        "decoder_target_tokens": np.ones_like(read),
      }
  ours = np.asarray(model.logits(params, batch))
  expected = expected[:, -ours.shape[1] :].numpy()
  assert fixtures.relative_error(ours, expected) < 1e-5
  # The library's own folder is read too.
  library_folder = tmp_path / "theirs"
  adapted.save_pretrained(library_folder)
  read = prompts.read(library_folder)
  for side in model.sides:
    np.testing.assert_array_equal(read[side], params[KEY][side]["prompt"])


def test_a_folder_of_peft_is_a_checkpoint(pair, tmp_path):
  _, folder, model, params = pair
  written = peft.write(open_source(folder / "run"), tmp_path / "peft")
  config = json.loads((written / peft.CONFIG).read_text())
  assert config["num_virtual_tokens"] == P
  assert config["num_transformer_submodules"] == 1
  source = open_source(written)
  again = load.model_of(source)
  assert again.described() == model.described()
  read = load.load_params(source, again)
  for side in model.sides:
    np.testing.assert_array_equal(
      read[KEY][side]["prompt"], params[KEY][side]["prompt"]
    )
  other = fingerprint.fingerprint(jax.tree.map(lambda x: x + 1, params))
  with pytest.raises(UserError, match=f"has {other}"):
    prompts.read(written, other)
  with pytest.raises(UserError, match=f"has {other}"):
    prompts.read(folder / "run", other)


def test_a_pool_serves_saved_prompts_beside_each_other(pair, tmp_path):
  _, folder, model, params = pair
  job.convert(
    input_path=str(folder / "run"),
    output_path=str(tmp_path / "one.npy"),
    output_format="npy",
  )
  (side,) = model.sides
  one = np.load(tmp_path / "one.npy")
  np.testing.assert_array_equal(one, params[KEY][side]["prompt"])
  np.save(tmp_path / "two.npy", one[::-1])
  paths = {"one": folder / "run", "two": tmp_path / "two.npy"}
  served, own = prompts.pool(model.base, paths)
  rows = np.array([[5, 9, 3, 1]] * 2, np.int32)
  choices = np.array([[[4, 8]]] * 2, np.int32)
  both = {**params, KEY: own}
  ids = [served.prompt_id("two"), served.prompt_id("one")]
  mixed = served.encode(both, served.chosen(rows, np.array(ids)))
  scores = served.score(both, mixed, choices)
  for row, vectors in zip(scores, (one[::-1], one), strict=True):
    alone = {**params, KEY: {side: {"prompt": vectors}}}
    expected = model.score(alone, model.encode(alone, rows), choices)[0]
    np.testing.assert_allclose(row, expected, atol=1e-5)
  np.save(tmp_path / "short.npy", one[:2])
  with pytest.raises(UserError, match=r"short \[2, 16\]"):
    prompts.pool(model.base, {**paths, "short": tmp_path / "short.npy"})
  with pytest.raises(UserError, match="no part of any tensor"):
    job.convert(
      input_path=str(folder / "run"),
      output_path=str(tmp_path / "hf"),
      output_format="hf",
    )
  with pytest.raises(UserError, match="holds no soft prompt"):
    job.convert(
      input_path=str(folder / "base"),
      output_path=str(tmp_path / "base.npy"),
      output_format="npy",
    )


def test_a_prompt_before_the_decoder_is_not_pefts(pair, tmp_path):
  _, folder, model, params = pair
  if model.kind == "decoder_only":
    pytest.skip("has no other side")
  both = SoftPrompt(model.base, P, side="both")
  own = both.initial(jax.random.key(0), params)
  base = {name: x for name, x in params.items() if name != KEY}
  write_run(tmp_path / "run", folder / "base", both, base, own)
  with pytest.raises(UserError, match="PEFT does not read"):
    peft.write(open_source(tmp_path / "run"), tmp_path / "peft")
  # Of PEFT's own default, twice as many vectors, the first half is read.
  array = np.arange(2 * P * 16, dtype=np.float32).reshape(2 * P, 16)
  config = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "SEQ_2_SEQ_LM",
    "num_virtual_tokens": P,
  }
  peft.write_folder(
    tmp_path / "theirs", config, {"prompt_embeddings": array}
  )
  read = prompts.read(tmp_path / "theirs")["encoder"]
  np.testing.assert_array_equal(read, array[:P])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"peft_type": "P_TUNING"}, "nearest is 'PROMPT_TUNING'"),
    ({"num_virtual_tokens": 3}, "the config says 1 x 3 vectors"),
    ({"modules_to_save": ["head"]}, r"modules_to_save = \['head'\]"),
    ({"task_type": "SEQ_2_SEQ_LM"}, "task_type 'SEQ_2_SEQ_LM'"),
    ({"width": 8}, "vectors of 8 numbers"),
    ({"tensor": "other"}, "has the tensors other"),
  ],
)
def test_folders_of_peft_that_do_not_fit(pair, tmp_path, changes, message):
  _, folder, model, _ = pair
  if model.kind != "decoder_only":
    pytest.skip("one kind is enough")
  config = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": str(folder / "base"),
    "num_virtual_tokens": P,
    "num_transformer_submodules": 1,
    **{k: v for k, v in changes.items() if k not in ("width", "tensor")},
  }
  array = np.zeros((P, changes.get("width", 16)), np.float32)
  (tmp_path / peft.CONFIG).write_text(json.dumps(config))
  safetensors.numpy.save_file(
    {changes.get("tensor", "prompt_embeddings"): array},
    tmp_path / peft.WEIGHTS,
  )
  with pytest.raises(UserError, match=message):
    open_source(tmp_path)
