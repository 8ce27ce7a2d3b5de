import dataclasses
import functools

import jax
import numpy as np
import pytest

from flan_jax.models import decoder, stack
from flan_jax.training import loss
from tests.models import fixtures

T5X_CONFIG = decoder.DecoderConfig(
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
SMALL = decoder.DecoderConfig(
  vocab_size=61,
  emb_dim=24,
  num_heads=4,
  num_kv_heads=2,
  num_layers=3,
  head_dim=8,
  mlp_dim=40,
)
# Every option of some family is in one of them.
FAMILIES = {
  "t5x": dataclasses.replace(T5X_CONFIG, vocab_size=61),
  "llama": SMALL,
  "prefix": dataclasses.replace(SMALL, prefix_lm=True),
  "qwen": dataclasses.replace(
    SMALL, qkv_bias=True, qk_norm="head", logits_via_embedding=True
  ),
  "gemma": dataclasses.replace(
    SMALL,
    mlp_activations=("gelu", "linear"),
    norm="rms_one_plus",
    post_norm=True,
    qk_norm="head",
    query_scale=0.3,
    attention_softcap=5.0,
    logits_softcap=4.0,
    embedding_scale=24**0.5,
    logits_via_embedding=True,
    sliding_window=4,
    layer_pattern=("sliding", "full"),
    rope_theta=1e6,
    rope_theta_sliding=1e4,
    rope_scaling=decoder.RopeScaling("linear", factor=4.0),
  ),
  "olmo": dataclasses.replace(SMALL, norm="layer", clip_qkv=0.5),
  "olmo2": dataclasses.replace(
    SMALL, pre_norm=False, post_norm=True, qk_norm="width"
  ),
  "biased": dataclasses.replace(
    SMALL,
    num_kv_heads=1,
    out_bias=True,
    mlp_bias=True,
    qkv_bias=True,
    mlp_activations=("relu",),
    sliding_window=3,
    layer_pattern=("sliding",),
  ),
  "relative": dataclasses.replace(
    SMALL,
    position="relative",
    sliding_window=5,
    layer_pattern=("full", "sliding"),
  ),
}
INPUTS_BS = np.array(
  [
    [7, 9, 0, 4, 30, 31, 32, 11],
    [5, 6, -1, -1, -1, -1, -1, -1],
    [8, 2, 3, 17, 44, -1, -1, -1],
  ]
)
CHOICES_BCT = np.array(
  [
    [[9, 10, 3, 1], [0, 1, -1, -1]],
    [[13, 1, -1, -1], [-1, -1, -1, -1]],
    [[21, 22, 23, 24], [25, 26, 1, -1]],
  ]
)


@functools.cache
def made(name, **changes):
  """A small model of a family, all its parameters perturbed."""
  config = dataclasses.replace(FAMILIES[name], **changes)
  model = decoder.DecoderOnly(config)
  plain = decoder.DecoderOnly(dataclasses.replace(config, scan_layers=False))
  params = fixtures.flatten(plain.init(jax.random.key(1)))
  random = np.random.default_rng(0)
  params = {
    n: np.float32(p + 0.1 * random.standard_normal(p.shape))
    for n, p in params.items()
  }
  params = fixtures.unflatten(params)
  if config.scan_layers:
    params = stack.stack_layers(params)
  return model, params


@pytest.fixture(params=FAMILIES)
def family(request):
  return made(request.param)


class T5X:
  """`../shared/fixtures/t5x/decoder_only`: what the real T5X computed."""

  def __init__(self, folder):
    self.model = decoder.DecoderOnly(T5X_CONFIG)
    self.params = fixtures.unflatten(fixtures.load(folder / "params_step4.npz"))
    self.grads = fixtures.load(folder / "grads_step4.npz")
    self.arrays = fixtures.load(folder / "batch.npz")


@pytest.fixture(scope="module")
def t5x(t5x_fixtures):
  return T5X(t5x_fixtures / "decoder_only")


def summed_loss(params, model, batch, weights_BT):
  logits_BTV = model.logits(params, batch)
  targets_BT = batch["decoder_target_tokens"]
  return loss.cross_entropy(logits_BTV, targets_BT, weights_BT).loss


gradient = jax.jit(jax.value_and_grad(summed_loss), static_argnums=1)


def rows(*texts, inputs=None, length=None):
  """A batch of one example a row; `inputs` tokens of each are its prompt."""
  length = length or max(len(t) for t in texts)
  tokens = np.zeros((len(texts), length), np.int32)
  segments, causal = np.zeros_like(tokens), np.zeros_like(tokens)
  for i, text in enumerate(texts):
    tokens[i, : len(text)] = text
    segments[i, : len(text)] = 1
    causal[i, : len(text) if inputs is None else inputs[i]] = 1
  return {
    "decoder_input_tokens": tokens,
    "decoder_target_tokens": np.roll(tokens, -1, axis=1),
    "decoder_segment_ids": segments,
    "decoder_positions": np.arange(length) * segments,
    "decoder_causal_attention": causal,
  }


def pack(*batches):
  """Texts of batches with one row each, one behind the other in one row."""
  out = {}
  for name in batches[0]:
    parts = [b[name][0][b["decoder_segment_ids"][0] > 0] for b in batches]
    if name == "decoder_segment_ids":
      parts = [p * (i + 1) for i, p in enumerate(parts)]
    out[name] = np.concatenate([*parts, np.zeros(2, np.int32)])[None]
  return out


def pairs(model, params, inputs_BS, choices_BCT):
  """Log-probabilities of each (input, choice) pair alone, without a cache."""
  out = np.zeros(choices_BCT.shape, np.float32)
  for b, c in np.ndindex(*choices_BCT.shape[:2]):
    prompt = [t for t in inputs_BS[b] if t >= 0]
    choice = [t for t in choices_BCT[b, c] if t >= 0]
    if choice:
      batch = rows(prompt + choice[:-1], inputs=[len(prompt)])
      logits_TV = model.logits(params, batch)[0, len(prompt) - 1 :]
      log_TV = jax.nn.log_softmax(logits_TV)
      out[b, c, : len(choice)] = log_TV[np.arange(len(choice)), choice]
  return out


def test_docstring_examples():
  model = decoder.DecoderOnly(decoder.DecoderConfig(vocab_size=128, emb_dim=32))
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  embedding = shapes["decoder"]["token_embedder"]["embedding"]
  assert embedding.shape == (128, 32)
  llama = decoder.DecoderConfig(
    vocab_size=32_000,
    emb_dim=384,
    num_heads=6,
    num_layers=6,
    mlp_dim=1024,
    logits_via_embedding=True,
  )
  flops = decoder.DecoderOnly(llama).model_flops(
    {"decoder_input_tokens": (16, 320)}
  )
  assert flops / 1e9 == pytest.approx(748.9, abs=0.05)


def test_logits_are_those_of_t5x(t5x):
  logits_BTV = np.asarray(t5x.model.logits(t5x.params, t5x.arrays))
  real = t5x.arrays["decoder_target_tokens"] > 0
  ours, theirs = logits_BTV[real], t5x.arrays["logits"][real]
  assert fixtures.relative_error(ours, theirs) < 1e-5


def test_loss_z_loss_and_gradients_are_those_of_t5x(t5x):
  value, grads = gradient(
    t5x.params, t5x.model, t5x.arrays, t5x.arrays["decoder_loss_weights"]
  )
  assert float(value) == pytest.approx(float(t5x.arrays["loss"]), rel=1e-5)
  grads = fixtures.flatten(grads)
  assert grads.keys() == t5x.grads.keys()
  for name, grad in grads.items():
    assert fixtures.relative_error(grad, t5x.grads[name]) < 1e-5, name


def test_score_is_that_of_t5x(t5x):
  weights_BT = t5x.arrays["decoder_loss_weights"] > 0
  inputs, targets = (np.full(weights_BT.shape, -1) for _ in range(2))
  for b, weight_T in enumerate(weights_BT):
    first = weight_T.argmax()
    inputs[b, : first + 1] = t5x.arrays["decoder_input_tokens"][b, : first + 1]
    target = t5x.arrays["decoder_target_tokens"][b][weight_T]
    targets[b, : len(target)] = target
  prefix = t5x.model.encode(t5x.params, inputs)
  log_prob_BCT = t5x.model.score(t5x.params, prefix, targets[:, None])
  total_B = log_prob_BCT.sum(axis=(1, 2))
  assert fixtures.relative_error(total_B, t5x.arrays["score"]) < 1e-5


@pytest.mark.parametrize("scan", [False, True])
def test_score_is_that_of_each_pair_alone(family, scan):
  model, params = family
  if scan:
    config = dataclasses.replace(model.config, scan_layers=True)
    stacked = decoder.DecoderOnly(config), stack.stack_layers(params)
  else:
    stacked = model, params

  @jax.jit
  def score(params, inputs_BS, choices_BCT):
    prefix = stacked[0].encode(params, inputs_BS)
    return stacked[0].score(params, prefix, choices_BCT)

  ours = score(stacked[1], INPUTS_BS, CHOICES_BCT)
  expected = pairs(model, params, INPUTS_BS, CHOICES_BCT)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
  one = score(stacked[1], INPUTS_BS, CHOICES_BCT[:, :, :1])
  np.testing.assert_allclose(one, expected[:, :, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_cached_logits_are_the_uncached_ones(family, scan):
  """Ragged prompts, with steps across the window, against each row alone."""
  model, params = family
  cached, stacked = model, params
  if scan:
    config = dataclasses.replace(model.config, scan_layers=True)
    cached, stacked = decoder.DecoderOnly(config), stack.stack_layers(params)
  new_BT = np.random.default_rng(3).integers(0, 61, (3, 7))
  logits_BV, cache = jax.jit(cached.start_decoding, static_argnums=2)(
    stacked, INPUTS_BS, 7
  )
  step = jax.jit(cached.decode_step)
  found = [logits_BV]
  for i in range(7):
    logits_BV, cache = step(stacked, new_BT[:, i], cache, i)
    found.append(logits_BV)
  assert step._cache_size() == 1
  found_BTV = np.stack(found, axis=1)
  for b in range(3):
    prompt = [t for t in INPUTS_BS[b] if t >= 0]
    batch = rows([*prompt, *new_BT[b]], inputs=[len(prompt)])
    expected_TV = model.logits(params, batch)[0, len(prompt) - 1 :]
    error = fixtures.relative_error(found_BTV[b], expected_TV)
    assert error < 1e-5, b
