"""gin read strictly: what gin lets pass, `config.load` refuses by name."""

import pathlib
import subprocess
import sys

import pytest

from flan_jax import config
from flan_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADER = """from __gin__ import dynamic_registration
from flan_jax import config
import math
"""
JOB = HEADER + "config.run.job = @math.comb\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)

  def write(name, text):
    (tmp_path / name).write_text(text)
    return name

  return write


def test_later_file_and_flag_win_and_are_recorded(write):
  a = write("a.gin", JOB + "math.comb.n = %N\nmath.comb.k = 2\nN = 5\n")
  b = write("b.gin", "N = 6\n")
  loaded = config.load([a, b], [("N", "7")])
  assert loaded.value("N") == 7
  assert loaded.name == "a"
  assert any("N = 6" in line and "overrides 5" in line
             for line in loaded.overrides)
  assert any("N = 7 (command line) overrides 6" in line
             for line in loaded.overrides)


def test_text_without_quotes_is_a_string(write):
  a = write("a.gin", JOB + "math.comb.n = %N\nmath.comb.k = 2\nN = 5\n")
  assert config.load([a], [("N", "../shared/tfds")]).value("N") == (
    "../shared/tfds"
  )


@pytest.mark.parametrize(
  ("text", "flags", "message"),
  [
    (
      JOB + "math.comb.n = %STEPS\nSTEPS = 5\n",
      [("STPES", "3")],
      "nothing uses the macro STPES. The nearest in use is STEPS",
    ),
    (
      JOB + "math.comb.n = %STEPS\nSTEP = 5\n",
      [],
      "nothing uses the macro STEP. The nearest in use is STEPS",
    ),
    (
      JOB + "math.comb.n = %STEPS\nmath.comb.k = %STEP\nSTEP = 5\n",
      [],
      "uses %STEPS, which no file defines; the nearest defined is STEP",
    ),
    (
      JOB + "math.comb.n = 5\nmath.comb.n = 6\n",
      [],
      "a.gin:6: math.comb.n is bound twice, first at a.gin:5",
    ),
    (
      JOB + "math.comb.n = 5\n",
      [("math.comb.n", "3"), ("math.comb.n", "4")],
      "math.comb.n is given twice",
    ),
    (
      JOB + "math.perm.n = 5\n",
      [],
      "math.perm.n has no effect, since the job does not use math.perm",
    ),
    (HEADER, [], "no job: bind `config.run.job"),
    (JOB + "math.comb.n = [1,\n", [], "a.gin"),
    (HEADER + "include 'nope.gin'\n", [], "there is no gin file 'nope.gin'"),
    (
      JOB + "include 'a.gin'\n",
      [],
      "include stands after bindings",
    ),
  ],
)
def test_refused(write, text, flags, message):
  name = write("a.gin", text)
  with pytest.raises(config.ConfigError) as e:
    config.load([name], flags)
  assert message in str(e.value).replace(str(pathlib.Path.cwd()) + "/", "")


def test_two_includes_that_disagree_need_a_decision(write):
  write("x.gin", "N = 1\n")
  write("y.gin", "N = 2\n")
  includes = "include 'x.gin'\ninclude 'y.gin'\n"
  a = write("a.gin", includes + JOB + "math.comb.n = %N\n")
  with pytest.raises(config.ConfigError, match="two values of N: 1 .* and 2"):
    config.load([a])
  b = write("b.gin", includes + JOB + "math.comb.n = %N\nN = 3\n")
  assert config.load([b]).value("N") == 3


def test_mistyped_parameter_is_refused(write):
  a = write("a.gin", HEADER + (
    "from flan_jax.data import spec\n"
    "config.run.job = @spec.tfds\nspec.tfds.paper_versio = '1'\n"
  ))
  with pytest.raises(config.ConfigError, match="paper_versio"):
    config.load([a])


def test_job_runs_with_its_configuration(write):
  a = write("a.gin", HEADER + (
    "import operator\nconfig.run.job = @math.factorial\n"
    "math.factorial.x = %N\nN = 5\n"
  ))
  # A built-in without a signature is gin's own error, said in one message.
  with pytest.raises(config.ConfigError):
    config.load([a])
  b = write("b.gin", HEADER + (
    "from flan_jax.data import spec\n"
    "config.run.job = @spec.tfds\nspec.tfds.spec = 'glue/cola:2.0.0'\n"
  ))
  assert config.call_job(config.load([b])).name == "glue/cola"
  assert config.current() is None


