"""gin files in T5X's dialect, read strictly.

gin itself accepts a mistyped macro, takes the last of two bindings and lets a
binding dangle that nothing uses. `load` refuses all three: it reads every file
once with gin's own parser, checks names and precedence, and only then lets gin
parse them. Configurables come from `from __gin__ import dynamic_registration`
and plain imports in the gin file, so library code carries no decorators.

Precedence, lowest first: an included file, the file that includes it, a later
`--gin_file`, `--gin.NAME=value`. Every override is recorded and printed.
"""

import dataclasses
import difflib
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from flan_jax import gin_files
from flan_jax.errors import UserError
from flan_jax.gin_files import Binding, ConfigError, Macro, Reference


@dataclasses.dataclass(frozen=True)
class Config:
  """What was read: resolved bindings, overrides as sentences, gin's text."""

  bindings: Mapping[str, Binding]
  overrides: tuple[str, ...]
  text: str
  name: str

  def value(self, macro: str, default: Any = None) -> Any:
    """The value of a macro, following macros."""
    binding = self.bindings.get(macro)
    if binding is None:
      return default
    if isinstance(binding.value, Macro):
      return self.value(binding.value.name, default)
    return binding.value


# The jobs that train.
_TRAINING = (
  "flan_jax.train.train",
  "flan_jax.compare_prompts.compare",
  "flan_jax.curate_compare.compare",
)
_current: tuple[Config, tuple[str, ...]] | None = None
_began: float | None = None


def run(job: Callable[[], Any]) -> Any:
  """Calls the job that a gin file binds: `config.run.job = @train.train`."""
  return job()


def load(
  files: Sequence[str],
  flags: Sequence[tuple[str, str]] = (),
  search_paths: Sequence[str] = (),
) -> Config:
  """Reads gin files and `--gin.NAME=value` flags, or says what is wrong.

  >>> config = load(["gin/flan_holdout_nli.gin"], [("TRAIN_STEPS", "300")])
  ... # doctest: +SKIP
  >>> config.value("TRAIN_STEPS")  # doctest: +SKIP
  300

  Args:
    files: `--gin_file` values, in order; at least one.
    flags: (name, text) of `--gin.name=text`, in order. Text that is no gin
      value is taken as a string, so `--gin.MODEL_DIR=/tmp/x` needs no quotes.
    search_paths: folders in which files and includes are looked up.

  Raises:
    ConfigError: a file is missing or does not parse; a name is bound twice at
      one level; a macro is unused or undefined (the nearest is named); a
      binding reaches nothing the job uses; gin rejects a binding.
  """
  if not files:
    raise ConfigError(
      "no --gin_file was given; try --gin_file=gin/flan_holdout_nli.gin."
    )
  search = [os.getcwd(), *search_paths]
  layers = [gin_files.read_tree(f, search, ()) for f in files]
  layers.append(gin_files.read_flags(flags))
  resolved: dict[str, Binding] = {}
  overrides, overridden = [], []
  for layer in layers:
    for name, (binding, beaten) in layer.items():
      beaten = ([resolved[name]] if name in resolved else []) + beaten
      resolved[name] = binding
      overridden += beaten
      overrides += [
        f"{name} = {binding.value!r} ({binding.where}) overrides"
        f" {old.value!r} ({old.where})"
        for old in beaten
        if old.value != binding.value
      ]
  _check_macros(resolved)
  _check_reachable(resolved, overridden)
  _check_buckets(resolved)
  _parse_with_gin(files, flags, search)
  return Config(
    bindings=resolved,
    overrides=tuple(overrides),
    text=_config_text(resolved),
    name=pathlib.Path(files[0]).stem,
  )


