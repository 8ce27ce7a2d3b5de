import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import decoder, stack
from flan_jax.training import vocabulary_loss
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
  """A small model of a family, every parameter drawn by numpy."""
  config = dataclasses.replace(FAMILIES[name], **changes)
  model = decoder.DecoderOnly(config)
  plain = decoder.DecoderOnly(dataclasses.replace(config, scan_layers=False))
  shapes = fixtures.flatten(jax.eval_shape(plain.init, jax.random.key(0)))
  random = np.random.default_rng(0)
  params = {}
  for path, shape in shapes.items():
    x = random.standard_normal(shape.shape, np.float32)
    if path.endswith("kernel"):
      x /= np.sqrt(np.float32(len(x)))
    elif path.endswith("embedding"):
      x *= 0.2 if config.logits_via_embedding else 1.0
    else:
      x *= 0.1
      if path.endswith("scale") and config.norm == "rms":
        x += 1.0
    params[path] = x
  params = fixtures.unflatten(params)
  return model, stack.stack_layers(params) if config.scan_layers else params


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
  hidden_BTD, head = model.hidden(params, batch), model.head(params)
  targets_BT = batch["decoder_target_tokens"]
  return vocabulary_loss.cross_entropy(
    hidden_BTD, head, targets_BT, weights_BT
  ).loss


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


logits = jax.jit(decoder.DecoderOnly.logits, static_argnums=0)
encode = jax.jit(decoder.DecoderOnly.encode, static_argnums=0)
score = jax.jit(decoder.DecoderOnly.score, static_argnums=0)
start = jax.jit(decoder.DecoderOnly.start_decoding, static_argnums=(0, 3))
step = jax.jit(decoder.DecoderOnly.decode_step, static_argnums=0)


def texts_of(inputs_BS):
  return [[int(t) for t in row if t >= 0] for row in inputs_BS]


def pairs(model, params, inputs_BS, choices_BCT):
  """Log-probabilities of each (input, choice) pair as a row, without a cache."""
  B, C, T = choices_BCT.shape
  prompts = np.repeat(np.array(texts_of(inputs_BS), object), C)
  choices = texts_of(choices_BCT.reshape(B * C, T))
  batch = rows(
    *(p + c[:-1] for p, c in zip(prompts, choices, strict=True)),
    inputs=[len(p) for p in prompts],
    length=inputs_BS.shape[1] + T,
  )
  log_RTV = np.asarray(jax.nn.log_softmax(logits(model, params, batch)))
  out_RT = np.zeros((B * C, T), np.float32)
  for r, (p, c) in enumerate(zip(prompts, choices, strict=True)):
    out_RT[r, : len(c)] = log_RTV[r, len(p) - 1 + np.arange(len(c)), c]
  return out_RT.reshape(B, C, T)


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

  prefix = encode(stacked[0], stacked[1], INPUTS_BS)
  ours = score(*stacked, prefix, CHOICES_BCT)
  expected = pairs(model, params, INPUTS_BS, CHOICES_BCT)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_score_of_choices_of_one_token():
  model, params = made("gemma")
  choices_BCT = CHOICES_BCT[:, :, :1]
  prefix = encode(model, params, INPUTS_BS)
  ours = score(model, params, prefix, choices_BCT)
  expected = pairs(model, params, INPUTS_BS, choices_BCT)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_cached_logits_are_the_uncached_ones(family, scan):
  """Ragged prompts, with steps across the window, against each row alone."""
  model, params = family
  cached, stacked = model, params
  if scan:
    config = dataclasses.replace(model.config, scan_layers=True)
    cached, stacked = decoder.DecoderOnly(config), stack.stack_layers(params)
  new_BT = np.random.default_rng(3).integers(0, 61, (3, 7))
  logits_BV, cache = start(cached, stacked, INPUTS_BS, 7)
  found = [logits_BV]
  compiled = step._cache_size()
  for i in range(7):
    logits_BV, cache = step(cached, stacked, new_BT[:, i], cache, i)
    found.append(logits_BV)
  assert step._cache_size() <= compiled + 1
  found_BTV = np.stack(found, axis=1)
  prompts = texts_of(INPUTS_BS)
  texts = [[*p, *new] for p, new in zip(prompts, new_BT, strict=True)]
  batch = rows(*texts, inputs=[len(p) for p in prompts])
  expected_BTV = np.asarray(logits(model, params, batch))
  for b, prompt in enumerate(prompts):
    expected_TV = expected_BTV[b, len(prompt) - 1 :][:8]
    assert fixtures.relative_error(found_BTV[b], expected_TV) < 1e-5, b


