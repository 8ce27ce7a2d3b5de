"""The report as one HTML page: no network, no script, every text escaped."""

import html
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.eval import plots
from flan_jax.eval.evaluation import Evaluation, Sample
from flan_jax.eval.page_style import CSS
from flan_jax.eval.protocol import ClusterResult, TaskResult

MINUS, DASH = "\u2212", "\u2013"

# Panels of the training curves: title, unit, [(label, key)], from zero.
_PANELS = (
  (
    "Loss",
    "nats per target token",
    (("training", "train/loss"), ("validation", "validation/loss")),
    False,
  ),
  (
    "Held-out mean",
    "% over clusters",
    (("held-out", "eval/mean"),),
    False,
  ),
  (
    "Learning rate",
    "",
    (("learning rate", "train/learning_rate"),),
    True,
  ),
  (
    "Speed",
    "tokens per second",
    (("tokens per second", "train/tokens_per_second"),),
    True,
  ),
)


def text(value: Any) -> str:
  """`value` as HTML text, whatever is in it.

  >>> text("<script>")
  '&lt;script&gt;'
  """
  return html.escape(str(value))


def score(value: float | None, *, sign: bool = False) -> str:
  """One decimal; a dash for None and for what is not finite.

  >>> [score(52.345), score(None), score(-3.21, sign=True)]
  ['52.3', '\u2013', '\u22123.2']
  """
  if value is None or not math.isfinite(value):
    return DASH
  shown = f"{value:+.1f}" if sign else f"{value:.1f}"
  if float(shown) == 0:
    shown = "0.0"
  return shown.replace("-", MINUS)


def readable(name: str) -> str:
  """A cluster's folder as words.

  >>> readable("natural_language_inference")
  'Natural language inference'
  """
  words = name.replace("_", " ")
  return words[:1].upper() + words[1:]


def render(
  title: str,
  *,
  run: Mapping[str, Any],
  curves: Sequence[Mapping[str, Any]],
  before: Evaluation | None,
  after: Evaluation | None,
  missing: Mapping[str, str],
) -> str:
  """The page; arguments as `report.write_report` takes them."""
  shown = after or before
  parts = [
    f"<h1>{text(title)}</h1>",
    _lead(run, curves, before, after),
    _tiles(run, curves, before, after),
    _missing(missing),
  ]
  if shown is not None:
    parts += [_results(before, after), _templates(before, after)]
  parts.append(_curves(curves))
  if shown is not None:
    parts.append(_samples(before, after))
  parts += [_data(run), _what_ran(run), _reading(shown)]
  return (
    "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    f"<title>{text(title)}</title><style>{CSS}</style></head>\n<body><main>"
    + "\n".join(p for p in parts if p)
    + "\n</main></body></html>\n"
  )


def last(curves: Iterable[Mapping[str, Any]], key: str, *, first=False):
  """The last (or first) finite value of `key` in the log; None without."""
  values = [
    row[key]
    for row in curves
    if isinstance(row.get(key), int | float) and math.isfinite(row[key])
  ]
  return (values[0] if first else values[-1]) if values else None


def _lead(run, curves, before, after) -> str:
  said = []
  label = run.get("data_label")
  if label:
    said.append(f"Data: {text(label)}.")
  shown = after or before
  if shown is not None:
    n = len(shown.tasks)
    said.append(
      f"{n} held-out task{'s' * (n != 1)}, with every template that asks for"
      f" the answer, on {text(shown.split)} rows."
    )
  return f"<p class='lead'>{' '.join(said)}</p>" if said else ""


