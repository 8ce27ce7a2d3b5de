"""Runs the job that gin files describe.

  python launch/run.py --gin_file=gin/flan_holdout_nli.gin
  python launch/run.py --gin_file=gin/flan_holdout_nli.gin \
      --gin.TRAIN_STEPS=300 --gin.TFDS_DATA_DIR=/data/tfds

Flags, as in T5X:
  --gin_file=PATH          a gin file; repeat it to layer files, later ones win
  --gin.NAME=VALUE         a macro or parameter; wins over every file
  --compare A B            compare two evaluated runs: gin/eval_compare.gin with
                           RUN_A=A and RUN_B=B
  --gin_search_paths=A,B   more folders to look files and includes up in
  --dry_run                print the resolved configuration and stop
  --plan                   say whether the training job fits the machine of its
                           gin/hardware file and how long it takes, and stop
  --show N                 print the first N training conversations of a job on
                           instruction data (gin/data/sft.gin), each token
                           coloured by its weight in the loss, and stop

A gin file that includes one of T5X's run files (gin/t5x/*.gin) is handed over
to T5X's own program.

What a user can mend is said in one message, with exit code 2. After SIGTERM, or
Ctrl-C once there are steps to save, a training job saves and exits with 75; the
same command goes on from there. Ctrl-C before, or twice, exits with 130.
"""

import contextlib
import difflib
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

BEGAN = time.time()
ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = (
  "--gin_file",
  "--gin_search_paths",
  "--compare",
  "--dry_run",
  "--help",
  "--plan",
  "--show",
)

# What tells a process that it is one of several (training/processes.py).
SEVERAL = (
  "JAX_COORDINATOR_ADDRESS",
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
  "JAX_DISTRIBUTED",
)
# Whether this process stops without the others, which then end by themselves.
alone = False
STARTUP_NOTE = re.compile(
  r"WARNING: All log messages before absl|[IWE]0000 .*(cudart_stub|port\.cc"
  r"|cpu_feature_guard|cuda_)"
)
# Both libraries write start-up notes about hardware that is not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def parse(argv: list[str]) -> dict:
  """Flags of one command line; `--flag=value` and `--flag value` both work.

  >>> parse(["--gin_file=a.gin", "--gin.X=3"])["flags"]
  [('X', '3')]
  """
  from flan_jax.errors import UserError

  out = {"files": [], "flags": [], "paths": [], "show": None}
  out |= {name: False for name in ("dry_run", "help", "plan")}
  rest = list(argv)
  while rest:
    word = rest.pop(0)
    flag, equals, value = word.partition("=")
    if flag in ("--dry_run", "--help", "--plan"):
      if equals and value not in ("true", "false"):
        raise UserError(f"{flag} takes no value, got {value!r}.")
      out[flag[2:]] = value != "false"
      continue
    if not (flag.startswith("--gin.") or flag in FLAGS):
      near = difflib.get_close_matches(flag, [*FLAGS, "--gin.NAME"], 1, 0.0)
      raise UserError(f"unknown flag {word!r}; the nearest is {near[0]}.")
    if flag == "--compare":
      runs, rest = rest[:2], rest[2:]
      if equals or len(runs) < 2 or any(r.startswith("--") for r in runs):
        raise UserError("--compare takes two runs: --compare A B.")
      out["files"].append("gin/eval_compare.gin")
      out["flags"] += zip(("RUN_A", "RUN_B"), runs, strict=True)
      continue
    if not equals:
      if not rest:
        raise UserError(f"{flag} needs a value: {flag}=VALUE.")
      value = rest.pop(0)
    if flag == "--gin_file":
      out["files"].append(value)
    elif flag == "--show":
      if not (value.isdecimal() and int(value)):
        raise UserError(f"--show takes a number from 1, got {value!r}.")
      out["show"] = int(value)
    elif flag == "--gin_search_paths":
      out["paths"] += [p for p in value.split(",") if p]
    else:
      out["flags"].append((flag.removeprefix("--gin."), value))
  return out


@contextlib.contextmanager
def _without_startup_notes():
  """Importing TensorFlow writes notes about absent hardware to stderr before
  any setting can stop it. They are dropped; all else is passed on."""
  with tempfile.TemporaryFile() as held:
    sys.stderr.flush()
    real = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(real, 2)
      os.close(real)
      held.seek(0)
      for line in held.read().decode(errors="replace").splitlines():
        if not STARTUP_NOTE.match(line):
          print(line, file=sys.stderr)


