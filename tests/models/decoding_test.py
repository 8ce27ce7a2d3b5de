"""Decoding on the host: padding, ends, stop strings, compilations, options."""

import dataclasses
import doctest

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import (
  decoder,
  decoding,
  decoding_config,
  stop_strings,
)
from flan_jax.models.decoding_config import DecodeConfig
from tests.models import fixtures, kinds, recurrent
from tests.models.decoder_test import T5X_CONFIG

PROMPTS = [[3, 4, 5], [7], [2, 2, 9, 0, 1, 11], [0], [5, 8, 3, 2]]


def padded(prompts, length=None):
  length = length or max(map(len, prompts))
  out = np.full((len(prompts), length), -1, np.int32)
  for row, tokens in zip(out, prompts, strict=True):
    row[: len(tokens)] = tokens
  return out


def answers(decoded):
  """Tokens without padding, [B][K]."""
  return [
    [[int(t) for t in tokens if t >= 0] for tokens in row]
    for row in decoded.tokens_BKT
  ]


@pytest.fixture(scope="module")
def model():
  return recurrent.Recurrent()


@pytest.fixture(scope="module")
def params(model):
  return model.init()


def log_probs(model, params):
  return lambda tokens: model.log_probs(params, tokens)


@pytest.mark.parametrize(
  "module", [decoding, decoding_config, stop_strings]
)
def test_docstrings(module):
  result = doctest.testmod(module)
  assert (result.failed, result.attempted > 0) == (0, True)


def test_greedy_is_the_plain_loop_with_ragged_prompts_and_several_ends(
  model, params
):
  ends = (0, 6)
  config = DecodeConfig(
    max_decode_len=9, end_ids=ends, return_scores=True
  )
  decoded = decoding.decode(model, params, padded(PROMPTS, 8), config)
  lengths = set()
  for row, prompt in enumerate(PROMPTS):
    tokens, score = recurrent.greedy(
      log_probs(model, params), prompt, 9, ends
    )
    assert answers(decoded)[row] == [tokens]
    np.testing.assert_allclose(decoded.scores_BK[row, 0], score, 1e-5, 1e-5)
    assert decoded.complete_BK[row, 0] == (tokens[-1] in ends)
    lengths.add(len(tokens))
  assert len(lengths) > 1
  assert decoded.tokens_BKT.shape == (5, 1, 9)


def test_id_0_is_a_token_like_others(model, params):
  decoded = decoding.decode(
    model, params, padded(PROMPTS), DecodeConfig(max_decode_len=12)
  )
  flat = [t for row in answers(decoded) for t in row[0]]
  assert len(flat) == 5 * 12
  assert 0 in flat
  assert not decoded.complete_BK.any()


def test_one_token(model, params):
  decoded = decoding.decode(
    model, params, padded(PROMPTS), DecodeConfig(max_decode_len=1)
  )
  assert answers(decoded) == [
    [recurrent.greedy(log_probs(model, params), p, 1)[0]] for p in PROMPTS
  ]


@pytest.mark.parametrize(
  "config",
  [
    DecodeConfig(max_decode_len=7, return_scores=True),
    DecodeConfig(
      "sample", max_decode_len=7, num_samples=3, return_scores=True, seed=4
    ),
    DecodeConfig("sample", max_decode_len=7, top_k=5, top_p=0.8),
    DecodeConfig(
      "beam", max_decode_len=7, beam_size=3, num_samples=3, end_ids=(0,),
      return_scores=True,
    ),
  ],
  ids=["greedy", "samples", "filtered", "beam"],
)
def test_the_batch_changes_no_answer(model, params, config):
  """Alone, in a batch, in another order, with more padding, with fill rows."""
  whole = decoding.decode(model, params, padded(PROMPTS), config)
  order = [3, 1, 4, 0, 2]
  other = decoding.decode(
    model, params, padded([*(PROMPTS[i] for i in order), []], 10), config
  )
  for row, prompt in enumerate(PROMPTS):
    alone = decoding.decode(model, params, padded([prompt]), config)
    place = order.index(row)
    np.testing.assert_array_equal(
      whole.tokens_BKT[row], alone.tokens_BKT[0]
    )
    np.testing.assert_array_equal(
      whole.tokens_BKT[row], other.tokens_BKT[place]
    )
    if config.return_scores:
      np.testing.assert_allclose(
        whole.scores_BK[row], alone.scores_BK[0], rtol=1e-5
      )


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_the_batch_changes_no_answer_of_either_kind(kind):
  model, params = kinds.tiny(kind)
  config = DecodeConfig(
    "sample", max_decode_len=6, num_samples=2, temperature=1.5, end_ids=(4,)
  )
  prompts = [[5, 9, 3, 22], [8], [30, 2, 2, 7, 11, 4]]
  whole = decoding.decode(
    model, params, padded([*prompts[::-1], []], 9), config
  )
  alone = [
    answers(decoding.decode(model, params, padded([p]), config))[0]
    for p in prompts
  ]
  assert answers(whole) == [*alone[::-1], [[], []]]
  assert len({tuple(t) for row in alone for t in row}) > 3


