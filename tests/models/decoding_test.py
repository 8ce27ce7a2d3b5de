import functools

import jax
import numpy as np
import pytest

from flan_jax.models import decoding, t5
from tests.models import fixtures

greedy = jax.jit(
  decoding.greedy, static_argnames=("model", "max_decode_len", "eos_id")
)


def uncached(model, params, inputs_BS, length, eos_id=1):
  """argmax of the whole prefix's logits, one token at a time."""
  logits = jax.jit(model.logits)
  tokens_BT = np.zeros((len(inputs_BS), length), np.int32)
  ended_B = np.zeros(len(inputs_BS), bool)
  for i in range(length):
    batch = {
      "encoder_input_tokens": inputs_BS,
      "decoder_input_tokens": np.pad(tokens_BT[:, :-1], ((0, 0), (1, 0))),
      "decoder_target_tokens": np.ones_like(tokens_BT),
    }
    token_B = np.asarray(logits(params, batch))[:, i].argmax(-1)
    tokens_BT[:, i] = np.where(ended_B, 0, token_B)
    ended_B |= token_B == eos_id
  return tokens_BT


@pytest.mark.parametrize("scan", [False, True])
def test_cached_decoding_is_the_uncached_argmax(scan):
  model, params, arrays = fixtures.golden()
  inputs_BS = arrays["encoder_input_tokens"]
  expected_BT = uncached(model, params, inputs_BS, 12)
  # An end that some row reaches in the middle, so that rows differ in length.
  eos_id = int(expected_BT[0, 4])
  expected_BT = uncached(model, params, inputs_BS, 12, eos_id)
  if scan:
    config = t5.dataclasses.replace(model.config, scan_layers=True)
    model, params = t5.EncoderDecoder(config), t5.stack_layers(params)
  tokens_BT = greedy(model, params, inputs_BS, max_decode_len=12, eos_id=eos_id)
  np.testing.assert_array_equal(tokens_BT, expected_BT)
  assert (np.asarray(tokens_BT)[0] == 0).any()


def test_decoding_stops_when_every_row_has_ended():
  model, params, arrays = fixtures.golden()
  inputs_BS = arrays["encoder_input_tokens"][:1]
  first = int(uncached(model, params, inputs_BS, 1)[0, 0])
  tokens_BT = greedy(model, params, inputs_BS, max_decode_len=50, eos_id=first)
  np.testing.assert_array_equal(tokens_BT[0], [first] + [0] * 49)


def test_one_token_is_enough_room():
  model, params, arrays = fixtures.golden()
  inputs_BS = arrays["encoder_input_tokens"]
  tokens_BT = greedy(model, params, inputs_BS, max_decode_len=1)
  np.testing.assert_array_equal(
    tokens_BT, uncached(model, params, inputs_BS, 1)
  )


@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0"])
def test_decodes_are_those_of_t5x(t5x_fixtures, name):
  """T5X's beam of one also follows the likeliest tokens, but it may end a row
  early: EOS, as second choice, can win by its length penalty."""
  t5x = fixtures.T5X(t5x_fixtures / name)
  inputs_BS = t5x.arrays["encoder_input_tokens"]
  ours_BT = greedy(t5x.model, t5x.params, inputs_BS, max_decode_len=8)
  theirs_BT = t5x.arrays["beam1_decodes"][:, 0]
  whole = 0
  for ours_T, theirs_T in zip(np.asarray(ours_BT), theirs_BT, strict=True):
    length = int((theirs_T > 1).sum())
    np.testing.assert_array_equal(ours_T[:length], theirs_T[:length])
    whole += length == 8
  assert whole > 0
  np.testing.assert_array_equal(
    ours_BT, uncached(t5x.model, t5x.params, inputs_BS, 8)
  )


def test_a_partial_application_can_be_jitted():
  model, params, arrays = fixtures.golden()
  decode = jax.jit(functools.partial(decoding.greedy, model, max_decode_len=3))
  assert decode(params, arrays["encoder_input_tokens"]).shape == (3, 3)
