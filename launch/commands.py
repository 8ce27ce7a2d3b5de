"""What tpu_vm.py, gke.py, slurm.py and docker.py have in common.

Every one of them checks what it was given, prints each command before it runs
it, and with --dry-run prints the commands and runs none. Nothing but Python's
standard library is needed here, so that a laptop without the project's
environment can start a job.
"""

import argparse
import difflib
import math
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# An exit code of launch/run.py: stopped by a signal, what was done is saved.
STOPPED = 75
# Generation as Google's commands spell it -> (ours in gin/hardware, cores a
# chip that its size counts, chips of the largest slice).
GENERATIONS = {
  "v4": ("v4", 2, 4096),
  "v5litepod": ("v5e", 1, 256),
  "v5p": ("v5p", 2, 8960),
  "v6e": ("v6e", 1, 256),
}
# Where a bucket is mounted (--bucket), by Cloud Storage FUSE; checkpoints are
# folders that are renamed.
BUCKET = "/bucket"
MOUNT_OPTIONS = ("implicit-dirs", "rename-dir-limit=200000")
# Chips of one machine; a v5e or v6e of up to 8 is one machine.
CHIPS_A_HOST = 4


class Failed(Exception):
  """A command ended with an error, or must not run; said to the user."""


class Commands:
  """Runs commands, or in a dry run prints what it would run.

  Attributes:
    dry_run: whether nothing is run.
  """

  def __init__(self, dry_run: bool):
    self.dry_run = dry_run

  def run(self, *words: str, stdin: str | None = None) -> None:
    """Runs a command; its output goes to the terminal.

    Raises:
      Failed: it is not installed, or its exit code is not 0.
    """
    self._show(words, stdin)
    if not self.dry_run:
      self._call(words, stdin, None)

  def ask(self, *words: str, otherwise: str = "") -> str:
    """What a command prints that changes nothing.

    In a dry run it is shown like all others, and `otherwise` is the answer.

    Raises:
      Failed: with what it said, as `run`.
    """
    self._show(words, None)
    if self.dry_run:
      return otherwise
    done = self._call(words, None, subprocess.PIPE)
    return done.stdout.strip()

  def say(self, text: str) -> None:
    """Prints what has been done; nothing in a dry run."""
    if not self.dry_run:
      print(text, flush=True)

  def _show(self, words, stdin):
    print("$ " + shlex.join(words), flush=True)
    if stdin is not None and self.dry_run:
      print("  (its input:)")
      print("".join(f"  | {line}\n" for line in stdin.splitlines()), end="")

  def _call(self, words, stdin, stdout):
    try:
      done = subprocess.run(
        words,
        input=stdin,
        stdout=stdout,
        # What a question's error says is part of ours.
        stderr=stdout,
        text=True,
        cwd=ROOT,
      )
    except FileNotFoundError:
      raise Failed(
        f"{words[0]} is not installed, or not on PATH; nothing was changed by"
        " this command."
      ) from None
    if done.returncode:
      said = f": {done.stderr.strip()}" if done.stderr else "."
      raise Failed(f"{words[0]} ended with exit code {done.returncode}{said}")
    return done


