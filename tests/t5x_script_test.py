"""T5X itself on our mixtures, and checkpoints that go from one to the other.

The tests that run T5X are skipped where it is not installed
(`bash launch/t5x.sh`).
"""

import doctest
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from flan_jax import t5x_script
from flan_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = "gin/t5x/flan_holdout_nli.gin"
SEARCH = [str(ROOT)]
# Steps between rows of T5X's log.
PERIOD = 4
NEEDS_T5X = pytest.mark.skipif(
  importlib.util.find_spec("t5x") is None, reason="needs T5X: launch/t5x.sh"
)


def launch(*words, cwd=ROOT, **env):
  return subprocess.run(
    [sys.executable, str(ROOT / "launch" / "run.py"), *words],
    cwd=cwd,
    env={**os.environ, **env},
    capture_output=True,
    text=True,
    timeout=900,
  )


@pytest.mark.parametrize(
  ("file", "name"),
  [
    (TRAIN, "train"),
    ("gin/t5x/flan_holdout_nli_eval.gin", "eval"),
    ("gin/t5x/flan_holdout_nli_infer.gin", "infer"),
    # T5X's own file, which need not be here.
    ("t5x/configs/runs/pretrain.gin", "train"),
    ("gin/flan_holdout_nli.gin", None),
    ("gin/not_there.gin", None),
  ],
)
def test_the_run_file_says_which_program_it_is(file, name):
  assert t5x_script.script([file], SEARCH) == name


def test_other_programs_and_two_at_once_are_refused():
  with pytest.raises(UserError, match="are for T5X's eval, train"):
    t5x_script.script([TRAIN, "gin/t5x/flan_holdout_nli_eval.gin"], SEARCH)
  with pytest.raises(UserError, match="are for T5X's export"):
    t5x_script.script(["t5x/configs/runs/export.gin"], SEARCH)


def test_every_size_is_layered_over_the_training_job():
  sizes = sorted((ROOT / "gin" / "t5x").glob("t5_1_1_*.gin"))
  assert len(sizes) == 6
  for path in sizes:
    size = path.stem.removeprefix("t5_1_1_")
    text = path.read_text()
    # T5X has no file of our tiny model.
    own = {"tiny": "base"}.get(size, size)
    assert f"include 't5x/examples/t5/t5_1_1/{own}.gin'" in text
    assert re.search(r"^DROPOUT_RATE = 0\.[01]$", text, re.MULTILINE)


def test_the_command_is_printed_and_a_plan_is_refused(tmp_path):
  done = launch(f"--gin_file={TRAIN}", "--gin.MODEL_DIR=/a b", "--dry_run")
  assert done.returncode == 0, done.stderr
  assert f"-m t5x.train --gin_file={TRAIN}" in done.stdout
  assert "/a b" in done.stdout
  done = launch(f"--gin_file={TRAIN}", "--plan")
  assert done.returncode == 2
  assert "--plan compiles our own step" in done.stderr


def test_without_t5x_one_error_says_how_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  words = t5x_script.command("train", [TRAIN], [], SEARCH)
  with pytest.raises(UserError, match=r"launch/t5x\.sh.*google-research/t5x"):
    t5x_script.run(words)
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "chex" else 1
  )
  with pytest.raises(UserError, match="T5X is installed, but not chex"):
    t5x_script.run(words)


def test_what_runs_is_the_program_with_the_flags(monkeypatch):
  called = []
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: 1)
  monkeypatch.setattr(os, "execve", lambda *words: called.append(words))
  flags = [("MODEL_DIR", "gs://b/r"), ("TRAIN_STEPS", "20")]
  t5x_script.run(
    t5x_script.command("train", [TRAIN], flags, SEARCH), environment={"A": "1"}
  )
  ((path, words, env),) = called
  assert path == words[0] == sys.executable
  assert words[1:3] == ["-m", "t5x.train"]
  assert "--gin.MODEL_DIR='gs://b/r'" in words
  assert "--gin.TRAIN_STEPS=20" in words
  assert env == {"A": "1"}


def test_examples_in_docstrings():
  from flan_jax.data import t5x_input

  for module in (t5x_script, t5x_input):
    assert doctest.testmod(module).failed == 0


