"""Residual dropout: what is dropped, in which layer and at what rate."""

import dataclasses

import jax
import numpy as np
import pytest

from flan_jax.convert import native
from flan_jax.convert.tables import family
from flan_jax.errors import UserError
from flan_jax.models import decoder, stack

SMALL = decoder.DecoderConfig(
  vocab_size=61,
  emb_dim=24,
  num_heads=4,
  num_kv_heads=2,
  num_layers=3,
  head_dim=8,
  mlp_dim=40,
)


def kept_entries(config):
  """Whether each layer kept each entry of its mlp's output, [N, B, T, D - 1].

  Kernels are zero, so that an mlp adds its last bias alone. Layer n's is
  2^n (1 - its rate), so the sum in an entry is a binary number whose digits
  are the layers; dimension 0 has no bias and tells how the last norm scales.
  """
  model = decoder.DecoderOnly(config)
  params = jax.tree.map(np.zeros_like, model.init(jax.random.key(0)))
  if config.scan_layers:
    params = stack.unstack_layers(params)
  side = params["decoder"]
  side["token_embedder"]["embedding"] = np.full((4, 33), 100.0, np.float32)
  side["decoder_norm"]["scale"] = np.ones(33, np.float32)
  for n, rate in enumerate(config.residual_rates):
    bias_D = np.full(33, 2.0**n * (1 - rate), np.float32)
    bias_D[0] = 0.0
    side[f"layers_{n}"]["mlp"]["wo"]["bias"] = bias_D
  if config.scan_layers:
    params = stack.stack_layers(params)
  tokens_BT = np.ones((4, 50), np.int32)
  batch = {
    "decoder_input_tokens": tokens_BT,
    "decoder_segment_ids": tokens_BT,
    "decoder_positions": np.tile(np.arange(50), (4, 1)),
  }
  hidden_BTD = np.asarray(
    jax.jit(model.hidden)(params, batch, dropout_rng=jax.random.key(5))
  )
  sum_BTD = 100 * hidden_BTD[..., 1:] / hidden_BTD[..., :1] - 100
  number_BTD = np.rint(sum_BTD).astype(int)
  np.testing.assert_allclose(sum_BTD, number_BTD, atol=1e-2)
  return np.stack([(number_BTD >> n) & 1 for n in range(config.num_layers)])


BIASED = decoder.DecoderConfig(
  vocab_size=4,
  emb_dim=33,
  num_heads=1,
  num_layers=4,
  head_dim=4,
  mlp_dim=4,
  mlp_bias=True,
)


@pytest.mark.parametrize(
  ("given", "rates", "scan", "remat"),
  [
    (0.2, (0.2,) * 4, True, "none"),
    ((0.0, 0.6), (0.0, 0.2, 0.4, 0.6), True, "none"),
    ((0.0, 0.6), (0.0, 0.2, 0.4, 0.6), True, "full"),
    ((0.6, 0.0), (0.6, 0.4, 0.2, 0.0), False, "full"),
  ],
)
def test_residual_dropout_of_each_layer(given, rates, scan, remat):
  kept_NBTD = kept_entries(
    dataclasses.replace(
      BIASED, residual_dropout=given, scan_layers=scan, remat_policy=remat
    )
  )
  share_N = kept_NBTD.mean((1, 2, 3))  # of 6,400 entries
  np.testing.assert_allclose(share_N, 1 - np.array(rates), atol=0.03)
  assert all(share_N[np.array(rates) == 0] == 1)
  # Each entry on its own: neither rows nor places share a draw.
  some_BTD = kept_NBTD[2]
  assert 0.4 < (some_BTD[0] == some_BTD[1]).mean() < 0.8
  assert 0.4 < (some_BTD[:, 0] == some_BTD[:, 1]).mean() < 0.8


def test_without_residual_dropout_a_row_shares_its_draw():
  kept_NBTD = kept_entries(
    dataclasses.replace(BIASED, residual_dropout=None, num_layers=2)
  )
  assert kept_NBTD.all()
  # T5's rate drops in the mlp, the embedding and elsewhere as well.
  assert dataclasses.replace(BIASED, dropout_rate=0.1).residual_rates[0] == 0.1


@pytest.mark.parametrize("scan", [False, True])
def test_residual_dropout_is_off_without_a_key(scan):
  config = dataclasses.replace(SMALL, scan_layers=scan)
  plain = decoder.DecoderOnly(config)
  dropping = decoder.DecoderOnly(
    dataclasses.replace(config, residual_dropout=(0.0, 0.3))
  )
  params = plain.init(jax.random.key(0))
  tokens_BT = np.arange(1, 13, dtype=np.int32).reshape(2, 6)
  batch = {
    "decoder_input_tokens": tokens_BT,
    "decoder_segment_ids": np.ones_like(tokens_BT),
    "decoder_positions": np.tile(np.arange(6), (2, 1)),
  }
  np.testing.assert_array_equal(
    plain.logits(params, batch), dropping.logits(params, batch)
  )
  key = jax.random.key(1)
  other = dropping.logits(params, batch, dropout_rng=key)
  assert not np.allclose(other, plain.logits(params, batch))


@pytest.mark.parametrize(
  ("given", "changes", "message"),
  [
    (1.0, {}, r"is 1.0: rates are numbers in \[0, 1\)"),
    ((0.0, 1.2), {}, "rates are numbers in"),
    (("a", 0.1), {}, "rates are numbers in"),
    ((0.1, 0.2, 0.3), {}, "give one rate, or two"),
    ((0.2, 0.2), {}, "its rates are equal; write 0.2"),
    ((0.0, 0.3), {"num_layers": 1}, "at least two layers; give one rate"),
    (0.0, {}, "no effect, since dropout_rate is 0 too"),
  ],
)
def test_residual_dropout_that_is_refused(given, changes, message):
  with pytest.raises(UserError, match=f"residual_dropout.*{message}"):
    dataclasses.replace(SMALL, residual_dropout=given, **changes)


def test_residual_dropout_is_noted_in_a_checkpoint():
  config = dataclasses.replace(SMALL, residual_dropout=(0.0, 0.3))
  assert native.recalled(native.describe(config), "x") == config
  assert not family.differences(config, SMALL)
