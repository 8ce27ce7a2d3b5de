"""Continuous decoding beside the batch-wise one and plain loops."""

import doctest

import jax
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import continuous, decoding
from flan_jax.models.decoding_config import DecodeConfig
from tests.models import kinds, recurrent


def inputs_of(count, vocabulary, longest, seed=0):
  rng = np.random.default_rng(seed)
  return [
    rng.integers(2, vocabulary, size=rng.integers(1, longest)).astype(np.int32)
    for _ in range(count)
  ]


def run(model, params, inputs, config, rows=3, length=8, **options):
  ended = list(
    continuous.answers(
      model, params, inputs, rows=rows, length=length, config=config, **options
    )
  )
  assert sorted(e.number for e in ended) == list(range(len(inputs)))
  return sorted(ended), [e.number for e in ended]


def padded(inputs, length):
  out = np.full((len(inputs), length), -1, np.int32)
  for row, tokens in zip(out, inputs, strict=True):
    row[: len(tokens)] = tokens
  return out


@pytest.fixture(scope="module")
def model():
  return recurrent.Recurrent()


@pytest.fixture(scope="module")
def params(model):
  return model.init(spread=1.5)


def test_docstrings():
  assert doctest.testmod(continuous).failed == 0


def test_greedy_is_the_plain_loop(model, params):
  inputs = inputs_of(11, 12, 8)
  config = DecodeConfig(
    max_decode_len=9, end_ids=(0, 6), return_scores=True
  )
  ended, order = run(model, params, inputs, config)
  lengths = set()
  for e, tokens in zip(ended, inputs, strict=True):
    said, score = recurrent.greedy(
      lambda t: model.log_probs(params, t), tokens.tolist(), 9, (0, 6)
    )
    assert list(e.tokens) == said
    assert e.complete == (said[-1] in (0, 6))
    np.testing.assert_allclose(e.log_prob, score, 1e-5, 1e-5)
    lengths.add(len(said))
  assert len(lengths) > 2
  # A short answer overtakes a long one that was begun before it.
  assert order != sorted(order)


@pytest.mark.parametrize(
  "config",
  [
    DecodeConfig(max_decode_len=7, end_ids=(0,), return_scores=True),
    DecodeConfig("sample", max_decode_len=7, end_ids=(0,), seed=4),
    DecodeConfig("sample", max_decode_len=7, top_k=5, top_p=0.8),
    DecodeConfig("sample", max_decode_len=1),
  ],
)
def test_gives_what_a_batch_gives(model, params, config):
  inputs = inputs_of(10, 12, 8, seed=1)
  decoded = decoding.decode(model, params, padded(inputs, 8), config)
  for rows in (1, 4):
    ended, _ = run(model, params, inputs, config, rows=rows)
    for e in ended:
      tokens = [t for t in decoded.tokens_BKT[e.number, 0].tolist() if t >= 0]
      assert list(e.tokens) == tokens
      assert e.complete == decoded.complete_BK[e.number, 0]
      if config.return_scores:
        score = decoded.scores_BK[e.number, 0]
        np.testing.assert_allclose(e.log_prob, score, 1e-5)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_models_of_both_kinds(kind, scan):
  model, params = kinds.tiny(kind, scan=scan)
  inputs = inputs_of(7, 32, 12, seed=2)
  config = DecodeConfig(
    max_decode_len=6, end_ids=(1, 7, 9, 20), return_scores=True
  )
  decoded = decoding.decode(model, params, padded(inputs, 12), config)
  ended, _ = run(model, params, inputs, config, rows=4, length=12)
  for e in ended:
    tokens = [t for t in decoded.tokens_BKT[e.number, 0].tolist() if t >= 0]
    assert list(e.tokens) == tokens
    score = decoded.scores_BK[e.number, 0]
    np.testing.assert_allclose(e.log_prob, score, 1e-4)
  assert len({len(e.tokens) for e in ended}) > 1


def test_stop_strings(model, params):
  inputs = inputs_of(9, 12, 8, seed=3)
  config = DecodeConfig(max_decode_len=40, end_ids=(0,))
  free, _ = run(model, params, inputs, config)

  def text(tokens):
    return " ".join(map(str, tokens))

  longest = max(free, key=lambda e: len(e.tokens))
  assert len(longest.tokens) > 20
  stop = " ".join(map(str, longest.tokens[17:19]))
  config = DecodeConfig(max_decode_len=40, end_ids=(0,), stop_strings=(stop,))
  stopped, _ = run(model, params, inputs, config, text=text)
  assert text(stopped[longest.number].tokens).endswith(stop)
  for a, b in zip(free, stopped, strict=True):
    assert a.tokens[: len(b.tokens)] == b.tokens
    whole = text(t for t in a.tokens if t != 0)
    assert (len(b.tokens) < len(a.tokens)) <= (stop in whole)
    assert b.complete == (stop in whole or a.complete)


def test_one_program_and_fewer_steps_than_batch_by_batch():
  """Of two long answers among short ones, both are decoded side by side."""
  model = recurrent.Recurrent()
  params = model.init(spread=1.5)
  inputs = inputs_of(24, 12, 8, seed=4)
  compiled = []

  def listen(event, *_, **__):
    if event == "/jax/core/compile/backend_compile_duration":
      compiled.append(event)

  config = DecodeConfig(max_decode_len=9, end_ids=(0, 6))
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    run(model, params, inputs, config, rows=4)
    assert len(compiled) == 1
    run(model, params, inputs[:5], config, rows=4)
    assert len(compiled) == 1
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_to_answer(model, params):
  assert run(model, params, [], DecodeConfig())[0] == []


def test_an_input_whose_logits_are_not_finite_is_named(model, params):
  broken = {**params, "embed": params["embed"].copy()}
  broken["embed"][9] = np.nan
  inputs = [np.array(x, np.int32) for x in ([3], [4], [9], [5])]
  with pytest.raises(UserError, match="^input 2: logits are not finite"):
    run(model, broken, inputs, DecodeConfig(max_decode_len=3), rows=2)


def test_beams_are_for_batches(model, params):
  config = DecodeConfig("beam", beam_size=2)
  with pytest.raises(ValueError, match="is decoded by decoding.decode"):
    run(model, params, [np.array([3])], config)
