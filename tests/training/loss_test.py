import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.training import loss


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


def test_a_decoder_s_batch_says_what_is_predicted():
  batch = {
    "decoder_target_tokens": jnp.array([[5, 0]]),
    "decoder_causal_attention": jnp.array([[1, 0]]),
  }
  with pytest.raises(UserError, match="no 'decoder_loss_weights'"):
    loss.token_weights(batch, loss.REAL_TOKENS)


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