def _tiles(run, curves, before, after) -> str:
  tiles = []

  def tile(value, label, start=None):
    arrow = f"<span class='from'>{start} \u2192 </span>" if start else ""
    tiles.append(f"<div class='tile'><b>{arrow}{value}</b><span>{label}</span></div>")

  if after or before:
    old = score(before.mean) if before and after else None
    tile(score((after or before).mean), "held-out mean, %", old)
  loss = last(curves, "train/loss")
  if loss is not None:
    start = last(curves, "train/loss", first=True)
    tile(f"{loss:.2f}", "training loss", f"{start:.2f}")
  step = last(curves, "step")
  if step is not None:
    tile(f"{step:,}", "training steps")
  speed = [
    r["train/tokens_per_second"] for r in curves if "train/tokens_per_second" in r
  ]
  if speed:
    middle = sorted(speed)[len(speed) // 2]
    tile(f"{middle:,.0f}", "tokens per second (median)")
  return f"<div class='tiles'>{''.join(tiles)}</div>" if tiles else ""


def _missing(missing: Mapping[str, str]) -> str:
  if not missing:
    return ""
  items = "".join(
    f"<li><b>{text(name)}</b> {text(reason)}</li>"
    for name, reason in missing.items()
  )
  n = len(missing)
  return (
    "<div class='warn small' style='margin-top:22px'><b>"
    f"{n} dataset{'s' * (n != 1)} left out,</b> not prepared in the data"
    f" folder:<ul>{items}</ul></div>"
  )


def table(
  header: Sequence[str], rows: Iterable[str], text_columns: int, caption=""
) -> str:
  """A table whose first `text_columns` headings stand left; a note above."""
  heads = "".join(
    f"<th{' class=text' if i < text_columns else ''}>{h}</th>"
    for i, h in enumerate(header)
  )
  note = f"<p class='note'>{caption}</p>" if caption else ""
  return (
    f"{note}<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>"
    + "".join(rows)
    + "</tbody></table></div>"
  )


def _change(old: float | None, new: float) -> str:
  if old is None:
    return f"<td>{DASH}</td>"
  shown = score(new - old, sign=True)
  kind = "" if shown == "0.0" else " up" if new > old else " down"
  return f"<td class='strong{kind}'>{shown}</td>"


def _results(before, after) -> str:
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
  return (
    "<h2>Held-out results</h2>"
    + table(
      header,
      rows,
      2,
      "Mean, 95&nbsp;% interval, median, quartiles and range are over templates"
      f"{', after tuning' if both else ''}; n is {text(shown.split)} rows."
      " Best dev template: test score of the template that is best on"
      " development rows, and its number.",
    )
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


def _templates(before, after) -> str:
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


def _curves(curves) -> str:
  panels = []
  for title, unit, series, from_zero in _PANELS:
    made = []
    for (label, key), colour in zip(
      series, ("var(--after)", "var(--before)"), strict=False
    ):
      points = tuple(
        (float(r["step"]), float(r[key]))
        for r in curves
        if isinstance(r.get(key), int | float)
      )
      made.append(plots.Curve(label, points, colour))
    panels.append(plots.lines(title, made, unit=unit, from_zero=from_zero))
  panels = [p for p in panels if p]
  if not panels:
    return ""
  return f"<h2>Training</h2><div class='plots'>{''.join(panels)}</div>"


def _samples(before, after) -> str:
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
    f"<div class='sample'><header><span><b>{text(title)}</b> <span class='muted'>"
    f"template {s.template}, row {s.index}</span></span>{verdict}</header>"
    f"<pre>{text(s.prompt)}</pre>"
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
    rows.append(f"<tr><td class='text wrap'>{text(choice)}{right}</td>{cells}</tr>")
  return table(heads, rows, len(heads))


def _data(run) -> str:
  data = run.get("data") or {}
  parts = []
  for key, title in (("train", "Trained on"), ("eval", "Held out")):
    described = data.get(key) or {}
    tasks = described.get("tasks") or {}
    if not tasks:
      continue
    total = sum(t.get("rate") or 0 for t in tasks.values())
    splits = [
      split
      for split in ("train", "validation", "test")
      if any(split in t.get("rows", {}) for t in tasks.values())
    ]
    header = ["task", *(f"{s} rows" for s in splits)]
    header += ["rate", "share"] if key == "train" else []
    rows = []
    for name, t in tasks.items():
      cells = f"<td class='text'>{text(name)}</td>"
      for split in splits:
        n = t.get("rows", {}).get(split)
        cells += f"<td>{DASH if n is None else f'{n:,}'}</td>"
      if key == "train":
        rate = t.get("rate") or 0
        cells += f"<td>{rate:,.0f}</td><td>{100 * rate / (total or 1):.1f} %</td>"
      rows.append(f"<tr>{cells}</tr>")
    n = len(tasks)
    parts.append(
      f"<h3>{title}: {text(described.get('mixture', ''))},"
      f" {n} task{'s' * (n != 1)}</h3>" + table(header, rows, 1)
    )
  if not parts:
    return ""
  source = data.get("source")
  where = f"<p class='muted small'>Source: {text(source)}</p>" if source else ""
  return f"<h2>Data</h2>{where}{''.join(parts)}"


def _what_ran(run) -> str:
  parts = []
  if run.get("command"):
    command = run["command"]
    line = command if isinstance(command, str) else shlex.join(map(str, command))
    parts.append(f"<h3>Command</h3><pre class='box'>{text(line)}</pre>")
  if run.get("config"):
    parts.append(
      "<h3>Configuration</h3><pre class='box'>"
      f"{text(str(run['config']).strip())}</pre>"
    )
  if run.get("versions"):
    versions = ", ".join(
      f"{text(name)}&nbsp;{text(v)}" for name, v in run["versions"].items()
    )
    parts.append(f"<h3>Versions</h3><p class='small'>{versions}</p>")
  return f"<h2>What ran</h2>{''.join(parts)}" if parts else ""


def _reading(shown: Evaluation | None) -> str:
  if shown is None:
    return ""
  how = {"sum": "the sum of", "mean": "the mean over"}[shown.score]
  turned = [
    f"{text(t.paper_name)} {t.turned_around}"
    for t in shown.tasks.values()
    if t.turned_around
  ]
  notes = [
    "A choice is scored by "
    f"{how} the log-probabilities of its tokens, end of sequence included; the"
    " best one is the answer and the first one wins a tie. Chance is guessing"
    " evenly, majority the best constant answer on the same rows. Intervals"
    " resample rows (1,000 times), each with all its templates. A cluster's"
    " mean counts every task once, each round of ANLI too, as in the paper"
    " (Wei et al., 2022, arXiv 2109.01652).",
  ]
  if turned:
    notes.append(
      "Templates that are turned around (they ask for the input, not for the"
      f" answer) are not scored: {', '.join(turned)}."
    )
  ties = [
    f"{text(t.paper_name)} {t.ties}" for t in shown.tasks.values() if t.ties
  ]
  if ties:
    notes.append(f"Answers decided by a tie: {', '.join(ties)}.")
  if shown.cut:
    cut = ", ".join(
      f"{text(shown.tasks[t].paper_name)} {n}" for t, n in shown.cut.items()
    )
    notes.append(f"Generated answers that reached the length limit: {cut}.")
  notes.append(
    f"{shown.examples:,} prompts were evaluated in {shown.seconds:.0f} s."
  )
  return "<footer>" + "".join(f"<p>{n}</p>" for n in notes) + "</footer>"