def test_a_shape_compiles_once_and_a_seed_compiles_nothing(params):
  model = recurrent.Recurrent()
  config = DecodeConfig("sample", max_decode_len=6, seed=0)
  for batch in (PROMPTS, PROMPTS[::-1], [[1]] * 5):
    for seed in (0, 1):
      decoding.decode(
        model, params, padded(batch, 8), dataclasses.replace(config, seed=seed)
      )
  assert model.started == [((5, 8), 6)]
  # A while_loop's body may be traced more than once within one compilation.
  once = len(model.stepped)
  decoding.decode(model, params, padded(PROMPTS, 16), config)
  assert model.started == [((5, 8), 6), ((5, 16), 6)]
  assert len(model.stepped) <= once
  decoding.decode(
    model, params, padded(PROMPTS, 8),
    dataclasses.replace(config, stop_strings=("zz",)), text=str,
  )
  assert len(model.started) == 2


def test_the_loop_stops_when_all_rows_have_ended():
  """A step that would be run in vain takes a token that is not a number."""
  model = recurrent.Recurrent()
  params = model.init()
  first = recurrent.greedy(log_probs(model, params), [3], 1)[0][0]
  config = DecodeConfig(max_decode_len=50, end_ids=(first,))
  steps = []

  class Counted(recurrent.Recurrent):
    def decode_step(self, params, token_B, cache, index):
      import jax

      jax.debug.callback(lambda i: steps.append(int(i)), index)
      return super().decode_step(params, token_B, cache, index)

  decoded = decoding.decode(Counted(), params, padded([[3], []]), config)
  assert answers(decoded) == [[[first]], [[]]]
  assert steps == []


def test_the_decoder_of_t5x_goes_on_as_in_t5x(t5x_fixtures):
  """T5X writes the new tokens alone, padded with 0."""
  folder = t5x_fixtures / "decoder_only"
  arrays = fixtures.load(folder / "batch.npz")
  model = decoder.DecoderOnly(T5X_CONFIG)
  decoded = decoding.decode(
    model,
    fixtures.unflatten(fixtures.load(folder / "params_step4.npz")),
    np.where(
      arrays["decoder_causal_attention"] > 0,
      arrays["decoder_input_tokens"],
      -1,
    ),
    DecodeConfig(max_decode_len=20, end_ids=(1,), return_scores=True),
  )
  np.testing.assert_array_equal(
    np.maximum(decoded.tokens_BKT[:, 0], 0), arrays["greedy_decodes"]
  )
  # The last row's targets are EOS alone: T5X's score of them is its log p.
  np.testing.assert_allclose(
    decoded.scores_BK[-1, 0], arrays["score"][-1], 1e-5
  )


LETTERS = "ab cd\nefgh.X"


def text(tokens):
  return "".join(LETTERS[t] for t in tokens)


@pytest.mark.parametrize("look_every", [1, 3, 16, 100])
@pytest.mark.parametrize("strategy", ["greedy", "sample"])
def test_stop_strings_cut_exactly_wherever_tokens_end(
  model, params, strategy, look_every, monkeypatch
):
  monkeypatch.setattr(decoding, "LOOK_EVERY", look_every)
  more = {"num_samples": 2} if strategy == "sample" else {}
  config = DecodeConfig(
    strategy, max_decode_len=30, end_ids=(11,), return_scores=True, **more
  )
  free = decoding.decode(model, params, padded(PROMPTS), config)
  whole = [text(t[: -1 if t[-1] == 11 else None])
           for row in answers(free) for t in row]
  # A stop string over three tokens, from the middle of the longest answer.
  longest = max(whole, key=len)
  stops = (longest[4:7], "\nzz")
  assert len(stops[0]) == 3
  config = dataclasses.replace(config, stop_strings=stops)
  cut = decoding.decode(
    model, params, padded(PROMPTS), config, text=text
  )
  flat = [t for row in answers(cut) for t in row]
  for tokens, before, complete, score in zip(
    flat, whole, cut.complete_BK.ravel(), cut.scores_BK.ravel(), strict=True
  ):
    place = before.find(stops[0])
    if place >= 0:
      assert text(tokens) == before[: place + 3]
      assert complete
      assert score < 0
    else:
      said = text(tokens[: -1 if tokens[-1] == 11 else None])
      assert said == before
  assert len(flat[whole.index(longest)]) < len(longest)
  assert (cut.scores_BK >= free.scores_BK - 1e-5).all()


