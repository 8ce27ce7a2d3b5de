import dataclasses
import doctest
import functools
import json

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import rank, rank_plan
from flan_jax.eval.answer_file import AnswerFile
from tests.eval.fakes import CountingModel, example
from tests.models import kinds

LENGTHS = {"inputs": 512, "targets": 32}
EMPTY = dataclasses.replace(
  example([], [(3,), (4,)]), inputs=np.array([], np.int32)
)


@pytest.fixture(scope="module", params=kinds.KINDS)
def tiny(request):
  return kinds.tiny(request.param, vocab_size=64)


def random_examples(count, seed=0, lowest=2):
  rng = np.random.default_rng(seed)
  out = []
  for i in range(count):
    choices = [
      rng.integers(lowest, 64, size=rng.integers(1, 12))
      for _ in range(rng.integers(2, 6))
    ]
    inputs = rng.integers(2, 64, size=rng.integers(3, 150))
    out.append(example(inputs, choices, 0, index=i))
  return out


def test_scores_are_sums_of_token_log_probabilities_with_eos():
  examples = [example([500], [(5, 7), (6,), (4, 4)], label=1)]
  (scored,) = rank.rank(
    CountingModel(), 1.0, examples, batch_size=2, lengths=LENGTHS
  )
  # Each choice: minus its tokens, minus EOS (1), plus (500 + 1) / 1000.
  np.testing.assert_allclose(scored.scores, [-12.499, -6.499, -8.499], 1e-6)
  assert (scored.prediction, scored.correct, scored.ties) == (1, True, 1)


def test_all_scores_come_from_one_pass():
  """Each choice: minus its tokens and EOS, plus (input and EOS) / 1000."""
  model = CountingModel()
  examples = [
    example([99], [(5, 5, 5), (6,)], label=0),
    example([199], [(6,), (3,)], label=0),
  ]
  planned = rank_plan.plan(
    examples, batch_size=4, lengths=LENGTHS,
    unconditional=np.array([300, 1], np.int32),
  )
  (batch,) = planned.batches
  assert (batch.inputs_BS[:, 0] > 0).sum() == 4
  first, second = rank.rank(model, 1.0, planned, score="calibrated")
  assert len(model.encoded_shapes) == 1
  np.testing.assert_allclose(first.by_score["sum"], [-15.9, -6.9], 1e-6)
  np.testing.assert_allclose(first.by_score["mean"], [-15.9 / 4, -3.45], 1e-6)
  np.testing.assert_allclose(first.by_score["calibrated"], [-0.201] * 2, 1e-4)
  np.testing.assert_allclose(second.scores, [-0.101] * 2, 1e-4)
  assert first.by("sum").prediction == 1
  assert first.by("mean").prediction == 1
  assert first.scores == first.by_score["calibrated"]


def test_mean_does_not_favour_the_short_choice():
  examples = [example([2], [(5, 5, 5), (7,)], label=0)]
  kwargs = {"batch_size": 1, "lengths": LENGTHS}
  (scored,) = rank.rank(CountingModel(), 0.0, examples, **kwargs)
  assert scored.by("sum").scores == (-16.0, -8.0)
  assert scored.by("mean").scores == (-4.0, -4.0)
  assert (scored.correct, scored.by("mean").correct) == (False, True)
  assert scored.by("mean").ties == 2
  assert set(scored.by_score) == {"sum", "mean"}


def test_equals_every_pair_alone(tiny):
  """One pair at a time, whole forward passes, nothing shared or cached."""
  model, params = tiny
  # Id 0 is a token of a decoder's vocabulary; T5 pads with it.
  lowest = 0 if model.kind == "decoder_only" else 2
  examples = random_examples(8, lowest=lowest)
  unconditional = np.array([9, 1], np.int32)
  planned = rank_plan.plan(
    examples, batch_size=4, lengths=LENGTHS, unconditional=unconditional
  )
  scored = rank.rank(model, params, planned)
  next_log_probs = kinds.plain(model, params, room=160)

  def alone(inputs, choice):
    return sum(
      next_log_probs(inputs, choice[:t])[token]
      for t, token in enumerate(choice)
    )

  seen = set()
  for s in scored:
    for c, choice in enumerate(s.example.choices):
      full, free = alone(s.example.inputs, choice), alone([9, 1], choice)
      close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
      close(s.by_score["sum"][c], full)
      close(s.by_score["mean"][c], full / len(choice))
      close(s.by_score["calibrated"][c], full - free, atol=1e-5 * abs(free))
      seen |= set(choice.tolist())
  assert min(seen) == min(lowest, 1)


