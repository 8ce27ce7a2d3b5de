"""Beam search against plain search over lists and against T5X's decodes."""

import dataclasses
import doctest

import jax
import numpy as np
import pytest

from flan_jax.models import beam, decoding
from flan_jax.models.decoding_config import DecodeConfig
from tests.models import fixtures, kinds, recurrent
from tests.models.decoding_test import PROMPTS, answers, padded


def test_docstrings():
  assert doctest.testmod(beam).failed == 0


@pytest.mark.parametrize(
  ("size", "alpha", "ends", "length"),
  [
    (2, None, (0,), 8),
    (4, 0.0, (5,), 8),
    (3, 1.5, (0, 6), 8),
    (3, None, (), 5),
    (4, 3.0, (3,), 1),
  ],
)
def test_is_the_plain_search(size, alpha, ends, length):
  model = recurrent.Recurrent()
  params = model.init(seed=5, spread=1.0)
  config = DecodeConfig(
    "beam", max_decode_len=length, beam_size=size, num_samples=size,
    length_penalty=alpha, end_ids=ends, return_scores=True,
  )
  decoded = decoding.decode(model, params, padded(PROMPTS), config)
  complete = set()
  for row, prompt in enumerate(PROMPTS):
    expected = recurrent.beam(
      lambda tokens: model.log_probs(params, tokens),
      prompt, length, size, 0.6 if alpha is None else alpha, ends,
    )
    assert answers(decoded)[row] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(
      decoded.scores_BK[row], [s for _, s in expected], 1e-4
    )
    for tokens, ended in zip(
      answers(decoded)[row], decoded.complete_BK[row], strict=True
    ):
      assert ended == (tokens[-1] in ends)
      complete.add(bool(ended))
  assert complete == ({True, False} if ends else {False}) or length == 8


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("scan", [False, True])
def test_is_the_plain_search_with_real_models(kind, scan):
  """Hypotheses change places, and the cache with them."""
  model, params = kinds.tiny(kind, scan=scan)
  prompts = [[5, 9, 3, 22], [8], [30, 2, 2, 7, 11, 4]]
  config = DecodeConfig(
    "beam", max_decode_len=6, beam_size=3, num_samples=3, end_ids=(1, 4),
    return_scores=True,
  )
  decoded = decoding.decode(model, params, padded(prompts), config)
  plain, plain_params = kinds.tiny(kind)
  if scan:  # the same numbers, one layer after the other
    from flan_jax.models import stack

    plain_params = stack.unstack_layers(params)
  next_log_probs = kinds.plain(plain, plain_params, room=16)
  for row, prompt in enumerate(prompts):
    expected = recurrent.beam(
      lambda said, given=prompt: next_log_probs(given, said[len(given) :]),
      prompt, 6, 3, 0.6, (1, 4),
    )
    assert answers(decoded)[row] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(
      decoded.scores_BK[row], [s for _, s in expected], 1e-5, 1e-5
    )


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_one_beam_is_greedy(kind):
  model, params = kinds.tiny(kind)
  inputs_BS = padded(PROMPTS)
  greedy = DecodeConfig(max_decode_len=9, end_ids=(4,), return_scores=True)
  one = dataclasses.replace(
    greedy, strategy="beam", beam_size=1, length_penalty=1.0
  )
  expected = decoding.decode(model, params, inputs_BS, greedy)
  decoded = decoding.decode(model, params, inputs_BS, one)
  np.testing.assert_array_equal(decoded.tokens_BKT, expected.tokens_BKT)
  length_BK = (expected.tokens_BKT >= 0).sum(-1)
  divisor_BK = np.where(expected.complete_BK, (5 + length_BK) / 6, 1)
  np.testing.assert_allclose(
    decoded.scores_BK, expected.scores_BK / divisor_BK, 1e-6
  )


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0", "t5_1_1_factored"])
def test_decodes_and_scores_are_those_of_t5x(t5x_fixtures, name, size):
  """T5X pads with 0, lists the best one last and leaves slots empty where some
  hypotheses ended, but not enough; here unfinished ones are in them. With one
  beam it also notes ends that are only the second choice: `beam.start` and
  `beam.advance` do so too, `decode` takes one beam for greedy."""
  t5x = fixtures.T5X(t5x_fixtures / name)
  inputs_BS = t5x.arrays["encoder_input_tokens"]
  config = DecodeConfig(
    "beam", max_decode_len=8, beam_size=size, num_samples=size, end_ids=(1,),
    return_scores=True,
  )
  if size == 1:
    state = beam.start(t5x.model, t5x.params, inputs_BS, config)
    state = jax.jit(beam.advance, static_argnums=(0, 4))(
      t5x.model, t5x.params, state, 8, config
    )
    tokens_BKT, scores_BK = map(np.asarray, beam.best(state, 1))
  else:
    padded_BS = np.where(inputs_BS > 0, inputs_BS, -1)
    decoded = decoding.decode(t5x.model, t5x.params, padded_BS, config)
    tokens_BKT, scores_BK = decoded.tokens_BKT, decoded.scores_BK
  theirs_BKT = t5x.arrays[f"beam{size}_decodes"][:, ::-1]
  filled_BK = (theirs_BKT > 0).any(-1)
  assert filled_BK[:, 0].all()
  np.testing.assert_array_equal(
    np.maximum(tokens_BKT, 0)[filled_BK], theirs_BKT[filled_BK]
  )
  np.testing.assert_allclose(
    scores_BK[filled_BK],
    t5x.arrays[f"beam{size}_scores"][:, ::-1][filled_BK],
    1e-5,
  )
  assert not (tokens_BKT[~filled_BK] == 1).any()
