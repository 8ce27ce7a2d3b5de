"""Parts of plots as SVG text: axes' numbers, texts, lines, dots, legends.

Colours are the page's CSS variables, so a plot follows light and dark. Every
text is escaped. Lengths are SVG units (1 unit is 1 px at natural size).
"""

import html
import math
from collections.abc import Sequence

MAX_POINTS = 500  # per curve; more cannot be seen at this width
_FONT = "font-size='11'"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Round numbers that cover [low, high], about `count` of them.

  >>> ticks(0, 9.3)
  [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
  >>> ticks(0.0009, 0.0011)
  [0.0009, 0.00095, 0.001, 0.00105, 0.0011]
  """
  if high <= low:
    pad = abs(low) * 0.1 or 1.0
    low, high = low - pad, high + pad
  raw = (high - low) / max(count - 1, 1)
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(
    (m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.85),
    10 * power,
  )
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def number(value: float) -> str:
  """A short label for an axis.

  >>> [number(v) for v in (0.0, 0.001, 0.00003, 2.5, 1200.0, 3400000.0)]
  ['0', '0.001', '3e-05', '2.5', '1.2k', '3.4M']
  """
  for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= limit:
      return f"{value / limit:.4g}{letter}"
  return f"{value:.4g}"


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """At most `MAX_POINTS` points: means of neighbours; order is kept."""
  points = [p for p in points if all(map(math.isfinite, p))]
  size = math.ceil(len(points) / MAX_POINTS)
  if size <= 1:
    return points
  parts = (points[i : i + size] for i in range(0, len(points), size))
  return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def opened(label: str, width: float, height: float) -> str:
  """The first tag of a plot; `</svg>` is the last one."""
  return (
    f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img'"
    f" aria-label='{html.escape(label)}' xmlns='http://www.w3.org/2000/svg'>"
  )


def title(label: str, unit: str) -> str:
  """A heading, with the unit in a lighter tone."""
  return (
    "<text x='0' y='14' font-size='13' font-weight='600'"
    f" style='fill:var(--ink)'>{html.escape(label)}"
    f"<tspan font-weight='400' style='fill:var(--muted)'> {html.escape(unit)}"
    "</tspan></text>"
  )


def text(x: float, y: float, said: str, anchor: str, colour: str) -> str:
  """A short text that starts, ends or has its middle at a point.

  >>> text(1, 2, "<", "end", "ink")[-35:]
  "style='fill:var(--ink)'>&lt;</text>"
  """
  return (
    f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} text-anchor='{anchor}'"
    f" style='fill:var(--{colour})'>{html.escape(said)}</text>"
  )


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
  """A thin line of the grid."""
  return (
    f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    " style='stroke:var(--line)'/>"
  )


def dot(
  x: float, y: float, colour: str, filled: bool, tip: str, radius: float
) -> str:
  """A circle that says `tip` when it is pointed at."""
  fill = colour if filled else "none"
  return (
    f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}'"
    f" style='fill:{fill};stroke:{colour}' fill-opacity='0.55'"
    f" stroke-width='1.25'><title>{html.escape(tip)}</title></circle>"
  )


def legend(entries: Sequence[tuple[str, str]], right: float) -> str:
  """Labels in the colours of what they name, ending at `right`."""
  spans = "<tspan> \u2002 </tspan>".join(
    f"<tspan style='fill:{colour}'>\u25cf </tspan>"
    f"<tspan style='fill:var(--muted)'>{html.escape(label)}</tspan>"
    for label, colour in entries
  )
  return f"<text x='{right}' y='14' {_FONT} text-anchor='end'>{spans}</text>"
