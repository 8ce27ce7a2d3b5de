"""A Jinja environment for prompts of other people: compiled once, sandboxed.

What differs from the plain environment that PromptSource uses:
* It is Jinja's sandbox, with the filters, methods and statements that prompts
  need and no others; loops, sums, products and texts have limits.
* `choice` draws from the seed of the example; it is never computed when the
  template is compiled, which would give every example the same draw.
* What is not defined is an error, not an empty text.
* `|||` counts where the template says it, not where a value holds it.
"""

import collections
import random
import re
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes, sandbox, visitor

from flan_jax.errors import UserError

# Loop turns of one rendering, and characters or items of one value.
MAX_STEPS = 100_000
MAX_SIZE = 1_000_000
MAX_BITS = 4_096
MAX_WIDTH = 3  # digits of a width in `format`

SEPARATOR = "|||"
# Stands for the separators that the template itself writes. Noncharacters are
# in no text that is exchanged; as long, so that lengths do not change.
MARK = "\ufdd0\ufdd1\ufdd0"

# What a rendering keeps: no template can name it.
RUN = "<run>"

FILTERS = (
  "abs", "capitalize", "choice", "count", "default", "d", "first", "float",
  "format", "int", "items", "join", "last", "length", "list", "lower", "map",
  "max", "min", "most_frequent", "random", "reject", "rejectattr", "replace",
  "reverse", "round", "select", "selectattr", "sort", "string", "sum", "title",
  "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
METHODS = frozenset((
  "append", "capitalize", "count", "endswith", "extend", "find", "get",
  "index", "insert", "isalpha", "isdigit", "islower", "isupper", "items",
  "join", "keys", "lower", "lstrip", "pop", "remove", "replace", "reverse",
  "rfind", "rsplit", "rstrip", "sort", "split", "splitlines", "startswith",
  "strip", "title", "update", "upper", "values",
))  # fmt: skip
FUNCTIONS = ("namespace", "range", "zip")

_STATEMENTS = (nodes.Output, nodes.If, nodes.For, nodes.Assign)
_LOOP = frozenset(("cycle", "changed"))


class PromptError(UserError):
  """A prompt that cannot be used, or not with such rows; names it."""


class RowError(PromptError):
  """A row that a prompt cannot be applied to: it has no such item or label."""


class Run:
  """What one rendering counts and draws from."""

  __slots__ = ("_random", "seed", "steps")

  def __init__(self, seed: Any):
    self.seed, self.steps, self._random = seed, 0, None

  @property
  def random(self) -> random.Random:
    if self._random is None:  # few prompts draw
      self._random = random.Random(str(self.seed))
    return self._random


class Missing(jinja2.StrictUndefined):
  """Undefined; an item beyond the end of a list is the row's doing."""

  __slots__ = ()

  def __init__(self, hint=None, obj=None, name=None, exc=None):
    if isinstance(name, int):
      hint = hint or f"it has a sequence without item {name}"
      exc = RowError
    args = () if obj is None else (obj,)
    super().__init__(hint, *args, name=name, exc=exc or jinja2.UndefinedError)


class Environment(sandbox.SandboxedEnvironment):
  """The sandbox; see the module.

  Attributes:
    offered: names of the filters that programs may use.
    statements: kinds of statements that they may use.
    methods: names of the methods that they may call.
  """

  intercepted_binops = frozenset(("*", "**", "+", "%"))
  offered = FILTERS
  statements = _STATEMENTS
  methods = METHODS

  def __init__(self, **options):
    super().__init__(**{"undefined": Missing, **options})
    known = self.filters
    own = {
      "choice": _choice,
      "random": _choice,
      "most_frequent": _most_frequent,
      "join": _join,
      "replace": _replace,
      "format": _format,
    }
    self.filters = {n: own.get(n) or known[n] for n in self.offered}
    self.filters |= {
      _STEPS: _steps,
      _ITEM: _item,
      _LABELLED: _labelled,
      _CONCAT: _concat,
    }
    self.globals = {n: self.globals.get(n, zip) for n in FUNCTIONS}

  def call_binop(self, context, operator, left, right):
    if operator == "**":
      if not isinstance(right, int | float) or abs(right) > MAX_WIDTH * 10:
        raise _limit(f"the power {right!r}")
    elif operator == "*":
      for a, b in ((left, right), (right, left)):
        if isinstance(a, str | list | tuple):
          bounded(len(a) * max(b, 0) if isinstance(b, int) else 0)
    elif operator == "+":
      if isinstance(left, str | list | tuple) and hasattr(right, "__len__"):
        bounded(len(left) + len(right))
    elif isinstance(left, str):
      _check_format(left)
    value = super().call_binop(context, operator, left, right)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
      raise _limit("a number")
    return value

  def is_safe_callable(self, obj) -> bool:
    if isinstance(obj, type(_choice)) or obj is zip or obj is range:
      return obj in self.globals.values()
    if isinstance(obj, type):
      return obj is self.globals["namespace"]
    owner = getattr(obj, "__self__", None)
    name = getattr(obj, "__name__", "")
    if type(owner) in (str, list, dict, tuple):
      return name in self.methods
    return name in _LOOP and type(owner).__name__ == "LoopContext"

  def call(self, context, obj, *args, **kwargs):
    owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
    if isinstance(owner, str) and name == "replace" and len(args) > 1:
      _check_replace(owner, args[0], args[1])
    elif isinstance(owner, str) and name == "join" and args:
      args = (_check_join(args[0], owner), *args[1:])
    elif name == "extend" and args:
      args = (_listed(args[0]), *args[1:])
    return super().call(context, obj, *args, **kwargs)


def _limit(what: str) -> PromptError:
  return PromptError(f"{what} is larger than a prompt may make")


def bounded(size: int):
  """Refuses a value of so many characters or items, if that is too many."""
  if size > MAX_SIZE:
    raise _limit(f"a value of {size:,} characters or items")


def _listed(items) -> list:
  out = []
  for item in items:
    out.append(item)
    bounded(len(out))
  return out


# ------------------------------------------------------------------ filters

_STEPS, _ITEM, _LABELLED, _CONCAT = "<steps>", "<item>", "<label>", "<concat>"


@jinja2.pass_context
def _steps(context, items):
  """The items of a loop, each turn counted."""
  run = context.resolve_or_missing(RUN)
  for item in items:
    run.steps += 1
    if run.steps > MAX_STEPS:
      raise PromptError(f"it loops more than {MAX_STEPS:,} times")
    yield item


@jinja2.pass_environment
def _item(environment, value, key):
  """An item by a key that the row decides; without it, the row lacks it."""
  if isinstance(key, Missing):
    return key
  found = environment.getitem(value, key)
  if isinstance(found, Missing):
    return Missing(f"it has no item {key!r}", exc=RowError)
  return found


@jinja2.pass_environment
def _labelled(environment, value, key):
  """As `_item` of choices: -1 stands for no label, not for the last."""
  if isinstance(key, int) and key < 0:
    raise RowError(f"the row's label is {key}, which stands for none")
  return _item(environment, value, key)


@jinja2.pass_context
def _choice(context, items):
  """One of the items, drawn from the example's seed."""
  items = items if isinstance(items, str | list | tuple) else list(items)
  if not items:
    raise RowError("it draws from an empty list")
  return context.resolve_or_missing(RUN).random.choice(items)


def _most_frequent(items):
  """The items that occur most often, in the order in which they appear."""
  if not items:
    return None
  counts = collections.Counter(items).most_common()
  return [item for item, count in counts if count == counts[0][1]]


def _check_join(items, separator) -> list:
  items, size = list(items), 0
  for item in items:
    size += len(item) if isinstance(item, str) else 8
    bounded(size)
  bounded(size + len(separator) * len(items))
  return items


@jinja2.pass_eval_context
def _join(eval_ctx, value, d="", attribute=None):
  plain = jinja2.filters.FILTERS["join"]
  if attribute is None:
    value = _check_join(value, d)
  return plain(eval_ctx, value, d, attribute)


def _check_replace(text, old, new):
  bounded(len(text) + text.count(old) * len(new))


@jinja2.pass_eval_context
def _replace(eval_ctx, s, old, new, count=None):
  if isinstance(s, str) and isinstance(old, str) and isinstance(new, str):
    _check_replace(s, old, new)
  return jinja2.filters.FILTERS["replace"](eval_ctx, s, old, new, count)


def _check_format(text: str):
  if "*" in text or re.search(rf"\d{{{MAX_WIDTH + 1}}}", text):
    raise _limit(f"the width in {text[:40]!r}")


def _format(value, *args, **kwargs):
  _check_format(str(value))
  return jinja2.filters.FILTERS["format"](value, *args, **kwargs)


@jinja2.pass_context
def _concat(context, value):
  bounded(len(value))
  return value


# -------------------------------------------------------------- compilation


class Program(NamedTuple):
  """A compiled template.

  Attributes:
    template: Jinja's.
    fields: names that it reads from an example.
    loops: whether it has a loop.
    draws: whether it draws.
  """

  template: jinja2.Template
  fields: frozenset[str]
  loops: bool
  draws: bool


def compile_text(environment: Environment, text: str, where: str) -> Program:
  """A program compiled, or a refusal that names it.

  Args:
    environment: shared by all prompts.
    text: the program.
    where: how messages name it, `Prompt.where`.

  Raises:
    PromptError: it does not parse, or it asks for something that is not there
      for prompts.
  """
  try:
    tree = environment.parse(text)
    _check(environment, tree, where)
    names = list(tree.find_all(nodes.Name))
    stored = {n.name for n in names if n.ctx != "load"}
    loaded = {n.name for n in names if n.ctx == "load"}
    drawn = any(
      f.name in ("choice", "random") for f in tree.find_all(nodes.Filter)
    )
    loops = next(tree.find_all(nodes.For), None) is not None
    code = environment.compile(_Rewrite().visit(tree), name=where)
  except jinja2.TemplateSyntaxError as e:
    raise PromptError(
      f"{where}: its Jinja does not parse, line {e.lineno}: {e.message}"
    ) from None
  template = jinja2.Template.from_code(environment, code, environment.globals)
  fields = loaded - stored - {"loop", *environment.globals}
  return Program(template, frozenset(fields), loops, drawn)


def _check(environment: Environment, tree: nodes.Template, where: str):
  def refuse(node, what: str, known=()):
    there = f"; there are {', '.join(sorted(known))}" if known else ""
    raise PromptError(
      f"{where}: line {node.lineno} uses {what}, which prompts may not{there}."
    )

  for node in tree.find_all(nodes.Stmt):
    if not isinstance(node, environment.statements):
      refuse(node, f"the statement {type(node).__name__!r}")
    if isinstance(node, nodes.For) and node.recursive:
      refuse(node, "a loop that calls itself")
  for node in tree.find_all(nodes.Getattr):
    if node.attr.startswith("__"):
      refuse(node, f"Python's own {node.attr!r}")
  for node in tree.find_all(nodes.Getitem):
    name = node.arg.value if isinstance(node.arg, nodes.Const) else None
    if isinstance(name, str) and name.startswith("__"):
      refuse(node, f"Python's own {name!r}")
  for node in tree.find_all(nodes.Filter):
    if node.name not in environment.offered:
      refuse(node, f"the filter {node.name!r}", environment.offered)
    if node.node is None:
      refuse(node, "a filter without a value")
  for node in tree.find_all(nodes.Call):
    if isinstance(node.node, nodes.Getattr) and (
      node.node.attr not in environment.methods | _LOOP
    ):
      refuse(node, f"the method {node.node.attr!r}", environment.methods)


class _Rewrite(visitor.NodeTransformer):
  """Counts loops, checks indices of labels, marks separators."""

  def visit_For(self, node):
    node = self.generic_visit(node)
    node.iter = _filtered(node.iter, _STEPS)
    return node

  def visit_Getitem(self, node):
    node = self.generic_visit(node)
    target, key = node.node, node.arg
    if isinstance(key, nodes.Const | nodes.Neg | nodes.Slice):
      return node
    labelled = isinstance(target, nodes.List) or (
      isinstance(target, nodes.Name) and target.name == "answer_choices"
    )
    return _filtered(target, _LABELLED if labelled else _ITEM, key)

  def visit_Concat(self, node):
    return _filtered(self.generic_visit(node), _CONCAT)

  def visit_TemplateData(self, node):
    node.data = node.data.replace(SEPARATOR, MARK)
    return node

  def visit_Const(self, node):
    if isinstance(node.value, str):
      node.value = node.value.replace(SEPARATOR, MARK)
    return node


def _filtered(node, name: str, *arguments) -> nodes.Filter:
  return nodes.Filter(
    node, name, list(arguments), [], None, None, lineno=node.lineno
  ).set_environment(node.environment)
