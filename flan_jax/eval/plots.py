"""Plots as SVG text: crisp in print, coloured by the page, no display needed.

Colours are the page's CSS variables, so a plot follows light and dark. Every
text is escaped. Lengths are SVG units (1 unit is 1 px at natural size).
"""

import dataclasses
import html
import math
from collections.abc import Sequence

from flan_jax.page import svg


@dataclasses.dataclass(frozen=True)
class Curve:
  """A line.

  Attributes:
    label: for the legend.
    points: (x, y) each.
    colour: a CSS colour.
    intervals: of each point, drawn as a whisker; none, or as many as points.
  """

  label: str
  points: tuple[tuple[float, float], ...]
  colour: str = "var(--after)"
  intervals: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Dots:
  """One dataset's scores by template, before and after.

  Attributes:
    label: left of the row.
    before: template -> score; may be empty.
    after: template -> score.
    chance: a mark, where it is known.
  """

  label: str
  before: dict[int, float]
  after: dict[int, float]
  chance: float | None = None


@dataclasses.dataclass(frozen=True)
class Interval:
  """A value with its 95 % interval: one bar of `bars`.

  Attributes:
    label: left of the bar.
    value: where the bar ends and the dot stands.
    interval: None where there is none.
    colour: a CSS colour.
  """

  label: str
  value: float
  interval: tuple[float, float] | None = None
  colour: str = "var(--after)"


def lines(
  title: str,
  curves: Sequence[Curve],
  *,
  unit: str = "",
  from_zero: bool = False,
  across: str = "step",
  legend: bool = True,
) -> str:
  """A panel with one or more curves over training steps; "" without points.

  Args:
    title: above the panel.
    curves: may have different steps; points that are not finite are left out.
    unit: after the title, in a lighter tone.
    from_zero: whether the y axis starts at 0.
    across: what the x axis counts, for the text over a point.
    legend: names of several curves beside the title, where they fit.
  """
  curves = [
    dataclasses.replace(c, points=tuple(svg.thin(c.points))) for c in curves
  ]
  curves = [c for c in curves if c.points]
  if not curves:
    return ""
  width, height, left, right, top, bottom = 460, 230, 50, 12, 34, 26
  xs = [x for c in curves for x, _ in c.points]
  ys = [y for c in curves for _, y in c.points]
  ys += [y for c in curves for ends in c.intervals for y in ends]
  y_ticks = svg.ticks(0.0 if from_zero else min(ys), max(ys))
  x_low, x_high = min(xs), max(xs)
  if x_low == x_high:
    x_high += 1
  y_low, y_high = y_ticks[0], y_ticks[-1]

  def at(x, y):
    across = (x - x_low) / (x_high - x_low)
    up = (y - y_low) / (y_high - y_low)
    return (
      left + across * (width - left - right),
      height - bottom - up * (height - top - bottom),
    )

  out = [svg.opened(title, width, height), svg.title(title, unit)]
  for y in y_ticks:
    _, py = at(x_low, y)
    out.append(svg.rule(left, py, width - right, py))
    out.append(svg.text(left - 7, py + 4, svg.number(y), "end", "muted"))
  for x in svg.ticks(x_low, x_high, 6):
    if x_low <= x <= x_high:
      px, _ = at(x, y_low)
      out.append(svg.text(px, height - 9, svg.number(x), "middle", "muted"))
  for c in curves:
    path = " ".join(
      f"{px:.1f},{py:.1f}" for px, py in (at(*p) for p in c.points)
    )
    out.append(
      f"<polyline points='{path}' fill='none' style='stroke:{c.colour}'"
      " stroke-width='1.75' stroke-linejoin='round' stroke-linecap='round'/>"
    )
    for (x, _), ends in zip(c.points, c.intervals, strict=bool(c.intervals)):
      (px, low), (_, high) = (at(x, y) for y in ends)
      out.append(
        f"<line x1='{px:.1f}' x2='{px:.1f}' y1='{low:.1f}' y2='{high:.1f}'"
        f" style='stroke:{c.colour}' stroke-width='1.25'/>"
      )
    if len(c.points) <= 12:
      out += [
        svg.dot(
          *at(x, y), c.colour, True, f"{c.label}, {across} {x:g}: {y:.4g}", 3
        )
        for x, y in c.points
      ]
  if legend and len(curves) > 1:
    out.append(svg.legend([(c.label, c.colour) for c in curves], width - right))
  return "".join(out) + "</svg>"


