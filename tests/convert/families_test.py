"""Every decoder family computes what transformers computes, both ways."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from safetensors import safe_open

from flan_jax.convert import hf
from flan_jax.convert.load import load_params
from flan_jax.convert.source import TensorSource, open_source
from flan_jax.convert.tables.family import differences
from flan_jax.models.decoder import DecoderOnly
from tests.convert import hf_models

TOLERANCE = {"atol": 1e-4, "rtol": 0}
NEW_TOKENS = 12


@pytest.fixture(scope="module", params=hf_models.CASES)
def case(request, tmp_path_factory):
  """A saved model, what we read of it, and ours with its parameters."""
  model = hf_models.make(request.param)
  folder = hf_models.save(model, tmp_path_factory.mktemp(request.param))
  source = open_source(folder)
  return model, folder, source, *ours(source)


class Ours(DecoderOnly):
  """Compiled once for the shapes of all tests."""

  @functools.cached_property
  def compiled(self):
    return jax.jit(super().logits)


def ours(source):
  model = Ours(source.config)
  return model, load_params(source, model)


def rows(count, length, seed=0):
  shape = (count, length)
  return np.random.default_rng(seed).integers(0, 61, shape, np.int32)


def batch_of(tokens_BT, segments_BT, positions_BT):
  return {
    "decoder_input_tokens": tokens_BT,
    "decoder_segment_ids": np.asarray(segments_BT, np.int32),
    "decoder_positions": np.asarray(positions_BT, np.int32),
  }


def test_the_source_says_what_it_holds(case):
  model, _, source, _, params = case
  assert isinstance(source, TensorSource)
  assert source.format == "hf"
  count = sum(x.size for x in jax.tree.leaves(params))
  assert count == model.num_parameters()
  for name, shape in source.shapes.items():
    found = source.read(name)
    assert (found.shape, found.dtype) == (shape.shape, shape.dtype)


def test_right_padding(case):
  model, _, _, ours, params = case
  tokens_BT = rows(3, 56)
  lengths = np.array([56, 9, 1])
  mask_BT = np.arange(56) < lengths[:, None]
  batch = batch_of(tokens_BT, mask_BT, np.arange(56) * mask_BT)
  got = ours.compiled(params, batch)
  # With the padding as transformers sees it, and each row alone.
  if not ours.config.rope_scaling or (
    not ours.config.rope_scaling.depends_on_length
  ):
    want = hf_models.logits(model, tokens_BT, mask_BT.astype(np.int64))
    np.testing.assert_allclose(got[mask_BT], want[mask_BT], **TOLERANCE)
  for row, length in enumerate(lengths):
    alone = hf_models.logits(model, tokens_BT[row : row + 1, :length])
    np.testing.assert_allclose(got[row, :length], alone[0], **TOLERANCE)


def test_second_document_of_a_pack(case):
  model, _, _, ours, params = case
  tokens_BT = rows(3, 56, seed=1)
  starts_B1 = np.array([[13], [21], [40]])
  index = np.arange(56)
  second = index >= starts_B1
  positions_BT = np.where(second, index - starts_B1, index)
  got = ours.compiled(params, batch_of(tokens_BT, 1 + second, positions_BT))
  for row, start in enumerate(starts_B1[:, 0]):
    for part in (slice(0, start), slice(start, 56)):
      alone = hf_models.logits(model, tokens_BT[row : row + 1, part])
      np.testing.assert_allclose(got[row, part], alone[0], **TOLERANCE)


def test_long_context(case):
  """Seven windows, and longer than any length that RoPE is scaled from."""
  model, _, _, ours, params = case
  tokens_BT = rows(3, 56, seed=2)
  ones_BT = np.ones_like(tokens_BT)
  positions_BT = np.tile(np.arange(56), (3, 1))
  got = ours.compiled(params, batch_of(tokens_BT, ones_BT, positions_BT))
  want = hf_models.logits(model, tokens_BT)
  np.testing.assert_allclose(got, want, **TOLERANCE)
  # The test could tell: logits vary far more than the tolerance.
  assert np.std(want) > 0.05


@pytest.mark.parametrize("name", ["llama3", "qwen2_windows", "gemma3", "olmo2"])
def test_scanned_layers(name, tmp_path):
  model = hf_models.make(name)
  source = open_source(hf_models.save(model, tmp_path))
  scanned = DecoderOnly(dataclasses.replace(source.config, scan_layers=True))
  tokens_BT = rows(1, 30, seed=3)
  got = jax.jit(scanned.logits)(
    load_params(source, scanned), {"decoder_input_tokens": tokens_BT}
  )
  want = hf_models.logits(model, tokens_BT)
  np.testing.assert_allclose(got, want, **TOLERANCE)


def test_greedy_generation_from_the_cache(case, monkeypatch):
  """Ragged prompts in one batch; transformers has each alone.

  One prompt and its continuation pass the window.
  """
  model, _, _, ours, params = case
  # It would stop there.
  monkeypatch.setattr(model.generation_config, "eos_token_id", None)
  lengths = [3, 11, 7]
  inputs_BS = rows(3, 11, seed=4)
  inputs_BS[np.arange(11) >= np.array(lengths)[:, None]] = -1
  start = jax.jit(ours.start_decoding, static_argnums=2)
  logits_BV, cache = start(params, inputs_BS, NEW_TOKENS)
  step = jax.jit(functools.partial(ours.decode_step, params))
  tokens, scores = [], [logits_BV]
  for i in range(NEW_TOKENS):
    tokens.append(jnp.argmax(scores[-1], axis=-1))
    logits_BV, cache = step(tokens[-1], cache, i)
    scores.append(logits_BV)
  got = np.stack(tokens, axis=1)
  for row, length in enumerate(lengths):
    prompt = torch.tensor(inputs_BS[row : row + 1, :length])
    out = model.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      generation_config=transformers.GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
      ),
    )
    want = out.sequences[0, length:].numpy()
    np.testing.assert_array_equal(got[row], want)
    for i, want_1V in enumerate(out.logits):
      np.testing.assert_allclose(scores[i][row], want_1V[0], **TOLERANCE)


def test_back_to_the_same_bytes(case, tmp_path):
  model, folder, source, _, _ = case
  out = hf.write_hf(
    tmp_path / "out",
    source.config,
    ((name, source.read(name)) for name in source.shapes),
    details=source.details,
  )
  assert tensors(out) == tensors(folder)
  again = transformers.AutoModelForCausalLM.from_pretrained(
    out, attn_implementation="eager"
  ).eval()
  assert type(again) is type(model)
  tokens = rows(2, 30, seed=5)
  np.testing.assert_array_equal(
    hf_models.logits(again, tokens), hf_models.logits(model, tokens)
  )
  assert again.generation_config.eos_token_id == 2
  read = open_source(out)
  assert not differences(read.config, source.config)
  assert read.details == source.details


def tensors(folder):
  """name -> type, shape and bytes."""
  found = {}
  for file in folder.glob("*.safetensors"):
    with safe_open(file, framework="pt") as opened:
      for name in opened.keys():  # noqa: SIM118
        x = opened.get_tensor(name)
        raw = x.contiguous().view(torch.uint8).numpy().tobytes()
        found[name] = x.dtype, tuple(x.shape), raw
  return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama3", "gemma2", "qwen2"])
def test_half_precision_and_shards(name, dtype, tmp_path):
  model = hf_models.make(name).to(getattr(torch, dtype))
  folder = hf_models.save(model, tmp_path / "in", max_shard_size="9KB")
  assert len(list(folder.glob("*-of-*.safetensors"))) > 2
  source = open_source(folder)
  assert {str(s.dtype) for s in source.shapes.values()} == {dtype}
  out = hf.write_hf(
    tmp_path / "out",
    source.config,
    ((name, source.read(name)) for name in reversed(source.shapes)),
    dtype=dtype,
    max_shard_bytes=9000,
    details=source.details,
  )
  assert len(list(out.glob("*-of-*.safetensors"))) > 2
  assert tensors(out) == tensors(folder)
  decoder, params = ours(open_source(out))
  tokens = rows(2, 20)
  got = jax.jit(decoder.logits)(params, {"decoder_input_tokens": tokens})
  load = transformers.AutoModelForCausalLM.from_pretrained
  want = hf_models.logits(
    load(out, dtype=torch.float32, attn_implementation="eager"), tokens
  )
  np.testing.assert_allclose(got, want, **TOLERANCE)
  assert load(out).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("names", ["written", "newer"])
def test_gemma3_out_of_a_model_with_images(names, tmp_path, caplog):
  model = hf_models.gemma3_with_images()
  folder = hf_models.save(model, tmp_path / "in")
  if names == "newer":
    # As the model itself names them.
    safetensors.torch.save_file(
      {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"},
      folder / "model.safetensors",
      metadata={"format": "pt"},
    )
  source = open_source(folder)
  assert "its language model is read" in caplog.text
  decoder, params = ours(source)
  tokens = rows(2, 30)
  got = jax.jit(decoder.logits)(params, {"decoder_input_tokens": tokens})
  want = hf_models.logits(model, tokens)
  np.testing.assert_allclose(got, want, **TOLERANCE)
  out = hf.write_hf(
    tmp_path / "out",
    source.config,
    ((name, source.read(name)) for name in source.shapes),
    details=source.details,
  )
  again = transformers.AutoModelForCausalLM.from_pretrained(
    out, attn_implementation="eager"
  )
  assert type(again).__name__ == "Gemma3ForCausalLM"
  np.testing.assert_allclose(
    hf_models.logits(again, tokens), want, atol=1e-6, rtol=0
  )


def test_older_spelling_of_rope(tmp_path):
  """Files of older programs have rope_theta, rope_scaling and few fields."""
  for name in ("llama3", "llama_linear", "llama_yarn", "gemma3"):
    model = hf_models.make(name)
    folder = hf_models.save(model, tmp_path / name)
    newer = open_source(folder).config
    said = json.loads((folder / "config.json").read_text())
    rope = said["rope_parameters"]
    changes = {"rope_parameters": None}
    if name == "gemma3":
      local = rope["sliding_attention"]["rope_theta"]
      changes["rope_local_base_freq"] = local
      changes |= {"layer_types": None, "sliding_window_pattern": 6}
      rope = rope["full_attention"]
    changes["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    hf_models.change_config(folder, rope_scaling=rope, **changes)
    assert not differences(open_source(folder).config, newer)
