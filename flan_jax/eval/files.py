"""Files of results: written as a whole or not at all."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from flan_jax.errors import UserError


def write(folder: pathlib.Path, files: Mapping[str, str], what: str) -> None:
  """Writes texts into a folder, which is made if it is not there.

  Args:
    folder: where.
    files: name -> content.
    what: "report", for the message.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
      draft = folder / f".{name}.tmp"
      draft.write_text(content, encoding="utf-8")
      os.replace(draft, folder / name)
  except OSError as e:
    raise UserError(
      f"the {what} cannot be written into {str(folder)!r}: {e.strerror}."
    ) from None


def markdown_table(
  header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> list[str]:
  """Lines of a Markdown table; all but the first columns stand right.

  >>> markdown_table(("task", "n"), [("rte", "10")])
  ['| task | n |', '| --- | ---: |', '| rte | 10 |']
  """
  rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
  return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
