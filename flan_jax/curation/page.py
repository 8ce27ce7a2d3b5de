"""A curation run as one HTML page: no network, no script, texts escaped."""

import collections
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.curation import rows as rows_lib
from flan_jax.curation import verbs
from flan_jax.curation.manifest import Manifest
from flan_jax.eval import plots
from flan_jax.page import markup
from flan_jax.page.markup import table, text

KEPT = "kept"
# Shown for each reason, and characters of each.
EXAMPLES = 3
_CHARACTERS = 600
_VERBS = 20
_NOUNS = 6
_COLOURS = (
  "var(--after)", "var(--before)", "var(--up)", "var(--down)", "var(--muted)",
  "color-mix(in srgb, var(--after) 50%, var(--down))",
  "color-mix(in srgb, var(--up) 50%, var(--ink))",
  "color-mix(in srgb, var(--before) 50%, var(--paper))",
)  # fmt: skip


def render(
  title: str,
  *,
  manifest: Manifest,
  kept: Sequence[Mapping[str, Any]],
  dropped: Sequence[Mapping[str, Any]],
  examples: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
  figures: Mapping[str, Any],
) -> str:
  """The page.

  Args:
    title: of the run.
    manifest: of the run.
    kept: rows that came through.
    dropped: rows that did not, or some of them.
    examples: (stage, reason) -> some decisions with it.
    figures: see `report.py`; parts that are absent are left out.
  """
  parts = [
    f"<h1>{text(title)}</h1>",
    _lead(manifest),
    _tiles(manifest, kept),
    "".join(f"<p class='warn small'>{text(n)}</p>" for n in manifest.notes),
    _compared(figures),
    _stages(manifest),
    _lengths(kept, dropped),
    _diversity(kept, dropped),
    _similarity(figures),
    _coverage(figures),
    _map(figures),
    _examples(examples),
    _rows(kept),
    _cost(manifest),
    _what_ran(manifest),
  ]
  return markup.document(title, parts)


def _lead(manifest: Manifest) -> str:
  files = [f for some in manifest.inputs.values() for f in some]
  came = ", ".join(
    f"{text(f.path.rpartition('/')[2])}"
    + (f" ({f.rows:,} lines)" if f.rows is not None else "")
    for f in files
  )
  return (
    f"<p class='lead'>Method: {text(manifest.method)}. In:"
    f" {came or 'nothing'}.</p>"
  )


def _tiles(manifest: Manifest, kept) -> str:
  totals = manifest.totals
  made = []
  if "rows_in" in totals:
    made.append((f"{totals['rows_in']:,}", "rows in"))
  if kept:
    made.append((f"{len(kept):,}", "rows kept"))
  if kept and "rows_in" in totals:
    share = 100 * len(kept) / max(totals["rows_in"], 1)
    made.append((f"{share:.1f} %", "of the rows"))
  if "tokens_kept" in totals:
    made.append((f"{totals['tokens_kept']:,}", "tokens kept"))
  if totals.get("cost"):
    made.append((f"{totals['cost']:,.2f}", "cost"))
  return markup.tiles(made)


def _stages(manifest: Manifest) -> str:
  rows = []
  for stage, counts in manifest.counts.items():
    total = sum(counts.values())
    rows.append(
      f"<tr class='cluster'><td class='text'>{text(stage)}</td><td>{total:,}"
      f"</td><td>{counts.get(KEPT, 0):,}</td><td></td></tr>"
    )
    reasons = [(r, n) for r, n in counts.items() if r != KEPT]
    for reason, n in sorted(reasons, key=lambda x: (-x[1], x[0])):
      bar = (
        f"<span class='bar' style='width:{120 * n / max(total, 1):.0f}px;"
        "background:var(--down)'></span>"
      )
      rows.append(
        f"<tr><td class='text wrap'>&emsp;{text(reason)}</td><td></td><td></td>"
        f"<td>{n:,} {bar}</td></tr>"
      )
  header = ["stage and reason", "decided", "kept", "dropped"]
  return "<h2>What was decided</h2>" + table(header, rows, 1)


