"""How the report writes texts, numbers and tables as HTML."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MINUS, DASH = "\u2212", "\u2013"


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


def last(curves: Iterable[Mapping[str, Any]], key: str, *, first=False):
  """The last (or first) finite value of `key` in the log; None without."""
  values = [
    row[key]
    for row in curves
    if isinstance(row.get(key), int | float) and math.isfinite(row[key])
  ]
  return (values[0] if first else values[-1]) if values else None
