"""What a run did and what came of it: report.html, report.json, report.md."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.eval import files as files_lib
from flan_jax.eval import page, page_text
from flan_jax.eval.evaluation import Evaluation
from flan_jax.page import markup


def write_report(
  directory: str | os.PathLike,
  *,
  run: Mapping[str, Any],
  curves: Sequence[Mapping[str, Any]] = (),
  before: Evaluation | None = None,
  after: Evaluation | None = None,
  missing: Mapping[str, str] | Sequence[str] = (),
  title: str | None = None,
) -> pathlib.Path:
  """Writes the three files and returns the path of the page.

  >>> write_report("runs/demo", run={"name": "flan_holdout_nli"},
  ...   curves=[{"step": 1, "train/loss": 8.3}], before=before, after=after)
  ...                                                     # doctest: +SKIP
  PosixPath('runs/demo/report.html')

  Args:
    directory: made if it is not there.
    run: what ran; all of it optional: `name`, `command` (words), `config`
      (text), `versions` (name -> version), `data_label` (one line), `data`:
      `source` and for `train` and `eval` the `mixture` and its `tasks` (name
      -> `rows` by split, `rate`); `prompt`: see `page_prompt.shown`.
    curves: rows of the metrics log: `step` and scalars such as `train/loss`,
      `validation/loss`, `train/learning_rate`, `train/tokens_per_second`,
      `eval/mean`.
    before: held-out results before tuning.
    after: held-out results after tuning, or of the one model there is.
    missing: names of datasets left out, with reasons.
    title: of the page; default: from the run's name.

  Raises:
    UserError: the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  if not isinstance(missing, Mapping):
    missing = dict.fromkeys(missing, "")
  missing = {str(name): str(reason) for name, reason in missing.items()}
  if title is None:
    title = markup.readable(str(run.get("name") or "evaluation"))
  parts = {
    "run": run,
    "curves": curves,
    "before": before,
    "after": after,
    "missing": missing,
  }
  files = {
    "report.json": json.dumps(_plain({"title": title, **parts}), indent=1),
    "report.md": markdown(title, **parts),
    "report.html": page.render(title, **parts),
  }
  files_lib.write(directory, files, "report")
  return directory / "report.html"


def markdown(
  title: str,
  *,
  run: Mapping[str, Any],
  curves: Sequence[Mapping[str, Any]],
  before: Evaluation | None,
  after: Evaluation | None,
  missing: Mapping[str, str],
) -> str:
  """The numbers as Markdown; arguments as for `write_report`."""
  out = [f"# {_cell(title)}", ""]
  if run.get("data_label"):
    out += [f"Data: {_cell(run['data_label'])}.", ""]
  loss = page_text.last(curves, "train/loss")
  if loss is not None:
    start = page_text.last(curves, "train/loss", first=True)
    steps = page_text.last(curves, "step")
    out += [f"Training loss {start:.3f} → {loss:.3f} in {steps:,} steps.", ""]
  if missing:
    out += ["Left out, not prepared in the data folder:", ""]
    out += [f"* {_cell(n)} {_cell(r)}".rstrip() for n, r in missing.items()]
    out.append("")
  shown = after or before
  if shown is not None:
    out += ["## Held-out results", "", *_table(before, after), ""]
  return "\n".join(out)


def _table(before, after) -> list[str]:
  shown = after or before
  both = before is not None and after is not None
  middle = ["before", "after", "change"] if both else ["mean"]
  header = ["task", "metric", "n", "templates", "chance", "majority", *middle]
  header += ["95 %", "median", "quartiles", "min", "max", "best dev"]
  rows = []
  s, between = page_text.score, page_text.between
  for name, task in shown.tasks.items():
    for metric, r in task.metrics.items():
      old = None
      if both and name in before.tasks:
        old = before.tasks[name].metrics[metric].spread.mean
      row = [_cell(task.paper_name), metric, f"{task.rows:,}"]
      row += [str(len(task.templates)), s(r.chance), s(r.majority)]
      row += [s(old)] * both + [s(r.spread.mean)]
      if both:
        row.append(s(None if old is None else r.spread.mean - old, sign=True))
      row += [between(r.interval), s(r.spread.median)]
      row.append(between((r.spread.q1, r.spread.q3)))
      row += [s(r.spread.min), s(r.spread.max), s(r.best_dev_score)]
      rows.append(row)
  for name, cluster in shown.clusters.items():
    old = before.clusters.get(name) if both else None
    row = [f"**{markup.readable(name or 'all')}**", "mean", "", "", "", ""]
    row += [s(old.mean if old else None)] * both + [s(cluster.mean)]
    if both:
      row.append(s(cluster.mean - old.mean if old else None, sign=True))
    row += [between(cluster.interval), "", "", "", "", s(cluster.best_dev)]
    rows.append(row)
  return files_lib.markdown_table(header, rows, text_columns=2)


def _cell(value: Any) -> str:
  for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
    value = str(value).replace(old, new)
  return value


def _plain(value: Any) -> Any:
  """JSON's types; numbers that are not finite become null."""
  if isinstance(value, Evaluation):
    return _plain(value.to_json())
  if isinstance(value, Mapping):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | set | frozenset):
    return [_plain(v) for v in value]
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  return str(value)
