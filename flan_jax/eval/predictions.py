"""Predictions: every answer of a model as a line of JSON."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import UserError
from flan_jax.eval import rank


def write(path: str | os.PathLike, by_split: Mapping) -> None:
  """One JSON object per (row, template): prompt, scores and answer.

  Keys: task, split, template, index, inputs_text; ranked examples have
  choices, score (by which one is chosen), scores, by_score (all of
  `rank.SCORES`), prediction and label (indices); generated ones prediction (a
  text), references and complete.

  Args:
    path: its folder is made if it is not there.
    by_split: split -> results, `rank.Scored` or `generation.Generated`.

  Raises:
    UserError: the file cannot be written.
  """
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.name}.draft")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
      for split, results in by_split.items():
        for r in results:
          row = {"task": r.example.task, "split": split} | _row(r)
          file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(draft, path)
  except OSError as e:
    raise UserError(
      f"predictions file {str(path)!r} cannot be written: {e.strerror}."
    ) from None


def references(example: Any) -> tuple[str, ...]:
  """The accepted answers of an example."""
  return tuple(example.references) or (example.targets_text,)


def _row(result) -> dict[str, Any]:
  e = result.example
  out = {
    "template": int(e.template),
    "index": int(e.index),
    "inputs_text": e.inputs_text,
  }
  if isinstance(result, rank.Scored):
    return out | {
      "choices": list(e.choices_text),
      "score": result.score,
      "scores": list(result.scores),
      "by_score": {k: list(v) for k, v in result.by_score.items()},
      "prediction": result.prediction,
      "label": int(e.label),
    }
  return out | {
    "prediction": result.text,
    "references": list(references(e)),
    "complete": result.complete,
  }
