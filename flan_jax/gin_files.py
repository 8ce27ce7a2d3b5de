"""Bindings of gin files and flags, with the place each one stands.

gin's own parser reads the text; what is bound where, and what overrides what,
is kept here, since gin forgets it. `config.py` decides what is allowed.
"""

import dataclasses
import difflib
import os
import pathlib
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gin import config_parser

from flan_jax.errors import UserError

# What gin's parser raises for a file that is no gin.
SYNTAX = (SyntaxError, ValueError, tokenize.TokenError)


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


def _find(name: str, search: Sequence[str], where: str) -> pathlib.Path:
  for folder in search:
    path = pathlib.Path(folder, name)
    if path.is_file():
      # As short as it can be said: this name stands in every message.
      relative = os.path.relpath(path)
      return min(path, pathlib.Path(relative), key=lambda p: len(str(p)))
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


Layer = dict[str, tuple[Binding, list[Binding]]]


def read_tree(name: str, search: Sequence[str], chain: tuple[str, ...]):
  """Bindings of a file over those of its includes -> what each one beat."""
  path = _find(name, search, chain[-1] if chain else "--gin_file")
  if str(path) in chain:
    raise ConfigError(f"{path} includes itself through {' -> '.join(chain)}.")
  own: dict[str, Binding] = {}
  included: Layer = {}
  clashes: dict[str, tuple[Binding, Binding]] = {}
  for statement in _statements(path):
    if isinstance(statement, config_parser.IncludeStatement):
      where = f"{path}:{statement.location.line_num}"
      if own:
        raise ConfigError(
          f"{where}: include stands after bindings, which it would override;"
          " move includes to the top."
        )
      child = read_tree(statement.filename, search, (*chain, str(path)))
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
  except SYNTAX as e:
    raise ConfigError(f"{path}: {first_lines(e)}") from None


def _binding(statement, where: str) -> Binding:
  scope, selector, arg, value, _ = statement
  name = f"{scope}/{selector}" if scope else selector
  return Binding(f"{name}.{arg}" if arg else name, value, where)


def flag_line(name: str, text: str) -> str:
  """A gin line; text that gin cannot read as a value becomes a string."""
  line = f"{name} = {text}"
  try:
    list(config_parser.ConfigParser(line, _Delegate()))
  except SYNTAX:
    return f"{name} = {text!r}"
  return line


def read_flags(flags: Sequence[tuple[str, str]]) -> Layer:
  """Bindings of `--gin.name=text` flags; none may come twice."""
  out: Layer = {}
  for name, text in flags:
    try:
      (statement,) = config_parser.ConfigParser(
        flag_line(name, text), _Delegate()
      )
    except SYNTAX as e:
      raise ConfigError(
        f"--gin.{name}={text} does not parse: {first_lines(e)}"
      ) from None
    binding = _binding(statement, "command line")
    if binding.name in out:
      raise ConfigError(f"--gin.{binding.name} is given twice; keep one.")
    out[binding.name] = (binding, [])
  return out


def first_lines(error: BaseException) -> str:
  """The start of an error's message, on one line."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return " ".join(lines[:3]) or type(error).__name__