def test_what_t5x_is_given_is_registered(sample_dir, monkeypatch):
  import seqio

  from flan_jax.data import catalogue, t5x_input, vocabulary

  before = seqio.set_tfds_data_dir_override.__globals__.get(
    "_TFDS_DATA_DIR_OVERRIDE"
  )
  try:
    monkeypatch.setenv("TFDS_DATA_DIR", str(sample_dir))
    name = t5x_input.mixture("flan_holdout_nli_train", vocabulary.load())
    assert name == "flan_holdout_nli_train"
    # Of one dataset that is there, and none of the others.
    some = sample_dir.parent / "some"
    some.mkdir()
    (some / "wiki_lingua").mkdir()
    (some / "glue").symlink_to(sample_dir / "glue")
    monkeypatch.setenv("TFDS_DATA_DIR", str(some))
    with pytest.raises(UserError, match="datasets are not prepared"):
      t5x_input.mixture("flan_holdout_nli_train", vocabulary.load())
    for _ in range(2):
      name = t5x_input.mixture(
        "flan_holdout_nli_train", vocabulary.load(), missing_datasets="skip"
      )
      assert name == "flan_holdout_nli_train_prepared"
      tasks = seqio.get_mixture_or_task(name).tasks
      assert {t.name for t in tasks} == {"flan_sst2", "flan_cola"}
      assert all(t.metric_fns == [t5x_input.exact_match] for t in tasks)
  finally:
    seqio.MixtureRegistry.remove("flan_holdout_nli_train_prepared")
    catalogue.unregister()
    seqio.set_tfds_data_dir_override(before)


# ------------------------------------------------------------- T5X for real


def t5x(file, cache, *flags):
  """One of T5X's programs, by launch/run.py."""
  env = {"FLAN_JAX_CACHE": str(cache), "TFDS_DATA_DIR": ""}
  done = launch(f"--gin_file={file}", *flags, cwd=ROOT, **env)
  assert done.returncode == 0, done.stderr[-4000:]


def t5x_trains(cache, folder, steps, *flags):
  t5x(
    TRAIN,
    cache,
    f"--gin.MODEL_DIR={folder}",
    f"--gin.TRAIN_STEPS={steps}",
    f"--gin.EVAL_PERIOD={PERIOD}",
    f"--gin.utils.SaveCheckpointConfig.period={PERIOD}",
    "--gin.train/utils.DatasetConfig.seed=0",
    *flags,
  )
  return losses(folder)


def losses(folder):
  """Step -> loss of a batch, mean of `PERIOD` steps; as T5X logs it."""
  from tensorboard.backend.event_processing import event_file_loader
  from tensorboard.util import tensor_util

  found = {}
  for path in sorted((folder / "train").glob("events*")):
    for event in event_file_loader.EventFileLoader(str(path)).Load():
      for value in event.summary.value:
        if value.tag == "loss":
          found[event.step] = float(tensor_util.make_ndarray(value.tensor))
  return found


def ours():
  from flan_jax.models import t5
  from flan_jax.training import optimiser

  config = t5.T5Config(
    vocab_size=4096,
    emb_dim=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=256,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.0,
  )
  return t5.EncoderDecoder(config), optimiser.adafactor(0.01)


def we_train(state, batches):
  """Our step on T5X's batches: the state after, and the loss of each."""
  import jax

  from flan_jax.training import loss, step

  model, optimiser = ours()
  config = loss.LossConfig(1e-4, 0.0, None)

  @jax.jit
  def take(state, batch):
    return step.train_step(
      state, batch, model=model, optimiser=optimiser, loss_config=config
    )

  found = []
  for batch in batches:
    state, metrics = take(state, batch)
    found.append(float(metrics["loss"]))
  return state, found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """T5X's run of 24 steps: its folder, losses, and the cache of the data."""
  folder = tmp_path_factory.mktemp("t5x")
  cache = tmp_path_factory.mktemp("cache")
  return folder / "run", t5x_trains(cache, folder / "run", 24), cache


