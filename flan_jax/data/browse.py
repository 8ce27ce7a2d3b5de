"""The catalogue for people: one page, or one task in the terminal.

  python -m flan_jax.data.catalogue --html catalogue.html
  python -m flan_jax.data.catalogue --show anli_r1

Templates are shown on a row of the embedded sample, so nothing is needed but
the package. Rows and rates are those of the copies in the data directory, and
the published ones of datasets that are not prepared there.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import tensorflow as tf
from rich import progress
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from flan_jax.data import catalogue, catalogue_page, entries
from flan_jax.errors import UserError
from flan_jax.page import markup

PAGE_NAME = "catalogue.html"


def main(arguments: Sequence[str]) -> int:
  """What the command line asks for; the exit code.

  Returns:
    0, or 2 where the user can mend something, which is said in one line.
  """
  parser = argparse.ArgumentParser(
    "python -m flan_jax.data.catalogue",
    description="Shows the catalogue: all of it as a page, or one task here.",
    allow_abbrev=False,
  )
  asked = parser.add_mutually_exclusive_group(required=True)
  asked.add_argument(
    "--html",
    metavar="OUT",
    type=pathlib.Path,
    help=f"file to write, or a folder, for {PAGE_NAME} in it",
  )
  asked.add_argument("--show", metavar="NAME", help="task, such as anli_r1")
  args = parser.parse_args(arguments)
  # Only texts are made: no accelerator is taken from a job that needs it.
  tf.config.set_visible_devices([], "GPU")
  try:
    if args.show is not None:
      show(catalogue.get(args.show), Console(highlight=False))
    else:
      print(write_page(args.html))
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 2
  except BrokenPipeError:  # the reader of a pipe has seen enough
    sys.stderr.close()
    return 0
  return 0


def write_page(out: pathlib.Path) -> pathlib.Path:
  """Writes the page of the whole catalogue and returns its path.

  Args:
    out: a file, or a folder that is there.

  Raises:
    UserError: it cannot be written.
  """
  path = out.expanduser()
  path = path / PAGE_NAME if path.is_dir() else path
  tasks = catalogue.load().values()
  found = progress.track(
    entries.entries(tasks),
    "Rendering templates",
    total=len(tasks),
    console=Console(stderr=True),
    transient=True,
  )
  markup.write(path, catalogue_page.render(list(found)))
  return path


def show(task, console: Console) -> None:
  """Prints a task: its facts, its splits, its ten templates on a row."""
  (entry,) = entries.entries([task])
  console.print(Rule(Text(task.paper_name, "bold")))
  console.print(_facts(entry))
  console.print(_splits(entry))
  for note in task.notes:
    console.print(Padding(Text(f"note: {note}", "italic"), (0, 0, 0, 1)))
  if entry.unrendered:
    console.print(
      Text(f"Templates are on no row: {entry.unrendered}.", "yellow")
    )
  for one in entry.templates:
    console.print(_template(one))
  if entry.choices and not isinstance(task.choices, tuple):
    console.print(Text("choices of this row: " + " | ".join(entry.choices)))
  if len(entry.references) > 1:
    console.print(Text("accepted answers: " + " | ".join(entry.references)))


def _facts(entry: entries.Entry) -> Padding:
  table = Table.grid(padding=(0, 2))
  for name, value in entries.facts(entry):
    table.add_row(Text(name, "dim"), Text(value))
  for name, address in entries.links(entry):
    table.add_row(Text(name, "dim"), Text(address, overflow="fold"))
  return Padding(table, (0, 0, 0, 1))


def _splits(entry: entries.Entry) -> Padding:
  table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
  for heading in ("split", "rows of the source", "how many"):
    table.add_column(heading)
  for ours in entries.SPLITS:
    table.add_row(
      Text(ours),
      Text(entries.split_line(entry.task, ours)),
      Text(entries.split_rows(entry, ours) or "\u2013"),
    )
  return Padding(table, (1, 0, 1, 1))


def _template(one: entries.Rendered) -> Panel:
  said = one.kind + (", options shown" if one.shows_options else "")
  return Panel(
    Group(
      _pieces(one.inputs),
      Rule(Text("target", "green"), style="green"),
      _pieces(one.targets, "bold green"),
    ),
    title=Text(f"template {one.number}: {said}"),
    title_align="left",
    border_style="dim",
  )


def _pieces(pieces, style: str = "") -> Text:
  """The template's own words plain, the row's in colour."""
  out = Text(style=style)
  for text, field in pieces:
    out.append(text, "cyan" if field and not style else None)
  return out
