import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.models import t5
from tests.eval.fakes import example

LENGTHS = {"inputs": 128, "targets": 6}


@pytest.fixture(scope="module")
def tiny():
  model = t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=32, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32,
      num_encoder_layers=1, num_decoder_layers=1,
    )
  )
  return model, model.init(jax.random.key(3))


def decode(ids):
  return " ".join(map(str, ids))


def test_equals_greedy_without_a_cache(tiny):
  """Each token is the likeliest after the ones before it, prefix re-read."""
  model, params = tiny
  rng = np.random.default_rng(0)
  examples = [
    example(rng.integers(2, 32, size=n), index=i)
    for i, n in enumerate((3, 90, 4, 3, 70))
  ]
  results = generation.generate(
    model, params, examples, decode=list, batch_size=2, lengths=LENGTHS
  )
  assert len({tuple(r.text) for r in results}) > 1
  logits = jax.jit(model.logits)
  for r in results:
    inputs = r.example.inputs
    tokens = []
    while len(tokens) < 6 and tokens[-1:] != [1]:
      decoder = np.zeros((1, 6), np.int32)
      decoder[0, 1 : len(tokens) + 1] = tokens
      logits_BTV = logits(
        params,
        {
          "encoder_input_tokens": np.pad(inputs, (0, 96 - len(inputs)))[None],
          "decoder_input_tokens": decoder,
          "decoder_target_tokens": np.ones((1, 6), np.int32),
        },
      )
      tokens.append(int(np.argmax(logits_BTV[0, len(tokens)])))
    assert r.complete == (1 in tokens)
    # Padding is no word: a 0 inside an answer is left out of the text.
    assert list(r.text) == [t for t in tokens if t > 1]


def test_text_ends_before_eos_and_unfinished_answers_are_marked(monkeypatch):
  answers = jnp.array([[5, 6, 1, 0], [7, 8, 9, 4], [1, 0, 0, 0]])
  monkeypatch.setattr(
    generation.decoding, "greedy", lambda *a, **k: answers
  )
  results = generation.generate(
    "answers", {}, [example([i + 2]) for i in range(3)],
    decode=decode, batch_size=3, lengths=LENGTHS,
  )
  assert [(r.text, r.complete) for r in results] == [
    ("5 6", True), ("7 8 9 4", False), ("", True),
  ]


def test_equal_inputs_are_answered_once():
  plan = generation.plan(
    [example([5]), example([6]), example([5])], batch_size=2, lengths=LENGTHS
  )
  assert plan.places == ((0, 0), (0, 1), (0, 0))


def test_input_over_the_limit():
  with pytest.raises(UserError, match="row 0: its input of 151 .* 128"):
    generation.plan([example([2] * 150)], batch_size=2, lengths=LENGTHS)
