"""Evaluates one checkpoint, or a series of them, as a paper's protocol asks.

`evaluate_protocol` adds a protocol's table to the page of `evaluate.py`;
`evaluate_series` evaluates several checkpoints (an ablation, a curve), puts
them in one table and tests their differences on the same rows.
"""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.eval import (
  compare,
  files,
  page_series,
  protocol_table,
  recorded,
)
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.page_series import Point
from flan_jax.eval.page_text import DASH
from flan_jax.eval.protocol_table import Table
from flan_jax.training import processes
from flan_jax.training import progress as progress_lib

_TESTED = ("difference", "95 % interval", "p", "p (Holm)", "test")

# Calls `evaluate.evaluate` with what a gin file binds; returns the page.
Evaluate = Callable[..., pathlib.Path]


def evaluate_protocol(*, protocol: str, evaluate: Evaluate) -> pathlib.Path:
  """Evaluates one checkpoint; writes `protocol.md` and `.json` by its page.

  Args:
    protocol: of `protocol_table.PROTOCOLS`.
    evaluate: the evaluation, with all its options bound.

  Returns:
    The path of `protocol.md`.

  Raises:
    UserError: an unknown protocol; what the evaluation raises.
  """
  make = protocol_table.get(protocol)
  page = evaluate()
  table = make(read_evaluation(page))
  return _write(page.parent, "protocol", [table])


def evaluate_series(
  *,
  points: Sequence[Point],
  evaluate: Evaluate,
  output_dir: str,
  title: str = "series",
  initial_checkpoint_path: str | None = None,
  eval_mixture_or_task_name: str | None = None,
) -> pathlib.Path:
  """Evaluates checkpoints one by one; writes `series.html`, `.md`, `.json`.

  Each point has a folder of its own with page and answers. Points of one
  mixture are compared with the first of them.

  Args:
    points: (label, checkpoint, mixture) each; a label may come twice with
      different mixtures.
    evaluate: the evaluation, with all other options bound.
    output_dir: where the files go; made if it is not there.
    title: of the table.
    initial_checkpoint_path, eval_mixture_or_task_name: None, since points have
      their own.

  Returns:
    The path of `series.html`.

  Raises:
    UserError: fewer than two points, a point given twice or not as described;
      an option that points have themselves; what the evaluation raises.
  """
  for name, value in (
    ("INITIAL_CHECKPOINT_PATH", initial_checkpoint_path),
    ("EVAL_MIXTURE_OR_TASK_NAME", eval_mixture_or_task_name),
  ):
    if value is not None:
      raise UserError(
        f"{name}={value!r} has no effect: every point has its own. Leave it"
        " out."
      )
  points = _checked(points)
  folder = pathlib.Path(output_dir)
  own = processes.own_folder(folder)
  found = []
  for number, (label, checkpoint, mixture) in enumerate(points, 1):
    page = evaluate(
      initial_checkpoint_path=checkpoint,
      eval_mixture_or_task_name=mixture,
      output_dir=str(folder / f"{number:02d}_{_file_name(label)}"),
    )
    found.append(page)
  results = [read_evaluation(page) for page in found]
  tables = [
    series_table(title, points, results),
    *differences(points, [page.parent for page in found]),
  ]
  pages = [os.path.relpath(page, own) for page in found]
  html = page_series.render(title, points, results, tables, pages)
  return _write(own, "series", tables, html)


def read_evaluation(page: pathlib.Path) -> Evaluation:
  """The numbers of the report whose page is `page`."""
  value = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
  return Evaluation.from_json(value["after"])


def series_table(
  title: str, points: Sequence[Point], results: Sequence[Evaluation]
) -> Table:
  """A row for each point: the mean and every cluster's mean."""
  names = list(dict.fromkeys(n for r in results for n in r.clusters))
  rows = []
  for (label, _, mixture), result in zip(points, results, strict=True):
    parts = [result.clusters.get(name) for name in names]
    rows.append(
      (
        label,
        mixture,
        len(result.tasks),
        sum(t.rows for t in result.tasks.values()),
        result.mean,
        result.interval,
        *(cell for c in parts for cell in (c and c.mean, c and c.interval)),
      )
    )
  columns = ["point", "mixture", "tasks", "n", "mean", "95 % interval"]
  for name in names:
    columns += [name.replace("_", " ") or "all", "95 % interval"]
  return Table(
    title,
    tuple(columns),
    tuple(rows),
    "Mean: over clusters of their tasks' means over templates. Intervals are"
    " over rows, for these tasks.",
  )


def differences(
  points: Sequence[Point], folders: Sequence[pathlib.Path]
) -> list[Table]:
  """For each mixture a table of its points against its first one."""
  by_mixture: dict[str, list[tuple[str, pathlib.Path]]] = {}
  for (label, _, mixture), folder in zip(points, folders, strict=True):
    by_mixture.setdefault(mixture, []).append((label, folder))
  tables = []
  for mixture, members in by_mixture.items():
    if len(members) < 2:
      continue
    (first, where), *others = members
    base = recorded.read(where)
    rows: list[tuple[Any, ...]] = []
    for label, folder in others:
      found = compare.compare(base, recorded.read(folder))
      primary = [r for r in found if r.primary]
      for r in (*primary, *compare.means(found)):
        rows.append((
          label, r.task, r.n, r.a, r.b, r.difference, r.interval,
          f"{r.p:.4f}", DASH if r.p_holm is None else f"{r.p_holm:.4f}",
          r.test,
        ))  # fmt: skip
    tables.append(
      Table(
        f"Differences from {first} on {mixture}",
        ("point", "task", "n", first, "its own", *_TESTED),
        tuple(rows),
        "Paired: both runs' rows are drawn, or exchanged, together. Holm's"
        " correction is for the tasks of one point.",
      )
    )
  return tables


def _checked(points: Sequence[Point]) -> list[Point]:
  points = list(points)
  for point in points:
    if (
      isinstance(point, str)
      or len(point) != 3
      or not all(isinstance(part, str) and part for part in point)
    ):
      raise UserError(
        f"POINTS: {point!r} is not (label, checkpoint, mixture), three texts."
      )
  points = [tuple(point) for point in points]
  named = [(label, mixture) for label, _, mixture in points]
  if len(points) < 2 or len(set(named)) != len(named):
    raise UserError(
      f"POINTS needs two points at least, each (label, mixture) once; got"
      f" {named}."
    )
  return points


def _file_name(label: str) -> str:
  return "".join(c if c.isalnum() else "_" for c in label)


def _write(
  folder: pathlib.Path, name: str, tables: Sequence[Table], page: str = ""
) -> pathlib.Path:
  display = progress_lib.Display(quiet=not processes.is_first())
  for table in tables:
    display.table(table.title, table.columns, table.cells())
  values = [
    {
      "title": t.title,
      "rows": [dict(_named(t.columns, row)) for row in t.rows],
      "note": t.note,
    }
    for t in tables
  ]
  written = {
    f"{name}.json": json.dumps(values, indent=1),
    f"{name}.md": "\n".join(t.markdown() for t in tables),
  }
  path = folder / f"{name}.md"
  if page:
    path = path.with_suffix(".html")
    written[path.name] = page
  files.write(folder, written, "table")
  display.say(f"table: {os.fspath(path)}")
  return path


def _named(columns: Sequence[str], row: Sequence[Any]):
  """Columns with their values; an interval goes by what it is of."""
  last = ""
  for column, value in zip(columns, row, strict=True):
    if column == "95 % interval":
      yield f"{last}, {column}", value
    else:
      last = column
      yield column, value
