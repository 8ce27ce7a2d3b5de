"""Recorded answers: a run's predictions.jsonl, read back to be scored again."""

import difflib
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flan_jax.data import catalogue
from flan_jax.errors import UserError
from flan_jax.eval import metrics as metrics_lib
from flan_jax.eval.answers import Answer
from flan_jax.eval.compare import TaskAnswers

FILE, REPORT = "predictions.jsonl", "report.json"
_KEYS = ("task", "split", "template", "index", "prediction")


def file_of(path: str | os.PathLike) -> pathlib.Path:
  """The file of answers: `path` itself, or in the folder that it is."""
  path = pathlib.Path(path)
  return path / FILE if path.is_dir() else path


def read(
  path: str | os.PathLike,
  *,
  split: str = "test",
  metrics: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, TaskAnswers]:
  """The answers of one run, by task, as `compare.compare` takes them.

  >>> before, after = read("runs/a"), read("runs/b")       # doctest: +SKIP
  >>> compare.compare(before, after)[0].difference         # doctest: +SKIP
  3.6

  Args:
    path: of the file, or of the folder that has it. With `report.json` beside
      it, every task must have the rows and templates that the report counts.
    split: whose answers.
    metrics: names of metrics by task, of tasks that are neither in such a
      report nor in the catalogue.

  Raises:
    UserError: a file that is not there, or cut off; a line that is no answer;
      a task or metric that is unknown; no answers of `split`.
  """
  path = file_of(path)
  found: dict[str, list[Answer]] = {}
  splits = set()
  for where, row in _lines(path):
    splits.add(row["split"])
    if row["split"] == split:
      found.setdefault(row["task"], []).append(_answer(where, row))
  if not found:
    raise UserError(
      f"{path} has no answers of split {split!r}; it has"
      f" {', '.join(map(repr, sorted(splits))) or 'none at all'}."
    )
  reported = _check_complete(path, found)
  return {
    name: _task_answers(path, name, rows, metrics or {}, reported.get(name))
    for name, rows in found.items()
  }


def prompts(
  path: str | os.PathLike,
  wanted: Collection[tuple[str, int, int]],
  *,
  split: str = "test",
) -> dict[tuple[str, int, int], str]:
  """What the model read, by (task, template, row).

  Args:
    path: as of `read`.
    wanted: which prompts.
    split: whose.
  """
  path = file_of(path)
  found = {}
  for _, row in _lines(path):
    key = row["task"], row["template"], row["index"]
    if row["split"] == split and key in wanted:
      found[key] = row.get("inputs_text", "")
  return found


def _lines(path: pathlib.Path):
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"predictions {path} cannot be read: {reason}.") from None
  # Not splitlines: answers may hold U+2028 and the like.
  for number, line in enumerate(text.split("\n"), 1):
    if not line:
      continue
    where = f"{path}, line {number}"
    try:
      row = json.loads(line)
    except json.JSONDecodeError as e:
      raise UserError(
        f"{where}: no JSON ({e.msg} in column {e.colno}); the file may be cut"
        " off. Evaluate again."
      ) from None
    missing = [k for k in _KEYS if not isinstance(row, dict) or k not in row]
    if missing:
      raise UserError(
        f"{where}: no {', '.join(missing)}; a line of predictions has"
        f" {', '.join(_KEYS)}."
      )
    yield where, row


def _answer(where: str, row: Mapping[str, Any]) -> Answer:
  choices = tuple(row.get("choices") or ())
  references = tuple(row.get("references") or ())
  said = row["prediction"]
  common = {
    "index": row["index"],
    "template": row["template"],
    "references": references,
    "group": row.get("group", ""),
  }
  if not choices:
    if not isinstance(said, str):
      raise UserError(
        f"{where}: prediction {said!r} of a row without choices is no text."
      )
    return Answer(label=-1, prediction=-1, choices=(), text=said, **common)
  label = row.get("label")
  for name, value in (("prediction", said), ("label", label)):
    if not isinstance(value, int) or not 0 <= value < len(choices):
      raise UserError(
        f"{where}: {name} is {value!r}; it must be the number of one of the"
        f" {len(choices)} choices, from 0."
      )
  # A generated text was read as a choice.
  text = row["text"].strip() if "text" in row else choices[said]
  return Answer(
    label=label, prediction=said, choices=choices, text=text, **common
  )


def _task_answers(path, name: str, rows, metrics, reported) -> TaskAnswers:
  if name in metrics:
    names, cluster = tuple(metrics[name]), ""
  elif reported and reported.get("metric_names"):
    names, cluster = tuple(reported["metric_names"]), reported["cluster"]
  else:
    known = catalogue.load()
    if name not in known:
      near = difflib.get_close_matches(name, known, 1, 0.0)
      raise UserError(
        f"{path}: task {name!r} is not in the catalogue (the nearest is"
        f" {near[0]!r}), so its metrics are not known; give"
        f" metrics={{{name!r}: ('accuracy',)}}, say."
      )
    names, cluster = known[name].metrics, catalogue.cluster_of(name)
  for metric in map(metrics_lib.get, names):
    lacks = {
      "texts": not all(a.references for a in rows),
      "groups": not all(a.group for a in rows),
      "labels": not all(a.choices for a in rows),
      "numbers": not all(a.choices for a in rows),
    }[metric.takes]
    if lacks:
      needed = {"texts": "references", "groups": "group"}.get(
        metric.takes, "choices"
      )
      raise UserError(
        f"{path}: metric {metric.name!r} of task {name!r} needs {needed!r},"
        " which rows of the file do not have. Evaluate again with this version."
      )
  return TaskAnswers(name, names, tuple(rows), cluster)


def _check_complete(
  path: pathlib.Path, found: Mapping[str, list[Answer]]
) -> Mapping[str, Any]:
  """The tasks of the report in the same folder; their rows are all there."""
  report = path.with_name(REPORT)
  if path.name != FILE or not report.is_file():
    return {}
  try:
    tasks = (json.loads(report.read_text())["after"] or {}).get("tasks", {})
  except (OSError, ValueError, KeyError) as e:
    raise UserError(f"{report} is no report of ours ({e!r}).") from None
  if tasks.keys() != found.keys():
    raise UserError(
      f"{path} has answers to {', '.join(sorted(found))}, but {report} reports"
      f" {', '.join(sorted(tasks))}: they are not of one run."
    )
  for name, rows in found.items():
    templates = len(tasks[name]["templates"])
    # Reports of older versions do not count prompts.
    expected = tasks[name].get("prompts") or tasks[name]["rows"] * templates
    if len(rows) != expected:
      raise UserError(
        f"{path}: task {name!r} has {len(rows):,} answers, but {report} reports"
        f" {expected:,}: {tasks[name]['rows']:,} rows under {templates}"
        " templates. The file is cut off or of another run; evaluate again."
      )
  return tasks
