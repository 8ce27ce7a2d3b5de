"""What is drawn from, how often, and from which key."""

import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from flan_jax.models import decoding, sampling
from flan_jax.models.decoding_config import DecodeConfig
from tests.models import recurrent
from tests.models.decoding_test import PROMPTS, answers, padded


def test_docstrings():
  assert doctest.testmod(sampling).failed == 0


def reference(logits_V, temperature, top_k, top_p):
  """Probabilities that are drawn from, in plain float64."""
  scores = np.asarray(logits_V, np.float64) / (temperature or 1.0)
  order = np.argsort(-scores, kind="stable")
  kept = order[: top_k or len(order)]
  prob = np.exp(scores[kept] - scores[kept].max())
  prob /= prob.sum()
  if top_p:
    before = np.cumsum(prob) - prob
    kept, prob = kept[before < top_p], prob[before < top_p]
  out = np.zeros(len(scores))
  out[kept] = prob / prob.sum()
  return out


SETTINGS = [
  (None, None, None),
  (0.7, None, None),
  (1.8, 5, None),
  (None, None, 0.6),
  (0.5, None, 0.95),
  (1.3, 20, 0.8),
  (None, 2, 1e-6),
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
@pytest.mark.parametrize("vocabulary", [12, 5000])
def test_filtered_probabilities(temperature, top_k, top_p, vocabulary):
  rng = np.random.default_rng(0)
  logits_RV = rng.normal(size=(6, vocabulary), scale=3).astype(np.float32)
  if top_k and top_k > vocabulary:
    top_k = 11
  filtered_RV = jax.jit(
    lambda x: sampling.filter_logits(
      x, temperature=temperature, top_k=top_k, top_p=top_p
    )
  )(logits_RV)
  prob_RV = np.asarray(jax.nn.softmax(filtered_RV))
  for prob_V, logits_V in zip(prob_RV, logits_RV, strict=True):
    expected_V = reference(logits_V, temperature, top_k, top_p)
    np.testing.assert_array_equal(prob_V > 0, expected_V > 0)
    np.testing.assert_allclose(prob_V, expected_V, 1e-4, 1e-7)


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_what_is_left_out_is_what_transformers_leaves_out(
  temperature, top_k, top_p
):
  torch = pytest.importorskip("torch")
  process = pytest.importorskip("transformers.generation.logits_process")
  rng = np.random.default_rng(1)
  logits_RV = rng.normal(size=(4, 3000), scale=2).astype(np.float32)
  scores = torch.tensor(logits_RV)
  if temperature:
    scores = process.TemperatureLogitsWarper(temperature)(None, scores)
  if top_k:
    scores = process.TopKLogitsWarper(top_k)(None, scores)
  if top_p:
    scores = process.TopPLogitsWarper(top_p)(None, scores)
  ours_RV = sampling.filter_logits(
    jnp.asarray(logits_RV), temperature=temperature, top_k=top_k, top_p=top_p
  )
  np.testing.assert_allclose(ours_RV, scores.numpy(), 1e-6)


def test_top_p_of_equal_and_of_certain_tokens():
  equal_1V = jnp.zeros((1, 8))
  assert np.isfinite(sampling.filter_logits(equal_1V, top_p=0.3)).all()
  sure_1V = jnp.array([[0.0, 200.0, 0.0, -jnp.inf]])
  kept = np.isfinite(sampling.filter_logits(sure_1V, top_p=0.999999))
  assert kept.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
  "options",
  [{}, {"temperature": 1.7}, {"top_k": 4}, {"top_p": 0.7, "temperature": 1.4}],
)
def test_frequencies_of_drawn_tokens(options):
  """Chi-square over 4,000 draws of the first token, and of the second."""
  model = recurrent.Recurrent()
  params = model.init(seed=2, spread=0.7)
  config = DecodeConfig("sample", max_decode_len=2, num_samples=4000, **options)
  decoded = decoding.decode(model, params, padded([[3, 4]]), config)
  drawn = decoded.tokens_BKT[0]

  def expected(prefix):
    values = {
      "temperature": None, "top_k": None, "top_p": None, **options
    }
    return reference(model.log_probs(params, prefix), **values)

  def check(tokens, prob_V):
    counts_V = np.bincount(tokens, minlength=12)
    possible = prob_V > 0
    assert counts_V[~possible].sum() == 0
    result = scipy.stats.chisquare(
      counts_V[possible], prob_V[possible] * len(tokens)
    )
    assert result.pvalue > 1e-3

  check(drawn[:, 0], expected([3, 4]))
  common = np.bincount(drawn[:, 0]).argmax()
  second = drawn[drawn[:, 0] == common, 1]
  check(second, expected([3, 4, int(common)]))


def test_a_draw_belongs_to_its_input_sample_and_seed():
  model = recurrent.Recurrent()
  params = model.init(spread=0.3)
  config = DecodeConfig(
    "sample", max_decode_len=10, num_samples=3, return_scores=True
  )

  def draw(prompts=PROMPTS, seeds_B=None, **changes):
    changed = dataclasses.replace(config, **changes)
    return answers(
      decoding.decode(
        model, params, padded(prompts), changed, seeds_B=seeds_B
      )
    )

  three = draw()
  assert len({tuple(t) for row in three for t in row}) == 15
  # Fewer samples are the first ones of more; the default seed is 0.
  assert draw(num_samples=1) == [row[:1] for row in three]
  assert draw(seed=0) == three
  assert draw(seed=1) != three
  # Equal inputs draw equal answers, unless they are told apart.
  same = draw([PROMPTS[0]] * 2)
  assert same[0] == same[1] == three[0]
  apart = draw([PROMPTS[0]] * 2, seeds_B=[8, 9])
  assert apart[0] != apart[1]
  assert draw(PROMPTS, seeds_B=[8] * 5)[0] == apart[0]


def test_scores_are_the_models_own_before_any_filter():
  model = recurrent.Recurrent()
  params = model.init(spread=0.5)
  config = DecodeConfig(
    "sample", max_decode_len=5, temperature=2.0, top_k=3, return_scores=True,
    end_ids=(2,),
  )
  decoded = decoding.decode(model, params, padded(PROMPTS), config)
  for prompt, (tokens,), (score,) in zip(
    PROMPTS, answers(decoded), decoded.scores_BK, strict=True
  ):
    expected = sum(
      model.log_probs(params, [*prompt, *tokens[:t]])[token]
      for t, token in enumerate(tokens)
    )
    np.testing.assert_allclose(score, expected, 1e-4)
