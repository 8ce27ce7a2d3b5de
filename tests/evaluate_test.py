"""`evaluate.evaluate` from a checkpoint to the page, on the embedded sample."""

import json

import jax
import pytest

from flan_jax import evaluate
from flan_jax.data import catalogue
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.models import decoder, t5
from flan_jax.training import checkpoint, optimiser, state


@pytest.fixture(scope="module")
def vocabulary():
  yield vocabulary_lib.load("flan_jax")
  catalogue.unregister()


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


@pytest.fixture(params=["encoder_decoder", "decoder_only"])
def settings(request, vocabulary, monkeypatch):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return {
    "eval_mixture_or_task_name": catalogue.registered_name("wnli"),
    "task_feature_lengths": {"inputs": 256, "targets": 32},
    "vocabulary": vocabulary,
    "model": made(request.param, vocabulary.vocab_size),
    "eval_examples": 4,
    "batch_size": 8,
  }


def test_from_checkpoint_to_page(settings, tmp_path):
  params = settings["model"].init(jax.random.key(0))
  saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
  saved.save(3, state.create(params, optimiser.adafactor(1e-3)), {"step": 3})
  saved.close()
  page = evaluate.evaluate(
    **settings,
    initial_checkpoint_path=str(saved.directory),
    output_dir=tmp_path / "out",
  )
  assert page == tmp_path / "out" / "report.html"
  value = json.loads((tmp_path / "out" / "report.json").read_text())
  result = Evaluation.from_json(value["after"])
  templates = catalogue.get("wnli").rankable_templates
  assert result.tasks["wnli"].rows == 4
  assert result.tasks["wnli"].templates == templates
  lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
  assert len(lines) == result.examples == 2 * 4 * len(templates)


def test_a_checkpoint_that_is_not_there(settings, tmp_path):
  with pytest.raises(UserError, match="nothing"):
    evaluate.evaluate(
      **settings,
      initial_checkpoint_path=str(tmp_path / "nothing"),
      output_dir=tmp_path / "out",
    )
  assert not (tmp_path / "out").exists()


def test_a_vocabulary_larger_than_the_embedding(settings, tmp_path):
  settings["model"] = made(settings["model"].kind, 4000)
  with pytest.raises(UserError, match="4,096 ids, the model's embedding 4,000"):
    evaluate.evaluate(
      **settings,
      initial_checkpoint_path=str(tmp_path),
      output_dir=tmp_path / "out",
    )


def test_answers_by_ranking_and_generation(settings, tmp_path):
  """Both at once; the inputs of a decoder begin with its begin id."""
  model = settings["model"]
  rows = EvaluationSet.prepare(
    [catalogue.get("wnli"), catalogue.get("e2e_nlg")],
    vocabulary=settings["vocabulary"],
    lengths={"inputs": 256, "targets": 8},
    batch_size=8, max_examples=2, splits=("test",), kind=model.kind,
  )
  begun = model.kind == "decoder_only"
  for example in rows.examples["test"]:
    assert (example.inputs[0] == 0) == begun
  params = model.init(jax.random.key(0))
  result = evaluate.evaluate_tasks(model, params, rows)
  assert set(result.tasks) == {"wnli", "e2e_nlg"}
  lines = tmp_path / "predictions.jsonl"
  again = evaluate.evaluate_tasks(
    model, params, rows, predictions=lines, splits=("test",)
  )
  assert again.headline == result.headline
  kinds = {type(json.loads(x)["prediction"]) for x in lines.open()}
  assert kinds == {int, str}