def test_differences_names_old_and_new():
  assert config.differences("A = 1\nB = 2\n", "A = 1\nC = 3\n") == (
    "B: 2 -> (unset)",
    "C: (unset) -> 3",
  )
  assert config.differences("A = 1", "A = 2", ignore=("A",)) == ()


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["--gin_fil=x"], "unknown flag '--gin_fil=x'; the nearest is --gin_file"),
    ([], "no --gin_file was given"),
    (["--compare", "runs/a"], "--compare takes two runs: --compare A B"),
    (["--compare=runs/a"], "--compare takes two runs: --compare A B"),
    (["--compare", "runs/a", "--dry_run"], "--compare takes two runs"),
    (["--gin_file=gin/flan_holdout_nl.gin"], "gin/flan_holdout_nli.gin"),
  ],
)
def test_command_line_errors_are_one_message(argv, message):
  result = subprocess.run(
    [sys.executable, "launch/run.py", *argv],
    cwd=ROOT, capture_output=True, text=True, timeout=120,
  )
  assert result.returncode == 2
  assert message in result.stderr
  assert "Traceback" not in result.stderr


# What a job cannot do without, and its file leaves to the command line.
REQUIRED = {
  "curate_alpagasus.gin": ("DATA_PATH",),
  "curate_ape.gin": ("TASK_PATH",),
  "curate_compare.gin": ("DATA",),
  "curate_compare_smollm2.gin": ("DATA",),
  "curate_copies.gin": ("DATA_PATH",),
  "curate_facility_location.gin": ("DATA_PATH",),
  "curate_k_center.gin": ("DATA_PATH",),
  "curate_k_means.gin": ("DATA_PATH",),
  "curate_lima.gin": ("DATA_PATH",),
  "curate_longest.gin": ("DATA_PATH",),
  "curate_ltd.gin": ("DATA_PATH",),
  "curate_random.gin": ("DATA_PATH",),
  "convert.gin": ("INPUT_PATH", "OUTPUT_PATH", "OUTPUT_FORMAT"),
  "eval_ablation_instructions.gin": (
    "TRAINED_WITH_TEMPLATES", "TRAINED_WITHOUT", "TRAINED_WITH_NAMES"
  ),
  "eval_bbh.gin": ("INITIAL_CHECKPOINT_PATH", "BBH_DIR"),
  "eval_compare.gin": ("RUN_A", "RUN_B"),
  "eval_cluster_curve.gin": tuple(f"CLUSTERS_{n}" for n in range(1, 8)),
  "eval_flan.gin": ("INITIAL_CHECKPOINT_PATH",),
  "eval_flan_2022.gin": ("INITIAL_CHECKPOINT_PATH", "MMLU_DIR", "BBH_DIR"),
  "eval_judge.gin": ("MODEL_OUTPUTS", "REFERENCE_OUTPUTS"),
  "eval_mmlu.gin": ("INITIAL_CHECKPOINT_PATH", "MMLU_DIR"),
  "eval_response_ranking.gin": ("INITIAL_CHECKPOINT_PATH",),
  "eval_super_ni.gin": ("INITIAL_CHECKPOINT_PATH", "SUPER_NI_DIR"),
  "eval_t0.gin": ("INITIAL_CHECKPOINT_PATH",),
  "eval_three_h.gin": ("RATINGS",),
  "evaluate.gin": ("INITIAL_CHECKPOINT_PATH",),
  "generate.gin": ("INITIAL_CHECKPOINT_PATH",),
  "prompt_tuning_flan_vs_base.gin": ("TUNED_CHECKPOINT_PATH",),
}


@pytest.mark.parametrize(
  "path", sorted((ROOT / "gin").glob("*.gin")), ids=lambda p: p.name
)
def test_every_job_file_loads(path):
  text = path.read_text()
  if "config.run.job" not in text and "include" not in text:
    pytest.skip("a part, not a job")
  flags = [(name, "x") for name in REQUIRED.get(path.name, ())]
  assert config.load([str(path)], flags, search_paths=[str(ROOT)]).text
  if flags:
    with pytest.raises(UserError, match=r"which no file defines"):
      config.load([str(path)], flags[1:], search_paths=[str(ROOT)])
