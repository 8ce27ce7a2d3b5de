"""Texts, tables and whole pages as HTML; every text is escaped."""

import html
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.page.style import CSS


def text(value: Any) -> str:
  """`value` as HTML text, whatever is in it.

  >>> text("<script>")
  '&lt;script&gt;'
  """
  return html.escape(str(value))


def readable(name: str) -> str:
  """A cluster's folder as words.

  >>> readable("natural_language_inference")
  'Natural language inference'
  """
  words = name.replace("_", " ")
  return words[:1].upper() + words[1:]


def link(address: str, label: str) -> str:
  """A link, or the label alone where the address is not one of the web.

  >>> link("https://a.org/?b&c", "A & B")
  "<a href='https://a.org/?b&amp;c' rel='noreferrer'>A &amp; B</a>"
  >>> link("javascript:alert(1)", "A")
  'A'
  """
  if not address.startswith(("https://", "http://")):
    return text(label)
  return f"<a href='{text(address)}' rel='noreferrer'>{text(label)}</a>"


def tiles(values: Iterable[tuple[str, str]]) -> str:
  """Numbers side by side, each over what it is; "" without any.

  >>> tiles([("12", "a < b")])[len("<div class='tiles'>") : -len("</div>")]
  "<div class='tile'><b>12</b><span>a &lt; b</span></div>"

  Args:
    values: HTML of a number, and the text below it.
  """
  made = "".join(
    f"<div class='tile'><b>{value}</b><span>{text(what)}</span></div>"
    for value, what in values
  )
  return made and f"<div class='tiles'>{made}</div>"


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


def document(
  title: str, parts: Iterable[str], *, style: str = "", script: str = ""
) -> str:
  """A whole page of `parts`, which are HTML; nothing is loaded from elsewhere.

  Args:
    title: a text.
    parts: HTML, a line each; empty ones are left out.
    style: rules beside those of `style.CSS`.
    script: at the end of the page; none by default.
  """
  run = f"<script>{script}</script>" if script else ""
  return (
    "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    f"<title>{text(title)}</title><style>{CSS}{style}</style></head>\n"
    "<body><main>"
    + "\n".join(p for p in parts if p)
    + f"\n</main>{run}</body></html>\n"
  )


def write(path: pathlib.Path, content: str) -> None:
  """Writes a page by one rename; its folder is made if it is not there.

  Raises:
    UserError: it cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(content, encoding="utf-8")
    os.replace(draft, path)
  except OSError as e:
    raise UserError(
      f"the page cannot be written to {str(path)!r}: {e.strerror}. Give"
      " another path."
    ) from None
