"""T5 through the interface that both kinds of model share."""

import dataclasses

import jax
import numpy as np
import pytest

from flan_jax.models import stack, t5
from tests.models import fixtures

start = jax.jit(t5.EncoderDecoder.start_decoding, static_argnums=(0, 3))
step = jax.jit(t5.EncoderDecoder.decode_step, static_argnums=0)
INPUTS_BS = np.array([[7, 9, 4, 1], [30, 31, 1, -1], [5, 1, -1, -1]])


def made(scan=False, name=None):
  model, params, _ = fixtures.golden()
  changes = {"scan_layers": scan}
  if name == "t5_1_0":
    changes |= fixtures.VARIANTS[name]
    params = {n: dict(p) for n, p in params.items()}
    del params["decoder"]["logits_dense"]
    for side in ("encoder", "decoder"):
      for i in range(2):
        layer = params[side][f"layers_{i}"] = dict(params[side][f"layers_{i}"])
        mlp = layer["mlp"]
        layer["mlp"] = {"wi": mlp["wi_0"], "wo": mlp["wo"]}
  model = t5.EncoderDecoder(dataclasses.replace(model.config, **changes))
  return model, stack.stack_layers(params) if scan else params


@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0"])
def test_logits_are_the_head_of_hidden_states(name):
  model, params = made(name=name)
  batch, _ = fixtures.packed_pair()
  hidden_BTD = model.hidden(params, batch)
  assert hidden_BTD.shape == (1, 7, 16)
  np.testing.assert_array_equal(
    model.head(params).logits(hidden_BTD), model.logits(params, batch)
  )
  assert model.head(params).tied == (name == "t5_1_0")
  assert model.kind == "encoder_decoder"


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0"])
def test_cached_logits_are_the_uncached_ones(name, scan):
  model, params = made(scan, name)
  new_BT = np.random.default_rng(3).integers(2, 48, (3, 5))
  logits_BV, cache = start(model, params, INPUTS_BS, 5)
  found = [logits_BV]
  for i in range(5):
    logits_BV, cache = step(model, params, new_BT[:, i], cache, i)
    found.append(logits_BV)
  batch = {
    "encoder_input_tokens": INPUTS_BS,
    "decoder_input_tokens": np.pad(new_BT, ((0, 0), (1, 0))),
    "decoder_target_tokens": np.ones((3, 6), int),
  }
  expected_BTV = model.logits(params, batch)
  assert fixtures.relative_error(np.stack(found, 1), expected_BTV) < 1e-5


@pytest.mark.parametrize("scan", [False, True])
def test_rows_of_a_cache_go_on_as_they_would_have(scan):
  model, params = made(scan)
  picked = np.array([2, 0, 0, 1])
  _, cache = start(model, params, INPUTS_BS, 1)
  tokens_B = np.array([3, 4, 5])
  expected_BV, _ = step(model, params, tokens_B, cache, 0)
  cache = model.take_rows(cache, picked)
  logits_RV, _ = step(model, params, tokens_B[picked], cache, 0)
  np.testing.assert_allclose(
    logits_RV, expected_BV[picked], rtol=1e-5, atol=1e-5
  )


def test_padding_may_be_0_or_below():
  model, params = made()
  choices_BCT = np.array([[[9, 1, -1], [-1, -1, -1]]] * 3)
  scores = [
    model.score(params, model.encode(params, inputs), choices)
    for inputs, choices in (
      (INPUTS_BS, choices_BCT),
      (np.maximum(INPUTS_BS, 0), np.maximum(choices_BCT, 0)),
    )
  ]
  np.testing.assert_array_equal(*scores)
  assert np.isfinite(scores[0]).all()
  assert not np.asarray(scores[0])[choices_BCT < 0].any()
  assert (np.asarray(scores[0])[choices_BCT > 0] < 0).all()
