"""Which parameter an array of an optimiser's state belongs to.

Optimisers keep trees like the parameters' under names of their own (`mu`, `nu`
of Adam) or a few arrays a parameter (Adafactor's `v_row`, `v_col`, `v`, `m`).
"""

import itertools
from collections.abc import Mapping

Shape = tuple[int, ...]


def kept_axes(
  name: str, shape: Shape, params: Mapping[str, Shape]
) -> tuple[str, Shape] | None:
  """The parameter of a slot, and which of its dimensions the slot has.

  >>> params = {"mlp/wi/kernel": (6, 512, 1024), "norm/scale": (512,)}
  >>> kept_axes("0/mu/norm/scale", (512,), params)
  ('norm/scale', (0,))
  >>> kept_axes("param_states/mlp/wi/kernel/v_col", (6, 1024), params)
  ('mlp/wi/kernel', (0, 2))

  Of two equal dimensions `v_col` keeps the later one, as Adafactor has it
  (`adafactor.factoring`).

  Args:
    name: path of the array in the optimiser's state.
    shape: of the array.
    params: name -> shape.

  Returns:
    None: an array of no parameter, such as a count.
  """
  found = [p for p in params if _holds(name, p)]
  if not found:
    return None
  param = max(found, key=len)
  whole = params[param]
  if shape == whole:
    return param, tuple(range(len(whole)))
  choices = [
    kept
    for kept in itertools.combinations(range(len(whole)), len(shape))
    if tuple(whole[i] for i in kept) == shape
  ]
  if not choices:
    return None
  return param, choices[-1 if name.endswith("/v_col") else 0]


def _holds(name, param):
  """Whether the scopes of `param` stand in `name`, whole."""
  return f"/{param}/" in f"/{name}/"
