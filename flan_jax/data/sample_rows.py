"""Rows of an embedded JSON-lines file, checked against a dataset's features."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from flan_jax.data.spec import Features, Task
from flan_jax.errors import UserError

_SPLIT = "split"
_Dict = tfds.features.FeaturesDict


def read(
  text: str, file: str, features: _Dict
) -> dict[str, list[dict[str, Any]]]:
  """Rows by split, every feature present.

  Args:
    text: one JSON object a line, `{"split": "train", <features>}`.
    file: for messages.
    features: of the dataset. Those that no line gives are bookkeeping and are
      filled: an integer with the row number, a text whose name ends in `id`
      with the row number, other texts with "", a class with -1 (unknown).

  Raises:
    UserError: a line does not fit; names file, line and feature.
  """
  parsed = [
    (number, _parse(line, f"{file}, line {number}"))
    for number, line in enumerate(text.splitlines(), 1)
    if line.strip()
  ]
  if not parsed:
    raise UserError(f"{file} has no rows.")
  for number, row in parsed:
    _check_known(row, features, f"{file}, line {number}")
  given = {name for _, row in parsed for name in row} - {_SPLIT}
  rows: dict[str, list[dict[str, Any]]] = {}
  for number, row in parsed:
    where = f"{file}, line {number}"
    split = row.pop(_SPLIT, None)
    if not isinstance(split, str) or not split.isidentifier():
      raise UserError(f'{where}: split is {split!r}; write "split": "train".')
    if missing := sorted(given - set(row)):
      raise UserError(
        f"{where}: feature {missing[0]!r} is missing; other lines give it."
      )
    done = rows.setdefault(split, [])
    for name, feature in features.items():
      if name in given:
        _check_value(row[name], feature, f"{where}, feature {name!r}")
      else:
        row[name] = _filler(name, feature, len(done))
    done.append(row)
  return rows


def check_used(
  rows: Mapping[str, list[dict[str, Any]]], tasks: list[Task], file: str
):
  """That what a task reads was not filled in as bookkeeping.

  Only classes and texts can be told apart from given ones; a field that
  `prepare` makes is none of the dataset's features and is passed over.
  """
  row = next(iter(rows.values()))[0]
  for task in tasks:
    used = [*task.inputs.values(), task.label, task.target, task.references]
    if isinstance(task.choices, Features):
      used += task.choices.names
    for name in used:
      if name in row and row[name] in (-1, "", []):
        raise UserError(
          f"{file}: feature {name!r} is missing, and task {task.name!r} reads"
          " it; add it to every line."
        )


def _parse(line: str, where: str) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except ValueError as e:
    raise UserError(f"{where}: not JSON ({e}).") from e
  if not isinstance(row, dict):
    raise UserError(f"{where}: a {type(row).__name__}, not a JSON object.")
  return row


def _check_known(row, features, where: str):
  for name in row:
    if name not in features and name != _SPLIT:
      near = difflib.get_close_matches(name, list(features), 1, 0.0)
      raise UserError(
        f"{where}: unknown feature {name!r}; the nearest is {near[0]!r}, known"
        f" are {', '.join(features)}."
      )


def _check_value(value, feature, where: str):
  """Refuses what TFDS would refuse, or quietly turn into something else."""
  reason = _misfit(value, feature)
  if reason is None:
    try:
      feature.encode_example(value)
      return
    except Exception as e:  # whatever the feature's encoder raises
      reason = str(e).splitlines()[0] if str(e) else type(e).__name__
  raise UserError(f"{where}: {value!r} does not fit {feature!r}: {reason}")


def _misfit(value, feature) -> str | None:
  if isinstance(feature, tfds.features.ClassLabel):
    return None  # its encoder takes a name or an index within the range
  if isinstance(feature, _Dict):
    if not isinstance(value, dict) or set(value) != set(feature):
      return f"an object with {', '.join(feature)} is needed."
    return next(
      filter(None, (_misfit(value[k], feature[k]) for k in feature)), None
    )
  if isinstance(feature, tfds.features.Sequence):
    if isinstance(feature.feature, _Dict) and isinstance(value, dict):
      return None
    if not isinstance(value, list):
      return "a list is needed."
    return next(
      filter(None, (_misfit(v, feature.feature) for v in value)), None
    )
  dtype = np.dtype(feature.np_dtype)
  if dtype == np.dtype(object) or dtype.kind in "SUO":
    return None if isinstance(value, str) else "a text is needed."
  if dtype.kind == "b":
    return None if isinstance(value, bool) else "true or false is needed."
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return "a number is needed."
  if dtype.kind in "iu" and not isinstance(value, int):
    return "a whole number is needed."
  return None


def _filler(name: str, feature, row: int):
  if isinstance(feature, tfds.features.ClassLabel):
    return -1
  if isinstance(feature, tfds.features.Sequence):
    inner = feature.feature
    return {k: [] for k in inner} if isinstance(inner, _Dict) else []
  if isinstance(feature, _Dict):
    return {k: _filler(k, f, row) for k, f in feature.items()}
  dtype = np.dtype(feature.np_dtype)
  if dtype == np.dtype(object) or dtype.kind in "SUO":
    return str(row) if name.lower().endswith("id") else ""
  if dtype.kind == "b":
    return False
  return row if dtype.kind in "iu" else 0.0
