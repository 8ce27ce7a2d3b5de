import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import stack, t5
from flan_jax.training import vocabulary_loss
from tests.models import fixtures

GOLDEN = "run python tests/testdata/t5/make.py if the reference should change"


@pytest.fixture(scope="module", params=fixtures.VARIANTS)
def t5x(request, t5x_fixtures):
  return fixtures.T5X(t5x_fixtures / request.param)


def summed_loss(params, model, batch, weights_BT):
  hidden_BTD, head = model.hidden(params, batch), model.head(params)
  targets_BT = batch["decoder_target_tokens"]
  return vocabulary_loss.cross_entropy(
    hidden_BTD, head, targets_BT, weights_BT
  ).loss


gradient = jax.jit(jax.value_and_grad(summed_loss), static_argnums=1)


def test_docstring_example():
  model = t5.EncoderDecoder(t5.T5Config(vocab_size=128, emb_dim=32))
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert shapes["token_embedder"]["embedding"].shape == (128, 32)


def test_logits_loss_and_gradients_are_those_of_pytorch():
  model, params, arrays = fixtures.golden()
  batch = fixtures.batch_of(arrays)
  targets_BT = batch["decoder_target_tokens"]

  @functools.partial(jax.value_and_grad, has_aux=True)
  def cross_entropy(params):
    logits_BTV = model.logits(params, batch)
    weights_BT = targets_BT > 0
    hidden_BTD, head = model.hidden(params, batch), model.head(params)
    sums = vocabulary_loss.cross_entropy(
      hidden_BTD, head, targets_BT, weights_BT, z_loss=0.0
    )
    return sums.loss, logits_BTV

  (value, logits_BTV), grads = jax.jit(cross_entropy)(params)
  real = targets_BT > 0
  ours, theirs = np.asarray(logits_BTV)[real], arrays["logits"][real]
  assert fixtures.relative_error(ours, theirs) < 1e-5, GOLDEN
  assert float(value) == pytest.approx(float(arrays["loss"]), rel=1e-5)
  for name, grad in fixtures.flatten(grads).items():
    error = fixtures.relative_error(grad, arrays[f"grads/{name}"])
    assert error < 1e-5, name


def test_logits_are_those_of_t5x(t5x):
  logits_BTV = t5x.model.logits(t5x.params, t5x.arrays)
  assert fixtures.relative_error(logits_BTV, t5x.arrays["logits"]) < 1e-5


def test_packed_logits_are_those_of_t5x(t5x):
  logits_BTV = t5x.model.logits(t5x.params, t5x.packed)
  assert fixtures.relative_error(logits_BTV, t5x.packed["logits"]) < 1e-5


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
  encoded = t5x.model.encode(t5x.params, t5x.arrays["encoder_input_tokens"])
  choices_BCT = t5x.arrays["decoder_target_tokens"][:, None]
  log_prob_BCT = t5x.model.score(t5x.params, encoded, choices_BCT)
  total_B = log_prob_BCT.sum(axis=(1, 2))
  assert fixtures.relative_error(total_B, t5x.arrays["score"]) < 1e-5


def test_scores_of_four_beams_are_those_of_t5x(t5x):
  encoded = t5x.model.encode(t5x.params, t5x.arrays["encoder_input_tokens"])
  choices_BCT = t5x.arrays["beam4_decodes"]
  log_prob_BCT = t5x.model.score(t5x.params, encoded, choices_BCT)
  # Beam search divides by a length penalty of ((5 + n) / 6) ** 0.6; where a
  # beam had not ended, by that of the longest decode.
  length_BC = (choices_BCT > 0).sum(-1)
  ours_BC = log_prob_BCT.sum(-1) / ((5 + length_BC) / 6) ** 0.6
  ended_BC = (choices_BCT == 1).any(-1)
  theirs_BC = t5x.arrays["beam4_scores"]
  assert ended_BC.any()
  np.testing.assert_allclose(ours_BC[ended_BC], theirs_BC[ended_BC], rtol=1e-5)


