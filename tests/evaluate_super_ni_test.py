"""Super-NaturalInstructions from checkpoint to table."""

import json

import jax
import pytest

from flan_jax import config, evaluate_super_ni
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.models import t5
from flan_jax.training import checkpoint, optimiser, state
from tests.conftest import ROOT
from tests.eval.super_ni_test import TASK, write  # noqa: F401


@pytest.fixture
def settings(tmp_path):
  vocabulary = vocabulary_lib.load("flan_jax")
  model = t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=vocabulary.vocab_size, emb_dim=8, num_heads=1, head_dim=8,
      mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1,
    )
  )
  saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
  params = model.init(jax.random.key(0))
  saved.save(1, state.create(params, optimiser.adafactor(1e-3)), {"step": 1})
  saved.close()
  return {
    "initial_checkpoint_path": str(saved.directory),
    "model": model,
    "vocabulary": vocabulary,
    "task_feature_lengths": {"inputs": 128, "targets": 4},
    "output_dir": tmp_path / "out",
  }


def test_from_checkpoint_to_table(settings, write):  # noqa: F811
  folder = write(track="xlingual")
  path = evaluate_super_ni.evaluate_super_ni(
    **settings, super_ni_dir=str(folder), track="xlingual"
  )
  rows = json.loads(path.with_suffix(".json").read_text())
  assert [r["category"] for r in rows] == ["all", "Textual Entailment"]
  assert rows[0]["n"] == 2
  assert rows[0]["rouge_l_interval"][0] <= rows[0]["rouge_l"]
  assert "Track xlingual, means over instances." in path.read_text()
  assert (settings["output_dir"] / "report.html").is_file()


def test_options_that_are_refused(settings, write, tmp_path):  # noqa: F811
  run = evaluate_super_ni.evaluate_super_ni
  folder = str(write())
  with pytest.raises(UserError, match="SUPER_NI_TOKENIZER='x' has no effect"):
    run(**settings, super_ni_dir=folder, tokenizer="x")
  with pytest.raises(UserError, match="'x' is no tokenizer.json"):
    run(**settings, super_ni_dir=folder, track="xlingual", tokenizer="x")
  with pytest.raises(UserError, match="is no checkout of natural-instructions"):
    run(**settings, super_ni_dir=str(tmp_path / "none"))


def test_the_gin_file():
  flags = [("INITIAL_CHECKPOINT_PATH", "x"), ("SUPER_NI_DIR", TASK["Categories"][0])]
  loaded = config.load(["gin/eval_super_ni.gin"], flags, [str(ROOT)])
  assert loaded.value("SUPER_NI_TRACK") == "default"
  with pytest.raises(UserError, match="SUPER_NI_DIR, which no file defines"):
    config.load(["gin/eval_super_ni.gin"], flags[:1], [str(ROOT)])
