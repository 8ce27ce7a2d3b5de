"""The report's part of outputs: prompts with answers, and confusion tables."""

from flan_jax.eval import outputs
from flan_jax.eval.evaluation import Confusion, Evaluation, Sample
from flan_jax.page.markup import table, text

_KINDS = (
  (
    "samples",
    "Prompts and answers",
    "The first and a middle row of each task, as the model reads them; nobody"
    " picked them.",
  ),
  (
    "worst",
    "Worst outputs",
    "Of each task, the wrong choices that the model gives the largest share,"
    f" or the texts that score lowest (of {outputs.SCORED} at random where"
    " there are more).",
  ),
  (
    "random",
    "Outputs at random",
    "Some rows of each task, drawn with a fixed seed.",
  ),
)


def shown(before: Evaluation | None, after: Evaluation | None) -> str:
  """Prompts with what the model said: unpicked, the worst, at random."""
  last = after or before
  old = {}
  if before and after:
    old = {
      (s.task, s.template, s.index): s
      for kind, _, _ in _KINDS
      for s in getattr(before, kind)
    }
  out = []
  for kind, heading, said in _KINDS:
    samples = getattr(last, kind)
    if samples:
      out.append(f"<h2>{heading}</h2><p>{said}</p>")
    for s in samples:
      title = last.tasks[s.task].paper_name
      out.append(_sample(title, s, old.get((s.task, s.template, s.index))))
  return "".join(out)


def confusions(before: Evaluation | None, after: Evaluation | None) -> str:
  """For each task with classes, what is taken for what."""
  both = before is not None and after is not None
  figures = []
  for name, task in (after or before).tasks.items():
    for when, one in (("before", before), ("after", after)):
      made = one.confusions.get(name) if one else None
      if made is not None:
        title = task.paper_name + (f", {when} tuning" if both else "")
        figures.append(_confusion(title, made, when))
  if not figures:
    return ""
  return (
    "<h2>What is taken for what</h2><p>Rows are the right class, columns the"
    " answer; counts are over all templates, and the shade is the share of the"
    f" row.</p><div class='plots'>{''.join(figures)}</div>"
  )


def _confusion(title: str, made: Confusion, colour: str) -> str:
  answered = [text(c) for c in made.classes]
  if len(made.counts[0]) > len(made.classes):
    answered.append("<i>none of them</i>")
  rows = []
  for i, (name, counts) in enumerate(
    zip(made.classes, made.counts, strict=True)
  ):
    total = sum(counts) or 1
    cells = "".join(
      f"<td{' class=strong' if i == j else ''} style='background:color-mix("
      f"in srgb, var(--{colour}) {round(60 * n / total)}%, transparent)'>"
      f"{n:,}</td>"
      for j, n in enumerate(counts)
    )
    rows.append(f"<tr><td class='text wrap'>{text(name)}</td>{cells}</tr>")
  note = ""
  if made.named_by is not None:
    note = f" <span class='muted'>worded as in template {made.named_by}</span>"
  grid = table(["right \u2193, answer \u2192", *answered], rows, 1)
  return f"<div class='confusion'><h3>{text(title)}{note}</h3>{grid}</div>"


def _sample(title: str, s: Sample, old: Sample | None) -> str:
  verdict = _verdict(s)
  if verdict and old is not None:
    verdict = f"<span>before {_verdict(old)}, after {verdict}</span>"
  body = (
    f"<div class='sample'><header><span><b>{text(title)}</b>"
    f" <span class='muted'>template {s.template}, row {s.index}</span></span>"
    f"{verdict}</header><pre>{text(s.prompt)}</pre>"
  )
  if s.scores:
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


def _choices(s: Sample, old: Sample | None) -> str:
  columns = [("after", outputs.shares(s.scores))]
  if old is not None:
    columns.insert(0, ("before", outputs.shares(old.scores)))
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