def test_score_is_the_log_softmax_of_logits_choice_by_choice():
  model, params, arrays = fixtures.golden()
  inputs_BS = arrays["encoder_input_tokens"]
  random = np.random.default_rng(1)
  choices_BCT = random.integers(2, 48, (3, 4, 5)).astype(np.int32)
  choices_BCT[:, 1, 3:] = 0
  choices_BCT[0, 3] = 0
  scores_BCT = model.score(params, model.encode(params, inputs_BS), choices_BCT)
  for c in range(4):
    targets_BT = choices_BCT[:, c]
    batch = {
      "encoder_input_tokens": inputs_BS,
      "decoder_input_tokens": np.pad(targets_BT[:, :-1], ((0, 0), (1, 0))),
      "decoder_target_tokens": targets_BT,
    }
    log_BTV = jax.nn.log_softmax(model.logits(params, batch))
    picked_BT = np.take_along_axis(log_BTV, targets_BT[..., None], -1)[..., 0]
    expected_BT = np.where(targets_BT > 0, picked_BT, 0.0)
    np.testing.assert_allclose(
      scores_BCT[:, c], expected_BT, rtol=1e-5, atol=1e-5
    )
  assert not scores_BCT[0, 3].any()


@pytest.mark.parametrize("policy", stack.REMAT_POLICIES)
@pytest.mark.parametrize("scan", [False, True])
def test_scan_and_remat_change_neither_logits_nor_gradients(scan, policy):
  plain, params, arrays = fixtures.golden()
  config = dataclasses.replace(
    plain.config, scan_layers=scan, remat_policy=policy
  )
  model = t5.EncoderDecoder(config)
  batch = fixtures.batch_of(arrays)
  weights_BT = batch["decoder_target_tokens"] > 0
  stacked = stack.stack_layers(params) if scan else params
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, stacked)

  logits_BTV = jax.jit(model.logits)(stacked, batch)
  expected_BTV = plain.logits(params, batch)
  assert fixtures.relative_error(logits_BTV, expected_BTV) < 1e-5
  _, grads = gradient(stacked, model, batch, weights_BT)
  _, expected = gradient(params, plain, batch, weights_BT)
  grads = fixtures.flatten(stack.unstack_layers(grads) if scan else grads)
  for name, value in fixtures.flatten(expected).items():
    assert fixtures.relative_error(grads[name], value) < 1e-5, name


def test_unstacking_is_the_inverse_of_stacking():
  _, params, _ = fixtures.golden()
  again = stack.unstack_layers(stack.stack_layers(params))
  assert fixtures.flatten(again).keys() == fixtures.flatten(params).keys()
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_packed_examples_have_the_logits_they_have_apart():
  model, params, _ = fixtures.golden()
  packed, apart = fixtures.packed_pair()
  packed_BTV = model.logits(params, packed)
  apart_BTV = model.logits(params, apart)
  both = packed_BTV[0, :6].reshape(2, 3, -1)
  np.testing.assert_allclose(both, apart_BTV, rtol=1e-4, atol=1e-5)


def test_a_neighbour_in_a_pack_changes_no_gradient():
  model, params, _ = fixtures.golden()
  packed, _ = fixtures.packed_pair()
  own = packed["decoder_segment_ids"] == 1

  _, grads = gradient(params, model, packed, own)
  embedding_VD = grads["token_embedder"]["embedding"]
  neighbours = [30, 31, 32, 33, 40, 41]  # tokens of segment 2 alone
  assert not np.asarray(embedding_VD)[neighbours].any()
  assert np.asarray(embedding_VD)[[7, 9, 4, 11, 12]].any(axis=1).all()

  other = {name: value.copy() for name, value in packed.items()}
  for name in ("encoder_input_tokens", "decoder_input_tokens"):
    tokens = other[name]
    tokens[tokens >= 30] = 20
  _, other_grads = gradient(params, model, other, own)
  jax.tree.map(np.testing.assert_array_equal, grads, other_grads)


def test_the_future_changes_no_logits():
  model, params, arrays = fixtures.golden()
  batch = fixtures.batch_of(arrays)
  changed = {name: value[:1].copy() for name, value in batch.items()}
  before_BTV = model.logits(params, changed)
  changed["decoder_input_tokens"][0, 5:] = 3
  changed["decoder_target_tokens"][0, 5:] = 4
  after_BTV = model.logits(params, changed)
  np.testing.assert_array_equal(before_BTV[0, :5], after_BTV[0, :5])
  assert (before_BTV[0, 5] != after_BTV[0, 5]).any()


