import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.head import Head
from flan_jax.training import vocabulary_loss
from tests.training import plain_loss

B, T, V = 3, 5, 11


def cross_entropy(logits_BTV, targets_BT, weights_BT, **options):
  """Of logits: hidden states as wide as the vocabulary, and no change."""
  head = Head(jnp.eye(logits_BTV.shape[-1]))
  return vocabulary_loss.cross_entropy(
    logits_BTV, head, targets_BT, weights_BT, **options
  )


def example(seed=0):
  rng = np.random.default_rng(seed)
  logits_BTV = rng.normal(0, 3, (B, T, V)).astype(np.float32)
  targets_BT = rng.integers(0, V, (B, T)).astype(np.int32)
  weights_BT = np.array(
    [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0.5, 0, 0, 2, 1]], np.float32
  )
  return logits_BTV, targets_BT, weights_BT


def reference(logits_BTV, targets_BT, weights_BT, z_loss, smoothing):
  """The definition, token by token, in float64."""
  total = z_total = correct = 0.0
  off = smoothing / (V - 1)
  for b in range(B):
    for t in range(T):
      row_V = logits_BTV[b, t].astype(np.float64)
      log_z = math.log(np.sum(np.exp(row_V)))
      soft_V = np.full(V, off)
      soft_V[targets_BT[b, t]] = 1 - smoothing
      entropy = -sum(p * math.log(p) for p in soft_V if p > 0)
      nats = -np.sum(soft_V * (row_V - log_z)) - entropy
      z = z_loss * log_z**2
      total += weights_BT[b, t] * (nats + z)
      z_total += weights_BT[b, t] * z
      correct += weights_BT[b, t] * (np.argmax(row_V) == targets_BT[b, t])
  return total, z_total, correct


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sums_agree_with_the_definition(z_loss, smoothing):
  logits_BTV, targets_BT, weights_BT = example()
  sums = cross_entropy(
    logits_BTV, targets_BT, weights_BT, z_loss=z_loss, label_smoothing=smoothing
  )
  total, z_total, correct = reference(
    logits_BTV, targets_BT, weights_BT, z_loss, smoothing
  )
  np.testing.assert_allclose(sums.loss, total, rtol=1e-5)
  np.testing.assert_allclose(sums.z_loss, z_total, rtol=1e-5)
  np.testing.assert_allclose(sums.cross_entropy, total - z_total, rtol=1e-5)
  np.testing.assert_allclose(sums.correct, correct)
  np.testing.assert_allclose(sums.weight, weights_BT.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_is_that_of_the_plain_expression(smoothing):
  logits_BTV, targets_BT, weights_BT = example()

  def plain(logits_BTV):
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    soft_BTV = jax.nn.one_hot(targets_BT, V) * (1 - smoothing)
    soft_BTV += (1 - jax.nn.one_hot(targets_BT, V)) * smoothing / (V - 1)
    nats_BT = log_z_BT - jnp.sum(soft_BTV * logits_BTV, axis=-1)
    return jnp.sum((nats_BT + 0.01 * log_z_BT**2) * weights_BT)

  def ours(logits_BTV):
    return cross_entropy(
      logits_BTV, targets_BT, weights_BT, z_loss=0.01, label_smoothing=smoothing
    ).loss

  np.testing.assert_allclose(
    jax.grad(ours)(logits_BTV), jax.grad(plain)(logits_BTV), atol=2e-6
  )


def test_large_logits_do_not_overflow():
  logits_BTV = jnp.array([[[1e4, -1e4, 0.0]]])
  value, gradient = jax.value_and_grad(
    lambda x: (
      cross_entropy(x, jnp.array([[1]]), jnp.ones((1, 1)), z_loss=0.0).loss
    )
  )(logits_BTV)
  assert float(value) == 2e4
  np.testing.assert_allclose(gradient[0, 0], [1.0, -1.0, 0.0], atol=1e-6)


def test_masked_tokens_change_nothing_whatever_their_logits():
  logits_BTV, targets_BT, weights_BT = example()
  spoilt_BTV = np.where(weights_BT[..., None] == 0, np.nan, logits_BTV)

  def total(logits_BTV):
    return cross_entropy(logits_BTV, targets_BT, weights_BT).loss

  value, gradient = jax.value_and_grad(total)(jnp.asarray(spoilt_BTV))
  assert float(value) == float(total(logits_BTV))
  assert np.all(np.asarray(gradient)[weights_BT == 0] == 0)
  assert np.all(np.isfinite(gradient))


def test_bfloat16_logits_are_summed_in_float32():
  logits_BTV, targets_BT, weights_BT = example()
  low_BTV = jnp.asarray(logits_BTV, jnp.bfloat16)
  low = cross_entropy(low_BTV, targets_BT, weights_BT)
  high = cross_entropy(low_BTV.astype(jnp.float32), targets_BT, weights_BT)
  assert low.loss.dtype == jnp.float32
  np.testing.assert_array_equal(low.loss, high.loss)


def test_of_equal_logits_the_lowest_id_is_the_prediction():
  logits_BTV = jnp.zeros((1, 3, 4))
  sums = cross_entropy(
    logits_BTV, jnp.array([[0, 1, 3]]), jnp.ones((1, 3))
  )
  assert float(sums.correct) == 1.0


def made(tied, dtype=jnp.float32, shape=(4, 7, 6, 13)):
  """Hidden states, kernel, targets and weights, some of them 0."""
  B, T, D, V = shape
  random = np.random.default_rng(1)
  hidden_BTD = jnp.asarray(random.normal(0, 2, (B, T, D)), dtype)
  kernel = random.normal(0, 1, (V, D) if tied else (D, V)).astype(np.float32)
  targets_BT = random.integers(0, V, (B, T))
  weights_BT = random.choice(np.float32([0, 0.5, 1, 1, 1]), (B, T))
  return hidden_BTD, jnp.asarray(kernel), targets_BT, weights_BT


def sums_and_gradients(function, arrays, tied, softcap, **options):
  hidden_BTD, kernel, targets_BT, weights_BT = arrays

  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def summed(hidden_BTD, kernel):
    head = Head(kernel, tied, softcap)
    sums = function(hidden_BTD, head, targets_BT, weights_BT, **options)
    # Not 1: a gradient that is multiplied by what follows.
    return 3.0 * sums[0], tuple(sums)

  (_, sums), gradients = jax.jit(summed)(hidden_BTD, kernel)
  return sums, gradients


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 2 * 4 * 13, 2**23])
def test_chunks_sum_to_the_plain_form(
  tied, softcap, label_smoothing, chunk, monkeypatch
):
  monkeypatch.setattr(vocabulary_loss, "CHUNK", chunk)
  arrays = made(tied)
  options = {"z_loss": 0.01, "label_smoothing": label_smoothing}
  ours, theirs = (
    sums_and_gradients(f, arrays, tied, softcap, **options)
    for f in (vocabulary_loss.cross_entropy, plain_loss.cross_entropy)
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=3e-6),
    ours,
    theirs,
  )
  # Without a gradient, the sums are the same ones.
  hidden_BTD, kernel, *rest = arrays
  sums = vocabulary_loss.cross_entropy(
    hidden_BTD, Head(kernel, tied, softcap), *rest, **options
  )
  np.testing.assert_allclose(sums, ours[0], rtol=1e-6)


