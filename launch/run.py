"""Runs the job that gin files describe.

  python launch/run.py --gin_file=gin/flan_holdout_nli.gin
  python launch/run.py --gin_file=gin/flan_holdout_nli.gin \
      --gin.TRAIN_STEPS=300 --gin.TFDS_DATA_DIR=/data/tfds

Flags, as in T5X:
  --gin_file=PATH          a gin file; repeat it to layer files, later ones win
  --gin.NAME=VALUE         a macro or parameter; wins over every file
  --gin_search_paths=A,B   more folders to look files and includes up in
  --dry_run                print the resolved configuration and stop

What a user can mend is said in one message, with exit code 2. Ctrl-C exits
with 130; the last checkpoint stays and the same command goes on from it.
"""

import contextlib
import difflib
import os
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ("--gin_file", "--gin_search_paths", "--dry_run", "--help")

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

  out = {"files": [], "flags": [], "paths": [], "dry_run": False, "help": False}
  rest = list(argv)
  while rest:
    word = rest.pop(0)
    flag, equals, value = word.partition("=")
    if flag in ("--dry_run", "--help"):
      if equals and value not in ("true", "false"):
        raise UserError(f"{flag} takes no value, got {value!r}.")
      out[flag[2:]] = value != "false"
      continue
    if not (flag.startswith("--gin.") or flag in FLAGS):
      near = difflib.get_close_matches(flag, [*FLAGS, "--gin.NAME"], 1, 0.0)
      raise UserError(f"unknown flag {word!r}; the nearest is {near[0]}.")
    if not equals:
      if not rest:
        raise UserError(f"{flag} needs a value: {flag}=VALUE.")
      value = rest.pop(0)
    if flag == "--gin_file":
      out["files"].append(value)
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


def main(argv: list[str]) -> int:
  try:
    from flan_jax import config
    from flan_jax.errors import UserError
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
    with _without_startup_notes():
      loaded = config.load(
        args["files"], args["flags"], [*args["paths"], str(ROOT)]
      )
      # TensorFlow only feeds data; the accelerators are JAX's.
      if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.set_visible_devices([], "GPU")
    if args["dry_run"]:
      print(loaded.text, end="")
      for line in loaded.overrides:
        print(f"# {line}")
      return 0
    config.call_job(loaded, command=["launch/run.py", *argv])
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


if __name__ == "__main__":
  code = main(sys.argv[1:])
  # Threads that read ahead may be inside TensorFlow, which aborts when the
  # interpreter is taken down under it. All files are closed by now.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