def test_a_ragged_prompt_decodes_as_it_does_alone():
  model, params = made("gemma")
  logits_BV, cache = start(model, params, INPUTS_BS, 2)
  then_BV, _ = step(model, params, np.array([3, 4, 5]), cache, 0)
  for b, prompt in enumerate(texts_of(INPUTS_BS)):
    alone_1V, cache = start(model, params, np.array([prompt]), 9)
    np.testing.assert_allclose(logits_BV[b], alone_1V[0], rtol=1e-4, atol=1e-5)
    alone_1V, _ = step(model, params, np.array([3 + b]), cache, 0)
    np.testing.assert_allclose(then_BV[b], alone_1V[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_rows_of_a_cache_go_on_as_they_would_have(scan):
  model, params = made("gemma", scan_layers=scan)
  picked = np.array([2, 0, 0, 1])
  _, cache = start(model, params, INPUTS_BS, 2)
  tokens_B = np.array([1, 2, 3])
  expected_BV, _ = step(model, params, tokens_B, cache, 0)
  taken = model.take_rows(cache, picked)
  logits_RV, _ = step(model, params, tokens_B[picked], taken, 0)
  np.testing.assert_allclose(
    logits_RV, expected_BV[picked], rtol=1e-5, atol=1e-5
  )
  prefix = encode(model, params, INPUTS_BS)
  whole = score(model, params, prefix, CHOICES_BCT)
  taken = model.take_rows(prefix, picked)
  scores = score(model, params, taken, CHOICES_BCT[picked])
  np.testing.assert_allclose(scores, whole[picked], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["t5x", "prefix", "gemma"])
def test_a_row_of_padding_alone_is_finite(name):
  model, params = made(name)
  inputs_BS = np.where(np.arange(3)[:, None] == 1, -1, INPUTS_BS)
  logits_BV, cache = start(model, params, inputs_BS, 2)
  then_BV, _ = step(model, params, np.array([3, 4, 5]), cache, 0)
  prefix = encode(model, params, inputs_BS)
  scores = score(model, params, prefix, np.full((3, 1, 4), -1))
  assert all(np.isfinite(x).all() for x in (logits_BV, then_BV))
  assert not scores.any()


TEXTS = ([7, 0, 4, 30, 31, 32, 11], [5, 6, 8], [40, 41, 42, 43, 44])


def packed_and_apart():
  """Three texts in one row and two of padding; the same as rows."""
  inputs = [3, 1, 4]
  apart = rows(*TEXTS, inputs=inputs)
  packed = pack(
    *(rows(t, inputs=[n]) for t, n in zip(TEXTS, inputs, strict=True))
  )
  return packed, apart


@pytest.mark.parametrize("given", ["positions", "segments alone"])
def test_packed_examples_have_the_logits_they_have_apart(family, given):
  model, params = family
  packed, apart = packed_and_apart()
  if given == "segments alone":
    del packed["decoder_positions"]
  packed_TV = logits(model, params, packed)[0]
  apart_BTV = logits(model, params, apart)
  start = 0
  for b, text in enumerate(TEXTS):
    np.testing.assert_allclose(
      packed_TV[start : start + len(text)],
      apart_BTV[b, : len(text)],
      rtol=1e-4,
      atol=1e-5,
    )
    start += len(text)


LONG = {
  "dynamic": decoder.RopeScaling(
    "dynamic", factor=2.0, original_max_position=4
  ),
  "longrope": decoder.RopeScaling(
    "longrope",
    factor=2.0,
    original_max_position=4,
    short_factor=(1.0, 1.1, 1.2, 1.3),
    long_factor=(2.0, 3.0, 4.0, 5.0),
  ),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_pack_turns_each_text_by_its_own_length(kind):
  model, params = made("llama", rope_scaling=LONG[kind])
  packed, apart = packed_and_apart()
  packed_TV = logits(model, params, packed)[0]
  apart_BTV = logits(model, params, apart)
  assert (
    apart_BTV[0, 1] != logits(made("llama")[0], params, apart)[0, 1]
  ).any()
  start = 0
  for b, text in enumerate(TEXTS):
    alone = logits(model, params, rows(text))[0]
    np.testing.assert_allclose(
      packed_TV[start : start + len(text)], alone, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
      apart_BTV[b, : len(text)], alone, rtol=1e-4, atol=1e-5
    )
    start += len(text)


def test_a_cache_beyond_the_trained_length_goes_on_with_the_long_rotation():
  """A prompt that is longer already: all rotations are those of the whole."""
  model, params = made("llama", rope_scaling=LONG["longrope"])
  prompt = [7, 0, 4, 30, 31, 32]
  logits_1V, cache = start(model, params, np.array([prompt]), 2)
  whole_TV = logits(model, params, rows(prompt))[0]
  np.testing.assert_allclose(logits_1V[0], whole_TV[-1], rtol=1e-4, atol=1e-5)
  logits_1V, cache = step(model, params, np.array([9]), cache, 0)
  whole_TV = logits(model, params, rows([*prompt, 9]))[0]
  np.testing.assert_allclose(logits_1V[0], whole_TV[-1], rtol=1e-4, atol=1e-5)


def test_a_neighbour_in_a_pack_changes_no_gradient(family):
  model, params = family
  packed, _ = packed_and_apart()
  own = packed["decoder_segment_ids"] == 3
  _, grads = gradient(params, model, packed, own)
  if not model.config.logits_via_embedding:
    embedding_VD = np.asarray(grads["decoder"]["token_embedder"]["embedding"])
    assert not embedding_VD[[7, 4, 30, 5, 6]].any()
    assert embedding_VD[[40, 41, 42]].any(axis=1).all()
  other = {name: value.copy() for name, value in packed.items()}
  other["decoder_input_tokens"][packed["decoder_segment_ids"] < 3] = 20
  _, other_grads = gradient(params, model, other, own)
  jax.tree.map(np.testing.assert_array_equal, grads, other_grads)


def test_padding_is_read_from_segments_and_its_ids_never(family):
  model, params = family
  packed, _ = packed_and_apart()
  other = {name: value.copy() for name, value in packed.items()}
  for value in (-1, 60, 10**6):
    other["decoder_input_tokens"][:, -2:] = value
    np.testing.assert_array_equal(
      logits(model, params, packed), logits(model, params, other)
    )


def test_without_segments_right_padding_is_harmless(family):
  model, params = family
  apart = rows(*TEXTS, inputs=[3, 1, 4])
  whole = logits(model, params, apart)
  names = ("decoder_input_tokens", "decoder_causal_attention")
  plain = logits(model, params, {n: apart[n] for n in names})
  real = apart["decoder_segment_ids"] > 0
  np.testing.assert_allclose(whole[real], plain[real], rtol=1e-4, atol=1e-5)


def test_the_future_changes_no_logits(family):
  model, params = family
  batch = rows(TEXTS[0], inputs=[3])
  before_TV = logits(model, params, batch)[0]
  batch["decoder_input_tokens"] = batch["decoder_input_tokens"].copy()
  batch["decoder_input_tokens"][0, 5:] = 3
  after_TV = logits(model, params, batch)[0]
  np.testing.assert_array_equal(before_TV[:5], after_TV[:5])
  assert (before_TV[5] != after_TV[5]).any()


def test_inputs_see_each_other_in_a_prefix_lm_alone():
  for name, sees in (("prefix", True), ("llama", False)):
    model, params = made(name)
    batch = rows(TEXTS[0], inputs=[4])
    before_TV = logits(model, params, batch)[0]
    batch["decoder_input_tokens"] = batch["decoder_input_tokens"].copy()
    batch["decoder_input_tokens"][0, 3] = 3
    after_TV = logits(model, params, batch)[0]
    assert (before_TV[0] != after_TV[0]).any() == sees
  model, params = made("prefix")
  causal = rows(TEXTS[0], inputs=[0])
  np.testing.assert_allclose(
    logits(model, params, causal),
    logits(made("llama")[0], params, causal),
    rtol=1e-5,
    atol=1e-5,
  )
  del causal["decoder_causal_attention"]
  with pytest.raises(UserError, match="no 'decoder_causal_attention'"):
    model.logits(params, causal)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_window_is_the_mask_that_plain_loops_write(window):
  """Layers of both kinds, against a model that is given the mask."""
  model, params = made(
    "llama", sliding_window=window, layer_pattern=("sliding", "full")
  )
  tokens_BT = np.random.default_rng(0).integers(0, 61, (2, 12))
  seen_TT = np.zeros((12, 12), bool)
  for query in range(12):
    for key in range(12):
      seen_TT[query, key] = key <= query and query - key < window
  x_BTD = params["decoder"]["token_embedder"]["embedding"][tokens_BT]
  for i in range(3):
    mask_TT = seen_TT if i % 2 == 0 else np.tri(12, dtype=bool)
    x_BTD = plain_layer(params["decoder"][f"layers_{i}"], x_BTD, mask_TT)
  scale_D = params["decoder"]["decoder_norm"]["scale"]
  expected = plain_norm(x_BTD, scale_D)
  expected = expected @ params["decoder"]["logits_dense"]["kernel"]
  ours = logits(model, params, {"decoder_input_tokens": tokens_BT})
  assert fixtures.relative_error(ours, expected) < 1e-5


def plain_norm(x, scale):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def plain_layer(params, x_BTD, mask_TT):
  """One layer of SMALL in numpy."""
  B, T, _ = x_BTD.shape
  y = plain_norm(x_BTD, params["pre_self_attention_layer_norm"]["scale"])
  kernels = {n: p["kernel"] for n, p in params["self_attention"].items()}
  angle_Tk = np.arange(T)[:, None] / 1e4 ** (np.arange(4) / 4)

  def heads(name):
    h = (y @ kernels[name]).reshape(B, T, -1, 8)
    return np.repeat(h, 4 // h.shape[2], axis=2)

  def turned(h):
    z = (h[..., :4] + 1j * h[..., 4:]) * np.exp(1j * angle_Tk)[:, None]
    return np.concatenate([z.real, z.imag], axis=-1)

  query, key, value = (
    turned(heads("query")),
    turned(heads("key")),
    heads("value"),
  )
  scores = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(8)
  weights = np.where(mask_TT, np.exp(scores), 0.0)
  weights /= weights.sum(-1, keepdims=True)
  out = np.einsum("bhts,bshk->bthk", weights, value).reshape(B, T, -1)
  x_BTD = x_BTD + out @ kernels["out"]
  y = plain_norm(x_BTD, params["pre_mlp_layer_norm"]["scale"])
  gate, up, down = (params["mlp"][n]["kernel"] for n in ("wi_0", "wi_1", "wo"))
  hidden = (y @ gate) / (1 + np.exp(-(y @ gate))) * (y @ up)
  return x_BTD + hidden @ down


@pytest.mark.parametrize("policy", stack.REMAT_POLICIES)
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["t5x", "gemma"])
def test_scan_and_remat_change_neither_logits_nor_gradients(name, scan, policy):
  plain, params = made(name)
  config = dataclasses.replace(
    plain.config, scan_layers=scan, remat_policy=policy
  )
  model = decoder.DecoderOnly(config)
  batch, _ = packed_and_apart()
  weights_BT = batch["decoder_segment_ids"] > 0
  stacked = stack.stack_layers(params) if scan else params
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, stacked)
  value, grads = gradient(stacked, model, batch, weights_BT)
  expected, plain_grads = gradient(params, plain, batch, weights_BT)
  assert float(value) == pytest.approx(float(expected), rel=1e-5)
  grads = fixtures.flatten(stack.unstack_layers(grads) if scan else grads)
  for path, grad in fixtures.flatten(plain_grads).items():
    assert fixtures.relative_error(grads[path], grad) < 1e-4, path


def test_unstacking_is_the_inverse_of_stacking(family):
  _, params = family
  again = stack.unstack_layers(stack.stack_layers(params))
  assert fixtures.flatten(again).keys() == fixtures.flatten(params).keys()
  jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("name", ["t5x", "llama", "gemma", "olmo2"])
def test_bfloat16_is_near_float32_and_gives_float32_logits(name):
  plain, params = made(name)
  model = decoder.DecoderOnly(
    dataclasses.replace(plain.config, dtype="bfloat16")
  )
  batch = rows(*TEXTS)
  ours = logits(model, params, batch)
  assert ours.dtype == jnp.float32
  assert fixtures.relative_error(ours, logits(plain, params, batch)) < 0.2
  weights_BT = batch["decoder_segment_ids"] > 0
  _, grads = gradient(params, model, batch, weights_BT)
  for grad in jax.tree.leaves(grads):
    assert grad.dtype == jnp.float32
    assert np.isfinite(grad).all()


def test_dropout_needs_a_key_and_depends_on_it():
  plain, params = made("llama")
  model = decoder.DecoderOnly(
    dataclasses.replace(plain.config, dropout_rate=0.2)
  )
  batch = rows(*TEXTS)
  off = model.logits(params, batch)
  np.testing.assert_array_equal(off, plain.logits(params, batch))
  keys = jax.random.split(jax.random.key(0))
  a, b = (model.logits(params, batch, dropout_rng=key) for key in keys)
  again = model.logits(params, batch, dropout_rng=keys[0])
  np.testing.assert_array_equal(a, again)
  assert (a != b).any()
  assert (a != off).any()


def test_logits_are_the_head_of_hidden_states():
  model, params = made("gemma")
  batch = rows(*TEXTS)
  hidden_BTD = model.hidden(params, batch)
  assert hidden_BTD.shape == (3, 7, model.config.emb_dim)
  np.testing.assert_array_equal(
    model.head(params).logits(hidden_BTD), model.logits(params, batch)
  )


def test_fresh_parameters_are_float32_with_the_scales_of_t5x():
  config = dataclasses.replace(
    T5X_CONFIG,
    vocab_size=256,
    emb_dim=64,
    head_dim=16,
    mlp_dim=128,
    dtype="bfloat16",
    logits_scale=64**-0.5,
  )
  params = fixtures.flatten(decoder.DecoderOnly(config).init(jax.random.key(0)))
  assert {p.dtype for p in params.values()} == {jnp.dtype("float32")}
  deviations = {
    "decoder/token_embedder/embedding": 1.0,
    "decoder/layers_0/self_attention/query/kernel": 64**-0.5 / 16**0.5,
    "decoder/layers_0/self_attention/key/kernel": 64**-0.5,
    "decoder/layers_1/self_attention/out/kernel": 64**-0.5,
    "decoder/layers_0/mlp/wo/kernel": 128**-0.5,
  }
  for name, deviation in deviations.items():
    assert float(params[name].std()) == pytest.approx(deviation, rel=0.1), name


@pytest.mark.parametrize("name", FAMILIES)
def test_fresh_logits_have_a_variance_of_about_one(name):
  config = dataclasses.replace(
    FAMILIES[name],
    emb_dim=64,
    embedding_scale=8.0 if name == "gemma" else 1.0,
    logits_softcap=None,
    logits_scale=0.125 if name == "t5x" else 1.0,
  )
  model = decoder.DecoderOnly(config)
  params = model.init(jax.random.key(0))
  deviation = logits(model, params, rows(*TEXTS, length=12)).std()
  assert 0.5 < float(deviation) < 2.0


def test_a_token_outside_the_vocabulary_is_not_silent():
  model, params = made("llama")
  batch = rows(*TEXTS)
  batch["decoder_input_tokens"] = batch["decoder_input_tokens"] + 50
  assert np.isnan(model.logits(params, batch)).any()


def test_the_model_is_a_static_argument():
  model, _ = made("gemma")
  same = decoder.DecoderOnly(dataclasses.replace(model.config))
  assert same == model
  assert hash(same) == hash(model)
  assert model.kind == "decoder_only"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mlp_activations": ("silo", "linear")}, "nearest is 'silu'"),
    ({"mlp_activations": ()}, "mlp_activations is empty"),
    ({"norm": "rmsnorm"}, "nearest is 'rms'"),
    ({"qk_norm": "heads"}, "nearest is 'head'"),
    ({"position": "rotary"}, "known are rope, relative"),
    ({"layer_pattern": ("slide",)}, "nearest is 'sliding'"),
    ({"remat_policy": "ful"}, "nearest is 'full'"),
    ({"dtype": "float16"}, "known are float32, bfloat16"),
    ({"dropout_rate": 1.0}, r"dropout_rate is 1.0; it must be in \[0, 1\)"),
    ({"num_layers": 0}, "num_layers is 0; it must be 1 or more"),
    ({"num_kv_heads": 3}, "num_kv_heads is 3, which does not divide"),
    ({"num_kv_heads": 0}, "num_kv_heads is 0"),
    ({"head_dim": 7}, "head_dim is 7; position 'rope'"),
    ({"attention_softcap": 0.0}, "softcap is 0.0; .* or None for none"),
    ({"logits_scale": 0.0}, "logits_scale is 0.0; it must be above 0."),
    ({"pre_norm": False}, "pre_norm and post_norm are both False"),
    ({"sliding_window": 8}, "has no 'sliding' layer"),
    ({"layer_pattern": ("sliding",)}, "sliding_window is None"),
    (
      {
        "layer_pattern": ("full", "full", "sliding"),
        "num_layers": 2,
        "sliding_window": 8,
      },
      "over num_layers 2 has no 'sliding' layer",
    ),
    ({"rope_theta_sliding": 1e4}, "has no 'sliding' layer"),
    ({"position": "relative", "rope_theta": 5e5}, "does not read it"),
    (
      {
        "position": "relative",
        "rope_scaling": decoder.RopeScaling("linear", factor=2.0),
      },
      "does not read it",
    ),
    (
      {
        "rope_scaling": decoder.RopeScaling(
          "longrope",
          factor=2.0,
          original_max_position=8,
          short_factor=(1.0,),
          long_factor=(1.0,),
        )
      },
      "short_factor has 1 numbers; a head of 64 dimensions needs 32",
    ),
  ],
)
def test_a_wrong_option_is_named(changes, message):
  with pytest.raises(UserError, match=message):
    decoder.DecoderConfig(vocab_size=128, **changes)
