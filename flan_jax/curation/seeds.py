"""Seed tasks: what instruction data is grown from.

A file of JSON lines in the form of Self-Instruct's: `id`, `instruction`,
`instances` (each with `input`, "" for none, and `output`), `is_classification`.
`input` and `output` may stand beside `instruction` instead of in `instances`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

OWN = pathlib.Path(__file__).parent / "seed_tasks" / "own.jsonl"
CHINESE = OWN.with_name("chinese.jsonl")
NAMED = {"english": OWN, "chinese": CHINESE}
_WAY_OUT = (
  "A seed has 'id', 'instruction', 'instances' (a list of objects with 'input'"
  " and 'output') and 'is_classification'."
)


@dataclasses.dataclass(frozen=True)
class Seed:
  """One task with at least one instance.

  Attributes:
    id: no other seed has it.
    instruction: what is to be done.
    instances: (input, output); an empty input for a task that needs none.
    is_classification: whether the outputs are a few fixed labels.
  """

  id: str
  instruction: str
  instances: tuple[tuple[str, str], ...]
  is_classification: bool


def resolve(path: str | os.PathLike | None) -> pathlib.Path:
  """The file of a path, or of a name: "english" (None too) or "chinese".

  >>> resolve("chinese").name
  'chinese.jsonl'
  """
  return pathlib.Path(NAMED.get(path or "english", path))


def read(path: str | os.PathLike | None = None) -> list[Seed]:
  """The seeds of a file.

  >>> seeds = read()
  >>> len({s.id for s in seeds}) == len(seeds) >= 20
  True

  Args:
    path: of a `.jsonl` file; "english", as None, or "chinese": seeds that come
      with this package.

  Raises:
    UserError: the file cannot be read, a line is no seed, or an id comes twice,
      always with the line; or the file has no seed.
  """
  path = resolve(path)
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"SEEDS_PATH {path} cannot be read: {reason}.") from None
  out: list[Seed] = []
  lines_by_id: dict[str, int] = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f"SEEDS_PATH {path}, line {number}"
    try:
      row = json.loads(line)
    except ValueError as e:
      raise UserError(f"{where}: not JSON: {e}.") from None
    seed = _seed(row, where)
    if seed.id in lines_by_id:
      raise UserError(
        f"{where}: the id {seed.id!r} is also that of line"
        f" {lines_by_id[seed.id]}. Give every seed an id of its own."
      )
    lines_by_id[seed.id] = number
    out.append(seed)
  if not out:
    raise UserError(f"SEEDS_PATH {path} has no seed. {_WAY_OUT}")
  return out


def _seed(row: Any, where: str) -> Seed:
  if not isinstance(row, Mapping):
    raise UserError(f"{where}: {str(row)[:60]!r} is no object. {_WAY_OUT}")
  if "instances" not in row and "output" in row:
    row = {**row, "instances": [row]}
  missing = [
    f
    for f in ("id", "instruction", "instances", "is_classification")
    if f not in row
  ]
  if missing:
    raise UserError(
      f"{where}: no {', '.join(map(repr, missing))} among its fields"
      f" {', '.join(map(repr, row)) or '(none)'}. {_WAY_OUT}"
    )
  if not isinstance(row["is_classification"], bool):
    raise UserError(
      f"{where}: 'is_classification' is {row['is_classification']!r}; it is"
      " true or false."
    )
  instances = row["instances"]
  if not isinstance(instances, Sequence) or isinstance(instances, str):
    raise UserError(f"{where}: 'instances' is no list. {_WAY_OUT}")
  if not instances:
    raise UserError(f"{where}: 'instances' is empty; a seed needs one.")
  return Seed(
    _text(row, "id", where),
    _text(row, "instruction", where),
    tuple(_instance(i, where) for i in instances),
    row["is_classification"],
  )


def _instance(row: Any, where: str) -> tuple[str, str]:
  if not isinstance(row, Mapping):
    raise UserError(f"{where}: the instance {row!r} is no object. {_WAY_OUT}")
  given = row.get("input", "")
  if not isinstance(given, str):
    raise UserError(f"{where}: an instance's 'input' is {given!r}, no text.")
  return given, _text(row, "output", where)


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
  value = row.get(field)
  if not isinstance(value, str) or not value.strip():
    raise UserError(f"{where}: {field!r} is {value!r}, no text. {_WAY_OUT}")
  return value