def call_job(
  config: Config, command: Sequence[str] = (), began: float | None = None
) -> Any:
  """Runs what `load` read, as `config.run` binds it.

  The job can read its own configuration and command through `current()`, and
  when its process began, in seconds since 1970, through `began()`.
  """
  global _current, _began
  _current, _began = (config, tuple(command)), began
  try:
    return gin.get_configurable("flan_jax.config.run")()
  except UserError as e:
    # gin adds the call stack of configurables to every message.
    message = str(e).partition("\n  In call to configurable")[0]
    raise UserError(message) from e
  finally:
    _current = _began = None


def rebind(macro: str, value: Any) -> None:
  """Gives the job that `load` read another value of a macro.

  What it was read as stays in its record.
  """
  with gin.unlock_config():
    gin.bind_parameter(f"{macro}/gin.macro.value", value)


def began() -> float | None:
  """When the process of the running job began; None: nobody said."""
  return _began


def job_arguments(config: Config) -> tuple[str, dict[str, Any]]:
  """The job that `load` read, by its full name, and what it would be given.

  For what looks at a job without running it, such as `plan.py`.
  """
  del config  # gin holds what was read last.
  job = gin.get_bindings("flan_jax.config.run")["job"]
  name = f"{job.__module__}.{job.__qualname__}"
  return name, dict(gin.get_bindings(name))


def trains(config: Config) -> bool:
  """Whether the job that `load` read trains, itself or by other jobs."""
  return job_arguments(config)[0] in _TRAINING


def current() -> tuple[Config, tuple[str, ...]] | None:
  """The configuration and command of the running job; None outside one."""
  return _current