def dots(title: str, rows: Sequence[Dots]) -> str:
  """One row a dataset: a dot per template, a bar at the mean.

  Before is hollow and above, after is filled and below; a dashed mark is
  chance. Scores are per cent; negative ones widen the axis.
  """
  if not rows:
    return ""
  step, left, right, top, bottom, width = 46, 140, 12, 34, 30, 1000
  height = top + step * len(rows) + bottom
  values = [v for r in rows for v in (*r.before.values(), *r.after.values())]
  low = -100.0 if min(values) < 0 else 0.0

  def at(value):
    return left + (value - low) / (100.0 - low) * (width - left - right)

  out = [
    svg.opened(title, width, height),
    svg.title(title, "score by template, %"),
  ]
  for i in range(int((100 - low) // 20) + 1):
    value = low + 20 * i
    out.append(svg.rule(at(value), top, at(value), height - bottom))
    out.append(
      svg.text(at(value), height - 10, f"{value:g}", "middle", "muted")
    )
  for i, row in enumerate(rows):
    middle = top + step * (i + 0.5)
    out.append(svg.text(left - 14, middle + 4, row.label, "end", "ink"))
    if row.chance is not None:
      x = at(row.chance)
      out.append(
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{middle - 18}'"
        f" y2='{middle + 18}' style='stroke:var(--muted)'"
        " stroke-dasharray='3 3'><title>"
        f"{html.escape(row.label)}, chance: {row.chance:.1f}</title></line>"
      )
    both = bool(row.before and row.after)
    for name, scores, y, filled in (
      ("before", row.before, middle - (9 if both else 0), False),
      ("after", row.after, middle + (9 if both else 0), True),
    ):
      colour = f"var(--{name})"
      if not scores:
        continue
      mean = sum(scores.values()) / len(scores)
      for template, score in sorted(scores.items()):
        tip = f"{row.label}, {name}, template {template}: {score:.1f}"
        out.append(svg.dot(at(score), y, colour, filled, tip, 4.5))
      out.append(
        f"<line x1='{at(mean):.1f}' x2='{at(mean):.1f}' y1='{y - 8}'"
        f" y2='{y + 8}' style='stroke:{colour}' stroke-width='2.5'>"
        f"<title>{html.escape(row.label)}, {name}, mean: {mean:.1f}</title>"
        "</line>"
      )
  legend = []
  if any(r.before for r in rows):
    legend.append(("before", "var(--before)"))
  if any(r.after for r in rows):
    legend.append(("after", "var(--after)"))
  if any(r.chance is not None for r in rows):
    legend.append(("dashed: chance", "var(--muted)"))
  out.append(svg.legend(legend, width - right))
  return "".join(out) + "</svg>"


def bars(
  title: str,
  rows: Sequence[Interval],
  *,
  unit: str = "%",
  whole: bool = True,
) -> str:
  """A bar from 0 for every value, with its interval as a whisker.

  Args:
    title: above the plot.
    rows: from top to bottom; values that are not finite are left out.
    unit: after the title, in a lighter tone.
    whole: whether the axis is 0 to 100 at least; else it fits the values.
  """
  rows = [r for r in rows if math.isfinite(r.value)]
  if not rows:
    return ""
  step, left, right, top, bottom, width = 26, 250, 16, 34, 30, 1000
  height = top + step * len(rows) + bottom
  ends = [x for r in rows for x in (r.value, *(r.interval or ()))]
  ends += [0.0, 100.0] if whole else [0.0]
  marks = svg.ticks(min(ends), max(ends), 6)
  low, high = marks[0], marks[-1]

  def at(value):
    return left + (value - low) / (high - low) * (width - left - right)

  out = [svg.opened(title, width, height), svg.title(title, unit)]
  for mark in marks:
    out.append(svg.rule(at(mark), top, at(mark), height - bottom))
    out.append(
      svg.text(at(mark), height - 10, svg.number(mark), "middle", "muted")
    )
  for i, row in enumerate(rows):
    middle = top + step * (i + 0.5)
    tip = f"{row.label}: {row.value:.1f}"
    if row.interval is not None:
      tip += f" ({row.interval[0]:.1f} to {row.interval[1]:.1f})"
    x, x0 = sorted((at(row.value), at(0.0)))
    out.append(svg.text(left - 14, middle + 4, row.label, "end", "ink"))
    out.append(
      f"<rect x='{x:.1f}' y='{middle - 7:.1f}' width='{x0 - x:.1f}'"
      f" height='14' rx='2' style='fill:{row.colour}' fill-opacity='0.3'>"
      f"<title>{html.escape(tip)}</title></rect>"
    )
    if row.interval is not None:
      a, b = map(at, row.interval)
      out.append(
        f"<line x1='{a:.1f}' x2='{b:.1f}' y1='{middle:.1f}' y2='{middle:.1f}'"
        f" style='stroke:{row.colour}' stroke-width='1.75'/>"
      )
    out.append(svg.dot(at(row.value), middle, row.colour, True, tip, 4))
  zero = at(0.0)
  out.append(
    f"<line x1='{zero:.1f}' x2='{zero:.1f}' y1='{top}' y2='{height - bottom}'"
    " style='stroke:var(--muted)'/>"
  )
  return "".join(out) + "</svg>"


def histogram(
  title: str,
  series: Sequence[tuple[str, Sequence[float], str]],
  *,
  unit: str = "",
  bins: int = 30,
) -> str:
  """Shares of values in bins of equal width; "" without values.

  Args:
    title: above the panel.
    series: label, values and CSS colour of each; values that are not finite
      are left out. The bins are the same for all.
    unit: after the title, in a lighter tone.
    bins: how many.
  """
  series = [
    (label, [v for v in values if math.isfinite(v)], colour)
    for label, values, colour in series
  ]
  series = [s for s in series if s[1]]
  if not series:
    return ""
  width, height, left, right, top, bottom = 460, 230, 50, 12, 34, 26
  low = min(min(values) for _, values, _ in series)
  high = max(max(values) for _, values, _ in series)
  size = (high - low) / bins or 1.0
  shares = []
  for _, values, _ in series:
    counts = [0] * bins
    for v in values:
      counts[min(int((v - low) / size), bins - 1)] += 1
    shares.append([100 * n / len(values) for n in counts])
  marks = svg.ticks(0.0, max(map(max, shares)))
  wide = (width - left - right) / bins

  def up(share):
    return height - bottom - share / marks[-1] * (height - top - bottom)

  out = [
    svg.opened(title, width, height),
    svg.title(title, f"{unit}, % of rows" if unit else "% of rows"),
  ]
  for mark in marks:
    out.append(svg.rule(left, up(mark), width - right, up(mark)))
    out.append(
      svg.text(left - 7, up(mark) + 4, svg.number(mark), "end", "muted")
    )
  end = low + size * bins
  for mark in svg.ticks(low, end, 6):
    if low <= mark <= end:
      x = left + (mark - low) / size * wide
      out.append(svg.text(x, height - 9, svg.number(mark), "middle", "muted"))
  for (label, _, colour), found in zip(series, shares, strict=True):
    for i, share in enumerate(found):
      if share:
        tip = f"{label}, {low + i * size:.4g} to {low + (i + 1) * size:.4g}"
        out.append(
          f"<rect x='{left + i * wide:.1f}' y='{up(share):.1f}'"
          f" width='{wide:.1f}' height='{up(0) - up(share):.1f}'"
          f" style='fill:{colour}' fill-opacity='0.45'><title>"
          f"{html.escape(tip)}: {share:.1f} %</title></rect>"
        )
  legend = [(label, colour) for label, _, colour in series]
  if len(series) > 1:
    out.append(svg.legend(legend, width - right))
  return "".join(out) + "</svg>"


def scatter(
  title: str,
  series: Sequence[tuple[str, Sequence[tuple[float, float]], str]],
  *,
  unit: str = "",
) -> str:
  """Points on a plane without axes, the first series below; "" without any.

  Args:
    title: above the panel.
    series: label, (x, y) points and CSS colour of each.
    unit: after the title, in a lighter tone.
  """
  points = [p for _, some, _ in series for p in some]
  if not points:
    return ""
  width, height, edge, top = 1000, 560, 10, 34
  xs, ys = zip(*points, strict=True)
  spans = (max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0)
  out = [svg.opened(title, width, height), svg.title(title, unit)]
  for _, some, colour in series:
    out.append(f"<g style='fill:{colour}' fill-opacity='0.5'>")
    for x, y in some:
      px = edge + (x - min(xs)) / spans[0] * (width - 2 * edge)
      py = height - edge - (y - min(ys)) / spans[1] * (height - top - 2 * edge)
      out.append(f"<circle cx='{px:.1f}' cy='{py:.1f}' r='2.5'/>")
    out.append("</g>")
  legend = [(label, colour) for label, some, colour in series if some]
  out.append(svg.legend(legend, width - edge))
  return "".join(out) + "</svg>"
