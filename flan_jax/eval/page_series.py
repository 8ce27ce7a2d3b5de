"""Several evaluated checkpoints as one HTML page: the curve, and its tables."""

import math
import urllib.parse
from collections.abc import Sequence

from flan_jax.eval import plots
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.protocol_table import Table
from flan_jax.page import markup
from flan_jax.page.markup import readable, table, text

# A label, a checkpoint and a mixture.
Point = tuple[str, str, str]


def render(
  title: str,
  points: Sequence[Point],
  results: Sequence[Evaluation],
  tables: Sequence[Table],
  pages: Sequence[str],
) -> str:
  """The page.

  Args:
    title: what the points differ in.
    points: a label, a checkpoint and a mixture each; where all labels are
      numbers, such as counts of clusters, the scores are drawn as curves over
      them.
    results: of each point.
    tables: below the plots.
    pages: of each point, relative to this one.
  """
  n = len(points)
  parts = [
    f"<h1>{text(readable(title))}</h1>",
    f"<p class='lead'>{n} checkpoints, on {text(results[0].split)} rows.</p>",
    _drawn(title, points, results),
    *map(_table, tables),
    _pages(points, pages),
  ]
  return markup.document(title, parts)


def _drawn(title, points, results) -> str:
  """Curves where labels are numbers, else bars."""
  places = [_number(label) for label, _, _ in points]
  if None not in places and len({mixture for _, _, mixture in points}) == 1:
    return _curves(title, places, results)
  several = len({label for label, _, _ in points}) < len(points)
  bars = [
    plots.Interval(
      f"{label}, {mixture}" if several else label, r.mean, r.interval
    )
    for (label, _, mixture), r in zip(points, results, strict=True)
  ]
  figure = plots.bars("Mean over clusters", bars, unit="%, 95 % interval")
  return f"<figure>{figure}</figure>"


def _curves(title, places, results) -> str:
  names = list(dict.fromkeys(n for r in results for n in r.clusters))
  drawn = [("Mean of clusters", [(r.mean, r.interval) for r in results])]
  if len(names) == 1:
    drawn = []
  for name in names:
    made = [r.clusters.get(name) for r in results]
    if all(made):
      label = readable(name or "all")
      drawn.append((label, [(c.mean, c.interval) for c in made]))
  panels = []
  for label, values in drawn:
    ordered = sorted(zip(places, values, strict=True))
    intervals = tuple(ends for _, (_, ends) in ordered if ends is not None)
    curve = plots.Curve(
      label,
      tuple((x, mean) for x, (mean, _) in ordered),
      intervals=intervals if len(intervals) == len(ordered) else (),
    )
    panels.append(
      plots.lines(label, [curve], unit=f"%, over {title}", across=title)
    )
  return (
    "<p>Means over templates and tasks; lines are their 95&nbsp;% intervals."
    f"</p><div class='plots'>{''.join(panels)}</div>"
  )


def _number(label: str) -> float | None:
  try:
    value = float(label)
  except ValueError:
    return None
  return value if math.isfinite(value) else None


def _table(made: Table) -> str:
  # Texts stand left, up to the first number.
  words = next(
    (i for i, x in enumerate(made.rows[0]) if not isinstance(x, str)), 1
  )
  rows = []
  for cells in made.cells():
    shown = "".join(
      f"<td{' class=text' if i < words else ''}>{text(cell)}</td>"
      for i, cell in enumerate(cells)
    )
    rows.append(f"<tr>{shown}</tr>")
  header = [text(c) for c in made.columns]
  return f"<h2>{text(readable(made.title))}</h2>" + table(
    header, rows, words, text(made.note)
  )


def _pages(points, pages) -> str:
  rows = [
    f"<tr><td class='text'><a href='{text(urllib.parse.quote(page))}'>"
    f"{text(label)}</a></td><td class='text'>{text(mixture)}</td>"
    f"<td class='text wrap'>{text(checkpoint)}</td></tr>"
    for (label, checkpoint, mixture), page in zip(points, pages, strict=True)
  ]
  return "<h2>Pages of the points</h2>" + table(
    ["point", "evaluated on", "checkpoint"], rows, 3
  )
