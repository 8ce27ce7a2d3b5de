"""What a reader wants to know of a task: its facts, its templates on a row.

Both forms of the catalogue for people show it: the page
(`catalogue_page.py`) and the terminal (`browse.py`).
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator

import seqio

from flan_jax.data import (
  catalogue,
  forms,
  preprocessors,
  sample,
  sources,
  spec,
  template,
)
from flan_jax.errors import UserError
from flan_jax.tasks import clusters, published_rows

SPLITS = sources.SPLITS

# A piece of a rendered text and the field it comes from; "" for the template's
# own words.
Piece = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Rendered:
  """One template on the sample row; on no row, fields stand as `{name}`.

  Attributes:
    number: 0 to 9.
    inputs, targets: pieces, which joined are the text.
    kind: "ranked" over the choices, "generated", or "turned around".
    shows_options: whether the prompt lists the choices.
  """

  number: int
  inputs: tuple[Piece, ...]
  targets: tuple[Piece, ...]
  kind: str
  shows_options: bool


@dataclasses.dataclass(frozen=True)
class Entry:
  """One task as a reader sees it.

  Attributes:
    task: as in the catalogue.
    cluster: its folder.
    extra: whether it is in no mixture (tasks/clusters.py, EXTRAS).
    templates: the ten.
    choices: of the sample row; () for free-form targets.
    references: accepted answers of the sample row; () with choices.
    unrendered: why templates are on no row; "" where they are.
    homepage: of the dataset, "" where TFDS names none.
    licence: as TFDS states it, most often "".
    slices: our splits as (TFDS slice, rows) of the copy that is prepared in
      the data directory; {} where none is.
    published: training rows, as the released code has them; None unknown.
  """

  task: spec.Task
  cluster: str
  extra: bool
  templates: tuple[Rendered, ...]
  choices: tuple[str, ...] = ()
  references: tuple[str, ...] = ()
  unrendered: str = ""
  homepage: str = ""
  licence: str = ""
  slices: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
  published: int | None = None

  @property
  def train_rows(self) -> int | None:
    """Training rows: of the prepared copy, else the published number."""
    if "train" in self.slices:
      return self.slices["train"][1]
    return self.published

  @property
  def rate(self) -> int | None:
    """Its rate in a training mixture (Wei et al., section 2.4)."""
    rows = self.train_rows
    return None if rows is None else min(rows, spec.MAX_RATE)

  @property
  def catalog_page(self) -> str:
    """TFDS's page of the dataset; "" for JSON lines."""
    if not isinstance(self.task.source, spec.Tfds):
      return ""
    builder = self.task.source.name.partition("/")[0]
    return f"https://www.tensorflow.org/datasets/catalog/{builder}"


def entries(tasks: Iterable[spec.Task], *, embedded_in=None) -> Iterator[Entry]:
  """Each task's entry, in order; writes the embedded sample if need be.

  >>> (rte,) = entries([catalogue.get("rte")])  # doctest: +SKIP
  >>> rte.templates[0].kind, rte.choices  # doctest: +SKIP
  ('ranked', ('yes', 'no'))

  Args:
    tasks: of the catalogue, or others.
    embedded_in: folder of the sample's rows instead of the package's (tests).
  """
  tasks = tuple(tasks)
  there = sample.embedded(embedded_in)
  held = [
    t
    for t in tasks
    if isinstance(t.source, spec.Tfds) and t.source.spec in there
  ]
  for task in tasks:
    slices = _slices(task)
    if isinstance(task.source, spec.Tfds) and task not in held:
      yield _entry(task, slices, None, "the sample has no row of it")
      continue
    directory = None
    if task in held:
      # One dataset at a time, so that a reader of one waits for one.
      directory = sample.write_sample([task], embedded_in=embedded_in)
    with _reading(directory):
      try:
        yield _entry(task, slices, _row(task), "")
      except sources.NotPreparedError as e:
        yield _entry(task, slices, None, str(e))


@contextlib.contextmanager
def _reading(directory):
  """While it lasts, seqio reads `directory`; None changes nothing."""
  if directory is None:
    yield
    return
  before = seqio.LazyTfdsLoader("any:1.0.0").data_dir
  seqio.set_tfds_data_dir_override(str(directory))
  try:
    yield
  finally:
    seqio.set_tfds_data_dir_override(before)


def _slices(task: spec.Task) -> dict[str, tuple[str, int]]:
  try:
    found = sources.source(task).slices()
  except UserError:  # not there, or a copy that lacks a split
    return {}
  return {
    ours: (f"{theirs}[{start or ''}:{stop}]", stop - start)
    for ours, (theirs, start, stop) in found.items()
  }


def _row(task: spec.Task):
  """The first usable row of the test split as a batch of one."""
  rows = sources.source(task).get_dataset("test")
  prepared = preprocessors.prepare_rows(task)(rows)
  for batch in template.user_errors(prepared.ragged_batch(1).take(1)):
    return batch
  return None


