"""The report's held-out part: the table, every template, some answers."""

import math
from collections.abc import Sequence

from flan_jax.eval import plots
from flan_jax.eval.evaluation import Evaluation, Sample
from flan_jax.eval.page_text import DASH, score
from flan_jax.eval.protocol import ClusterResult, TaskResult
from flan_jax.page.markup import readable, table, text


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
    low, high = r.interval or (None, None)
    best = DASH
    if r.best_dev_score is not None:
      best = (
        f"{score(r.best_dev_score)} <span class='muted'>"
        f"#{r.best_dev_template}</span>"
      )
    cells += [
      f"<td>{_range(low, high)}</td><td>{score(s.median)}</td>",
      f"<td>{_range(s.q1, s.q3)}</td><td>{_range(s.min, s.max)}</td>",
      f"<td>{best}</td>",
    ]
    yield f"<tr{' class=second' if i else ''}>{''.join(cells)}</tr>"


def _range(low, high) -> str:
  return DASH if low is None else f"{score(low)}{DASH}{score(high)}"


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
  cells.append("<td colspan=4></td>")
  cells.append(f"<td>{score(cluster.best_dev)}</td>")
  return f"<tr class='cluster'>{''.join(cells)}</tr>"


def _change(old: float | None, new: float) -> str:
  if old is None:
    return f"<td>{DASH}</td>"
  shown = score(new - old, sign=True)
  kind = "" if shown == "0.0" else " up" if new > old else " down"
  return f"<td class='strong{kind}'>{shown}</td>"


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


def samples(before: Evaluation | None, after: Evaluation | None) -> str:
  """Prompts with what the model said to them."""
  shown = after or before
  old = {}
  if before and after:
    old = {(s.task, s.template, s.index): s for s in before.samples}
  out = [
    "<h2>Prompts and answers</h2><p>The first and a middle row of each task,"
    " as the model reads them; nobody picked them.</p>"
  ]
  for s in shown.samples:
    title = shown.tasks[s.task].paper_name
    out.append(_sample(title, s, old.get((s.task, s.template, s.index))))
  return "".join(out)


def _sample(title: str, s: Sample, old: Sample | None) -> str:
  verdict = _verdict(s)
  if verdict and old is not None:
    verdict = f"<span>before {_verdict(old)}, after {verdict}</span>"
  body = (
    f"<div class='sample'><header><span><b>{text(title)}</b>"
    f" <span class='muted'>template {s.template}, row {s.index}</span></span>"
    f"{verdict}</header><pre>{text(s.prompt)}</pre>"
  )
  if s.choices:
    return body + _choices(s, old) + "</div>"
  rows = [("expected", s.expected)]
  if old is not None:
    rows.append(("before tuning", old.answer))
  rows.append(("after tuning" if old is not None else "answer", s.answer))
  cells = (
    f"<tr><td class='text muted'>{label}</td><td class='text wrap'>"
    f"{text(value) or '<i class=muted>(nothing)</i>'}</td></tr>"
    for label, value in rows
  )
  return f"{body}<table><tbody>{''.join(cells)}</tbody></table></div>"


def _verdict(s: Sample) -> str:
  if s.correct is None:
    return ""
  kind, word = ("up", "right") if s.correct else ("down", "wrong")
  return f"<span class='{kind}'>{word}</span>"


def shares(scores: Sequence[float]) -> list[float]:
  """Probability of each choice given that one of them is said, in per cent.

  >>> shares([math.log(0.3), math.log(0.1)])
  [75.0, 25.0]
  """
  top = max(scores)
  if not math.isfinite(top):
    return [100.0 / len(scores)] * len(scores)
  weights = [math.exp(s - top) for s in scores]
  return [round(100 * w / sum(weights), 6) for w in weights]


def _choices(s: Sample, old: Sample | None) -> str:
  columns = [("after", shares(s.scores))]
  if old is not None:
    columns.insert(0, ("before", shares(old.scores)))
  heads = ["choice"] + (
    [f"share {name} tuning" for name, _ in columns] if old else ["share"]
  )
  rows = []
  for i, choice in enumerate(s.choices):
    right = " <span class='up'>\u2713</span>" if choice == s.expected else ""
    cells = "".join(
      f"<td class='text'>{values[i]:.0f} %<span class='bar' style='width:"
      f"{values[i] * 0.8:.0f}px;background:var(--{name})'></span></td>"
      for name, values in columns
    )
    rows.append(
      f"<tr><td class='text wrap'>{text(choice)}{right}</td>{cells}</tr>"
    )
  return table(heads, rows, len(heads))
