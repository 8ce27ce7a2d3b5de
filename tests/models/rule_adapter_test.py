"""Rules on the logits, against plain numpy; and where they are used."""

import doctest

import jax
import numpy as np
import pytest

from flan_jax import config as config_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.models import continuous, decoding, rule_adapter, sampling
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.models.rule_adapter import RuleAdapter, Rules
from tests.conftest import ROOT
from tests.models import recurrent
from tests.models.decoding_test import PROMPTS, padded

END = (0, 6)
RULES = {
  "end": Rules(9.0, 6, False, (), 0.0, False),
  "end stays": Rules(9.0, 3, True, (), 0.0, False),
  "tokens": Rules(0.0, 250, False, ((2, -4.0), (5, 3.0)), 0.0, False),
  "repeat": Rules(0.0, 250, False, (), -4.0, False),
  "prompt": Rules(0.0, 250, False, (), -1.5, True),
  "all": Rules(15.0, 8, False, ((3, 1.0), (0, -2.0)), -1.5, True),
}


def plain_scores(rules, prompt, said, vocab_size, end_ids):
  """r(w, x) of every token, one after the other."""
  out = np.zeros(vocab_size)
  seen = set(said) | (set(prompt) if rules.repeat_prompt else set())
  for token in range(vocab_size):
    if token in end_ids:
      if 0 < len(said) < rules.end_length:
        out[token] += rules.end_score * len(said) / rules.end_length
      elif len(said) >= rules.end_length and rules.end_stays:
        out[token] += rules.end_score
    out[token] += dict(rules.token_scores).get(token, 0.0)
    if token in seen:
      out[token] += rules.repeat_score
  return out


@pytest.fixture(scope="module")
def model():
  return recurrent.Recurrent()


@pytest.fixture(scope="module")
def params(model):
  return model.init(spread=1.5)


def plainly(model, params, prompt, rules, length):
  """Greedy decoding of p_base times softmax(r), and the model's own log p."""
  said, total = [], 0.0
  while len(said) < length and not (said and said[-1] in END):
    log_prob_V = model.log_probs(params, [*prompt, *said])
    r_V = plain_scores(rules, prompt, said, len(log_prob_V), END)
    adapted_V = np.exp(log_prob_V) * np.exp(r_V) / np.exp(r_V).sum()
    said.append(int(adapted_V.argmax()))
    total += log_prob_V[said[-1]]
  return said, total


def test_docstrings():
  assert doctest.testmod(rule_adapter).failed == 0


@pytest.mark.parametrize("name", RULES)
def test_greedy_answers_are_those_of_the_product(model, params, name):
  rules, T = RULES[name], 10
  config = DecodeConfig(
    max_decode_len=T, end_ids=END, rules=rules, return_scores=True
  )
  expected = [plainly(model, params, p, rules, T) for p in PROMPTS]
  decoded = decoding.decode(model, params, padded(PROMPTS), config)
  ended = sorted(
    continuous.answers(
      model, params, [np.array(p) for p in PROMPTS], rows=2, length=8,
      config=config,
    )
  )
  for row, (said, total) in enumerate(expected):
    ours = [int(t) for t in decoded.tokens_BKT[row, 0] if t >= 0]
    assert ours == said == list(ended[row].tokens)
    np.testing.assert_allclose(decoded.scores_BK[row, 0], total, 1e-4)
    np.testing.assert_allclose(ended[row].log_prob, total, 1e-4)
  plain = decoding.decode(
    model, params, padded(PROMPTS), DecodeConfig(max_decode_len=T, end_ids=END)
  )
  assert (plain.tokens_BKT != decoded.tokens_BKT).any()


def test_samples_are_drawn_from_the_product(model, params):
  """The first and second of many draws from one prompt."""
  rules = Rules(4.0, 2, False, ((3, 2.0),), -1.5, False)
  config = DecodeConfig(
    "sample", max_decode_len=2, end_ids=(0,), num_samples=4000, rules=rules
  )
  tokens_KT = decoding.decode(model, params, [[7]], config).tokens_BKT[0]
  first = int(np.bincount(tokens_KT[:, 0]).argmax())
  for said, drawn in (
    ([], tokens_KT[:, 0]),
    ([first], tokens_KT[tokens_KT[:, 0] == first, 1]),
  ):
    log_prob_V = model.log_probs(params, [7, *said])
    r_V = plain_scores(rules, [7], said, 12, (0,))
    p_V = np.exp(log_prob_V + r_V)
    share_V = np.bincount(drawn, minlength=12) / len(drawn)
    np.testing.assert_allclose(share_V, p_V / p_V.sum(), atol=0.05)