def _entry(task, slices, row, unrendered: str) -> Entry:
  if row is None and not unrendered:
    unrendered = "no row of the sample is usable"
  values = {field: "{" + field + "}" for field in task.fields}
  choices = task.choices if isinstance(task.choices, tuple) else ()
  references = ()
  if row is not None:
    (texts,) = template.user_errors(
      template.fields(task, row).numpy() for _ in range(1)
    )
    values = dict(zip(task.fields, (_text(t) for t in texts[0]), strict=False))
    if template.CHOICES in row:
      choices = _texts(row[template.CHOICES])
    if template.REFERENCES in row:
      references = _texts(row[template.REFERENCES])
  homepage = licence = ""
  if isinstance(task.source, spec.Tfds):
    homepage, licence = _homepage(task.source)
  name = getattr(task.source, "name", "")
  return Entry(
    task=task,
    cluster=clusters.cluster_of(task.name) or "",
    extra=all(task.name not in t for t in clusters.CLUSTERS.values()),
    templates=tuple(
      _rendered(task, number, values) for number in range(spec.NUM_TEMPLATES)
    ),
    choices=choices,
    references=references,
    unrendered=unrendered,
    homepage=homepage,
    licence=licence,
    slices=slices,
    published=published_rows.TRAIN_ROWS.get(name),
  )


def _homepage(source: spec.Tfds) -> tuple[str, str]:
  """Homepage and licence, as the copy that is being read has them."""
  try:
    info = sources.tfds_builder(source.name, source.version).info
  except sources.NotPreparedError:
    return "", ""
  stated = info.redistribution_info
  return info.homepage or "", str(getattr(stated, "license", "") or "")


def _rendered(task: spec.Task, number: int, values) -> Rendered:
  one = task.templates[number]
  if one.turned_around:
    kind = "turned around"
  else:
    kind = "ranked" if task.rankable(number) else "generated"
  return Rendered(
    number,
    _pieces(one.inputs, values),
    _pieces(one.targets, values),
    kind,
    one.shows_options,
  )


def _pieces(text: str, values) -> tuple[Piece, ...]:
  # Literal texts and, between them, names of fields.
  parts = re.split(r"\{([^{}]*)\}", text)
  pieces = [
    (values[part], part) if i % 2 else (part, "")
    for i, part in enumerate(parts)
  ]
  return tuple(piece for piece in pieces if piece[0])


def joined(pieces: Iterable[Piece]) -> str:
  """The text of some pieces.

  >>> joined((("Is ", ""), ("it", "claim")))
  'Is it'
  """
  return "".join(text for text, _ in pieces)


def _texts(value) -> tuple[str, ...]:
  return tuple(_text(t) for t in template.ragged(value)[0].numpy())


def _text(value: bytes) -> str:
  return value.decode("utf-8", "replace")


# ---------------------------------------------------------------- sentences


def choices_line(entry: Entry) -> str:
  """Where the choices come from, in a few words; "" without choices."""
  given = entry.task.choices
  if isinstance(given, spec.Features):
    return f"differ from row to row (features {', '.join(given.names)})"
  return " | ".join(given or ())


def split_line(task: spec.Task, ours: str) -> str:
  """Which rows of the source one of our splits has, as published.

  >>> split_line(catalogue.get("rte"), "validation")
  'last 200 of train'
  """
  rows = getattr(task.splits, ours)
  if isinstance(rows, spec.Rows):
    words = f"{rows.end} {rows.count:,} of {rows.split}"
    side = "after" if rows.end == "first" else "before"
    skipped = f", {side} the {rows.end} {rows.skip:,}" if rows.skip else ""
    return words + skipped
  if ours != "train":
    return rows
  held = [
    name
    for name in ("validation", "test")
    if isinstance(r := getattr(task.splits, name), spec.Rows)
    and r.split == rows
  ]
  less = f" less {' and '.join(held)}" if held else ""
  return f"{rows}{less}, the first {task.splits.max_train_examples:,} at most"


def split_rows(entry: Entry, ours: str) -> str:
  """How many rows a split has, and which, where that is known."""
  if ours in entry.slices:
    name, count = entry.slices[ours]
    return f"{count:,} ({name} of the prepared copy)"
  if ours == "train" and entry.published is not None:
    return f"about {entry.published:,} as published"
  return ""


def rate_line(entry: Entry) -> str:
  """Its rate in a mixture as a sentence."""
  if entry.extra:
    return "in no mixture"
  if entry.rate is None:
    return f"its training rows, {spec.MAX_RATE:,} at most"
  exact = "train" in entry.slices or entry.rate == spec.MAX_RATE
  return (
    f"{'' if exact else 'about '}{entry.rate:,} (its training rows,"
    f" {spec.MAX_RATE:,} at most)"
  )


def source_line(task: spec.Task) -> str:
  """Name and version of the source, and the paper's where it is another."""
  if not isinstance(task.source, spec.Tfds):
    return task.source.pattern
  older = task.source.paper_version
  return task.source.spec + (f" (the paper: {older})" if older else "")


def facts(entry: Entry) -> list[tuple[str, str]]:
  """Name and value of what both forms show, in order; empty ones left out."""
  task = entry.task
  manual = getattr(task.source, "manual", None)
  pairs = [
    ("task", task.name),
    ("in seqio", catalogue.registered_name(task.name)),
    ("cluster", forms.title(task).partition(":")[0]),
    ("family", task.family or ""),
    ("kind", task.kind),
    ("choices", choices_line(entry)),
    ("metrics", ", ".join(task.metrics)),
    ("source", source_line(task)),
    ("by hand", manual or ""),
    ("licence", entry.licence),
    ("mixing rate", rate_line(entry)),
  ]
  return [(name, value) for name, value in pairs if value]


def links(entry: Entry) -> list[tuple[str, str]]:
  """Where a dataset and its licence are described: (name, address).

  TFDS seldom states a licence; the dataset's own homepage does.
  """
  pairs = (
    ("homepage, licence", entry.homepage),
    ("TFDS catalog", entry.catalog_page),
  )
  return [(name, address) for name, address in pairs if address]
