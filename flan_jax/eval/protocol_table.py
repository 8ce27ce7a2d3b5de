"""Tables of an evaluation as FLAN and T0 print theirs.

FLAN: mean over templates and test score of the best development template (Wei
et al., 2022, arXiv 2109.01652, tables 1 and 2). T0: median over prompts and
the quartiles between which half of them lie (Sanh et al., 2022, arXiv
2110.08207, section 6.1 and figure 4).
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.errors import check_known
from flan_jax.eval import files
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.page_text import DASH, score

_FLAN_COLUMNS = (
  "task", "value", "n", "templates", "mean", "95 % interval",
  "best dev template", "95 % interval", "its number", "chance",
)  # fmt: skip
_T0_COLUMNS = (
  "task", "value", "n", "prompts", "median", "95 % interval", "quartiles",
  "range between", "least to most", "mean", "chance",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with its numbers, before they are rounded to be shown.

  Attributes:
    title: what it is.
    columns: headings.
    rows: texts, counts, scores in per cent, pairs (an interval or quartiles)
      and None for what is not there.
    note: how to read it.
  """

  title: str
  columns: tuple[str, ...]
  rows: tuple[tuple[Any, ...], ...]
  note: str

  def cells(self) -> list[tuple[str, ...]]:
    """Rows as they are shown: scores with one decimal, counts with commas."""
    return [tuple(map(_cell, row)) for row in self.rows]

  def markdown(self) -> str:
    """The table as Markdown, with its title and note."""
    lines = files.markdown_table(self.columns, self.cells())
    return "\n".join([f"## {self.title}", "", *lines, "", self.note, ""])


def flan(evaluation: Evaluation) -> Table:
  """A row for each task and the mean of each cluster.

  Without development rows the columns of the best template are empty.
  """
  rows = []
  for task in evaluation.tasks.values():
    main = task.main
    rows.append(
      (
        task.paper_name,
        main.name,
        task.rows,
        len(task.templates),
        main.spread.mean,
        main.interval,
        main.best_dev_score,
        main.best_dev_interval,
        main.best_dev_template,
        main.chance,
      )
    )
  for name, cluster in evaluation.clusters.items():
    rows.append(
      (
        f"mean of {name.replace('_', ' ') or 'all'}",
        "",
        None,
        None,
        cluster.mean,
        cluster.interval,
        cluster.best_dev,
        None,
        None,
        None,
      )
    )
  return Table(
    "FLAN: mean over templates, best development template",
    _FLAN_COLUMNS,
    tuple(rows),
    f"n: {evaluation.split} rows, each under every template. Intervals are"
    " over rows. The best template is chosen on development rows."
    + signatures(evaluation),
  )


def t0(evaluation: Evaluation) -> Table:
  """A row for each task, and the mean of the medians."""
  rows = []
  for task in evaluation.tasks.values():
    main = task.main
    rows.append(
      (
        task.paper_name,
        main.name,
        task.rows,
        len(task.templates),
        main.spread.median,
        main.median_interval,
        (main.spread.q1, main.spread.q3),
        main.spread.q3 - main.spread.q1,
        (main.spread.min, main.spread.max),
        main.spread.mean,
        main.chance,
      )
    )
  medians = [t.main.spread.median for t in evaluation.tasks.values()]
  ranges = [row[7] for row in rows]
  rows.append(
    (
      "mean of tasks",
      "",
      None,
      None,
      statistics.fmean(medians),
      None,
      None,
      statistics.fmean(ranges),
      None,
      evaluation_mean(evaluation),
      None,
    )
  )
  return Table(
    "T0: median and interquartile range over prompts",
    _T0_COLUMNS,
    tuple(rows),
    f"n: {evaluation.split} rows, each under every prompt that applies to it."
    " Intervals are over rows; quartiles, range and extremes are over prompts."
    + signatures(evaluation),
  )


def signatures(evaluation: Evaluation) -> str:
  """What the shown values must be told with, such as sacrebleu's signature."""
  found = {
    t.main.name: t.main.signature
    for t in evaluation.tasks.values()
    if t.main.signature
  }
  return "".join(f" {name}: {text}." for name, text in found.items())


def evaluation_mean(evaluation: Evaluation) -> float:
  """Mean over tasks of the means over templates."""
  return statistics.fmean(t.main.spread.mean for t in evaluation.tasks.values())


PROTOCOLS: Mapping[str, Callable[[Evaluation], Table]] = {
  "flan": flan,
  "t0": t0,
}


def get(name: str) -> Callable[[Evaluation], Table]:
  """The table of the protocol called `name`.

  Raises:
    UserError: there is none; the message has the nearest name.
  """
  check_known("PROTOCOL", name, PROTOCOLS)
  return PROTOCOLS[name]


def _cell(value: Any) -> str:
  if value is None:
    return DASH
  if isinstance(value, str):
    return value
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, Sequence):
    return " to ".join(map(score, value))
  return score(value)
