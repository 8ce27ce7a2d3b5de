"""`evaluate.evaluate` from a checkpoint to the page, on the embedded sample."""

import json

import jax
import pytest

from flan_jax import evaluate
from flan_jax.data import catalogue
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval.evaluation import Evaluation
from flan_jax.models import t5
from flan_jax.training import checkpoint, optimiser, state


@pytest.fixture(scope="module")
def vocabulary():
  yield vocabulary_lib.load("flan_jax")
  catalogue.unregister()


@pytest.fixture
def settings(vocabulary, monkeypatch):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return {
    "eval_mixture_or_task_name": catalogue.registered_name("wnli"),
    "task_feature_lengths": {"inputs": 256, "targets": 32},
    "vocabulary": vocabulary,
    "model": t5.EncoderDecoder(
      t5.T5Config(
        vocab_size=vocabulary.vocab_size, emb_dim=8, num_heads=1, head_dim=8,
        mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1,
      )
    ),
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