def fingerprint(text: str) -> str:
  """Eight hex digits that name a text, e.g. a resolved configuration."""
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(
  old: str, new: str, ignore: Sequence[str] = ()
) -> tuple[str, ...]:
  """Bindings in which two configuration texts differ, one line each.

  >>> differences("BATCH_SIZE = 8", "BATCH_SIZE = 16")
  ('BATCH_SIZE: 8 -> 16',)
  """

  def table(text):
    rows = (line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    return {name: value for name, value in rows if name not in ignore}

  a, b = table(old), table(new)
  return tuple(
    f"{name}: {a.get(name, '(unset)')} -> {b.get(name, '(unset)')}"
    for name in sorted(a.keys() | b.keys())
    if a.get(name) != b.get(name)
  )


def _check_macros(bindings: Mapping[str, Binding]):
  used: dict[str, Binding] = {}
  for binding in bindings.values():
    for leaf in binding.leaves():
      if isinstance(leaf, Macro):
        used.setdefault(leaf.name, binding)
  defined = {b.name: b for b in bindings.values() if b.is_macro}
  for name, binding in defined.items():
    if name not in used:
      near = difflib.get_close_matches(name, used, 1, 0.0)
      raise ConfigError(
        f"{binding.where}: nothing uses the macro {name}."
        + (f" The nearest in use is {near[0]}." if near else "")
      )
  for name, binding in used.items():
    if name not in defined:
      near = difflib.get_close_matches(name, defined, 1, 0.0)
      raise ConfigError(
        f"{binding.where}: {binding.name} uses %{name}, which no file defines;"
        + (f" the nearest defined is {near[0]}," if near else "")
        + f" or add --gin.{name}=..."
      )


def _same(a: str, b: str) -> bool:
  """Whether one selector is a dotted suffix of the other."""
  x, y = a.split("."), b.split(".")
  n = min(len(x), len(y))
  return x[-n:] == y[-n:]


def _check_reachable(
  bindings: Mapping[str, Binding], overridden: Sequence[Binding]
):
  """Dynamic registration passes bindings through references alone, so what
  `config.run.job` does not reach has no effect.

  A binding of what an overridden value reached may stay: the file that gave
  the optimiser gave its options too, and another optimiser was chosen since.
  """
  root = [b for b in bindings.values() if _same(b.name, "config.run.job")]
  if not root:
    raise ConfigError(
      "no job: bind `config.run.job = @train.train` (or include a file that"
      " does, such as gin/jobs/train.gin)."
    )
  seen: set[str] = {b.name for b in root}
  queue = [*root, *overridden]
  reached: set[str] = set()
  while queue:
    for leaf in queue.pop().leaves():
      if isinstance(leaf, Reference):
        reached.add(leaf.name.rpartition("/")[2])
        fresh = [
          b
          for b in bindings.values()
          if not b.is_macro
          and b.name not in seen
          and _same(b.configurable, leaf.name.rpartition("/")[2])
        ]
      elif isinstance(leaf, Macro):
        fresh = [
          b
          for b in bindings.values()
          if b.name == leaf.name and b.name not in seen
        ]
      else:
        continue
      seen.update(b.name for b in fresh)
      queue += fresh
  for binding in bindings.values():
    if binding.name not in seen:
      if binding.is_macro:
        owners = [
          b.where
          for b in bindings.values()
          if Macro(binding.name) in list(b.leaves())
        ]
        raise ConfigError(
          f"{binding.where}: {binding.name} has no effect in this job: only"
          f" {', '.join(owners)} use it, which the job does not reach."
        )
      near = difflib.get_close_matches(binding.configurable, reached, 1, 0.3)
      raise ConfigError(
        f"{binding.where}: {binding.name} has no effect, since the job does"
        f" not use {binding.configurable}."
        + (f" The nearest in use is {near[0]}." if near else "")
      )


# Of buckets; of those that some folders may be written in; and what is only
# read, by the ends of names.
_BUCKETS = ("gs://", "s3://", "az://")
_WRITTEN_BUCKET = "gs://"
_WRITTEN_IN_BUCKETS = ("model_dir", "cache_dir")
_OUTPUT = "OUTPUT_DIR"  # The macro alone: see output.py.
_READ_FROM_BUCKETS = (
  "tfds_data_dir",
  "checkpoint_path",
  "input_path",
  "run_a",
  "run_b",
)


def _check_buckets(bindings: Mapping[str, Binding]):
  """Refuses bucket paths where a folder of a file system is needed."""
  for binding in bindings.values():
    name = binding.name.rpartition(".")[2]
    if name.lower().endswith(_READ_FROM_BUCKETS):
      continue
    may = name.lower() in _WRITTEN_IN_BUCKETS or binding.name == _OUTPUT
    refused = tuple(b for b in _BUCKETS if not (may and b == _WRITTEN_BUCKET))
    for leaf in binding.leaves():
      if isinstance(leaf, str) and leaf.startswith(refused):
        raise ConfigError(
          f"{binding.where}: {name} is {leaf!r}, but has to be a path of a file"
          " system: a run appends to its files and renames them, which a"
          " bucket cannot do. Mount the bucket (Cloud Storage FUSE:"
          " `gcsfuse BUCKET FOLDER`, or launch/tpu_vm.py --bucket) and give"
          " that folder. TFDS_DATA_DIR, INITIAL_CHECKPOINT_PATH, INPUT_PATH"
          " and, as gs://, MODEL_DIR, OUTPUT_DIR and CACHE_DIR may lie in a"
          " bucket."
        )


def _parse_with_gin(
  files: Sequence[str],
  flags: Sequence[tuple[str, str]],
  search: Sequence[str],
):
  gin.clear_config()
  # gin logs an error for each folder of the search path that lacks a file.
  logging.disable(logging.ERROR)
  for folder in search:
    gin.add_config_file_search_path(folder)
  try:
    gin.parse_config_files_and_bindings(
      list(files),
      [gin_files.flag_line(name, text) for name, text in flags],
      skip_unknown=False,
      finalize_config=True,
      print_includes_and_imports=False,
    )
  except UserError:
    raise
  except Exception as e:
    raise ConfigError(gin_files.first_lines(e)) from None
  finally:
    logging.disable(logging.NOTSET)


def _config_text(bindings: Mapping[str, Binding]) -> str:
  """One `name = value` line each, sorted: stable, and what `differences`
  reads."""
  return "".join(
    f"{name} = {bindings[name].value!r}\n" for name in sorted(bindings)
  )
