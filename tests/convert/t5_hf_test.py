"""T5's families in the Hugging Face layout, against transformers itself."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from flan_jax.convert import hf, load, source
from flan_jax.errors import UserError
from flan_jax.models.t5 import EncoderDecoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = dict(
  vocab_size=96,
  d_model=32,
  d_kv=8,
  d_ff=64,
  num_layers=2,
  num_decoder_layers=3,
  num_heads=4,
  dropout_rate=0.0,
  decoder_start_token_id=0,
)
# Name -> (kind, what its published config.json says beside the sizes).
FAMILIES = {
  "t5_1_0": ("T5", {"feed_forward_proj": "relu"}),
  "t5_1_1": (
    "T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
  ),
  # LM-adapted T5, T0: as v1.1. FLAN-T5 says the activation three times.
  "flan_t5": (
    "T5",
    {
      "feed_forward_proj": "gated-gelu",
      "dense_act_fn": "gelu_new",
      "is_gated_act": True,
      "tie_word_embeddings": False,
      "n_positions": 512,
      "output_past": True,
    },
  ),
  "mt5": (
    "MT5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
  ),
  "ul2": (
    "T5",
    {
      "feed_forward_proj": "gated-silu",
      "dense_act_fn": "silu",
      "is_gated_act": True,
      "tie_word_embeddings": False,
      # Twice the width in heads, as UL2 20B.
      "d_kv": 16,
    },
  ),
}


def reference(name):
  """A model of transformers, every parameter perturbed, its head its own."""
  kind, fields = FAMILIES[name]
  config = getattr(transformers, f"{kind}Config")(**SMALL | fields)
  torch.manual_seed(sum(map(ord, name)))
  model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
  untied = fields.get("tie_word_embeddings") is False
  if untied:
    # transformers 5 ties whatever the config says.
    head = torch.randn(SMALL["vocab_size"], SMALL["d_model"]) * 0.5
    model.lm_head.weight = torch.nn.Parameter(head)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  embeddings = sum(p.numel() for p in model.parameters() if 96 in p.shape)
  assert embeddings == (2 if untied else 1) * 96 * 32
  return model.eval()


def saved(name, folder, **kwargs):
  model = reference(name)
  model.save_pretrained(folder, **kwargs)
  # As the published files say it, not as transformers 5 writes it.
  path = folder / "config.json"
  said = json.loads(path.read_text()) | FAMILIES[name][1]
  said.pop("scale_decoder_outputs", None)
  path.write_text(json.dumps(said))
  return model


def tokens(seed, *shape):
  return np.random.default_rng(seed).integers(2, 96, shape)


def padded_batch():
  inputs_BS = tokens(0, 3, 9)
  inputs_BS[1, 5:] = 0
  inputs_BS[2, 2:] = 0
  targets_BT = tokens(1, 3, 6)
  targets_BT[2, 4:] = 0
  shifted_BT = np.pad(targets_BT[:, :-1], ((0, 0), (1, 0)))
  return inputs_BS, shifted_BT, targets_BT


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  theirs = saved(request.param, folder)
  opened = source.open_source(folder)
  model = EncoderDecoder(opened.config)
  return folder, theirs, opened, model, load.load_params(opened, model)


def test_logits_with_padding(family):
  _, theirs, _, model, params = family
  inputs_BS, shifted_BT, targets_BT = padded_batch()
  with torch.no_grad():
    want = theirs(
      input_ids=torch.tensor(inputs_BS),
      attention_mask=torch.tensor(inputs_BS > 0).long(),
      decoder_input_ids=torch.tensor(shifted_BT),
    ).logits.numpy()
  got = model.logits(
    params,
    {
      "encoder_input_tokens": jnp.asarray(inputs_BS),
      "decoder_input_tokens": jnp.asarray(shifted_BT),
      "decoder_target_tokens": jnp.asarray(targets_BT),
    },
  )
  real = targets_BT > 0
  scale = np.abs(want[real]).max()
  np.testing.assert_allclose(got[real], want[real], atol=1e-4 * max(1, scale))
  assert scale > 0.5


def test_a_second_example_in_a_row(family):
  _, theirs, _, model, params = family
  a, b = tokens(2, 5), tokens(3, 7)
  c, d = tokens(4, 4), tokens(5, 3)
  with torch.no_grad():
    want = theirs(
      input_ids=torch.tensor(b[None]),
      decoder_input_ids=torch.tensor(np.r_[0, d[:-1]][None]),
    ).logits.numpy()[0]
  batch = {
    "encoder_input_tokens": np.r_[a, b],
    "decoder_input_tokens": np.r_[0, c[:-1], 0, d[:-1]],
    "decoder_target_tokens": np.r_[c, d],
    "encoder_segment_ids": np.repeat([1, 2], [5, 7]),
    "decoder_segment_ids": np.repeat([1, 2], [4, 3]),
  }
  batch = {name: jnp.asarray(row[None]) for name, row in batch.items()}
  got = model.logits(params, batch)
  np.testing.assert_allclose(
    got[0, 4:], want, atol=1e-4 * max(1, np.abs(want).max())
  )


def test_generation_from_the_cache(family):
  _, theirs, _, model, params = family
  inputs_BS, _, _ = padded_batch()
  with torch.no_grad():
    want = theirs.generate(
      input_ids=torch.tensor(inputs_BS),
      attention_mask=torch.tensor(inputs_BS > 0).long(),
      max_new_tokens=12,
      do_sample=False,
      eos_token_id=None,
      # Its cache counts encoder layers, of which there are fewer here.
      use_cache=False,
    ).numpy()[:, 1:]
  got = greedy(model, params, inputs_BS, 12)
  np.testing.assert_array_equal(got, want)


def greedy(model, params, inputs_BS, steps):
  """By the cache alone, so that an EOS does not end it."""
  logits_BV, cache = model.start_decoding(params, jnp.asarray(inputs_BS), steps)
  out = []
  for index in range(steps):
    out.append(jnp.argmax(logits_BV, -1))
    logits_BV, cache = model.decode_step(params, out[-1], cache, index)
  return np.stack(out, 1)


def test_written_back_byte_equal(family, tmp_path):
  folder, theirs, opened, _, _ = family
  hf.write_hf(
    tmp_path / "back",
    opened.config,
    ((name, opened.read(name)) for name in opened.shapes),
    details=opened.details,
  )
  want = safetensors.load_file(folder / "model.safetensors")
  got = safetensors.load_file(tmp_path / "back" / "model.safetensors")
  assert got.keys() == want.keys()
  for name in want:
    assert got[name].tobytes() == want[name].tobytes(), name
  again = source.open_source(tmp_path / "back")
  assert again.config == opened.config
  model, info = type(theirs).from_pretrained(
    tmp_path / "back", output_loading_info=True
  )
  assert not info["missing_keys"]
  assert not info["unexpected_keys"]
  inputs, shifted, _ = padded_batch()
  arguments = dict(
    input_ids=torch.tensor(inputs), decoder_input_ids=torch.tensor(shifted)
  )
  with torch.no_grad():
    assert torch.equal(model(**arguments).logits, theirs(**arguments).logits)
  assert model.generation_config.decoder_start_token_id == 0


def test_scanned_is_the_same_model(family):
  _, _, opened, model, params = family
  scanned = EncoderDecoder(
    dataclasses.replace(opened.config, scan_layers=True)
  )
  inputs, shifted, targets = map(jnp.asarray, padded_batch())
  batch = {
    "encoder_input_tokens": inputs,
    "decoder_input_tokens": shifted,
    "decoder_target_tokens": targets,
  }
  np.testing.assert_allclose(
    scanned.logits(load.load_params(opened, scanned), batch),
    model.logits(params, batch),
    atol=1e-4,
  )


def test_bfloat16_in_shards(tmp_path):
  model = reference("t5_1_1").to(torch.bfloat16)
  model.save_pretrained(tmp_path, max_shard_size="20KB")
  assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
  opened = source.open_source(tmp_path)
  assert {x.dtype.name for x in opened.shapes.values()} == {"bfloat16"}
  params = load.load_params(opened, EncoderDecoder(opened.config))
  want = model.lm_head.weight.float().detach().numpy().T
  np.testing.assert_array_equal(
    params["decoder"]["logits_dense"]["kernel"], want
  )


def test_as_transformers_5_saves_it(tmp_path):
  """It writes tie_word_embeddings true for every T5."""
  model = reference("t5_1_1")
  model.save_pretrained(tmp_path)
  said = json.loads((tmp_path / "config.json").read_text())
  assert said["tie_word_embeddings"] is True
  assert not source.open_source(tmp_path).config.logits_via_embedding


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"feed_forward_proj": "gelu"}, "feed_forward_proj is 'gelu'"),
    ({"dense_act_fn": "relu"}, "dense_act_fn is 'relu', but"),
    ({"relative_attention_num_buckets": 64}, "relative_attention_num_buckets"),
    ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon = 1e-05"),
    ({"d_ff": 128}, "reshaped: encoder.block.0.layer.1.DenseReluDense.wi_0"),
    ({"num_layers": 1}, "extra: encoder.block.1."),
    ({"tie_word_embeddings": True}, "lm_head.weight and shared.weight are one"),
    (
      {"tie_word_embeddings": False, "scale_decoder_outputs": True},
      "no T5 has a head of its own that is scaled",
    ),
    ({"model_type": "umt5"}, "(?s)umt5.*Known are.*t5.*mt5"),
  ],
)
def test_what_our_t5_does_not_compute(tmp_path, change, message):
  saved("t5_1_1", tmp_path)
  path = tmp_path / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(UserError, match=message):
    source.open_source(tmp_path)


def test_config_contradicts_model(family):
  folder, _, opened, _, _ = family
  other = dataclasses.replace(opened.config, num_heads=2, mlp_dim=32)
  with pytest.raises(UserError, match=r"(?s)num_heads: 4 .*mlp_dim: 64 "):
    load.load_params(folder, EncoderDecoder(other))
  trained = dataclasses.replace(opened.config, dropout_rate=0.1)
  assert jax.tree.leaves(load.load_params(folder, EncoderDecoder(trained)))
