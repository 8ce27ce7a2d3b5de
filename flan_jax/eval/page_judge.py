"""A judged comparison as one HTML page: win rates, flags, pairs of outputs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.eval import plots
from flan_jax.eval.judge import Judged
from flan_jax.eval.page_text import score
from flan_jax.page import markup
from flan_jax.page.markup import readable, table, text

# Pairs shown of each end: the model's clearest wins and losses.
SHOWN = 3


def render(result: Mapping[str, Any], judged: Sequence[Judged]) -> str:
  """The page.

  Args:
    result: what `judge.judge` returns.
    judged: every pair, those without a preference included.
  """
  title = f"{result['generator_2']} against {result['generator_1']}"
  n = result["win_rate"]["n_total"]
  parts = [
    f"<h1>{text(title)}</h1>",
    f"<p class='lead'>{n:,} pairs, judged by {text(result['judge']['model'])}."
    "</p>",
    *(f"<p class='warn'><b>Flag:</b> {text(f)}</p>" for f in result["flags"]),
    _tiles(result),
    *(f"<p class='warn small'>{text(x)}</p>" for x in _notes(result)),
    "<h2>Preferences</h2><p>From 0, the reference's output is better, to 100,"
    " the model's is.</p>",
    _drawn(judged),
    _numbers(result),
    _failed(result["failed"]),
    _shown(judged),
    _asked(result),
  ]
  return markup.document(title, parts)


def _tiles(result) -> str:
  rate = result["win_rate"]
  low, high = rate["interval"]
  tiles = [(score(rate["win_rate"]), f"win rate, % ({low:.1f} to {high:.1f})")]
  controlled = result.get("length_controlled")
  if controlled:
    error = f"{controlled['standard_error']:.1f}"
    said = f"length-controlled win rate, % (standard error {error})"
    tiles.append((score(controlled["win_rate"]), said))
  tiles += [
    (
      f"{rate['n_wins']:,}, {rate['n_wins_base']:,}, {rate['n_draws']:,}",
      "wins, losses, draws",
    ),
    (f"{result['n_failed']:,}", "pairs without a preference, excluded"),
  ]
  return markup.tiles(tiles)


def _notes(result) -> list[str]:
  controlled = result.get("length_controlled") or {}
  return [x for x in (*result["notes"], controlled.get("warning")) if x]


def _drawn(judged) -> str:
  """How preferences lie, by what was shown first; how long outputs are."""
  series = [
    (
      label,
      [
        100 * (preference - 1)
        for j in judged
        for swapped, preference in j.by_order
        if swapped == which
      ],
      colour,
    )
    for label, which, colour in (
      ("reference shown first", False, "var(--before)"),
      ("model shown first", True, "var(--after)"),
    )
  ]
  panels = [
    plots.histogram("Preference", series, bins=20),
    plots.histogram(
      "Length of outputs",
      [
        (
          "reference",
          [len(j.pair.output_1) for j in judged],
          "var(--before)",
        ),
        ("model", [len(j.pair.output_2) for j in judged], "var(--after)"),
      ],
      unit="characters",
    ),
  ]
  return f"<div class='plots'>{''.join(panels)}</div>"


def _numbers(result) -> str:
  both = result.get("both_orders") or {}
  controlled = dict(result.get("length_controlled") or {})
  rows = [
    ("discrete win rate, %", score(result["win_rate"]["discrete_win_rate"])),
    ("characters, reference", f"{result['avg_length_1']:,.0f}"),
    ("characters, model", f"{result['avg_length_2']:,.0f}"),
    ("tokens", f"{result['tokens']:,}"),
    ("cost", f"{result['cost']:.4f}"),
  ]
  if controlled:
    rows.append(("length control", controlled["form"].replace("_", " ")))
  if result["first_shown"] is not None:
    shown = f"{result['first_shown']:.2f}"
    rows.append(("preference for what is shown first", shown))
  rows += [
    (f"both orders: {k.replace('_', ' ')}", _plain(both[k])) for k in both
  ]
  made = [
    f"<tr><td class='text'>{text(name)}</td><td>{text(value)}</td></tr>"
    for name, value in rows
  ]
  return "<h2>Numbers</h2>" + table(["", "value"], made, 1)


def _plain(value: float) -> str:
  return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _failed(failed: Mapping[str, int]) -> str:
  rows = [
    f"<tr><td class='text'>{text(reason)}</td><td>{count:,}</td></tr>"
    for reason, count in failed.items()
  ]
  if not rows:
    return ""
  return "<h2>Excluded pairs</h2>" + table(["reason", "pairs"], rows, 1)


def _shown(judged) -> str:
  """The pairs that the judge is surest about, wins first."""
  ordered = sorted(
    (j for j in judged if j.preference is not None and j.by_order),
    key=lambda j: -j.preference,
  )
  out = []
  for heading, some in (
    ("Clearest wins", [j for j in ordered if j.preference > 1.5][:SHOWN]),
    ("Clearest losses", [j for j in ordered if j.preference < 1.5][-SHOWN:]),
  ):
    out += [f"<h2>{heading}</h2>"] if some else []
    out += map(_pair, some)
  return "".join(out)


def _pair(judged: Judged) -> str:
  pair = judged.pair
  share = 100 * (judged.preference - 1)
  answers = "".join(
    f"<tr><td class='text'>{text(name)}</td>"
    f"<td class='text wrap'>{text(said)}</td></tr>"
    for name, said in (
      (pair.generator_1, pair.output_1),
      (pair.generator_2, pair.output_2),
    )
  )
  return (
    f"<div class='sample'><header><b>{text(pair.generator_2)}</b><span>"
    f"preferred by {share:.0f} %</span></header><pre>{text(pair.instruction)}"
    f"</pre><table><tbody>{answers}</tbody></table></div>"
  )


def _asked(result) -> str:
  """How the judge was asked, letter for letter."""
  out = ["<h2>How it was asked</h2>"]
  for name in ("judge", "comparison", "filter_models", "totals"):
    value = json.dumps(result[name], indent=1, ensure_ascii=False)
    out.append(
      f"<h3>{text(readable(name))}</h3><pre class='box'>{text(value)}</pre>"
    )
  return "".join(out)