def parser(module_doc: str) -> argparse.ArgumentParser:
  """A parser that knows --dry-run and, after `--`, flags of launch/run.py."""
  made = argparse.ArgumentParser(
    description=module_doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  made.add_argument(
    "--dry-run",
    action="store_true",
    help="print what would be run; change nothing",
  )
  return made


def main(argv: list[str], parse, act) -> int:
  """Runs `act(arguments, flags, commands)`; the exit code.

  Args:
    argv: words of the command line; what stands after `--` are `flags`.
    parse: the parser.
    act: of the program.
  """
  own, flags = argv, []
  if "--" in argv:
    cut = argv.index("--")
    own, flags = argv[:cut], argv[cut + 1 :]
  arguments = parse.parse_args(own)
  try:
    act(arguments, flags, Commands(arguments.dry_run))
  except Failed as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("\nstopped here; what runs elsewhere goes on.", file=sys.stderr)
    return 130
  return 0


def _pattern(what: str, regex: str, example: str):
  def check(value: str) -> str:
    if not re.fullmatch(regex, value):
      raise argparse.ArgumentTypeError(
        f"{value!r} is no {what}; one looks like {example}"
      )
    return value

  return check


name = _pattern(
  "name (lower-case letters, digits and hyphens, at most 40)",
  r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
  "flan-nli",
)
project = _pattern(
  "project id", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "my-project-123"
)
zone = _pattern("zone", r"[a-z]+-[a-z]+\d+-[a-z]", "us-central2-b")
location = _pattern(
  "zone or region", r"[a-z]+-[a-z]+\d+(-[a-z])?", "us-central2"
)
version = _pattern(
  "runtime version", r"[a-z0-9][a-z0-9.-]*", "tpu-ubuntu2204-base"
)
image = _pattern(
  "container image",
  r"[a-z0-9._-]+(:\d+(?=/))?(/[a-z0-9._-]+)*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})?",
  "us-docker.pkg.dev/my-project-123/flan/flan_jax:v1",
)
bucket = _pattern("bucket", r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", "my-bucket")
word = _pattern("name", r"[A-Za-z0-9][A-Za-z0-9._-]*", "gpu")
topology = _pattern("topology", r"\d{1,2}(x\d{1,2}){1,2}", "4x4x8")
worker = _pattern("number of a host", r"\d+", "0")
duration = _pattern(
  "time limit (days-hours:minutes:seconds)",
  r"(\d+-)?\d{1,2}:\d{2}:\d{2}",
  "1-00:00:00",
)


def agreed(question: str, what: str, yes: bool) -> None:
  """Asks before something is deleted; returns if it is agreed to.

  Raises:
    Failed: it is not, or nobody is there to be asked.
  """
  if yes:
    return
  if not sys.stdin.isatty():
    raise Failed(f"nothing was deleted: say --yes to delete {what} unasked.")
  if input(f"{question} Type its name: ") != what:
    raise Failed(f"{what} was not deleted.")


def count(value: str) -> int:
  """A whole number above 0."""
  if not value.isdigit() or int(value) < 1:
    raise argparse.ArgumentTypeError(f"{value!r} is no number above 0")
  return int(value)


def file(value: str) -> pathlib.Path:
  """A file that is there."""
  if not pathlib.Path(value).is_file():
    raise argparse.ArgumentTypeError(f"{value!r} is no file")
  return pathlib.Path(value)


def slice_type(value: str) -> str:
  """The type of a TPU slice, such as v4-256 or v5litepod-16."""
  generation, _, size = value.partition("-")
  if generation not in GENERATIONS:
    near = difflib.get_close_matches(generation, GENERATIONS, 1, 0.0)
    raise argparse.ArgumentTypeError(
      f"{value!r}: no TPU is called {generation!r}; the nearest is {near[0]!r}"
      f" (known: {', '.join(GENERATIONS)})"
    )
  _, cores, most = GENERATIONS[generation]
  smallest = 4 * cores if cores > 1 else 1
  if not size.isdigit() or not smallest <= int(size) <= most * cores:
    raise argparse.ArgumentTypeError(
      f"{value!r}: the size of a {generation} is {smallest} to {most * cores}"
    )
  if int(size) > smallest and int(size) % (4 * cores):
    down = int(size) // (4 * cores) * 4 * cores
    raise argparse.ArgumentTypeError(
      f"{value!r}: whole machines have {4 * cores}; the nearest is"
      f" {generation}-{max(down, smallest)}"
    )
  return value


def chips(kind: str) -> int:
  """Chips of a slice.

  >>> chips("v4-256"), chips("v5litepod-16")
  (128, 16)
  """
  generation, _, size = kind.partition("-")
  return int(size) // GENERATIONS[generation][1]


def hosts(kind: str) -> int:
  """Machines of a slice, on each of which one process runs.

  >>> hosts("v4-256"), hosts("v5litepod-8"), hosts("v6e-16")
  (32, 1, 4)
  """
  n = chips(kind)
  if GENERATIONS[kind.partition("-")[0]][1] == 1 and n <= 8:
    return 1
  return math.ceil(n / CHIPS_A_HOST)


def scratch(file: str, run: Commands) -> pathlib.Path:
  """Where a file lies on its way to another machine."""
  folder = pathlib.Path.home() / ".cache" / "flan_jax" / "launch"
  if not run.dry_run:
    folder.mkdir(parents=True, exist_ok=True)
  return folder / file


def uncommitted() -> None:
  """Says so where the checkout has changes that an archive of HEAD lacks."""
  words = ["git", "status", "--porcelain", "--untracked-files=no"]
  done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
  if done.stdout:
    print(
      "note: what is not committed here is not copied:\n" + done.stdout,
      end="",
      file=sys.stderr,
    )


def check_job(
  flags: list[str], *, processes: int, machine: tuple[str, int] | None = None
) -> None:
  """Refuses flags of launch/run.py that cannot work where it will run.

  Args:
    flags: of launch/run.py.
    processes: that will run it, each on its own machine unless one.
    machine: generation, as in gin/hardware, and number of chips.

  Raises:
    Failed: no --gin_file or one that is not in the checkout; a file of
      gin/hardware for another machine; several machines without a folder
      that all of them see.
  """
  files = [
    flags[i + 1] if flag == "--gin_file" and i + 1 < len(flags) else flag[11:]
    for i, flag in enumerate(flags)
    if flag == "--gin_file" or flag.startswith("--gin_file=")
  ]
  if not files:
    raise Failed(
      "give the flags of launch/run.py after `--`, with a --gin_file:"
      " -- --gin_file=gin/flan_holdout_nli.gin"
    )
  for file in files:
    if not (ROOT / file).is_file():
      known = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gin").rglob("*.gin")
      ]
      near = difflib.get_close_matches(file, known, 1, 0.0)
      hint = f"; the nearest is {near[0]}" if near else ""
      raise Failed(f"there is no {file} in this checkout{hint}.")
    if machine is not None:
      _check_machine(file, machine)
  folder = [f for f in flags if f.startswith("--gin.MODEL_DIR=")]
  where = folder[-1].partition("=")[2].strip("'\"") if folder else ""
  if "://" in where and not where.startswith("gs://"):
    raise Failed(
      f"MODEL_DIR is {where}, but a run needs a bucket of Cloud Storage (gs://)"
      " or a folder of a file system."
    )
  if processes > 1 and not where:
    raise Failed(
      f"{processes} processes write one run: give a folder that all of them"
      " see, such as --gin.MODEL_DIR=gs://my-bucket/run, one of a mounted"
      f" bucket ({BUCKET}/run) or of a shared file system."
    )


def _check_machine(file: str, machine: tuple[str, int]):
  found = re.search(
    r"^TOPOLOGY = '(\w+):([\dx]+)'", (ROOT / file).read_text(), re.MULTILINE
  )
  if not found:
    return
  generation, shape = found.groups()
  wanted = math.prod(map(int, shape.split("x")))
  if (generation, wanted) != machine:
    raise Failed(
      f"{file} is for {wanted} chips of {generation}; here are"
      f" {machine[1]} of {machine[0]}. Give the file of this machine."
    )