@pytest.fixture
def batches(trained, monkeypatch):
  """(mixture, number) -> the batches that T5X trains on, by its own code."""
  import seqio

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from t5x import models, utils

  from flan_jax.data import catalogue, t5x_input, vocabulary

  monkeypatch.setenv("FLAN_JAX_CACHE", str(trained[2]))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)

  def first(mixture, number):
    name = t5x_input.mixture(
      mixture, vocabulary.load(), missing_datasets="skip"
    )
    config = utils.DatasetConfig(
      mixture_or_task_name=name,
      task_feature_lengths={"inputs": 256, "targets": 64},
      split="train",
      batch_size=16,
      shuffle=True,
      seed=0,
      pack=True,
    )
    converter = models.EncoderDecoderModel.FEATURE_CONVERTER_CLS
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      dataset = utils.get_dataset(config, 0, 1, converter)
    return list(dataset.take(number).as_numpy_iterator())

  yield first
  catalogue.unregister()
  seqio.set_tfds_data_dir_override(None)


@NEEDS_T5X
@pytest.mark.slow
def test_t5x_trains_on_our_mixture(trained):
  folder, found, _ = trained
  assert sorted(found) == [4, 8, 12, 16, 20, 24]
  assert found[24] < 0.9 * found[4]
  assert (folder / "checkpoint_20").is_dir()


@NEEDS_T5X
@pytest.mark.slow
def test_a_run_of_t5x_goes_on_under_our_trainer(trained, batches):
  import jax

  from flan_jax.convert import optimiser_state

  folder, found, _ = trained
  state = optimiser_state.read_state(folder / "checkpoint_20", *ours())
  assert int(state.step) == 20
  taken = batches("flan_holdout_nli_train", 24)
  state, losses = we_train(state, taken[20:])
  np.testing.assert_allclose(np.mean(losses), found[24], rtol=1e-4)
  theirs = optimiser_state.read_state(folder / "checkpoint_24", *ours())
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(theirs.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=2e-4)


@NEEDS_T5X
@pytest.mark.slow
def test_a_run_of_ours_goes_on_under_t5x(trained, batches, tmp_path):
  from flan_jax.convert import optimiser_state
  from flan_jax.training import state as state_lib

  model, optimiser = ours()
  import jax

  state = state_lib.create(model.init(jax.random.key(3)), optimiser)
  taken = batches("flan_sst2", 4)
  state, _ = we_train(state, taken)
  start = optimiser_state.write_state(tmp_path / "checkpoint_4", state)
  _, losses = we_train(state, taken)
  found = t5x_trains(
    trained[2],
    tmp_path / "run",
    8,
    f"--gin.INITIAL_CHECKPOINT_PATH={start}",
    "--gin.MIXTURE_OR_TASK_NAME=flan_sst2",
  )
  assert sorted(found) == [8]
  np.testing.assert_allclose(found[8], np.mean(losses), rtol=1e-4)


@NEEDS_T5X
@pytest.mark.slow
def test_t5x_answers_with_a_converted_checkpoint(trained, tmp_path):
  model, _ = ours()
  import jax

  from flan_jax.convert import t5x as t5x_format
  from flan_jax.convert import trees

  params = trees.flatten(model.init(jax.random.key(0)))
  path = t5x_format.write_t5x(tmp_path / "checkpoint_0", params.items())
  for program in ("eval", "infer"):
    t5x(
      f"gin/t5x/flan_holdout_nli_{program}.gin",
      trained[2],
      f"--gin.CHECKPOINT_PATH={path}",
      f"--gin.{program.upper()}_OUTPUT_DIR={tmp_path / program}",
      "--gin.MIXTURE_OR_TASK_NAME=flan_wnli",
    )
  answers = list((tmp_path / "infer").glob("flan_wnli-predict.jsonl-00000*"))
  rows = [
    json.loads(line)
    for path in answers
    if path.suffix != ".COMPLETED"
    for line in path.read_text().splitlines()
  ]
  assert rows
  assert all({"inputs", "prediction"} <= {*row} for row in rows)
  (metrics,) = (tmp_path / "eval").rglob("*metrics.jsonl")
  assert "exact_match" in json.loads(metrics.read_text().splitlines()[-1])
