"""Parameter trees as flat names, scanned and unscanned.

A flat name is the path joined by `/`. Unscanned layers are `layers_0`,
`layers_1`, ...; scanned ones `layers` with a first axis N.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

_LAYER = re.compile(r"(^|/)layers_(\d+)/")


def flatten(
  tree: Mapping[str, Any], is_leaf: Callable[[Any], bool] | None = None
) -> dict[str, Any]:
  """`{"a/b": leaf}` of nested dicts, in their order; leaves None are dropped.

  >>> flatten({"a": {"b": 1, "c": None}, "d": 2})
  {'a/b': 1, 'd': 2}
  """
  out: dict[str, Any] = {}

  def walk(node, prefix):
    for key, value in node.items():
      name = f"{prefix}{key}"
      leaf = is_leaf(value) if is_leaf else not isinstance(value, Mapping)
      if not leaf:
        walk(value, f"{name}/")
      elif value is not None:
        out[name] = value

  walk(tree, "")
  return out


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`; keys sorted, as jax and T5X order them.

  >>> unflatten({"b/x": 1, "a": 2})
  {'a': 2, 'b': {'x': 1}}
  """
  tree: dict[str, Any] = {}
  for name in sorted(flat, key=lambda name: name.split("/")):
    *scopes, last = name.split("/")
    node = tree
    for scope in scopes:
      node = node.setdefault(scope, {})
    node[last] = flat[name]
  return tree


def stacked(name: str) -> tuple[str, int | None]:
  """The scanned name of an unscanned one, and the layer.

  >>> stacked("encoder/layers_3/mlp/wo/kernel")
  ('encoder/layers/mlp/wo/kernel', 3)
  >>> stacked("encoder/encoder_norm/scale")
  ('encoder/encoder_norm/scale', None)
  """
  found = _LAYER.search(name)
  if found is None:
    return name, None
  return _LAYER.sub(r"\1layers/", name, count=1), int(found[2])


def unstacked(name: str, layer: int | str) -> str:
  """The name of one layer of a scanned name; others stay.

  >>> unstacked("encoder/layers/mlp/wo/kernel", 3)
  'encoder/layers_3/mlp/wo/kernel'
  """
  return re.sub(r"(^|/)layers/", rf"\1layers_{layer}/", name, count=1)


def is_stacked(name: str) -> bool:
  return re.search(r"(^|/)layers/", name) is not None


def layer_counts(names: Iterable[str]) -> dict[str, int]:
  """Layers of every scanned name that unscanned `names` make up.

  >>> layer_counts(["a/layers_0/x", "a/layers_1/x", "b"])
  {'a/layers/x': 2}
  """
  counts: dict[str, int] = {}
  for name in names:
    group, layer = stacked(name)
    if layer is not None:
      counts[group] = max(counts.get(group, 0), layer + 1)
  return counts


def fold(lines: Iterable[tuple[str, str]]) -> list[str]:
  """`name: text` lines, those of equal layers in one.

  >>> fold([("d/layers_0/x", "1"), ("d/layers_1/x", "1"), ("e", "2")])
  ['d/layers_{0-1}/x: 1', 'e: 2']
  """
  groups: dict[tuple[str, str], list[int]] = {}
  for name, text in lines:
    group, layer = stacked(name)
    layers = groups.setdefault((group, text), [])
    if layer is not None:
      layers.append(layer)
  out = []
  for (group, text), layers in groups.items():
    if layers:
      group = unstacked(group, _spans(layers))
    out.append(f"{group}: {text}" if text else group)
  return out


def _spans(layers) -> str:
  """`3` or `{0-3,5}`."""
  layers = sorted(set(layers))
  breaks = [i for i, gap in enumerate(np.diff(layers), 1) if gap > 1]
  runs = np.split(layers, breaks)
  text = ",".join(
    f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs
  )
  return text if len(layers) == 1 else f"{{{text}}}"