def test_paper_numbers_of_the_end(model):
  rules, _ = RuleAdapter(rules=("end",)).of(str.split, " ".join)
  logits_RV = np.zeros((4, 3), np.float32)
  lengths_R = np.array([0, 1, 249, 250])
  out_RV = rules.add(logits_RV, lengths_R, None, (2,))
  np.testing.assert_allclose(out_RV[:, 2], [0, 15 / 250, 14.94, 0], 1e-5)
  assert not out_RV[:, :2].any()


def test_rows_do_not_depend_on_what_is_beside_them(model, params):
  config = DecodeConfig(
    "sample", max_decode_len=8, end_ids=END, num_samples=3,
    rules=RULES["all"],
  )
  together = decoding.decode(model, params, padded(PROMPTS), config)
  alone = decoding.decode(model, params, padded(PROMPTS[2:3]), config)
  np.testing.assert_array_equal(together.tokens_BKT[2], alone.tokens_BKT[0])


def test_one_program_without_rules_keeps_nothing(model, params):
  state = jax.eval_shape(
    lambda params: sampling.start(
      model, params, padded(PROMPTS), None, DecodeConfig(max_decode_len=4)
    ),
    params,
  )
  assert state.said_RV is None


def test_tokens_of_a_real_vocabulary(shared):
  vocabulary = vocabulary_lib.load("flan_jax")
  rules, missing = RuleAdapter().of(vocabulary.encode, vocabulary.decode)
  scores = dict(rules.token_scores)
  assert len(scores) + len(missing) == len(rule_adapter.TOKEN_SCORES)
  for text, score in rule_adapter.TOKEN_SCORES:
    if text not in missing:
      token = rule_adapter.token_of(text, vocabulary.encode, vocabulary.decode)
      assert scores[token] == score
      again = vocabulary.decode([*vocabulary.encode("a"), token])
      assert again == "a" + text


def test_generation_uses_them(model, params):
  class Prompt:
    inputs = np.array([3, 4], np.int32)

  config = DecodeConfig(max_decode_len=10, end_ids=END, rules=RULES["all"])
  planned = generation.plan(
    [Prompt], batch_size=1, lengths={"inputs": 8, "targets": 10},
    name=lambda _: "prompt",
  )
  (found,) = generation.generate(
    model, params, planned, decode=str, config=config
  )
  said, _ = plainly(model, params, [3, 4], RULES["all"], 10)
  assert list(found.answers[0].tokens) == [t for t in said if t not in END]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"rules": ()}, r"RULES is \(\); name some of end, tokens, repeat"),
    ({"rules": "end"}, "write \\('end',\\)"),
    ({"rules": ("ends",)}, "'ends'; known are .*nearest is 'end'"),
    ({"rules": ("end",), "repeat_prompt": True}, "REPEAT_PROMPT = True has no"),
    ({"rules": ("repeat",), "end_length": 9}, "END_LENGTH = 9 has no effect"),
    ({"rules": ("end",), "token_scores": (("a", 1),)}, "TOKEN_SCORES = .* no"),
    ({"end_score": 0.0}, "END_SCORE is 0.0; give a number that is not 0"),
    ({"repeat_score": float("nan")}, "REPEAT_SCORE is nan"),
    ({"end_length": 0}, "END_LENGTH is 0; give 1 or more"),
  ],
)
def test_options_that_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    RuleAdapter(**options)


def test_a_vocabulary_without_any_of_the_tokens():
  with pytest.raises(UserError, match="none of the texts of 'tokens'"):
    RuleAdapter().of(lambda text: [1, 2, 3], lambda ids: "")


def test_where_rules_have_no_place():
  with pytest.raises(UserError, match="rules = .* no effect with strategy 'be"):
    DecodeConfig("beam", beam_size=2, end_ids=END, rules=RULES["all"])
  with pytest.raises(UserError, match="rule 'end' has no end"):
    DecodeConfig(rules=RULES["all"])
  config = DecodeConfig(rules=RULES["tokens"])
  with pytest.raises(UserError, match=r"\[5\] are over 4 ids"):
    config.check_vocabulary(4)


@pytest.mark.parametrize(
  ("job", "flags"),
  [
    ("generate", [("INITIAL_CHECKPOINT_PATH", "x")]),
    ("evaluate", [("INITIAL_CHECKPOINT_PATH", "x")]),
  ],
)
def test_the_gin_file(job, flags):
  files = [f"gin/{job}.gin", "gin/decoding/rule_adapter.gin"]
  loaded = config_lib.load(files, flags, [str(ROOT)])
  assert "REPEAT_SCORE = -1.5" in loaded.text
  assert config_lib.job_arguments(loaded)[1]["rule_adapter"] is not None
  with pytest.raises(UserError, match="nothing uses the macro END_SCORES"):
    config_lib.load(files, [*flags, ("END_SCORES", "1")], [str(ROOT)])