def _lengths(kept, dropped) -> str:
  panels = []
  for name in ("instruction", "input", "output"):
    series = []
    for label, some, colour in (
      (KEPT, kept, "var(--after)"),
      ("dropped", dropped, "var(--before)"),
    ):
      counts = sorted(len(row[name].split()) for row in some if row.get(name))
      # The longest hundredth would squeeze the rest into a few bins.
      cut = counts[: max(1, len(counts) * 99 // 100)] if counts else []
      series.append((label, cut, colour))
    title = f"{markup.readable(name)}s"
    panels.append(plots.histogram(title, series, unit="words"))
  panels = [p for p in panels if p]
  if not panels:
    return ""
  return (
    "<h2>Lengths</h2><p>Words between spaces, empty texts and the longest"
    f" hundredth left out.</p>{_side_by_side(panels)}"
  )


def _diversity(kept, dropped) -> str:
  found, without = verbs.counts(row.get("instruction", "") for row in kept)
  if not found:
    return ""
  total = len(kept)
  came, _ = verbs.counts(row.get("instruction", "") for row in dropped)
  pairs = sum(len(nouns) for nouns in found.values())
  shown = list(found.items())[:_VERBS]
  bars = plots.bars(
    "Root verbs",
    [
      plots.Interval(verb, 100 * nouns.total() / total) for verb, nouns in shown
    ],
    unit="% of kept rows",
    whole=False,
  )
  rows = []
  for verb, nouns in shown:
    listed = ", ".join(
      f"{text(noun)} {n:,}" for noun, n in nouns.most_common(_NOUNS)
    )
    other = came[verb].total() if verb in came else 0
    rows.append(
      f"<tr><td class='text strong'>{text(verb)}</td><td>{nouns.total():,}"
      f"</td><td>{other:,}</td><td>{len(nouns):,}</td>"
      f"<td class='text wrap'>{listed}</td></tr>"
    )
  grid = table(["verb", "kept", "dropped", "objects", "most frequent"], rows, 1)
  grid = grid.replace("<th>most frequent", "<th class=text>most frequent")
  return (
    f"<h2>Diversity of instructions</h2><p>{len(found):,} root verbs or"
    f" question words and {pairs:,} pairs of one with an object, found by a"
    f" rule for English; {without:,} of {total:,} instructions have none.</p>"
    f"<figure>{bars}</figure>{grid}"
  )


def _similarity(figures) -> str:
  panels = []
  for name, series in (figures.get("similarity") or {}).items():
    panels.append(
      plots.histogram(
        name,
        [
          (label, values, _COLOURS[i % len(_COLOURS)])
          for i, (label, values) in enumerate(series.items())
        ],
      )
    )
  panels = [p for p in panels if p]
  if not panels:
    return ""
  return (
    "<h2>Similarity</h2><p>Of each row to the one most like it among those that"
    f" the label names.</p>{_side_by_side(panels)}"
  )


def _side_by_side(panels: Sequence[str]) -> str:
  # A lone panel would be drawn twice as large as the others.
  narrow = " style='max-width:520px'" if len(panels) == 1 else ""
  return f"<div class='plots'{narrow}>{''.join(panels)}</div>"


def _coverage(figures) -> str:
  curves = figures.get("coverage") or {}
  if not curves:
    return ""
  panels = []
  for column, name in ((1, "Covering radius"), (2, "Mean distance")):
    made = [
      plots.Curve(
        label,
        tuple((float(p[0]), float(p[column])) for p in points),
        _COLOURS[i % len(_COLOURS)],
      )
      for i, (label, points) in enumerate(curves.items())
    ]
    panels.append(
      plots.lines(
        name, made, unit="against rows taken", across="rows", legend=False
      )
    )
  names = " &emsp; ".join(
    f"<span style='color:{_COLOURS[i % len(_COLOURS)]}'>\u25cf</span>"
    f" {text(label)}"
    for i, label in enumerate(curves)
  )
  return (
    "<h2>Coverage</h2><p>The distance between unit vectors from a row to the"
    " nearest one taken: the largest, and the mean over all rows.</p>"
    f"<p class='small'>{names}</p>"
    f"{_side_by_side(panels)}"
  )


def _map(figures) -> str:
  points = figures.get("map") or {}
  series = [
    (label, [tuple(p) for p in points[label]], colour)
    for label, colour in (
      ("dropped", "var(--before)"),
      (KEPT, "var(--after)"),
    )
    if points.get(label)
  ]
  if not series:
    return ""
  return (
    "<h2>Map</h2><p>Every row, or some at random, on the two axes along which"
    " their vectors differ most (PCA).</p><figure>"
    + plots.scatter("Rows", series)
    + "</figure>"
  )


def _compared(figures) -> str:
  made = figures.get("table")
  if not made:
    return ""
  rows = [
    "<tr>"
    + "".join(
      f"<td{' class=text' if i == 0 else ''}>{text(cell)}</td>"
      for i, cell in enumerate(row)
    )
    + "</tr>"
    for row in made["rows"]
  ]
  header = [text(h) for h in made["header"]]
  return f"<h2>{text(made['title'])}</h2>" + table(
    header, rows, 1, text(made.get("note", ""))
  )


def _examples(examples) -> str:
  if not examples:
    return ""
  out = ["<h2>What was dropped, with examples</h2>"]
  by_stage = collections.defaultdict(list)
  for (stage, reason), some in examples.items():
    by_stage[stage].append((reason, some))
  for stage, reasons in by_stage.items():
    out.append(f"<h3>{text(stage)}</h3>")
    for reason, some in reasons:
      body = "".join(
        f"<pre>{text(_short(decision.get('row') or {}))}</pre>"
        for decision in some
      )
      out.append(
        f"<div class='sample'><header><b>{text(reason)}</b><span class='muted'>"
        f"{text(', '.join(str(d.get('id')) for d in some))}</span></header>"
        f"{body}</div>"
      )
  return "".join(out)


def _rows(kept) -> str:
  if not kept:
    return ""
  some = [kept[i * len(kept) // EXAMPLES] for i in range(EXAMPLES)]
  some = [r for i, r in enumerate(some) if r not in some[:i]]
  body = "".join(
    f"<div class='sample'><header><b>{text(row.get('id', ''))}</b></header>"
    f"<pre>{text(_short(row))}</pre></div>"
    for row in some
  )
  return f"<h2>Kept, some of them</h2>{body}"


def _short(row: Mapping[str, Any]) -> str:
  """A row's texts, the output after an arrow, cut where they are long."""
  parts = []
  if row.get("instruction"):
    parts.append(rows_lib.prompt({"input": "", **row}))
  elif row.get("text"):
    parts.append(str(row["text"]))
  if row.get("output"):
    parts.append(f"\u2192 {row['output']}")
  return "\n\n".join(
    p if len(p) <= _CHARACTERS else p[:_CHARACTERS] + " \u2026" for p in parts
  )


def _cost(manifest: Manifest) -> str:
  if not manifest.totals and not manifest.models:
    return ""
  rows = [
    f"<tr><td class='text'>{text(markup.readable(name))}</td>"
    f"<td>{_number(value)}</td></tr>"
    for name, value in manifest.totals.items()
  ]
  models = "".join(
    f"<p class='small'>{text(markup.readable(role))}:"
    f" <b>{text(model['model'])}</b></p>"
    for role, model in manifest.models.items()
  )
  grid = table(["", "in all"], rows, 1) if rows else ""
  return f"<h2>Tokens, cost and models</h2>{grid}{models}"


def _number(value: float) -> str:
  return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _what_ran(manifest: Manifest) -> str:
  rows = [
    f"<tr><td class='text'>{text(role)}</td><td class='text wrap'>"
    f"{text(f.path)}</td><td>{f.bytes:,}</td><td class='text'>"
    f"<code>{text(f.sha256[:16])}</code></td></tr>"
    for role, f in (
      *((r, f) for r, some in manifest.inputs.items() for f in some),
      *(("written", f) for f in manifest.outputs.values()),
    )
  ]
  parts = [table(["", "file", "bytes", "SHA-256 begins"], rows, 2)]
  if manifest.command:
    parts.append(
      "<h3>Command</h3><pre class='box'>"
      f"{text(shlex.join(map(str, manifest.command)))}</pre>"
    )
  if manifest.config:
    parts.append(
      f"<h3>Configuration</h3><pre class='box'>{text(manifest.config.strip())}"
      "</pre>"
    )
  return f"<h2>What ran</h2>{''.join(parts)}"
