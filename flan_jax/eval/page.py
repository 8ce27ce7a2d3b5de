"""The report as one HTML page: no network, no script, every text escaped."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.eval import (
  page_outputs,
  page_prompt,
  page_results,
  page_time,
  plots,
)
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.page_text import DASH, last, score
from flan_jax.page import markup
from flan_jax.page.markup import table, text

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
    parts += [
      page_results.clusters(before, after),
      page_results.results(before, after),
      page_results.templates(before, after),
      page_results.scores(before, after),
      page_outputs.confusions(before, after),
    ]
  parts.append(_curves(curves))
  if shown is not None:
    parts.append(page_outputs.shown(before, after))
  parts += page_prompt.shown(run.get("prompt") or {})
  parts.append(page_time.spent(run, curves))
  parts += [_data(run), _what_ran(run), _reading(shown)]
  return markup.document(title, parts)


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
    tiles.append((f"{arrow}{value}", label))

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
    r["train/tokens_per_second"]
    for r in curves
    if "train/tokens_per_second" in r
  ]
  if speed:
    middle = sorted(speed)[len(speed) // 2]
    tile(f"{middle:,.0f}", "tokens per second (median)")
  return markup.tiles(tiles)


def _missing(missing: Mapping[str, str]) -> str:
  if not missing:
    return ""
  items = "".join(
    f"<li><b>{text(name)}</b> {text(reason)}</li>"
    for name, reason in missing.items()
  )
  n = len(missing)
  # Folded where the list would push the results off the screen.
  fold = "" if n > 6 else " open"
  return (
    f"<details{fold} class='warn small' style='margin-top:22px'><summary><b>"
    f"{n} dataset{'s' * (n != 1)} left out,</b> not prepared in the data"
    f" folder</summary><ul>{items}</ul></details>"
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
    left_out = run.get("left_out") if key == "train" else None
    header += ["left out"] if left_out else []
    header += ["share of examples"] if key == "train" else []
    rows = []
    for name, t in tasks.items():
      cells = f"<td class='text'>{text(name)}</td>"
      for split in splits:
        n = t.get("rows", {}).get(split)
        cells += f"<td>{DASH if n is None else f'{n:,}'}</td>"
      if left_out:
        counts = left_out.get(name, {})
        rows_out = sum(n for why, n in counts.items() if why in _WHY)
        cells += f"<td>{rows_out:,}</td>"
      if key == "train":
        rate = t.get("rate") or 0
        cells += f"<td>{100 * rate / (total or 1):.1f} %</td>"
      rows.append(f"<tr>{cells}</tr>")
    n = len(tasks)
    parts.append(
      f"<h3>{title}: {text(described.get('mixture', ''))},"
      f" {n} task{'s' * (n != 1)}</h3>" + table(header, rows, 1)
    )
    if left_out:
      parts.append(_left_out(left_out))
    parts += map(_lines, _files_of(tasks))
  if not parts:
    return ""
  source = data.get("source")
  where = f"<p class='muted small'>Source: {text(source)}</p>" if source else ""
  return f"<h2>Data</h2>{where}{''.join(parts)}"


_WHY = {
  "not_kept": "by the task's own rule",
  "incomplete": "with an empty text",
  "too_long": "longer than a row (by their options: counted once for each"
  " template)",
}


def _left_out(left_out) -> str:
  """Why training rows were not used, with counts."""
  sums = {
    reason: sum(counts.get(reason, 0) for counts in left_out.values())
    for reason in _WHY
  }
  said = [f"{n:,} {_WHY[reason]}" for reason, n in sums.items() if n]
  why = "; ".join(said) or "none"
  turns = sum(counts.get("turns", 0) for counts in left_out.values())
  if turns:
    why += f". Conversations longer than a row lost {turns:,} turns"
  return f"<p class='muted small'>Training rows left out: {text(why)}.</p>"


def _files_of(tasks) -> list[dict]:
  """What became of the lines of files, each file once."""
  found = {f["file"]: f for t in tasks.values() for f in t.get("lines", ())}
  return list(found.values())


def _lines(file) -> str:
  why = ", ".join(
    f"{n:,} {reason.replace('_', ' ')}" for reason, n in file["skipped"].items()
  )
  kind = file["format"] or "no format"
  said = (
    f"{file['file']} ({kind}): {file['lines']:,} lines, {file['read']:,} read,"
    f" {sum(file['skipped'].values()):,} skipped" + (f" ({why})" if why else "")
  )
  return f"<p class='muted small'>{text(said)}.</p>"


def _what_ran(run) -> str:
  parts = []
  if run.get("command"):
    command = run["command"]
    line = (
      command if isinstance(command, str) else shlex.join(map(str, command))
    )
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


_SCORED = {
  "sum": "the sum of the log-probabilities of its tokens",
  "mean": "the mean of the log-probabilities of its tokens",
  "calibrated": "the sum of the log-probabilities of its tokens, less that"
  " after a prompt without a question",
}


def _reading(shown: Evaluation | None) -> str:
  if shown is None:
    return ""
  how = _SCORED[shown.score]
  turned = [
    f"{text(t.paper_name)} {t.turned_around}"
    for t in shown.tasks.values()
    if t.turned_around
  ]
  notes = [
    f"A choice, end of sequence included, is scored by {how}; the best one is"
    " the answer and the first one wins a tie. Chance is guessing evenly,"
    " majority the best constant answer on the same rows. Intervals resample"
    " rows (1,000 times), each with all its templates. A cluster's mean counts"
    " every task once, each round of ANLI too, as in the paper"
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
