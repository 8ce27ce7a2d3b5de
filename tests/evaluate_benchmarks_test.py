"""MMLU and BBH from checkpoint to table, on the samples of tests/testdata."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from flan_jax import config, evaluate_benchmarks
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import bbh, mmlu, prompted, rank, recorded
from flan_jax.eval.evaluation import Evaluation
from flan_jax.models import decoder, t5
from flan_jax.training import checkpoint, optimiser, state

ROOT = pathlib.Path(__file__).parent
MMLU, BBH = ROOT / "testdata" / "mmlu", ROOT / "testdata" / "bbh"
LENGTHS = {"inputs": 512, "targets": 4}


@pytest.fixture(scope="module")
def vocabulary():
  return vocabulary_lib.load("flan_jax")


def made(kind, vocab_size):
  sizes = {
    "vocab_size": vocab_size, "emb_dim": 8, "num_heads": 1, "head_dim": 8,
    "mlp_dim": 8,
  }
  if kind == "decoder_only":
    return decoder.DecoderOnly(decoder.DecoderConfig(num_layers=1, **sizes))
  return t5.EncoderDecoder(
    t5.T5Config(num_encoder_layers=1, num_decoder_layers=1, **sizes)
  )


def save(model, folder, seed):
  saved = checkpoint.Checkpoints(folder / "checkpoints")
  params = model.init(jax.random.key(seed))
  saved.save(1, state.create(params, optimiser.adafactor(1e-3)), {"step": 1})
  saved.close()
  return saved.directory


@pytest.fixture(params=["encoder_decoder", "decoder_only"])
def settings(request, vocabulary, tmp_path):
  model = made(request.param, vocabulary.vocab_size)
  return {
    "initial_checkpoint_path": str(save(model, tmp_path / "run", seed=0)),
    "model": model,
    "vocabulary": vocabulary,
    "task_feature_lengths": LENGTHS,
    "output_dir": tmp_path / "out",
  }


def test_all_four_to_the_normalised_average(settings, tmp_path):
  path = evaluate_benchmarks.evaluate_benchmarks(
    **settings,
    benchmarks=("mmlu", "mmlu_cot", "bbh", "bbh_cot"),
    mmlu_dir=str(MMLU), bbh_dir=str(BBH),
  )
  rows = json.loads(path.with_suffix(".json").read_text())
  assert [r["name"] for r in rows] == [
    "mmlu", "mmlu_cot", "bbh", "bbh_cot", "normalised average",
  ]
  assert [(r["tasks"], r["n"]) for r in rows[:4]] == [(2, 5)] * 2 + [(4, 7)] * 2
  assert rows[0]["chance"] == 25.0
  # Two families of one task each, and one of 20 and 33.3 %.
  assert rows[2]["chance"] == pytest.approx((50 + 0 + (20 + 100 / 3) / 2) / 3)
  assert rows[4]["normalised"] == pytest.approx(
    np.mean([r["normalised"] for r in rows[:4]])
  )
  assert all(r["interval"][0] <= r["normalised"] <= r["interval"][1] for r in rows)
  assert path.read_text().count("\n| ") == 7
  for name in ("mmlu", "bbh_cot"):
    folder = tmp_path / "out" / name
    report = json.loads((folder / "report.json").read_text())
    result = Evaluation.from_json(report["after"])
    assert (folder / "report.html").is_file()
    # Every answer is read back, with the metrics of the report.
    answers = recorded.read(folder)
    assert set(answers) == set(result.tasks)
  assert answers["bbh_navigate"].metrics == ("final_answer",)
  # A second start goes on in the same folder.
  again = evaluate_benchmarks.evaluate_benchmarks(
    **settings,
    benchmarks=("mmlu", "mmlu_cot", "bbh", "bbh_cot"),
    mmlu_dir=str(MMLU), bbh_dir=str(BBH),
  )
  assert json.loads(again.with_suffix(".json").read_text()) == rows


def test_answers_of_other_parameters_under_the_same_path(settings, tmp_path):
  asked = {"benchmarks": ("mmlu",), "mmlu_dir": str(MMLU)}
  evaluate_benchmarks.evaluate_benchmarks(**settings, **asked)
  shutil.rmtree(tmp_path / "run")
  save(settings["model"], tmp_path / "run", seed=1)
  with pytest.raises(UserError, match="another checkpoint"):
    evaluate_benchmarks.evaluate_benchmarks(**settings, **asked)


def test_mmlu_s_score_is_the_letter_s_log_probability(settings):
  """Against one forward pass over the prompt, and the softmax of its end."""
  model, vocabulary = settings["model"], settings["vocabulary"]
  params = model.init(jax.random.key(1))
  rows = prompted.evaluation_set(
    mmlu.load(MMLU, shots=1), vocabulary=vocabulary, kind=model.kind,
    lengths=LENGTHS, batch_size=4,
  )
  examples = rows.examples["test"]
  letters = [int(vocabulary.encode(letter)[-1]) for letter in "ABCD"]
  assert len(set(letters)) == 4
  for scored in rank.rank(model, params, rows.plans(("test",))[0]):
    e = scored.example
    assert [c.tolist() for c in e.choices] == [[i] for i in letters]
    encoded = model.encode(params, e.inputs[None])
    every = np.arange(vocabulary.vocab_size)[None, :, None].astype(np.int32)
    log_probs = np.asarray(model.score(params, encoded, every))[0, :, 0]
    # Of id 0, padding for an encoder-decoder, no probability is asked.
    assert np.exp(log_probs[1:]).sum() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(scored.scores, log_probs[letters], atol=1e-5)
  last = examples[0].inputs[-1]
  assert (last == vocabulary.eos_id) == (model.kind == "encoder_decoder")


def test_exemplars_that_do_not_fit_are_left_out(vocabulary):
  questions = mmlu.load(MMLU)
  task, (first, *_) = next(iter(questions.items()))

  def shots(limit):
    rows = prompted.evaluation_set(
      {task: [first]}, vocabulary=vocabulary, kind="decoder_only",
      lengths={"inputs": limit, "targets": 4}, batch_size=1,
    )
    (example,) = rows.examples["test"]
    assert len(example.inputs) <= limit
    assert example.inputs_text.endswith("Answer:")
    return example.shots, len(example.inputs)

  five, length = shots(4096)
  assert five == 5
  assert shots(length) == (5, length)
  assert shots(length - 1)[0] == 4
  zero, shortest = 5, length
  while zero:
    zero, shortest = shots(shortest - 1)
  with pytest.raises(UserError, match=f"is {shortest} tokens long, but inputs"):
    shots(shortest - 1)


def test_letters_that_a_vocabulary_does_not_tell_apart(monkeypatch, vocabulary):
  monkeypatch.setattr(
    prompted.vocabulary_lib, "encode_batch", lambda _, texts: [[7]] * len(texts)
  )
  with pytest.raises(UserError, match="no token of its own for each of ' A', ' B'"):
    prompted.evaluation_set(
      mmlu.load(MMLU), vocabulary=vocabulary, kind="decoder_only",
      lengths=LENGTHS, batch_size=1,
    )


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"benchmarks": ("mmmlu",)}, "'mmmlu'; .* nearest is 'mmlu'"),
    ({"benchmarks": "mmlu"}, "BENCHMARKS is 'mmlu'; write some of"),
    ({"benchmarks": ("bbh", "bbh")}, "each once"),
    ({"benchmarks": ("mmlu",)}, "read from a local folder: --gin.MMLU_DIR="),
    ({"benchmarks": ("mmlu",), "mmlu_dir": "a", "bbh_dir": "b"}, "BBH_DIR='b' has no effect"),
    ({"benchmarks": ("bbh",), "bbh_dir": "b", "mmlu_shots": 0}, "MMLU_SHOTS=0 has no effect"),
  ],
)
def test_options_that_are_refused(given, message):
  with pytest.raises(UserError, match=message):
    evaluate_benchmarks.evaluate_benchmarks(
      initial_checkpoint_path="none", task_feature_lengths=LENGTHS, **given
    )


@pytest.mark.parametrize("name", ["eval_mmlu", "eval_bbh", "eval_flan_2022"])
def test_the_gin_files(name):
  flags = [("INITIAL_CHECKPOINT_PATH", "x")]
  flags += [("MMLU_DIR", "m")] * (name != "eval_bbh")
  flags += [("BBH_DIR", "b")] * (name != "eval_mmlu")
  loaded = config.load([f"gin/{name}.gin"], flags, [str(ROOT.parent)])
  known = evaluate_benchmarks.BENCHMARKS
  assert set(loaded.value("BENCHMARKS")) <= set(known)
  with pytest.raises(UserError, match="INITIAL_CHECKPOINT_PATH, which no file"):
    config.load([f"gin/{name}.gin"], flags[1:], [str(ROOT.parent)])


def test_bbh_is_asked_for_in_both_forms(vocabulary):
  direct, chain = (bbh.load(BBH, cot=cot) for cot in (False, True))
  for a, b in zip(direct.values(), chain.values(), strict=True):
    assert a[0].references == b[0].references
    assert a[0].query != b[0].query
