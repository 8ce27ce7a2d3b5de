"""Response ranking: pairs, scores against plain numpy, the job's files."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from flan_jax import config, evaluate_response_ranking
from flan_jax.data import sft
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.evaluation import EvalExample
from flan_jax.errors import UserError
from flan_jax.eval import rank, response_ranking
from flan_jax.models import decoder
from flan_jax.training import checkpoint, optimiser, state
from tests.conftest import ROOT
from tests.models import kinds


def row(index, inputs, targets):
  return EvalExample(
    task="made",
    template=0,
    index=index,
    inputs=np.array(inputs, np.int32),
    inputs_text=str(inputs),
    choices=(),
    choices_text=(),
    label=-1,
    targets=np.array(targets, np.int32),
    targets_text=str(targets),
    references=(),
  )


def rows(count, seed=0):
  rng = np.random.default_rng(seed)
  return [
    row(
      i,
      rng.integers(2, 32, size=rng.integers(2, 9)),
      [*rng.integers(2, 32, size=rng.integers(1, 7)), 1],
    )
    for i in range(count)
  ]


def test_pairs_are_of_other_responses_and_repeat():
  made = rows(30)
  # Two instructions with one response, as data have it.
  made[7] = dataclasses.replace(
    made[3], index=7, inputs=np.array([9], np.int32)
  )
  examples = response_ranking.pairs(made, others=5, instructions=None)
  for given, example in zip(made, examples, strict=True):
    own, *others = [c.tobytes() for c in example.choices]
    assert own == given.targets.tobytes()
    assert len({own, *others}) == 6
  again = response_ranking.pairs(made, others=5, instructions=None)
  assert [e.choices_text for e in again] == [e.choices_text for e in examples]
  other = response_ranking.pairs(made, others=5, instructions=None, seed=1)
  assert [e.choices_text for e in other] != [e.choices_text for e in examples]
  few = response_ranking.pairs(made, instructions=8)
  assert len({e.index for e in few}) == 8
  # Of two responses each has the other alone.
  two = response_ranking.pairs(made[:2], others=5)
  assert [len(e.choices) for e in two] == [2, 2]


def test_shares_are_those_of_plain_scores():
  model, params = kinds.tiny("decoder_only")
  log_probs = kinds.plain(model, params)
  examples = response_ranking.pairs(rows(9), others=2)
  ranked = rank.rank(
    model, params, examples, batch_size=4,
    lengths={"inputs": 16, "targets": 8},
  )
  held = {"sum": [], "mean": []}
  for e in examples:
    sums = []
    for tokens in e.choices:
      sums.append(
        sum(log_probs(e.inputs, tokens[:t])[tokens[t]]
            for t in range(len(tokens)))
      )
    means = [s / len(c) for s, c in zip(sums, e.choices, strict=True)]
    held["sum"].append([sums[0] > s for s in sums[1:]])
    held["mean"].append([means[0] > s for s in means[1:]])
  mean, total = response_ranking.scores(ranked)
  assert (mean.score, total.score) == ("mean", "sum")
  for score in (mean, total):
    expected = np.array(held[score.score])
    assert score.share == pytest.approx(100 * expected.mean())
    assert score.first == pytest.approx(100 * expected.all(1).mean())
    assert score.interval[0] <= score.share <= score.interval[1]
    assert (score.pairs, score.instructions, score.ties) == (18, 9, 0)


def test_an_equal_score_does_not_hold():
  example = response_ranking.pairs(rows(3), others=2)[0]
  scored = rank.Scored(
    example=example,
    by_score={"sum": (-2.0, -2.0, -3.0), "mean": (-1.0, -0.5, -1.0)},
    score="sum",
    first=(0, 1, 2),
  )
  mean, total = response_ranking.scores([scored])
  assert (total.share, total.ties) == (50.0, 1)
  assert (mean.share, mean.ties) == (0.0, 1)


def test_what_is_refused():
  with pytest.raises(UserError, match="OTHER_RESPONSES is 0; give 1"):
    response_ranking.pairs(rows(3), others=0)
  with pytest.raises(UserError, match="two different responses; there are 1"):
    response_ranking.pairs(rows(1))
  with pytest.raises(UserError, match="row 4 has no response to rank"):
    response_ranking.pairs([*rows(2), row(4, [3], [])])
  with pytest.raises(UserError, match="no instruction to rank"):
    response_ranking.scores([])


def test_from_checkpoint_and_file_to_table(tmp_path):
  vocabulary = vocabulary_lib.load("flan_jax")
  model = decoder.DecoderOnly(
    decoder.DecoderConfig(
      vocab_size=vocabulary.vocab_size, emb_dim=8, num_heads=1, head_dim=8,
      mlp_dim=8, num_layers=1,
    )
  )
  saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
  params = model.init(jax.random.key(0))
  saved.save(1, state.create(params, optimiser.adafactor(1e-3)), {"step": 1})
  saved.close()
  for name, count in (("train", 2), ("rows", 6)):
    lines = [
      {"instruction": f"{name}: say {i}", "output": "so " * i + "done"}
      for i in range(count)
    ]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
  path = evaluate_response_ranking.evaluate_response_ranking(
    initial_checkpoint_path=str(saved.directory),
    eval_mixture_or_task_name="sft_held_out",
    task_feature_lengths={"inputs": 32, "targets": 32},
    task_collection=sft.SFT(
      str(tmp_path / "train.jsonl"),
      eval_files=str(tmp_path / "rows.jsonl"),
      held_out=0.0,
      chat_format="tulu",
    ),
    other_responses=2,
    output_dir=tmp_path / "out",
    model=model,
    vocabulary=vocabulary,
  )
  found = json.loads(path.with_suffix(".json").read_text())
  assert [s["score"] for s in found] == ["mean", "sum"]
  assert (found[0]["pairs"], found[0]["instructions"]) == (12, 6)
  assert "| mean |" in path.read_text()
  lines = (path.parent / "responses.jsonl").read_text().splitlines()
  asked = {one["inputs_text"]: one for one in map(json.loads, lines)}
  one = asked["<|user|>\nrows: say 3\n<|assistant|>\n"]
  assert one["responses"][0] == "so so so done"
  assert len(one["sum"]) == len(one["mean"]) == 3
  held = np.mean(
    [
      [o["mean"][0] > s for s in o["mean"][1:]]
      for o in map(json.loads, lines)
    ]
  )
  assert found[0]["share"] == pytest.approx(100 * held)


def test_the_gin_file():
  flags = [("INITIAL_CHECKPOINT_PATH", "x"), ("SFT_FILES", "y.jsonl")]
  loaded = config.load(["gin/eval_response_ranking.gin"], flags, [str(ROOT)])
  assert loaded.value("OTHER_RESPONSES") == 5
  with pytest.raises(UserError, match="nothing uses the macro OTHER_RESPONSE"):
    config.load(
      ["gin/eval_response_ranking.gin"],
      [*flags, ("OTHER_RESPONSE", "3")],
      [str(ROOT)],
    )
