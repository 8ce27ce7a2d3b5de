"""The report's held-out part: clusters, tasks, every template."""

from flan_jax.eval import plots
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.page_text import DASH, between, direction, score
from flan_jax.eval.protocol import ClusterResult, TaskResult
from flan_jax.page.markup import readable, table, text


def clusters(before: Evaluation | None, after: Evaluation | None) -> str:
  """A bar with its interval for every cluster; of a lone one, its tasks too."""
  shown = after or before
  rows = []

  def add(label, values):
    for when, value, interval in values:
      said = f"{label}, {when}" if before and after else label
      rows.append(plots.Interval(said, value, interval, f"var(--{when})"))

  sides = [(w, e) for w, e in (("before", before), ("after", after)) if e]
  if len(shown.clusters) > 1:
    add("Mean of clusters", [(w, e.mean, e.interval) for w, e in sides])
  for name in shown.clusters:
    made = [(w, e.clusters[name]) for w, e in sides if name in e.clusters]
    label = readable(name or "all")
    add(label, [(w, c.mean, c.interval) for w, c in made])
  if len(shown.clusters) == 1:
    for name, task in shown.tasks.items():
      made = [(w, e.tasks[name].main) for w, e in sides if name in e.tasks]
      add(task.paper_name, [(w, m.spread.mean, m.interval) for w, m in made])
  figure = plots.bars("Clusters", rows, unit="mean over templates, %")
  return (
    "<h2>By cluster</h2><p>A bar is a mean over templates and tasks, the line"
    f" its 95&nbsp;% interval.</p><figure>{figure}</figure>"
  )


def results(before: Evaluation | None, after: Evaluation | None) -> str:
  """The table of tasks and cluster means; one of the two is not None."""
  shown = after or before
  both = before is not None and after is not None
  header = ["task", "metric", "n", "chance", "majority"]
  header += ["before", "after", "change"] if both else ["mean"]
  header += ["95 %", "median", "quartiles", "range", "best dev template"]
  rows = []
  for name, cluster in shown.clusters.items():
    for task in cluster.tasks:
      old = before.tasks.get(task) if both else None
      rows += _task_rows(shown.tasks[task], old, both)
    rows.append(
      _cluster_row(cluster, before.clusters.get(name) if both else None, both)
    )
  return "<h2>Held-out results</h2>" + table(
    header,
    rows,
    2,
    "Mean, 95&nbsp;% interval, median, quartiles and range are over templates"
    f"{', after tuning' if both else ''}; n is {text(shown.split)} rows."
    " Best dev template: test score of the template that is best on"
    " development rows, and its number.",
  )


def scores(before: Evaluation | None, after: Evaluation | None) -> str:
  """What each score of the choices would give; answers that are no choice."""
  shown = after or before
  names = list(shown.by_score)
  parts = []
  if len(names) > 1:
    rows = []
    for task in shown.tasks.values():
      values = [shown.by_score[n].get(task.task) for n in names]
      if any(v is not None for v in values):
        cells = "".join(f"<td>{score(v)}</td>" for v in values)
        name = text(task.paper_name)
        rows.append(f"<tr><td class='text'>{name}</td>{cells}</tr>")
    parts.append(
      table(
        ["task", *(text(n) for n in names)],
        rows,
        1,
        "Main metric by the score that picks a choice: the sum of its tokens'"
        " log-probabilities, their mean, or the sum less that without the"
        f" prompt (calibrated). All else here is by {text(shown.score)}.",
      )
    )
  if shown.unmatched:
    listed = ", ".join(
      f"{text(shown.tasks[n].paper_name)} {count:,}"
      for n, count in shown.unmatched.items()
    )
    parts.append(
      f"<p>Generated answers that are none of the choices, counted as wrong:"
      f" {listed}.</p>"
    )
  return "<h2>Scores of choices</h2>" + "".join(parts) if parts else ""


def _task_rows(task: TaskResult, old: TaskResult | None, both: bool):
  for i, (name, r) in enumerate(task.metrics.items()):
    was = old.metrics[name].spread.mean if old and name in old.metrics else None
    s = r.spread
    cells = [
      f"<td class='text'>{text(task.paper_name) if i == 0 else ''}</td>",
      f"<td class='text'>{text(name.replace('_', ' '))}</td>",
      f"<td>{f'{task.rows:,}' if i == 0 else ''}</td>",
      f"<td>{score(r.chance)}</td><td>{score(r.majority)}</td>",
    ]
    if both:
      cells.append(f"<td>{score(was)}</td>")
    cells.append(f"<td class='strong'>{score(s.mean)}</td>")
    if both:
      cells.append(_change(was, s.mean))
    best = DASH
    if r.best_dev_score is not None:
      best = (
        f"{score(r.best_dev_score)} <span class='muted'>"
        f"#{r.best_dev_template}</span>"
      )
    cells += [
      f"<td>{between(r.interval)}</td><td>{score(s.median)}</td>",
      f"<td>{between((s.q1, s.q3))}</td><td>{between((s.min, s.max))}</td>",
      f"<td>{best}</td>",
    ]
    yield f"<tr{' class=second' if i else ''}>{''.join(cells)}</tr>"


def _cluster_row(
  cluster: ClusterResult, old: ClusterResult | None, both: bool
) -> str:
  n = len(cluster.tasks)
  cells = [
    f"<td class='text' colspan=5>{text(readable(cluster.cluster or 'all'))}:"
    f" mean of {n} task{'s' * (n != 1)}</td>"
  ]
  if both:
    cells.append(f"<td>{score(old.mean if old else None)}</td>")
  cells.append(f"<td>{score(cluster.mean)}</td>")
  if both:
    cells.append(_change(old.mean if old else None, cluster.mean))
  cells.append(f"<td>{between(cluster.interval)}</td><td colspan=3></td>")
  cells.append(f"<td>{score(cluster.best_dev)}</td>")
  return f"<tr class='cluster'>{''.join(cells)}</tr>"


def _change(old: float | None, new: float) -> str:
  if old is None:
    return f"<td>{DASH}</td>"
  change = new - old
  return (
    f"<td class='strong {direction(change)}'>{score(change, sign=True)}</td>"
  )


def templates(before: Evaluation | None, after: Evaluation | None) -> str:
  """A dot for each template of each task."""
  shown = after or before
  rows = []
  for name, task in shown.tasks.items():
    old = before.tasks.get(name) if before else None
    rows.append(
      plots.Dots(
        label=task.paper_name,
        before=dict(old.main.scores) if old else {},
        after=dict(after.tasks[name].main.scores) if after else {},
        chance=task.main.chance,
      )
    )
  figure = plots.dots("Every template", rows)
  return (
    "<h2>How much the wording matters</h2><p>Each dot is one template: the same"
    " rows, asked in other words. The bar is the mean.</p>"
    f"<figure>{figure}</figure>"
  )