def test_padding_on_either_side_changes_no_logits():
  model, params, arrays = fixtures.golden()
  batch = fixtures.batch_of(arrays)
  longer = {
    name: np.pad(value, ((0, 0), (0, 6))) for name, value in batch.items()
  }
  ours_BTV = model.logits(params, longer)[:, :9]
  real = batch["decoder_target_tokens"] > 0
  np.testing.assert_allclose(
    ours_BTV[real], model.logits(params, batch)[real], rtol=1e-4, atol=1e-5
  )


def test_dropout_needs_a_key_and_depends_on_it():
  plain, params, arrays = fixtures.golden()
  model = t5.EncoderDecoder(dataclasses.replace(plain.config, dropout_rate=0.2))
  batch = fixtures.batch_of(arrays)
  off = model.logits(params, batch)
  np.testing.assert_array_equal(off, plain.logits(params, batch))
  keys = jax.random.split(jax.random.key(0))
  a, b = (model.logits(params, batch, dropout_rng=key) for key in keys)
  again = model.logits(params, batch, dropout_rng=keys[0])
  np.testing.assert_array_equal(a, again)
  assert (a != b).any()
  assert (a != off).any()


def test_bfloat16_is_near_float32_and_gives_float32_logits():
  plain, params, arrays = fixtures.golden()
  model = t5.EncoderDecoder(dataclasses.replace(plain.config, dtype="bfloat16"))
  batch = fixtures.batch_of(arrays)
  logits_BTV = model.logits(params, batch)
  assert logits_BTV.dtype == jnp.float32
  assert fixtures.relative_error(logits_BTV, plain.logits(params, batch)) < 0.1


def test_fresh_parameters_are_float32_with_the_scales_of_t5x():
  config = t5.T5Config(
    vocab_size=256,
    emb_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dtype="bfloat16",
  )
  params = fixtures.flatten(t5.EncoderDecoder(config).init(jax.random.key(0)))
  assert {p.dtype for p in params.values()} == {jnp.dtype("float32")}
  deviations = {
    "token_embedder/embedding": 1.0,
    "encoder/layers_0/attention/query/kernel": 64**-0.5 / 16**0.5,
    "encoder/layers_0/attention/out/kernel": 64**-0.5,
    "decoder/layers_0/mlp/wo/kernel": 128**-0.5,
    "decoder/logits_dense/kernel": 64**-0.5,
  }
  for name, deviation in deviations.items():
    assert float(params[name].std()) == pytest.approx(deviation, rel=0.1), name


def test_model_flops_of_the_benchmark():
  config = t5.T5Config(
    vocab_size=32128,
    emb_dim=256,
    num_heads=8,
    head_dim=32,
    num_encoder_layers=4,
    num_decoder_layers=4,
    mlp_dim=1024,
  )
  model = t5.EncoderDecoder(config)
  shapes = {
    "encoder_input_tokens": (16, 256),
    "decoder_input_tokens": (16, 64),
  }
  assert model.model_flops(shapes) / 1e9 == pytest.approx(212.4, abs=0.05)
  params = jax.eval_shape(model.init, jax.random.key(0))
  assert sum(p.size for p in jax.tree.leaves(params)) == 25_892_864


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("mlp_activations", ("gleu", "linear"), "nearest is 'gelu'"),
    ("remat_policy", "ful", "nearest is 'full'"),
    ("dtype", "float16", "known are float32, bfloat16"),
    ("dropout_rate", 1.0, r"dropout_rate is 1.0; it must be in \[0, 1\)"),
    ("num_heads", 0, "num_heads is 0; it must be 1 or more"),
  ],
)
def test_a_wrong_option_is_named(field, value, message):
  with pytest.raises(UserError, match=message):
    t5.T5Config(vocab_size=128, **{field: value})


def test_a_token_outside_the_vocabulary_is_not_silent():
  model, params, arrays = fixtures.golden()
  batch = fixtures.batch_of(arrays)
  batch["encoder_input_tokens"] = batch["encoder_input_tokens"] + 100
  assert np.isnan(model.logits(params, batch)).any()


def test_the_model_is_a_static_argument():
  model, params, arrays = fixtures.golden()
  same = t5.EncoderDecoder(dataclasses.replace(model.config))
  assert same == model
  assert hash(same) == hash(model)
  jitted = jax.jit(t5.EncoderDecoder.logits, static_argnums=0)
  batch = fixtures.batch_of(arrays)
  np.testing.assert_allclose(
    jitted(model, params, batch), model.logits(params, batch), atol=1e-5
  )
  functools.partial(jitted, same)(params, batch)
  assert jitted._cache_size() == 1
