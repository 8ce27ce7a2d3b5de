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
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gin
from gin import config_parser

from flan_jax.errors import UserError


# What gin's parser raises for a file that is no gin.
_SYNTAX = (SyntaxError, ValueError, tokenize.TokenError)


class ConfigError(UserError):
  """A gin file or flag that cannot be used; names the file and line."""


@dataclasses.dataclass(frozen=True)
class Reference:
  """`@name` or `@name()` in a value."""

  name: str
  call: bool

  def __repr__(self):
    return f"@{self.name}{'()' if self.call else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
  """`%NAME` in a value."""

  name: str

  def __repr__(self):
    return f"%{self.name}"


class _Delegate(config_parser.ParserDelegate):
  def configurable_reference(self, scoped_configurable_name, evaluate):
    return Reference(scoped_configurable_name, evaluate)

  def macro(self, macro_name):
    return Macro(macro_name)


@dataclasses.dataclass(frozen=True)
class Binding:
  """One `name = value` with the place it stands."""

  name: str
  value: Any
  where: str

  @property
  def is_macro(self) -> bool:
    return "." not in self.name

  @property
  def configurable(self) -> str:
    return self.name.rpartition(".")[0].rpartition("/")[2]

  def leaves(self) -> Iterable[Any]:
    """References, macros and plain values inside the value."""
    stack = [self.value]
    while stack:
      value = stack.pop()
      if isinstance(value, Mapping):
        stack += [*value.keys(), *value.values()]
      elif isinstance(value, list | tuple):
        stack += value
      else:
        yield value


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


_current: tuple[Config, tuple[str, ...]] | None = None


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
  layers = [_read_tree(f, search, ()) for f in files]
  layers.append(_read_flags(flags))
  resolved: dict[str, Binding] = {}
  overrides = []
  for layer in layers:
    for name, (binding, beaten) in layer.items():
      beaten = ([resolved[name]] if name in resolved else []) + beaten
      resolved[name] = binding
      overrides += [
        f"{name} = {binding.value!r} ({binding.where}) overrides"
        f" {old.value!r} ({old.where})"
        for old in beaten
        if old.value != binding.value
      ]
  _check_macros(resolved)
  _check_reachable(resolved)
  _parse_with_gin(files, flags, search)
  return Config(
    bindings=resolved,
    overrides=tuple(overrides),
    text=_config_text(resolved),
    name=pathlib.Path(files[0]).stem,
  )


def call_job(config: Config, command: Sequence[str] = ()) -> Any:
  """Runs what `load` read, as `config.run` binds it.

  The job can read its own configuration and command through `current()`.
  """
  global _current
  _current = (config, tuple(command))
  try:
    return gin.get_configurable("flan_jax.config.run")()
  except UserError as e:
    # gin adds the call stack of configurables to every message.
    message = str(e).partition("\n  In call to configurable")[0]
    raise UserError(message) from e
  finally:
    _current = None


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


def _find(name: str, search: Sequence[str], where: str) -> pathlib.Path:
  for folder in search:
    path = pathlib.Path(folder, name)
    if path.is_file():
      # As short as it can be said: this name stands in every message.
      return min(path, pathlib.Path(os.path.relpath(path)), key=lambda p: len(str(p)))
  folder = pathlib.Path(name).parent
  known = sorted(
    str(folder / p.name)
    for base in search
    for p in pathlib.Path(base, folder).glob("*.gin")
  )
  near = difflib.get_close_matches(name, known, 1, 0.3)
  raise ConfigError(
    f"{where}: there is no gin file {name!r} in {', '.join(search)}."
    + (f" The nearest is {near[0]!r}." if near else "")
    + " Add folders with --gin_search_paths."
  )


_Layer = dict[str, tuple[Binding, list[Binding]]]


