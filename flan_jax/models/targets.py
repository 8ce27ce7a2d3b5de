"""Which kernels of a model get an adapter: a regex of their names."""

import difflib
import re
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.models import quantised


def check(regex: str, macro: str) -> None:
  """Raises UserError unless it is a regular expression.

  >>> check(".*(query|value)/kernel", "LORA_TARGETS")
  """
  try:
    re.compile(regex)
  except re.error as error:
    raise UserError(
      f"{macro}={regex!r} is no regular expression: {error}."
    ) from error


def is_stacked(name: str) -> bool:
  """Whether a parameter is of all layers of a scanned stack."""
  return "layers" in name.split("/")


def find(base: Any, regex: str, macro: str) -> dict[str, tuple[int, ...]]:
  """Name in the tree -> shape of every kernel of a layer that a regex matches.

  Args:
    base: a model; nothing of it is computed.
    regex: of whole names, as they are without scanning.
    macro: what messages call it.

  Raises:
    UserError: it matches no kernel of a layer (the nearest are named), or
      something else too, or some layers of a scanned stack.
  """
  shapes = jax.eval_shape(base.init, jax.random.key(0))
  leaves, _ = jax.tree_util.tree_flatten_with_path(dict(shapes))
  every = {
    jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
    for path, x in leaves
  }
  kernels = [n for n in every if quantised.is_kernel(n)]
  found, other = {}, []
  for name, shape in every.items():
    matched = [n for n in _one_by_one(name, shape) if re.fullmatch(regex, n)]
    if not matched:
      continue
    if name not in kernels:
      other += matched
    elif is_stacked(name) and len(matched) < shape[0]:
      raise UserError(
        f"{macro}={regex!r} matches {len(matched)} of the {shape[0]} layers of"
        f" {name}, and scan_layers treats them alike: match all, or train"
        " without scan_layers."
      )
    else:
      found[name] = shape
  if other:
    raise UserError(
      f"{macro}={regex!r} matches {other[0]}"
      f"{' and more' if len(other) > 1 else ''}, which is no kernel of a layer;"
      r" an adapter stands beside those alone: '.*layers_\d+/.*kernel' is all."
    )
  if not found:
    last = sorted({"/".join(n.split("/")[-2:]) for n in kernels})
    words = re.sub(r"[^\w/]+", "", regex)
    near = difflib.get_close_matches(words, last, 3, 0.0)
    raise UserError(
      f"{macro}={regex!r} matches no kernel of a layer (whole names are"
      f" matched, such as {_one_by_one(kernels[0], [1])[0]}); the nearest end"
      f" in {', '.join(near)}."
    )
  return found


def _one_by_one(name, shape):
  """The names of a stack's layers; else the name."""
  if not is_stacked(name):
    return [name]
  return [
    re.sub(r"(^|/)layers/", rf"\1layers_{i}/", name) for i in range(shape[0])
  ]
