"""Prompt tuning end to end: a prompt on a frozen checkpoint, and what is kept."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from flan_jax import config, evaluated
from flan_jax.convert import bases, fingerprint, load, prompts, trees
from flan_jax.errors import UserError
from flan_jax.models.prefix import WithPrefix
from flan_jax.models.soft_prompt import KEY, SoftPrompt
from flan_jax.training import record, restore, writers
from tests.models import kinds

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = "gin/flan_holdout_nli.gin"
ADAPTER = "gin/adapters/soft_prompt.gin"
SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 16},
  "BATCH_SIZE": 4,
  "t5.T5Config.emb_dim": 16,
  "t5.T5Config.mlp_dim": 16,
  "TRAIN_STEPS": 2,
  "CHECKPOINT_PERIOD": 2,
  "EVAL_PERIOD": 2,
  "LOG_PERIOD": 1,
}
TUNED = {"PACK": False, "TRAIN_STEPS": 4, "LEARNING_RATE": 0.3}


def run(files, folder, **changes):
  values = {**SMALL, "MODEL_DIR": str(folder), **changes}
  flags = [(name, repr(value)) for name, value in values.items()]
  return config.call_job(config.load(files, flags, [str(ROOT)]), ["test"])


@pytest.fixture(scope="module")
def runs(sample_cache, tmp_path_factory):
  """Two bases, and a prompt tuned before the first of them."""
  folder = tmp_path_factory.mktemp("runs")
  run([BASE], folder / "base")
  run([BASE], folder / "other", RANDOM_SEED=1)
  run(
    [BASE, ADAPTER],
    folder / "prompt",
    INITIAL_CHECKPOINT_PATH=str(folder / "base"),
    **TUNED,
  )
  return folder


def test_the_base_is_bit_equal_and_the_checkpoint_holds_the_prompt_alone(runs):
  path, manifest = restore.find(runs / "prompt")
  arrays = manifest["arrays"]
  params = [n for n in arrays if n.startswith("params/")]
  assert params == ["params/soft_prompt/encoder/prompt"]
  slots = [n for n in arrays if n.startswith("opt_state/param_states/")]
  assert slots
  assert all("/soft_prompt/" in name for name in slots)
  size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
  assert size < 1_000_000
  opened, model, _ = evaluated.open_model(str(runs / "prompt"))
  assert isinstance(model, SoftPrompt)
  whole = trees.flatten(load.load_params(opened, model))
  base = trees.flatten(load.load_params(str(runs / "base"), model.base))
  assert whole.keys() - base.keys() == {"soft_prompt/encoder/prompt"}
  for name, array in base.items():
    np.testing.assert_array_equal(array, whole[name])
  losses = [
    row["train/loss"] for row in writers.read(runs / "prompt" / "metrics.jsonl")
    if "train/loss" in row
  ]
  assert len(losses) == 4
  started = SoftPrompt(model.base, model.length)
  assert model.described() == started.described()


def test_a_run_goes_on_where_it_was(runs, tmp_path):
  common = {
    "INITIAL_CHECKPOINT_PATH": str(runs / "base"),
    **TUNED,
  }
  run([BASE, ADAPTER], tmp_path / "parts", **{**common, "TRAIN_STEPS": 2})
  run([BASE, ADAPTER], tmp_path / "parts", **common)
  whole = prompts.read(runs / "prompt")["encoder"]
  np.testing.assert_array_equal(
    prompts.read(tmp_path / "parts")["encoder"], whole
  )
  manifest = tmp_path / "parts" / "checkpoints" / "checkpoint_4"
  assert manifest.is_dir()
  shutil.move(tmp_path / "parts", tmp_path / "moved")
  with pytest.raises(UserError, match="another checkpoint"):
    run(
      [BASE, ADAPTER],
      tmp_path / "moved",
      RESUME_CHANGED=True,
      **{**common, "INITIAL_CHECKPOINT_PATH": str(runs / "other")},
    )


def test_another_base_or_none_is_refused(runs, tmp_path):
  prompt = str(runs / "prompt")
  (runs / "base").rename(tmp_path / "base")
  try:
    with pytest.raises(UserError, match="which is not there"):
      evaluated.open_model(prompt)
    shutil.copytree(runs / "other", runs / "base")
    opened, model, _ = evaluated.open_model(prompt)
    other = fingerprint.fingerprint(
      load.load_params(str(runs / "other"), model.base)
    )
    with pytest.raises(UserError, match=f"has {other}, so that it is another"):
      load.load_params(opened, model)
  finally:
    shutil.rmtree(runs / "base", ignore_errors=True)
    (tmp_path / "base").rename(runs / "base")
  # Another task's prompt (SPoT) fits the model that it was trained before.
  spot = {"PROMPT_INIT": "saved", "PROMPT_PATH": str(runs / "prompt")}
  with pytest.raises(UserError, match="A prompt fits the model"):
    run(
      [BASE, ADAPTER],
      tmp_path / "spot",
      INITIAL_CHECKPOINT_PATH=str(runs / "other"),
      **{**TUNED, **spot},
    )
  run(
    [BASE, ADAPTER],
    tmp_path / "spot_2",
    INITIAL_CHECKPOINT_PATH=str(runs / "base"),
    **{**TUNED, **spot, "TRAIN_STEPS": 1},
  )
  begun = prompts.read(tmp_path / "spot_2")["encoder"]
  was = prompts.read(runs / "prompt")["encoder"]
  assert 0 < np.abs(begun - was).max() < 0.5


def test_norms_alone_are_trained_by_a_regex(runs, tmp_path):
  run(
    [BASE],
    tmp_path,
    INITIAL_CHECKPOINT_PATH=str(runs / "base"),
    TRAINABLE=r".*_norm/scale",
  )
  opened, model, _ = evaluated.open_model(str(tmp_path))
  whole = trees.flatten(load.load_params(opened, model))
  base = trees.flatten(load.load_params(str(runs / "base"), model))
  for name, array in base.items():
    same = bool(jax.numpy.array_equal(array, whole[name]))
    assert same != name.endswith("_norm/scale"), name


def test_a_prefix_of_every_layer_is_trained_before_packed_rows(runs, tmp_path):
  run(
    [BASE, "gin/adapters/prefix.gin"],
    tmp_path,
    INITIAL_CHECKPOINT_PATH=str(runs / "base"),
    PREFIX_LENGTH=3,
  )
  _, manifest = restore.find(tmp_path)
  params = [n for n in manifest["arrays"] if n.startswith("params/")]
  assert all(n.startswith("params/prefix/") for n in params)
  opened, model, _ = evaluated.open_model(str(tmp_path))
  assert isinstance(model, WithPrefix)
  assert model.options.length == 3
  whole = load.load_params(opened, model)
  started = trees.flatten(model.initial(jax.random.key(0)))
  trained = trees.flatten(whole.pop("prefix"))
  assert len(params) == len(trained)
  for name, array in trained.items():
    assert not np.array_equal(array, started[name]), name
  base = trees.flatten(load.load_params(str(runs / "base"), model.base))
  for name, array in trees.flatten(whole).items():
    np.testing.assert_array_equal(array, base[name])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"TRAINABLE": "soft_promt/.*"}, "nearest are soft_prompt/encoder/prompt"),
    ({"TRAINABLE": ".*"}, "matches all"),
    ({"TRAINABLE": "("}, "no regular expression"),
    ({"PACK": True}, "set PACK = False"),
    ({"INITIAL_CHECKPOINT_PATH": None}, "name the checkpoint"),
  ],
)
def test_what_is_refused(runs, tmp_path, changes, message):
  given = {
    "INITIAL_CHECKPOINT_PATH": str(runs / "base"),
    **TUNED,
    **changes,
  }
  with pytest.raises(UserError, match=message):
    run([BASE, ADAPTER], tmp_path, **given)


def test_the_report_says_what_the_vectors_are_near(runs):
  near = json.loads((runs / "prompt" / "prompt.json").read_text())["encoder"]
  _, model, vocabulary = evaluated.open_model(str(runs / "prompt"))
  assert len(near) == model.length
  params = load.load_params(str(runs / "prompt"), model)
  table = np.asarray(model.embedding(params))
  table = table / np.linalg.norm(table, axis=1, keepdims=True)
  for vector, found in zip(model.vectors(params)["encoder"][0], near, strict=True):
    vector = np.asarray(vector)
    cosine = table @ vector / np.linalg.norm(vector)
    assert found[0]["cosine"] == pytest.approx(cosine.max(), abs=1e-3)
    assert found[0]["text"] == vocabulary.decode([found[0]["id"]])
  page = (runs / "prompt" / "report.html").read_text()
  assert "<h2>Soft prompt, encoder</h2>" in page


def test_two_checkpoints_are_compared(runs, tmp_path):
  values = {
    **{n: x for n, x in SMALL.items() if not n.endswith("NAME")},
    **TUNED,
    "TRAIN_STEPS": 1,
    "EVAL_PERIOD": 1,
    "EVAL_EXAMPLES": 2,
    "TASKS": ("sst2_template_0",),
    "SEEDS": (0,),
    "BASE_CHECKPOINT_PATH": str(runs / "base"),
    "TUNED_CHECKPOINT_PATH": str(runs / "other"),
    "OUTPUT_DIR": str(tmp_path),
    "VOCABULARY_PATH": "flan_jax",
    **{"PROMPT_PREFIX": "", "PROMPT_SUFFIX": "", "INPUTS_EOS": True},
  }
  files = [
    "gin/prompt_tuning_flan_vs_base.gin",
    "gin/models/t5_1_1_tiny.gin",
  ]
  flags = [(name, repr(value)) for name, value in values.items()]

  def compare():
    loaded = config.load(files, flags, [str(ROOT)])
    return config.call_job(loaded, ["test"])

  page = compare()
  value = json.loads((tmp_path / "comparison.json").read_text())
  base, tuned = value["runs"]
  assert (base["checkpoint"], tuned["checkpoint"]) == ("base", "tuned")
  (mean,) = value["means"]
  assert mean["difference"] == pytest.approx(tuned["after"] - base["after"])
  assert mean["base_sd"] is None
  assert "tuned: sst2_template_0, seed 0, encoder" in value["nearest_tokens"]
  assert "<h2>Runs</h2>" in page.read_text()
  began = record.lineage(base["folder"]), record.lineage(tuned["folder"])
  for name, (run_of, before) in zip(("base", "other"), began, strict=True):
    assert run_of.began_from == str(runs / name)
    assert before.began_from is None
  # What is done is not done again.
  log = tmp_path / "sst2_template_0" / "base_0" / "metrics.jsonl"
  before = log.stat().st_mtime_ns
  compare()
  assert log.stat().st_mtime_ns == before
  values["TUNED_CHECKPOINT_PATH"] = values["BASE_CHECKPOINT_PATH"]
  flags[:] = [(name, repr(value)) for name, value in values.items()]
  with pytest.raises(UserError, match="give two checkpoints"):
    compare()


def test_a_prompt_that_leaves_no_room_is_refused():
  model = SoftPrompt(kinds.tiny("decoder_only")[0], 100)
  lengths, said = {"inputs": 64, "targets": 16}, {}
  bases.check_room(model, lengths, said)
  said["max_position_embeddings"] = 180
  bases.check_room(model, lengths, said)
  said["max_position_embeddings"] = 128
  with pytest.raises(UserError, match="leave 12 of the model's 128 positions"):
    bases.check_room(model, lengths, said)


def test_the_manifest_says_what_it_is_of(runs):
  manifest = json.loads(
    (restore.find(runs / "prompt")[0] / "manifest.json").read_text()
  )["manifest"]["extra"]
  assert manifest["adapter"]["kind"] == KEY
  assert manifest["trainable"] == "soft_prompt/.*"
  assert len(manifest["base"]["fingerprint"]) == 8