def test_a_stopped_batch_does_not_run_to_the_end(model, params, monkeypatch):
  monkeypatch.setattr(decoding, "LOOK_EVERY", 4)
  ran = []
  real = decoding._advance_rows

  def advance(*args, until, **kwargs):
    ran.append(int(until))
    return real(*args, until=until, **kwargs)

  monkeypatch.setattr(decoding, "_advance_rows", advance)
  config = DecodeConfig(max_decode_len=100)
  said = text(
    answers(decoding.decode(model, params, padded([[3]]), config))[0][0]
  )
  config = dataclasses.replace(config, stop_strings=(said[5:7],))
  ran.clear()
  cut = decoding.decode(model, params, padded([[3], []]), config, text=text)
  assert text(answers(cut)[0][0]) == said[: said.find(said[5:7]) + 2]
  assert ran == [5, 9][: len(ran)]
  assert cut.complete_BK[0].all()


def test_logits_that_are_not_finite_name_their_row(model, params):
  broken = params | {"embed": params["embed"].copy()}
  broken["embed"][9] = np.nan
  for config in (
    DecodeConfig(max_decode_len=3),
    DecodeConfig("sample", max_decode_len=3, top_p=0.5),
    DecodeConfig("beam", max_decode_len=3, beam_size=2),
  ):
    with pytest.raises(UserError, match="^prompt 1: logits are not finite"):
      decoding.decode(
        model, broken, padded([[3], [9], []]), config, name="prompt {}".format
      )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"strategy": "beams"}, "strategy = 'beams': known are greedy, sample,"
                            r" beam \(the nearest is 'beam'\)"),
    ({"temperature": 0.5}, "temperature = 0.5 has no effect with strategy"
                           " 'greedy', which reads rules.*'sample'"),
    ({"top_k": 4}, "top_k = 4 has no effect"),
    ({"seed": 0}, "seed = 0 has no effect"),
    ({"num_samples": 2}, "num_samples = 2 has no effect.*'sample' or 'beam'"),
    ({"beam_size": 4}, "beam_size = 4 has no effect.*use strategy 'beam'"),
    ({"strategy": "sample", "length_penalty": 1.0}, "has no effect with"),
    ({"strategy": "beam", "beam_size": 2, "temperature": 1.0}, "no effect"),
    ({"strategy": "beam"}, "beam_size = None: strategy 'beam' needs it"),
    ({"strategy": "beam", "beam_size": 2, "num_samples": 3},
     "num_samples = 3: a search with beam_size 2"),
    ({"strategy": "beam", "beam_size": 2, "stop_strings": ("x",)},
     "beams are compared by their whole text"),
    ({"strategy": "beam", "beam_size": 1, "length_penalty": 0.5},
     "one beam is compared with no other"),
    ({"strategy": "sample", "temperature": 0.0}, "use strategy 'greedy'"),
    ({"strategy": "sample", "temperature": float("nan")}, "above 0"),
    ({"strategy": "sample", "top_k": 1}, "nothing to draw; use .*'greedy'"),
    ({"strategy": "sample", "top_k": 2.5}, "whole number, 1 or more"),
    ({"strategy": "sample", "top_p": 1.0}, "leaves out nothing; give None"),
    ({"strategy": "sample", "top_p": 1.5}, "probability, at most 1"),
    ({"strategy": "sample", "seed": -1}, "in 0 to"),
    ({"strategy": "beam", "beam_size": 2, "length_penalty": -1.0}, "0 or more"),
    ({"max_decode_len": 0}, "max_decode_len = 0: it is a whole number"),
    ({"end_ids": 1}, r"end_ids = 1: write \(1,\)"),
    ({"end_ids": (1, 1)}, "each once"),
    ({"stop_strings": "\n"}, "stop_strings = .*: write"),
    ({"stop_strings": ("",)}, "not empty"),
  ],
)
def test_options_without_effect_or_sense_are_refused(options, message):
  with pytest.raises(UserError, match="(?s)" + message):
    DecodeConfig(**options)


@pytest.mark.parametrize(
  ("config", "more", "message"),
  [
    (DecodeConfig(end_ids=(1, 40)), {}, r"\[40\] are over 12 ids"),
    (DecodeConfig("sample", top_k=12), {}, "the model has 12 ids"),
    (DecodeConfig("beam", beam_size=7, end_ids=(1,)), {},
     "looks at 14 candidates, but the model has 12"),
    (DecodeConfig(stop_strings=("x",)), {}, "need text="),
    (DecodeConfig(), {"seeds_B": [1]}, "seeds_B has no effect"),
  ],
)
def test_options_that_do_not_fit_the_call(model, params, config, more, message):
  with pytest.raises(UserError, match=message):
    decoding.decode(model, params, padded([[3]]), config, **more)
