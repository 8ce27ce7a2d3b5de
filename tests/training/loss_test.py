import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.training import loss

B, T, V = 3, 5, 11


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
  sums = loss.cross_entropy(
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
    return loss.cross_entropy(
      logits_BTV, targets_BT, weights_BT, z_loss=0.01, label_smoothing=smoothing
    ).loss

  np.testing.assert_allclose(
    jax.grad(ours)(logits_BTV), jax.grad(plain)(logits_BTV), atol=2e-6
  )


def test_large_logits_do_not_overflow():
  logits_BTV = jnp.array([[[1e4, -1e4, 0.0]]])
  value, gradient = jax.value_and_grad(
    lambda x: (
      loss.cross_entropy(x, jnp.array([[1]]), jnp.ones((1, 1)), z_loss=0.0).loss
    )
  )(logits_BTV)
  assert float(value) == 2e4
  np.testing.assert_allclose(gradient[0, 0], [1.0, -1.0, 0.0], atol=1e-6)


def test_masked_tokens_change_nothing_whatever_their_logits():
  logits_BTV, targets_BT, weights_BT = example()
  spoilt_BTV = np.where(weights_BT[..., None] == 0, np.nan, logits_BTV)

  def total(logits_BTV):
    return loss.cross_entropy(logits_BTV, targets_BT, weights_BT).loss

  value, gradient = jax.value_and_grad(total)(jnp.asarray(spoilt_BTV))
  assert float(value) == float(total(logits_BTV))
  assert np.all(np.asarray(gradient)[weights_BT == 0] == 0)
  assert np.all(np.isfinite(gradient))


def test_bfloat16_logits_are_summed_in_float32():
  logits_BTV, targets_BT, weights_BT = example()
  low_BTV = jnp.asarray(logits_BTV, jnp.bfloat16)
  low = loss.cross_entropy(low_BTV, targets_BT, weights_BT)
  high = loss.cross_entropy(low_BTV.astype(jnp.float32), targets_BT, weights_BT)
  assert low.loss.dtype == jnp.float32
  np.testing.assert_array_equal(low.loss, high.loss)


def test_of_equal_logits_the_lowest_id_is_the_prediction():
  logits_BTV = jnp.zeros((1, 3, 4))
  sums = loss.cross_entropy(
    logits_BTV, jnp.array([[0, 1, 3]]), jnp.ones((1, 3))
  )
  assert float(sums.correct) == 1.0


def test_normalisers():
  targets_BT = jnp.array([[5, 6, 7, 1], [8, 1, 0, 0]])
  batch = {"decoder_target_tokens": targets_BT}
  given = {
    **batch,
    "decoder_loss_weights": jnp.array([[0, 0, 1, 1], [1, 1, 0, 0]]),
  }
  assert float(loss.token_weights(batch, None)[1]) == 1
  assert float(loss.token_weights(batch, loss.REAL_TOKENS)[1]) == 6
  assert float(loss.token_weights(given, loss.REAL_TOKENS)[1]) == 4
  assert float(loss.token_weights(batch, loss.ALL_TOKENS)[1]) == 8
  assert float(loss.token_weights(batch, 233472.0)[1]) == 233472
  weights_BT, sequences = loss.token_weights(given, loss.PER_SEQUENCE)
  np.testing.assert_allclose(weights_BT, [[0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0]])
  assert float(sequences) == 2


def test_average_per_sequence_counts_the_segments_of_a_pack():
  batch = {
    "decoder_target_tokens": jnp.array([[5, 6, 1, 7, 1, 0], [0] * 6]),
    "decoder_loss_weights": jnp.array([[1, 1, 1, 1, 1, 0], [0] * 6]),
    "decoder_segment_ids": jnp.array([[1, 1, 1, 2, 2, 0], [0] * 6]),
  }
  weights_BT, sequences = loss.token_weights(batch, loss.PER_SEQUENCE)
  third = 1 / 3
  np.testing.assert_allclose(
    weights_BT, [[third, third, third, 0.5, 0.5, 0], [0] * 6], rtol=1e-6
  )
  np.testing.assert_allclose(sequences, 2, rtol=1e-6)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (
      {"normalizing_factor": "NUM_REAL_TOKENS"},
      "did you mean 'NUM_REAL_TARGET",
    ),
    ({"normalizing_factor": 0.0}, "more than 0"),
    ({"label_smoothing": 1.0}, "less than 1"),
    ({"z_loss": -1e-4}, "Z_LOSS is -0.0001"),
  ],
)
def test_refused(config, message):
  with pytest.raises(UserError, match=message):
    loss.LossConfig(**config)
