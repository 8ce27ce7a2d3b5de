"""The main job: end to end, killed and started again, and refused."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest

from flan_jax import config
from flan_jax.errors import UserError
from flan_jax.training import writers

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOB = "gin/flan_holdout_nli.gin"
# One small task and a two-layer model: the code of the main job, in seconds.
SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 64},
  "BATCH_SIZE": 4,
  "TRAIN_STEPS": 12,
  "CHECKPOINT_PERIOD": 3,
  "EVAL_PERIOD": 6,
  "DROPOUT_RATE": 0.1,
  "t5.T5Config.emb_dim": 16,
}


def flags(directory, **changes):
  values = {**SMALL, "MODEL_DIR": str(directory), **changes}
  return [(name, repr(value)) for name, value in values.items()]


def run(directory, **changes):
  loaded = config.load([JOB], flags(directory, **changes), [str(ROOT)])
  return config.call_job(loaded, ["test"])


def command(directory, **changes):
  words = [f"--gin.{n}={v}" for n, v in flags(directory, **changes)]
  return [sys.executable, "launch/run.py", f"--gin_file={JOB}", *words]


def parameters(directory, step):
  from flan_jax.training import checkpoint

  params = checkpoint.restore_params(
    directory / "checkpoints" / f"checkpoint_{step}"
  )
  import jax

  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


def assert_bit_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.usefixtures("sample_cache")
def test_held_out_tasks_are_asked_in_the_mixture_s_form(tmp_path):
  folder = run(
    tmp_path / "run",
    EVAL_MIXTURE_OR_TASK_NAME="flan_wnli_2_shot",
    EVAL_EXAMPLES=1,
    TRAIN_STEPS=1,
    TASK_FEATURE_LENGTHS={"inputs": 300, "targets": 64},
    SHOT_ANSWER=" ANSWERED ",
  )
  lines = (folder / "predictions" / "step_1.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert len(rows) > 10
  shots = {r["inputs_text"].count(" ANSWERED ") for r in rows}
  assert max(shots) == 2, shots
  assert min(shots) > 0, shots


@pytest.mark.slow
@pytest.mark.usefixtures("sample_cache")
def test_killed_anywhere_it_ends_with_the_same_bits(tmp_path):
  plain, killed = tmp_path / "plain", tmp_path / "killed"
  # Seven tasks of seven clusters: mixing, packing, templates drawn anew.
  main = {
    "MIXTURE_OR_TASK_NAME": "flan_tasks_per_cluster_1_train",
    "TASK_FEATURE_LENGTHS": {"inputs": 256, "targets": 64},
  }
  run(plain, **main)
  # Two kills at random moments.
  seed = int(os.environ.get("KILL_SEED", time.time()))
  dice = random.Random(seed)
  kills = 0
  for _ in range(2):
    process = subprocess.Popen(
      command(killed, **main), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    stop_at = dice.randint(1, 11)
    for line in process.stdout:
      # The folder's own log tells the step before the display does.
      if line.startswith(("step ", "going on")):
        break
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
      rows = writers.read(killed / "metrics.jsonl")
      if rows and rows[-1]["step"] >= stop_at:
        break
      time.sleep(0.01)
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
      kills += 1
    process.wait()
  subprocess.run(command(killed, **main), cwd=ROOT, check=True)
  assert kills >= 1, f"KILL_SEED={seed}: no kill found the run at work"
  assert_bit_equal(parameters(plain, 12), parameters(killed, 12))
  curves = [
    [
      (row["step"], row["train/loss"])
      for row in writers.read(folder / "metrics.jsonl")
      if "train/loss" in row
    ]
    for folder in (plain, killed)
  ]
  assert curves[0] == curves[1], f"KILL_SEED={seed}"


@pytest.mark.usefixtures("sample_cache")
def test_run_learns_and_leaves_what_it_says(tmp_path, capsys):
  folder = run(
    tmp_path / "run",
    EVAL_MIXTURE_OR_TASK_NAME="flan_cb",
    TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 64},
    TRAIN_STEPS=30,
    EVAL_PERIOD=15,
  )
  rows = writers.read(folder / "metrics.jsonl")
  losses = [row["train/loss"] for row in rows if "train/loss" in row]
  assert len(losses) == 30
  assert losses[-1] < 0.8 * losses[0]
  assert {"validation/loss", "eval/cb/accuracy_mean"} <= set(rows[-1])
  assert (folder / "checkpoints" / "checkpoint_30" / "manifest.json").exists()
  assert list((folder / "tensorboard").glob("events*"))
  page = (folder / "report.html").read_text()
  assert "CB" in page
  assert "http" not in page.replace("http://www.w3.org", "")
  answers = [
    json.loads(line)
    for line in (folder / "predictions" / "step_30.jsonl").open()
  ]
  assert {a["template"] for a in answers if a["split"] == "test"} == set(
    range(8)
  )
  record = json.loads((folder / "run.json").read_text())
  assert record["data"]["source"] == "sample"
  out = capsys.readouterr().out
  for said in ("embedded sample", "held-out results", "report.html", "left"):
    assert said in out

  # The same command again has nothing left to do and says so.
  again = run(
    tmp_path / "run",
    EVAL_MIXTURE_OR_TASK_NAME="flan_cb",
    TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 64},
    TRAIN_STEPS=30,
    EVAL_PERIOD=15,
  )
  assert again == folder
  assert "going on with this run from step 30" in capsys.readouterr().out
  # Another configuration is another run.
  with pytest.raises(UserError, match=r"another run.*\n.*DROPOUT_RATE: 0.1"):
    run(
      tmp_path / "run",
      EVAL_MIXTURE_OR_TASK_NAME="flan_cb",
      TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 64},
      TRAIN_STEPS=30,
      EVAL_PERIOD=15,
      DROPOUT_RATE=0.2,
    )


@pytest.mark.usefixtures("sample_cache")
@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"TRAIN_STEPS": 0}, "TRAIN_STEPS is 0"),
    ({"BATCH_SIZE": 0}, "BATCH_SIZE is 0"),
    ({"MICROBATCHES": 3}, "BATCH_SIZE 4 does not divide"),
    ({"MICROBATCHES": 0}, "MICROBATCHES is 0"),
    ({"EVAL_EXAMPLES": 0}, "EVAL_EXAMPLES is 0"),
    ({"TASK_FEATURE_LENGTHS": 256}, "TASK_FEATURE_LENGTHS is 256"),
    ({"MIXTURE_OR_TASK_MODULE": "no.such"}, "'no.such' cannot be imported"),
    ({"t5.T5Config.vocab_size": 128}, "the vocabulary has 4,096 ids"),
    (
      {"MIXTURE_OR_TASK_NAME": "flan_holdout_nil_train"},
      "the nearest is 'flan_holdout_nli_train'",
    ),
    ({"TFDS_DATA_DIR": "/nowhere/tfds"}, "is not a folder"),
    ({"MISSING_DATASETS": "ignore"}, "'error' or 'skip'"),
    (
      {"TASK_FEATURE_LENGTHS": {"inputs": 4, "targets": 8}},
      "(?s)sst2.*4",
    ),
    ({"INITIAL_CHECKPOINT_PATH": "/nowhere/ckpt"}, "INITIAL_CHECKPOINT_PATH"),
    ({"Z_LOSS": -1.0}, "Z_LOSS is -1"),
    ({"PROFILE_STEPS": (5, 20)}, r"PROFILE_STEPS is \(5, 20\).*\(12\)"),
    ({"GRACE_SECONDS": 0}, "GRACE_SECONDS is 0"),
    ({"CHECKPOINT_KEEP_PERIOD": 4}, "The nearest are 3 and 6"),
    (
      {"RESUME_CHANGED": True, "MODEL_DIR": None},
      "RESUME_CHANGED has no effect without MODEL_DIR",
    ),
  ],
)
def test_refused_in_one_sentence(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    run(tmp_path / "run", **changes)


@pytest.mark.usefixtures("sample_cache")
def test_a_run_is_the_start_of_another(tmp_path):
  first = run(tmp_path / "first")
  # Another optimiser, and the first run's folder as the initial checkpoint.
  loaded = config.load(
    [JOB, "gin/optimisers/adamw.gin"],
    flags(
      tmp_path / "second",
      INITIAL_CHECKPOINT_PATH=str(first),
      LEARNING_RATE=1e-3,
      WARMUP_STEPS=2,
    ),
    [str(ROOT)],
  )
  second = config.call_job(loaded, ["test"])
  ends, starts = (
    [r["train/loss"] for r in writers.read(d / "metrics.jsonl")
     if "train/loss" in r]
    for d in (first, second)
  )
  assert starts[0] < 0.97 * ends[0]
  with pytest.raises(UserError, match="at step 12 already, beyond"):
    run(tmp_path / "first", TRAIN_STEPS=6)


@pytest.mark.usefixtures("sample_cache")
def test_another_vocabulary_in_the_mixture_is_refused():
  import seqio

  from flan_jax.data import catalogue, mixtures, vocabulary

  catalogue.register()
  resolved = mixtures.Resolved(
    seqio.TaskRegistry.get("flan_sst2"), ("flan_sst2",), (), {}, {}
  )
  mixtures.check_vocabulary(resolved, vocabulary.load())
  with pytest.raises(UserError, match="'flan_sst2': its inputs are made with"):
    mixtures.check_vocabulary(resolved, seqio.ByteVocabulary())


@pytest.mark.usefixtures("sample_cache")
def test_empty_data_directory_names_what_to_prepare(tmp_path):
  (tmp_path / "tfds").mkdir()
  with pytest.raises(UserError) as e:
    run(
      tmp_path / "run",
      TFDS_DATA_DIR=str(tmp_path / "tfds"),
      MISSING_DATASETS="skip",
    )
  for said in ("glue/sst2:2.0.0", str(tmp_path / "tfds"), "Not one is left"):
    assert said in str(e.value)


@pytest.mark.usefixtures("sample_cache")
def test_a_file_where_the_folder_should_be(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    run(tmp_path / "file" / "run")


@pytest.mark.usefixtures("sample_cache")
def test_torn_checkpoint_is_named_and_the_one_before_used(tmp_path, caplog):
  folder = run(tmp_path / "run")
  expected = parameters(folder, 12)
  newest = folder / "checkpoints" / "checkpoint_12"
  largest = max(
    (p for p in newest.rglob("*") if p.is_file() and p.name != "manifest.json"),
    key=lambda p: p.stat().st_size,
  )
  largest.write_bytes(largest.read_bytes()[:-1])
  run(tmp_path / "run")
  assert "checkpoint_12" in caplog.text
  assert "torn" in caplog.text
  assert (folder / "checkpoints" / "checkpoint_12.torn").exists()
  assert_bit_equal(expected, parameters(folder, 12))


@pytest.mark.usefixtures("sample_cache")
def test_command_line_error_has_no_traceback(tmp_path):
  result = subprocess.run(
    command(tmp_path / "run", BATCH_SIZE=6),
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 2
  assert "BATCH_SIZE 6 is smaller than the 8 devices" in result.stderr
  assert "Traceback" not in result.stderr
  assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("sample_cache")
def test_another_seed_or_mixture_is_shown_and_refused_unless_told(
  tmp_path, capsys
):
  short = {"TRAIN_STEPS": 3, "EVAL_PERIOD": 100}
  folder = run(tmp_path / "run", **short)
  with pytest.raises(UserError) as caught:
    run(
      folder, RANDOM_SEED=1, MIXTURE_OR_TASK_NAME="flan_cb", **short
    )
  message = str(caught.value)
  for said in (
    "RANDOM_SEED: 0 -> 1",
    "MIXTURE_OR_TASK_NAME: 'flan_sst2' -> 'flan_cb'",
    "data train.mixture: flan_sst2 -> flan_cb",
    "data train.tasks.flan_cb.rate: (none) -> 1.0",
    "--gin.RESUME_CHANGED=True",
  ):
    assert said in message
  # Its patience is nobody's business, and no other run.
  run(folder, GRACE_SECONDS=5.0, CHECKPOINT_KEEP_PERIOD=6, **short)
  capsys.readouterr()
  told = {"RANDOM_SEED": 1, "TRAIN_STEPS": 6, "EVAL_PERIOD": 100}
  run(folder, RESUME_CHANGED=True, **told)
  out = capsys.readouterr().out
  assert "from here on this run differs in\n  RANDOM_SEED: 0 -> 1" in out
  assert "going on with this run from step 3" in out
  record = json.loads((folder / "run.json").read_text())
  assert record["changes"] == [["RANDOM_SEED: 0 -> 1"]]
  # From now on it is the run with that seed.
  run(folder, **{**told, "TRAIN_STEPS": 7})
  with pytest.raises(UserError, match="RANDOM_SEED: 1 -> 0"):
    run(folder, **{**short, "TRAIN_STEPS": 7})


@pytest.mark.usefixtures("sample_cache")
def test_what_is_trained_on_is_not_held_out(tmp_path):
  with pytest.raises(UserError, match="flan_sst2_template_1: by flan_sst2\n.*ALLOW_SEEN"):
    run(tmp_path / "run", EVAL_MIXTURE_OR_TASK_NAME="flan_sst2_template_1")
  assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("sample_cache")
def test_the_time_of_a_run_is_accounted_for(tmp_path, capsys):
  began = time.monotonic()
  folder = run(
    tmp_path / "run",
    EVAL_MIXTURE_OR_TASK_NAME="flan_cb",
    EVAL_EXAMPLES=4,
    TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 64},
    PROFILE_STEPS=(4, 5) if find_spec("libtpu") is None else None,
  )
  wall = time.monotonic() - began
  report = json.loads((folder / "report.json").read_text())["run"]
  seconds = dict(report["time"])
  accounted = seconds.pop("wall")
  assert sum(seconds.values()) == pytest.approx(accounted, rel=0.01)
  # What is outside is before the folder is known and after the report.
  assert 0.5 * wall < accounted <= wall
  for name in ("compile", "step", "checkpoint", "evaluation"):
    assert seconds[name] > 0, name
  assert seconds["lost"] == 0
  assert report["speed"]["measured"]
  assert report["speed"]["peak_flops"] > 1e8
  rows = writers.read(folder / "metrics.jsonl")
  last = [r for r in rows if "train/loss" in r][-1]
  assert 0 < last["train/mfu"] < 1.5
  assert last["time/step"] > 0
  assert "time:  " in capsys.readouterr().out
  assert "of the wall time" in (folder / "report.html").read_text()
  traces = (folder / "tensorboard" / "plugins" / "profile").rglob("*.xplane.pb")
  assert list(traces) or find_spec("libtpu")
  events = b"".join(
    p.read_bytes() for p in (folder / "tensorboard").glob("events*")
  )
  for name in (b"train/mfu", b"time/step", b"memory/peak_gib"):
    assert name in events
