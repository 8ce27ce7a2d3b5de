"""T5X itself: which of its programs runs a gin file, and handing over to it.

A gin file that includes one of T5X's run files (`t5x/configs/runs/*.gin`) is
for T5X, which reads it its own way: names are looked up in the `__main__` of
its programs, so one of these has to be the process.
"""

import importlib.util
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

from flan_jax import gin_files
from flan_jax.errors import UserError

# T5X's run file -> the program that it configures.
SCRIPTS = {
  "pretrain": "train",
  "finetune": "train",
  "eval": "eval",
  "infer": "infer",
}
_INCLUDE = re.compile(r"^include\s+(['\"])(.+?)\1", re.MULTILINE)
_RUN_FILE = re.compile(r"t5x/configs/runs/(\w+)\.gin")
# What T5X imports and an installation without its dependencies lacks.
_NEEDS = ("airio", "jestimator", "fiddle", "cached_property", "chex", "grain")
_HOW_TO_GET = (
  "It is on no package registry: `bash launch/t5x.sh` installs it from its"
  " public repository, github.com/google-research/t5x."
)


def script(files: Sequence[str], search: Sequence[str]) -> str | None:
  """The program of T5X that gin files are for: "train", "eval" or "infer".

  None where none of them includes a run file of T5X.

  Args:
    files: `--gin_file` values.
    search: folders in which they and their includes are looked up.

  Raises:
    UserError: they are for different programs, or for one of T5X's others.
  """
  found, seen, left = set(), set(), list(files)
  while left:
    name = left.pop()
    if name in seen:
      continue
    seen.add(name)
    if run := _RUN_FILE.fullmatch(name):
      found.add(run[1])
    for folder in search:
      path = pathlib.Path(folder, name)
      # A file that is not there is named by who reads it.
      if path.is_file():
        left += [m[2] for m in _INCLUDE.finditer(path.read_text())]
        break
  if not found:
    return None
  scripts = {SCRIPTS.get(run, run) for run in found}
  if len(scripts) > 1 or not scripts <= {*SCRIPTS.values()}:
    raise UserError(
      f"the gin files are for T5X's {', '.join(sorted(scripts))}: give those"
      f" of one of {', '.join(sorted({*SCRIPTS.values()}))}."
    )
  return scripts.pop()


def command(
  name: str,
  files: Sequence[str],
  flags: Sequence[tuple[str, str]],
  search: Sequence[str],
) -> list[str]:
  """The command line of one of T5X's programs.

  Text of a flag that gin cannot read is quoted, as for our own jobs.

  >>> command("train", ["a.gin"], [("MODEL_DIR", "/runs/a")], ["."])[1:]
  ... # doctest: +NORMALIZE_WHITESPACE
  ['-m', 't5x.train', '--gin_file=a.gin', "--gin.MODEL_DIR='/runs/a'",
   '--gin_search_paths=.']
  """
  lines = [gin_files.flag_line(key, text) for key, text in flags]
  return [
    *(sys.executable, "-m", f"t5x.{name}"),
    *(f"--gin_file={file}" for file in files),
    *("--gin." + line.replace(" = ", "=", 1) for line in lines),
    f"--gin_search_paths={','.join(search)}",
  ]


def run(
  words: Sequence[str],
  *,
  dry_run: bool = False,
  environment: Mapping[str, str] | None = None,
) -> None:
  """Becomes T5X's program; does not come back.

  Args:
    words: of `command`.
    dry_run: print them instead.
    environment: of the process; default: this one's.

  Raises:
    UserError: T5X, or something that it needs, is not installed.
  """
  if dry_run:
    print(shlex.join(words))
    return
  name = words[2].partition(".")[2]
  if importlib.util.find_spec("t5x") is None:
    raise UserError(
      f"this gin file is for T5X's own t5x.{name}, and T5X is not installed"
      f" here. {_HOW_TO_GET}"
    )
  missing = [n for n in _NEEDS if importlib.util.find_spec(n) is None]
  if missing:
    raise UserError(
      f"T5X is installed, but not {', '.join(missing)}, which it imports."
      f" {_HOW_TO_GET}"
    )
  sys.stdout.flush()
  env = {**os.environ} if environment is None else {**environment}
  os.execve(words[0], list(words), env)