def test_order_and_batch_size_change_nothing(tiny):
  model, params = tiny
  examples = random_examples(9, seed=1)
  one = rank.rank(model, params, examples, batch_size=2, lengths=LENGTHS)
  many = rank.rank(
    model, params, examples[::-1], batch_size=8, lengths=LENGTHS
  )[::-1]
  for a, b in zip(one, many, strict=True):
    assert a.example is b.example
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)


def test_ties_go_to_the_lowest_index_and_are_counted():
  tied = example([2], [(5,), (3, 1), (4,)], label=2)
  (scored,) = rank.rank(
    CountingModel(), 0.0, [tied], batch_size=1, lengths=LENGTHS
  )
  assert (scored.prediction, scored.ties, scored.correct) == (1, 2, False)


def test_choices_of_the_same_tokens_are_one_answer():
  """The first stands for all, as prediction and as label; they do not tie."""
  same = example([2], [(5,), (4,), (4,), (4,)], label=3)
  (scored,) = rank.rank(
    CountingModel(), 0.0, [same], batch_size=1, lengths=LENGTHS
  )
  assert (scored.prediction, scored.label, scored.ties) == (1, 1, 1)
  assert scored.correct
  assert len(scored.scores) == 4


def test_a_score_that_is_not_a_number_names_its_example():
  model = CountingModel(nan_token=9)
  examples = [
    example([2], [(5,), (4,)], index=0),
    example([3], [(9,), (4,)], task="rte", template=3, index=17),
  ]
  with pytest.raises(UserError, match="task 'rte', template 3, row 17.*nan"):
    rank.rank(model, 0.0, examples, batch_size=4, lengths=LENGTHS)


def test_ten_datasets_compile_no_more_than_the_buckets():
  rng = np.random.default_rng(0)
  model, examples = CountingModel(), []
  for dataset in range(10):
    for i in range(40):
      choices = [(2 + c, *rng.integers(2, 9, size=dataset % 4)) for c in range(2 + dataset % 3)]
      inputs = rng.integers(2, 60, size=rng.integers(1, 500))
      examples.append(example(inputs, choices, task=f"d{dataset}", index=i))
  plan = rank_plan.plan(examples, batch_size=8, lengths=LENGTHS)
  rank.rank(model, 0.0, plan)
  assert len(model.encoded_shapes) == len(plan.shapes)
  # Input lengths 64 to 512, choices 2 or 4, choice lengths 4 or 8.
  assert len(plan.shapes) <= 4 * 2 * 2
  rank.rank(model, 1.0, plan)
  rank.rank(model, 1.0, examples, batch_size=8, lengths=LENGTHS)
  assert len(model.encoded_shapes) == len(plan.shapes)


def test_an_input_is_encoded_once_whatever_shares_it():
  same = [
    example([5, 6], [(7,), (8,)], index=0),
    example([5, 6], [(7,), (9,)], index=1),
    example([5, 6], [(7,), (8,)], index=2),
    example([5], [(7,), (8,)], index=3),
  ]
  plan = rank_plan.plan(same, batch_size=2, lengths=LENGTHS)
  (batch,) = plan.batches
  assert batch.inputs_BS[:, :3].tolist() == [[5, 6, 1], [5, 1, -1]]
  assert batch.choices_BCT[0, :, 0].tolist() == [7, 8, 9]
  columns = [tuple(place[2] for place in p) for p in plan.places]
  assert columns == [(0, 1), (0, 2), (0, 1), (0, 1)]


