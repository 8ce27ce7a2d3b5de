"""Which parameters are trained: the others are frozen.

The state of a run holds what is trained alone, so that gradients, optimiser
and checkpoints have nothing else. Frozen parameters are one more argument of
the compiled step, and are put back where the model is called:

    trained, frozen = split(params, r"soft_prompt/.*")
    Bound(model, frozen).hidden(trained, batch)
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.training import axes

Params = Mapping[str, Any]


def names(params: Params) -> list[str]:
  """The `/`-joined name of every parameter."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return [axes.path_name(path) for path, _ in leaves]


def chosen(known: Iterable[str], trainable: str) -> set[str]:
  """The names that a regex matches whole.

  >>> chosen(["encoder/norm/scale", "soft_prompt/encoder/prompt"],
  ...        r"soft_prompt/.*")
  {'soft_prompt/encoder/prompt'}

  Args:
    known: of all parameters.
    trainable: a regular expression, as `re.fullmatch` reads it.

  Raises:
    UserError: it is no regular expression, or matches nothing or everything;
      names that are like it are given.
  """
  known = list(known)
  try:
    pattern = re.compile(trainable)
  except re.error as error:
    raise UserError(
      f"TRAINABLE = {trainable!r} is no regular expression: {error}."
    ) from error
  found = {name for name in known if pattern.fullmatch(name)}
  if not found:
    near = difflib.get_close_matches(trainable, known, 3, 0.0)
    raise UserError(
      f"TRAINABLE = {trainable!r} matches none of the {len(known)} parameters"
      f" (whole names are compared); the nearest are {', '.join(near)}."
    )
  if len(found) == len(known):
    some = ", ".join(sorted(known)[:3])
    raise UserError(
      f"TRAINABLE = {trainable!r} matches all {len(known)} parameters ({some},"
      " ...), so that nothing is frozen: leave TRAINABLE = None to train all,"
      " or say fewer."
    )
  return found


def split(params: Params, trainable: str) -> tuple[Params, Params]:
  """(trained, frozen): two trees that have each parameter once.

  >>> split({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, "a/x")
  ({'a': {'x': 1}}, {'a': {'y': 2}, 'b': {'x': 3}})

  Raises:
    UserError: see `chosen`.
  """
  found = chosen(names(params), trainable)

  def part(tree, inside, prefix=""):
    out = {}
    for key, value in tree.items():
      name = f"{prefix}{key}"
      if isinstance(value, Mapping):
        below = part(value, inside, f"{name}/")
        if below:
          out[key] = below
      elif (name in found) == inside:
        out[key] = value
    return out

  return part(params, True), part(params, False)


def merge(trained: Params, frozen: Params | None) -> Params:
  """The inverse of `split`; no array is copied.

  >>> merge({"a": {"x": 1}}, {"a": {"y": 2}, "b": {"x": 3}})
  {'a': {'x': 1, 'y': 2}, 'b': {'x': 3}}
  """
  if frozen is None:
    return trained
  out = dict(trained)
  for key, value in frozen.items():
    out[key] = merge(out[key], value) if key in out else value
  return out


class Bound:
  """A model whose frozen parameters are given: what a training step calls."""

  def __init__(self, model: Any, frozen: Params):
    self._model, self._frozen = model, frozen

  def hidden(self, trained: Params, batch: Any, *, dropout_rng=None):
    return self._model.hidden(
      merge(trained, self._frozen), batch, dropout_rng=dropout_rng
    )

  def head(self, trained: Params):
    return self._model.head(merge(trained, self._frozen))