def test_bfloat16_factors_have_float32_sums():
  hidden_BTD, kernel, *rest = made(tied=True, dtype=jnp.bfloat16)
  rounded = kernel.astype(jnp.bfloat16).astype(jnp.float32)
  ours = sums_and_gradients(
    vocabulary_loss.cross_entropy, (hidden_BTD, kernel, *rest), True, None
  )
  theirs = sums_and_gradients(
    plain_loss.cross_entropy, (hidden_BTD, rounded, *rest), True, None
  )
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
  for mine, plain, dtype in zip(
    ours[1], theirs[1], (jnp.bfloat16, jnp.float32), strict=True
  ):
    assert mine.dtype == dtype
    # The logits' gradient is rounded once before it is multiplied.
    mine, plain = np.float32(mine), np.float32(plain)
    np.testing.assert_allclose(
      mine, plain, rtol=2**-7, atol=2**-8 * abs(plain).max()
    )


@pytest.mark.parametrize("spoil", [np.inf, -np.inf, np.nan, 3e38])
def test_a_token_that_does_not_count_may_have_any_hidden_state(spoil):
  hidden_BTD, kernel, targets_BT, weights_BT = made(tied=False)
  masked = weights_BT[..., None] == 0
  spoilt = jnp.where(masked, spoil, hidden_BTD)
  outside = np.where(weights_BT == 0, -1, targets_BT)
  expected = sums_and_gradients(
    vocabulary_loss.cross_entropy,
    (hidden_BTD, kernel, targets_BT, weights_BT),
    False,
    None,
  )
  got = sums_and_gradients(
    vocabulary_loss.cross_entropy,
    (spoilt, kernel, outside, weights_BT),
    False,
    None,
  )
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_target_outside_the_vocabulary_is_not_finite():
  hidden_BTD, kernel, targets_BT, weights_BT = made(tied=False)
  targets_BT[0, 0], weights_BT[0, 0] = 13, 1
  sums = vocabulary_loss.cross_entropy(
    hidden_BTD, Head(kernel), targets_BT, weights_BT
  )
  assert np.isnan(sums.loss)




def test_no_array_of_a_step_holds_all_logits(monkeypatch):
  monkeypatch.setattr(vocabulary_loss, "CHUNK", 4 * 13)
  hidden_BTD, kernel, targets_BT, weights_BT = made(tied=True)

  def total(hidden_BTD, kernel):
    return vocabulary_loss.cross_entropy(
      hidden_BTD, Head(kernel, True), targets_BT, weights_BT
    ).loss

  text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(hidden_BTD, kernel))
  assert "f32[4,13]" in text
  assert "[4,7,13]" not in text
  assert "[28,13]" not in text


def test_chunks_cover_the_length_evenly():
  def positions(length, vocabulary, features=1):
    return vocabulary_loss.chunk_positions(2, length, features, vocabulary)

  most = vocabulary_loss.CHUNK
  assert positions(10, most // 8) == 4  # 4, 4, 2
  assert positions(9, most // 8) == 3
  assert positions(10, 2 * most) == 1
  assert positions(10, 1) == 10
  assert positions(64, most, features=32) == 8  # half of the kernel