def test_many_long_choices_go_in_smaller_batches():
  examples = [
    example([2 + i], [(2 + c,) * 31 for c in range(16)]) for i in range(40)
  ]
  plan = rank_plan.plan(examples, batch_size=64, lengths=LENGTHS)
  for batch in plan.batches:
    assert batch.choices_BCT.size <= rank_plan.MAX_DECODER_TOKENS
  assert sum((b.inputs_BS[:, 1] > 0).sum() for b in plan.batches) == 40


def test_choices_longer_than_targets_are_scored_whole():
  long = [(3,) * 40, (3,) * 40 + (5,)]
  planned = rank_plan.plan([example([2], long)], batch_size=2, lengths=LENGTHS)
  (batch,) = planned.batches
  assert sorted((batch.choices_BCT[0] >= 0).sum(-1)) == [41, 42]


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (example([2]), "no choices to rank; answer it by generation: .*ANSWER_BY"),
    (example([2], [(3,), (4,)], label=2), "label 2 is none of its 2 choices"),
    (example([2] * 600, [(3,), (4,)]), "input of 601 tokens.*limit of 512"),
    (EMPTY, "its input has no token"),
  ],
)
def test_what_cannot_be_ranked_is_named(wrong, message):
  with pytest.raises(UserError, match="task 'toy', template 0, row 0.*" + message):
    rank_plan.plan([wrong], batch_size=2, lengths=LENGTHS)


def test_unknown_score():
  options = {"batch_size": 1, "lengths": LENGTHS}
  with pytest.raises(UserError, match="'means' is unknown; .*'mean'"):
    rank.rank(CountingModel(), 0.0, [], score="means", **options)
  with pytest.raises(UserError, match="'calibrated' needs the unconditional"):
    rank.rank(CountingModel(), 0.0, [], score="calibrated", **options)


def test_docstrings():
  assert doctest.testmod(rank).failed == 0


def test_progress_ends_at_the_total_and_nothing_is_fine():
  calls = []
  rank.rank(
    CountingModel(), 0.0, random_examples(9), batch_size=2, lengths=LENGTHS,
    progress=lambda done, total: calls.append((done, total)),
  )
  assert calls[-1][0] == calls[-1][1]
  assert [d for d, _ in calls] == sorted(d for d, _ in calls)
  assert rank.rank(CountingModel(), 0.0, [], batch_size=1, lengths=LENGTHS) == []


def test_a_stopped_ranking_goes_on_from_what_was_kept(tmp_path, monkeypatch):
  model, examples = CountingModel(), random_examples(12)

  def planned(examples):
    return rank_plan.plan(
      examples, batch_size=2, lengths=LENGTHS,
      unconditional=np.array([300, 1], np.int32),
    )

  def run(examples):
    file = AnswerFile(
      tmp_path / "ranked.jsonl", run="one", key=lambda e: {"index": e.index}
    )
    return rank.rank(model, 1.0, planned(examples), file=file)

  whole = rank.rank(model, 1.0, planned(examples))
  batches = len(planned(examples).batches)
  computed, score = [], rank.choice_log_probs

  def counted(*args):
    if len(computed) == stop:
      raise KeyboardInterrupt
    computed.append(args)
    return score(*args)

  monkeypatch.setattr(rank, "choice_log_probs", counted)
  stop = batches - 2
  with pytest.raises(KeyboardInterrupt):
    run(examples)
  kept = (tmp_path / "ranked.partial.jsonl").read_text().count("\n")
  assert 0 < kept < 12
  computed, stop = [], None
  assert run(examples) == whole
  assert 0 < len(computed) < batches
  lines = (tmp_path / "ranked.jsonl").read_text().splitlines()
  assert [json.loads(line)["number"] for line in lines] == list(range(12))

  computed = []
  assert run(examples) == whole
  assert computed == []
  # Of one example the choices were others.
  changed = dataclasses.replace(
    examples[5], choices=(np.array([9, 1], np.int32), *examples[5].choices[1:])
  )
  changed = [*examples[:5], changed, *examples[6:]]
  found = run(changed)
  assert found == rank.rank(model, 1.0, planned(changed))
  assert [a == b for a, b in zip(found, whole, strict=True)].count(False) == 1