def _read_tree(name: str, search: Sequence[str], chain: tuple[str, ...]):
  """Bindings of a file over those of its includes -> what each one beat."""
  path = _find(name, search, chain[-1] if chain else "--gin_file")
  if str(path) in chain:
    raise ConfigError(f"{path} includes itself through {' -> '.join(chain)}.")
  own: dict[str, Binding] = {}
  included: _Layer = {}
  clashes: dict[str, tuple[Binding, Binding]] = {}
  for statement in _statements(path):
    if isinstance(statement, config_parser.IncludeStatement):
      where = f"{path}:{statement.location.line_num}"
      if own:
        raise ConfigError(
          f"{where}: include stands after bindings, which it would override;"
          " move includes to the top."
        )
      child = _read_tree(statement.filename, search, (*chain, str(path)))
      for key, (binding, beaten) in child.items():
        if key in included and included[key][0].value != binding.value:
          clashes[key] = (included[key][0], binding)
        included[key] = (binding, beaten)
    elif isinstance(statement, config_parser.BindingStatement):
      binding = _binding(statement, f"{path}:{statement.location.line_num}")
      if binding.name in own:
        raise ConfigError(
          f"{binding.where}: {binding.name} is bound twice, first at"
          f" {own[binding.name].where}; keep one."
        )
      own[binding.name] = binding
  for key, (a, b) in clashes.items():
    if key not in own:
      raise ConfigError(
        f"{path} includes two values of {key}: {a.value!r} ({a.where}) and"
        f" {b.value!r} ({b.where}). Bind it in {path} itself."
      )
  out = dict(included)
  for key, binding in own.items():
    beaten = [out[key][0], *out[key][1]] if key in out else []
    out[key] = (binding, beaten)
  return out


def _statements(path: pathlib.Path):
  with open(path, encoding="utf-8") as f:
    text = f.read()
  try:
    return list(config_parser.ConfigParser(text, _Delegate()))
  except _SYNTAX as e:
    raise ConfigError(f"{path}: {_first_lines(e)}") from None


def _binding(statement, where: str) -> Binding:
  scope, selector, arg, value, _ = statement
  name = f"{scope}/{selector}" if scope else selector
  return Binding(f"{name}.{arg}" if arg else name, value, where)


def _flag_line(name: str, text: str) -> str:
  """A gin line; text that gin cannot read as a value becomes a string."""
  line = f"{name} = {text}"
  try:
    list(config_parser.ConfigParser(line, _Delegate()))
  except _SYNTAX:
    return f"{name} = {text!r}"
  return line


def _read_flags(flags: Sequence[tuple[str, str]]) -> _Layer:
  out: _Layer = {}
  for name, text in flags:
    try:
      (statement,) = config_parser.ConfigParser(
        _flag_line(name, text), _Delegate()
      )
    except _SYNTAX as e:
      raise ConfigError(
        f"--gin.{name}={text} does not parse: {_first_lines(e)}"
      ) from None
    binding = _binding(statement, "command line")
    if binding.name in out:
      raise ConfigError(f"--gin.{binding.name} is given twice; keep one.")
    out[binding.name] = (binding, [])
  return out


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


def _check_reachable(bindings: Mapping[str, Binding]):
  """Dynamic registration passes bindings through references alone, so what
  `config.run.job` does not reach has no effect."""
  root = [b for b in bindings.values() if _same(b.name, "config.run.job")]
  if not root:
    raise ConfigError(
      "no job: bind `config.run.job = @train.train` (or include a file that"
      " does, such as gin/jobs/train.gin)."
    )
  seen: set[str] = {b.name for b in root}
  queue = list(root)
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
      [_flag_line(name, text) for name, text in flags],
      skip_unknown=False,
      finalize_config=True,
      print_includes_and_imports=False,
    )
  except UserError:
    raise
  except Exception as e:
    raise ConfigError(_first_lines(e)) from None
  finally:
    logging.disable(logging.NOTSET)


def _config_text(bindings: Mapping[str, Binding]) -> str:
  """One `name = value` line each, sorted: stable, and what `differences`
  reads."""
  return "".join(
    f"{name} = {bindings[name].value!r}\n" for name in sorted(bindings)
  )


def _first_lines(error: BaseException) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return " ".join(lines[:3]) or type(error).__name__
