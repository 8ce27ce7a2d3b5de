"""Two runs side by side as one HTML page: differences, and what changed."""

from collections.abc import Mapping, Sequence

from flan_jax.eval import plots
from flan_jax.eval.changed import Changed, Counts
from flan_jax.eval.compare import MEAN, Difference
from flan_jax.eval.page_text import DASH, direction, score
from flan_jax.page import markup
from flan_jax.page.markup import readable, table, text

_HEADER = (
  "task", "value", "n", "first", "second", "difference", "95 % interval", "p",
  "p (Holm)", "became right", "became wrong",
)  # fmt: skip
SIGNIFICANT = 0.05


def render(
  names: tuple[str, str],
  rows: Sequence[Difference],
  means: Sequence[Difference],
  counts: Mapping[str, Counts],
  shown: Sequence[Changed],
) -> str:
  """The page; arguments as `compare_runs` makes them.

  Args:
    names: of the two runs, in the order compared.
    rows: a difference for each value of each task.
    means: differences of clusters and of all tasks.
    counts: answers that changed, by task.
    shown: some of them.
  """
  primary = [row for row in rows if row.primary]
  if len(means) == 2 and means[0].n == means[1].n:
    means = means[1:]  # one cluster: its mean is the mean of all
  parts = [
    "<h1>Two runs compared</h1>",
    f"<p class='lead'>First: {text(names[0])}<br>Second: {text(names[1])}</p>",
    _tiles(primary, means, counts),
    "<h2>Differences</h2>",
    f"<figure>{_plot(primary, means)}</figure>",
    _table([*rows, *means], counts),
    _changed(shown),
    _reading(),
  ]
  return markup.document("Two runs compared", parts)


def label(row: Difference) -> str:
  """A difference's name in tables and plots."""
  if row.value != "mean":
    return row.task
  return "All tasks" if row.task == MEAN else readable(row.task)


def _tiles(primary, means, counts) -> str:
  overall = [row for row in means if row.task == MEAN]
  better, worse = (
    sum(sign * r.difference > 0 and _surely(r) for r in primary)
    for sign in (1, -1)
  )
  tiles = [
    (score(row.difference, sign=True), "points, mean over tasks")
    for row in overall
  ]
  n = len(primary)
  tiles += [
    (f"{better} of {n}", f"tasks better (p < {SIGNIFICANT} after Holm)"),
    (f"{worse} of {n}", "tasks worse"),
    (
      f"{sum(c.gained for c in counts.values()):,} and"
      f" {sum(c.lost for c in counts.values()):,}",
      "answers became right, wrong",
    ),
  ]
  return markup.tiles(tiles)


def _surely(row: Difference) -> bool:
  p = row.p if row.p_holm is None else row.p_holm
  return p < SIGNIFICANT


def _plot(primary, means) -> str:
  bars = [
    plots.Interval(
      label(row),
      row.difference,
      row.interval,
      f"var(--{direction(row.difference) or 'muted'})",
    )
    for row in (*means, *primary)
  ]
  return plots.bars(
    "Second less first", bars, unit="points, 95 % interval", whole=False
  )


def _table(rows, counts) -> str:
  made = []
  for row in rows:
    low, high = row.interval
    change = counts.get(row.task) if row.primary else None
    cells = [
      f"<td class='text'>{text(label(row))}</td>",
      f"<td class='text'>{text(row.value)}</td>",
      f"<td>{row.n:,}</td>",
      f"<td>{score(row.a)}</td><td>{score(row.b)}</td>",
      f"<td class='strong {direction(row.difference)}'>"
      f"{score(row.difference, sign=True)}</td>",
      f"<td>{score(low, sign=True)} to {score(high, sign=True)}</td>",
      f"<td>{row.p:.4f}</td>",
      f"<td>{DASH if row.p_holm is None else f'{row.p_holm:.4f}'}</td>",
      f"<td>{change.gained if change else DASH}</td>",
      f"<td>{change.lost if change else DASH}</td>",
    ]
    kind = " class=cluster" if row.value == "mean" else ""
    kind = kind or ("" if row.primary else " class=second")
    made.append(f"<tr{kind}>{''.join(cells)}</tr>")
  return table(_HEADER, made, 2)


def _changed(shown: Sequence[Changed]) -> str:
  if not shown:
    return ""
  parts = ["<h2>Answers that changed</h2>"]
  for one in shown:
    what = "became right" if one.gained else "became wrong"
    colour = "up" if one.gained else "down"
    answers = "".join(
      f"<tr><td class='text'>{name}</td><td class='text wrap'>"
      f"{text(said) or DASH}</td></tr>"
      for name, said in (
        ("expected", one.expected), ("first", one.a), ("second", one.b),
      )
    )  # fmt: skip
    parts.append(
      f"<div class='sample'><header><b>{text(one.task)}</b><span>template"
      f" {one.template}, row {one.index}</span><span class='{colour}'>{what}"
      f"</span></header><pre>{text(one.prompt)}</pre><table><tbody>{answers}"
      "</tbody></table></div>"
    )
  return "".join(parts)


def _reading() -> str:
  return (
    "<footer><p>Both runs answered the same rows under the same templates. The"
    " interval is a paired bootstrap's over rows; p is McNemar's exact test for"
    " one template of right and wrong answers and else a permutation test, of"
    " no difference; Holm's correction is for the tasks compared. An answer"
    " became right or wrong by being the right choice, or a reference letter"
    " for letter.</p></footer>"
  )
