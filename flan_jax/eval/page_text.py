"""How the report writes numbers."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

MINUS, DASH = "\u2212", "\u2013"


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


def direction(change: float) -> str:
  """`up`, `down`, or "" for a change that is shown as 0.0.

  >>> [direction(x) for x in (3.0, -0.1, 0.01)]
  ['up', 'down', '']
  """
  if score(change) == "0.0":
    return ""
  return "up" if change > 0 else "down"


def between(ends: tuple[float, float] | None, word: str = DASH) -> str:
  """Two scores, such as an interval's ends; a dash for None.

  >>> [between((3.0, 41.5)), between(None)]
  ['3.0\u201341.5', '\u2013']
  """
  return DASH if ends is None else word.join(map(score, ends))


def last(curves: Iterable[Mapping[str, Any]], key: str, *, first=False):
  """The last (or first) finite value of `key` in the log; None without."""
  values = [
    row[key]
    for row in curves
    if isinstance(row.get(key), int | float) and math.isfinite(row[key])
  ]
  return (values[0] if first else values[-1]) if values else None
