import dataclasses

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.models import continuous
from flan_jax.models.decoding_config import DecodeConfig
from tests.eval.fakes import example
from tests.models import kinds, recurrent

LENGTHS = {"inputs": 128, "targets": 6}


def decode(ids):
  return " ".join(map(str, ids))


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_equals_greedy_without_a_cache(kind):
  """Each token is the likeliest after the ones before it, all read again."""
  model, params = kinds.tiny(kind)
  rng = np.random.default_rng(0)
  examples = [
    example(rng.integers(2, 32, size=n), index=i)
    for i, n in enumerate((3, 90, 4, 3, 70))
  ]
  results = generation.generate(
    model, params, examples, decode=list, batch_size=2, lengths=LENGTHS,
    end_ids=(1, 7),
  )
  assert len({tuple(r.text) for r in results}) > 1
  next_log_probs = kinds.plain(model, params)
  for r in results:
    tokens, _ = recurrent.greedy(
      lambda said, inputs=r.example.inputs: next_log_probs(
        inputs, said[len(inputs) :]
      ),
      r.example.inputs, 6, (1, 7),
    )
    assert r.complete == (tokens[-1] in (1, 7))
    assert list(r.text) == tokens[: len(tokens) - r.complete]
    assert r.answers[0].tokens == tuple(r.text)


def test_text_ends_before_an_end_id_and_id_0_is_kept(monkeypatch):
  tokens = [(5, 0, 1), (7, 8, 9, 4), (1,)]

  def answers(model, params, inputs, **_):
    for number in (2, 0, 1):
      said = tokens[number]
      yield continuous.Ended(number, said, -1.5 * len(said), said[-1] == 1)

  monkeypatch.setattr(generation.continuous, "answers", answers)
  results = generation.generate(
    "answers", {}, [example([i + 2]) for i in range(3)],
    decode=decode, batch_size=3, lengths=LENGTHS, end_ids=(1,),
  )
  assert [(r.text, r.complete) for r in results] == [
    ("5 0", True), ("7 8 9 4", False), ("", True),
  ]
  assert results[0].answers[0].score == -4.5


def test_samples_scores_and_stop_strings():
  model = recurrent.Recurrent()
  params = model.init(spread=1.0)
  examples = [example([3]), example([4, 0])]
  config = DecodeConfig("sample", num_samples=3, return_scores=True)
  given = {"decode": decode, "batch_size": 2, "lengths": LENGTHS}
  free = generation.generate(model, params, examples, config=config, **given)
  assert all(len(r.answers) == 3 for r in free)
  texts = [a.text for r in free for a in r.answers]
  assert len(set(texts)) > 3
  stop = " ".join(texts[0].split()[1:3])
  config = dataclasses.replace(config, stop_strings=(stop,))
  cut = generation.generate(model, params, examples, config=config, **given)
  for before, after in zip(
    texts, [a for r in cut for a in r.answers], strict=True
  ):
    assert after.text == before.partition(stop)[0]
    assert after.complete == (stop in before)
    assert decode(after.tokens).startswith(after.text)


def test_equal_inputs_are_answered_once():
  plan = generation.plan(
    [example([5]), example([6]), example([5])], batch_size=2, lengths=LENGTHS
  )
  assert plan.of_example == (0, 1, 0)
  assert plan.queues == {64: (0, 1)}
  assert plan.shapes == {(2, 64)}


@pytest.mark.parametrize(
  ("tokens", "message"),
  [([2] * 150, "its input of 151 .* 128"), ([], "its input has no token")],
)
def test_inputs_that_cannot_be_answered(tokens, message):
  wrong = example(tokens)
  if not tokens:
    wrong = dataclasses.replace(wrong, inputs=np.array([], np.int32))
  with pytest.raises(UserError, match="row 0: " + message):
    generation.plan([wrong], batch_size=2, lengths=LENGTHS)


def test_an_example_with_logits_that_are_not_finite_is_named():
  model = recurrent.Recurrent()
  params = model.init()
  params["embed"][9] = np.nan
  examples = [example([3], index=0), example([9], index=17, task="e2e")]
  with pytest.raises(UserError, match="^task 'e2e', template 0, row 17: logits"):
    generation.generate(
      model, params, examples, decode=decode, batch_size=4, lengths=LENGTHS,
      end_ids=(1,),
    )
