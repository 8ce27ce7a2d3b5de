"""T0, T0+ and T0++ run from their gin files to their reports."""

import json
import pathlib

import pytest

from flan_jax import config

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ("t0", "t0_plus", "t0_plus_plus")


def loaded(name, **changes):
  flags = [(macro, repr(value)) for macro, value in changes.items()]
  return config.load([f"gin/{name}.gin"], flags, [str(ROOT)])


@pytest.mark.parametrize("name", FILES)
def test_published_settings(name):
  found = loaded(name)
  assert found.value("MIXTURE_OR_TASK_NAME") == f"{name}_train"
  assert found.value("EVAL_MIXTURE_OR_TASK_NAME") == f"{name}_eval"
  lengths = found.value("TASK_FEATURE_LENGTHS")
  assert lengths == {"inputs": 1024, "targets": 256}
  assert found.value("INPUTS_EOS") is False
  assert found.value("LEARNING_RATE") == 0.001
  assert found.value("DROPOUT_RATE") == 0.1
  assert found.value("PACK") is True


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_twenty_steps(name, promptsource, real_tfds, tmp_path):
  job = loaded(
    name,
    P3_PROMPTS=str(promptsource),
    TFDS_DATA_DIR=str(real_tfds),
    MODEL_DIR=str(tmp_path / "run"),
    TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 32},
    EVAL_EXAMPLES=2,
    **{"t5.T5Config.emb_dim": 16, "t5.T5Config.mlp_dim": 16},
  )
  folder = config.call_job(job, ["test"])
  report = json.loads((folder / "report.json").read_text())
  trained = report["run"]["data"]["train"]["tasks"]
  assert all(t.startswith("t0_") for t in trained)
  assert "t0_trec_trec1" in trained
  assert ("t0_piqa_finish_sentence_with_correct_choice" in trained) == (
    name != "t0"
  )
  for when in ("before", "after"):
    found = report[when]["tasks"]
    assert set(found) == {"t0_super_glue_cb", "t0_super_glue_rte"}
    assert len(found["t0_super_glue_cb"]["templates"]) == 15
    assert len(found["t0_super_glue_rte"]["templates"]) == 10
    spread = found["t0_super_glue_cb"]["metrics"]["accuracy"]["spread"]
    assert spread["q1"] <= spread["median"] <= spread["q3"]
  assert report["before"]["score"] == "sum"
  assert len(report["curves"]) >= 2
  assert any("cos_e" in name for name in report["missing"])
  assert report["run"]["left_out"]["t0_trec_fine_grained_LOC"]["not_kept"] > 0
