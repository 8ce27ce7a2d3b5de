"""Outputs of two models to the same instructions, as pairs.

Files are those of AlpacaEval, a JSON list (or JSON lines) of objects with
`instruction` and `output`, and `generator` for the model's name; or what
`gin/generate.gin` writes, lines with `prompt` and `continuations`. Rows are
joined by the instruction's text, never by their place.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

# Fields that a pair has itself.
OWN = ("instruction", "output", "generator", "prompt", "continuations")


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two outputs to one instruction.

  Attributes:
    instruction: with its input, if any.
    output_1, generator_1: of the reference, and its name.
    output_2, generator_2: of the model that is judged.
    rest: further fields of the rows, such as `dataset`.
  """

  instruction: str
  output_1: str
  output_2: str
  generator_1: str
  generator_2: str
  rest: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(
  model_outputs: str | os.PathLike, reference_outputs: str | os.PathLike
) -> tuple[list[Pair], list[str]]:
  """Pairs of two files, in the order of the reference's.

  Returns:
    The pairs; sentences about rows that only one of the files has.

  Raises:
    UserError: a file that cannot be read, a row without instruction or
      output, an instruction that comes twice, no instruction in common.
  """
  model = _by_instruction(pathlib.Path(model_outputs), "MODEL_OUTPUTS")
  reference = _by_instruction(
    pathlib.Path(reference_outputs), "REFERENCE_OUTPUTS"
  )
  common = [i for i in reference if i in model]
  if not common:
    raise UserError(
      f"{model_outputs} and {reference_outputs} have no instruction in common:"
      f" the first ones are {next(iter(model))[:60]!r} and"
      f" {next(iter(reference))[:60]!r}."
    )
  notes = []
  for path, rows, other in (
    (reference_outputs, reference, model),
    (model_outputs, model, reference),
  ):
    alone = [i for i in rows if i not in other]
    if alone:
      notes.append(
        f"{len(alone):,} of the {len(rows):,} instructions of {path} are in it"
        f" alone and are not compared; the first is {alone[0][:60]!r}."
      )
  out = []
  for instruction in common:
    a, b = reference[instruction], model[instruction]
    out.append(
      Pair(
        instruction=instruction,
        output_1=a["output"],
        output_2=b["output"],
        generator_1=a["generator"],
        generator_2=b["generator"],
        rest={**b["rest"], **a["rest"]},
      )
    )
  return out, notes


def read_rows(path: str | os.PathLike, name: str) -> list[Mapping[str, Any]]:
  """JSON objects of a file: a list of them, or one a line.

  Args:
    path: of the file.
    name: of the option that gave it.

  Raises:
    UserError: it cannot be read, or is neither.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{name} {path} cannot be read: {reason}.") from None
  if text.lstrip().startswith("["):
    try:
      rows = json.loads(text)
    except ValueError as e:
      raise UserError(f"{name} {path}: not JSON: {e}.") from None
  else:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
      if line.strip():
        try:
          rows.append(json.loads(line))
        except ValueError as e:
          raise UserError(f"{name} {path}, line {number}: {e}.") from None
  for number, row in enumerate(rows, 1):
    if not isinstance(row, Mapping):
      raise UserError(f"{name} {path}, row {number}: {row!r} is no object.")
  return rows


def _by_instruction(path: pathlib.Path, name: str) -> dict[str, dict]:
  out: dict[str, dict] = {}
  for number, row in enumerate(read_rows(path, name), 1):
    where = f"{name} {path}, row {number}"
    instruction = row.get("instruction", row.get("prompt"))
    output = row.get("output")
    if output is None and row.get("continuations"):
      output = row["continuations"][0].get("text")
    for field, value in (("instruction", instruction), ("output", output)):
      if not isinstance(value, str) or (field != "output" and not value):
        raise UserError(
          f"{where}: its {field} is {value!r}, no text. Rows have"
          " 'instruction' and 'output' (or 'prompt' and 'continuations')."
        )
    if row.get("input"):
      instruction = f"{instruction}\n\n{row['input']}"
    if instruction in out:
      raise UserError(
        f"{where}: the instruction {instruction[:60]!r} comes twice; which"
        " output would be compared is not clear. Keep one."
      )
    out[instruction] = {
      "output": output,
      "generator": str(row.get("generator") or path.stem),
      "rest": {k: v for k, v in row.items() if k not in OWN and k != "input"},
    }
  if not out:
    raise UserError(f"{name} {path} holds no row.")
  return out


def lengths(pairs: Sequence[Pair]) -> tuple[list[int], list[int]]:
  """Characters of the first and the second outputs."""
  return [len(p.output_1) for p in pairs], [len(p.output_2) for p in pairs]