def _terminate(*_):
  """On SIGTERM, unless the job handles it: nothing has to be saved."""
  from flan_jax.errors import Stopped

  global alone
  alone = True
  raise Stopped("stopped by SIGTERM; the same command goes on.")


def main(argv: list[str]) -> int:
  try:
    from flan_jax import config, t5x_script
    from flan_jax.errors import EXIT_STOPPED, Stopped, UserError
  except ModuleNotFoundError as e:
    print(
      f"flan_jax is not installed here ({e}). Run `pip install -e {ROOT}`, or"
      " `bash launch/local.sh`, which makes a virtual environment first.",
      file=sys.stderr,
    )
    return 2
  try:
    args = parse(argv)
    if args["help"]:
      print(__doc__)
      return 0
    search = [os.getcwd(), *args["paths"], str(ROOT)]
    script = t5x_script.script(args["files"], search)
    if script is not None:
      if args["plan"]:
        raise UserError("--plan compiles our own step; T5X's has none.")
      words = t5x_script.command(script, args["files"], args["flags"], search)
      t5x_script.run(words, dry_run=args["dry_run"])
      return 0
    if args["plan"]:
      # A plan computes nothing; libtpu must not look for a TPU either.
      os.environ["JAX_PLATFORMS"] = "cpu"
      os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    if any(map(os.environ.get, SEVERAL)) and not (
      args["plan"] or args["dry_run"] or args["show"]
    ):
      # Before anything is computed: this process may be one of several.
      from flan_jax.training import processes

      processes.join()
    with _without_startup_notes():
      loaded = config.load(args["files"], args["flags"], search[1:])
      # TensorFlow only feeds data; the accelerators are JAX's.
      if "tensorflow" in sys.modules:
        tf_config = sys.modules["tensorflow"].config
        tf_config.set_visible_devices([], "GPU")
        # Rewriting the thousand small graphs of a mixture takes a quarter of
        # the time to its first batch and makes none of them faster.
        tf_config.optimizer.set_experimental_options(
          {"disable_meta_optimizer": True}
        )
    if args["dry_run"]:
      print(loaded.text, end="")
      for line in loaded.overrides:
        print(f"# {line}")
      return 0
    if args["plan"]:
      from flan_jax import plan

      plan.run(loaded)
      return 0
    if args["show"]:
      from flan_jax.data import sft_show

      sft_show.run(loaded, args["show"])
      return 0
    several = any(map(os.environ.get, SEVERAL))
    if not (several and config.trains(loaded)):
      # Processes that train agree on when to stop: JAX has the signal then.
      signal.signal(signal.SIGTERM, _terminate)
    from flan_jax import output

    with output.kept(loaded):
      config.call_job(loaded, command=["launch/run.py", *argv], began=BEGAN)
  except Stopped as e:
    print(f"\n{e}", file=sys.stderr)
    return EXIT_STOPPED
  except UserError as e:
    print(f"\nerror: {e}", file=sys.stderr)
    return 2
  except OSError as e:
    # A folder that is full, read-only or gone: nothing of ours to mend.
    print(
      f"\nerror: {e.strerror or e}: {e.filename or 'MODEL_DIR'}. Make room or"
      " give a folder you may write to; the same command goes on from the last"
      " checkpoint.",
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt as e:
    # A job without checkpoints says itself what it leaves.
    said = "stopped; the same command goes on from the last checkpoint."
    print(f"\n{str(e) or said}", file=sys.stderr)
    return 130
  return 0


def part(code: int) -> None:
  """Waits for the other processes where all of them end as this one does."""
  if not any(map(os.environ.get, SEVERAL)):
    return
  from flan_jax.errors import EXIT_STOPPED
  from flan_jax.training import processes

  if code == 0 or (code == EXIT_STOPPED and not alone):
    processes.leave()


if __name__ == "__main__":
  code = main(sys.argv[1:])
  part(code)
  # Threads that read ahead may be inside TensorFlow, which aborts when the
  # interpreter is taken down under it. All files are closed by now.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
