"""The folder of a run that asks a generator: what is opened and written."""

import collections
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flan_jax.curation import asking, decisions, manifest, report, rows
from flan_jax.curation.growth import Admitted
from flan_jax.curation.seeds import Seed
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Generator
from flan_jax.errors import UserError
from flan_jax.eval import files
from flan_jax.training import progress

DATA = "data.jsonl"
JOURNAL = "journal.jsonl"
# Rows of the page's table of rounds.
SHOWN_ROUNDS = 40


class Run:
  """An open run; made by `open_run`.

  Attributes:
    method: its name.
    folder: where its files lie.
    asker: the generator.
    decisions: what was decided.
    display: what a person sees.
  """

  def __init__(
    self,
    method: str,
    folder: pathlib.Path,
    asker: asking.Asker,
    made: decisions.Decisions,
  ):
    self.method, self.folder = method, folder
    self.asker, self.decisions = asker, made
    self.display = progress.Display()
    self._outputs: list[str] = []

  def say(self, text: str) -> None:
    """Tells of progress."""
    self.display.say(text)

  def write(self, name: str, written: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of JSON lines, which the manifest will name."""
    rows.write(self.folder / name, written)
    self.add_output(name)

  def add_output(self, name: str) -> None:
    """Names a file of the folder in the manifest."""
    if name not in self._outputs:
      self._outputs.append(name)

  def finish(
    self,
    data: Sequence[dict[str, Any]],
    *,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    model_role: str,
    more_models: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: Sequence[Seed] = (),
    more: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    table: Mapping[str, Any] | None = None,
  ) -> dict[str, Any]:
    """Writes the rows, the manifest and its page, and shows the counts.

    Args:
      data: rows that are kept.
      inputs: paths by role.
      options: dataclasses and plain values, by name.
      model_role: what the generator was for.
      more_models: identities of others, by role.
      seeds: that stand before the rows.
      more: further results.
      notes: sentences for the manifest.
      table: for the page: `title`, `header`, `rows` and `note`.

    Raises:
      UserError: no row.
    """
    counts = self.decisions.counts
    if not data:
      raise UserError(
        f"no row is kept: {counts}. See {self.decisions.path} for the reasons."
      )
    self.decisions.flush()
    self.write(DATA, [*_seed_rows(seeds), *data])
    totals = dataclasses.asdict(self.asker.journal.totals)
    result = {"rows": len(data), "seed_rows": _count(seeds), **(more or {})}
    manifest.write(
      self.folder,
      method=self.method,
      inputs=inputs,
      outputs=(*self._outputs, self.decisions.path.name),
      options={k: plain(v) for k, v in options.items()},
      counts=counts,
      models={model_role: self.asker.identity, **(more_models or {})},
      totals={"rows": len(data), **totals},
      notes=list(notes),
    )
    figures = {"table": table} if table else {}
    files.write(self.folder, {report.FIGURES: json_text(figures)}, "figures")
    report.write(self.folder)
    self._show(result, counts, totals)
    return {**result, "counts": counts, "totals": totals}

  def _show(self, result, counts, totals):
    table = [
      (stage, reason, n)
      for stage, found in counts.items()
      for reason, n in sorted(found.items(), key=_kept_first)
    ]
    self.display.table(
      f"{self.method} with {self.asker.model}",
      ("stage", "decision", "count"),
      table,
    )
    answers, tokens = totals["responses"], self.asker.journal.totals.tokens
    self.say(
      f"{answers:,} answers, {tokens:,} tokens, cost {totals['cost']:.4f};"
      f" {result['rows']:,} rows in {self.folder / DATA}, and a page,"
      f" {report.PAGE}"
    )


@contextlib.contextmanager
def open_run(
  method: str, output_dir: Any, generator: Generator
) -> Iterator[Run]:
  """The folder, journal and decisions of a run.

  Args:
    method: its name.
    output_dir: the folder, made if it is not there.
    generator: what is asked.

  Raises:
    UserError: the folder cannot be written or is in use, or there is no
      generator.
  """
  asking.check_generator(generator)
  folder = manifest.begin(output_dir)
  with (
    Journal(folder / JOURNAL) as journal,
    decisions.Decisions(folder) as made,
  ):
    run = Run(method, folder, asking.Asker(generator, journal), made)
    for note in journal.notes:
      run.say(note)
    if len(journal):
      run.say(f"going on from {journal.path}: {len(journal):,} answers")
    yield run


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """A table of a run's rounds for its page, some of them where they are many.

  >>> made = {"requests": 5, "candidates": 9, "admitted": 6, "similarity": 0.4}
  >>> rounds_table([made])["rows"]
  [['1', '5', '9', '6', '0.40']]
  """
  step = -(-len(rounds) // SHOWN_ROUNDS)
  rows = [
    [
      f"{n + 1:,}",
      f"{r['requests']:,}",
      f"{r['candidates']:,}",
      f"{r['admitted']:,}",
      "-" if r["similarity"] is None else f"{r['similarity']:.2f}",
    ]
    for n, r in enumerate(rounds)
    if n % step == 0 or n == len(rounds) - 1
  ]
  note = "" if step == 1 else f"Every {step}th round is shown."
  return {
    "title": "Growth",
    "header": [
      "round",
      "requests so far",
      "candidates",
      "admitted",
      "mean similarity",
    ],
    "rows": rows,
    "note": note,
  }


def provenance(
  method: str, model: str, admitted: Admitted, **more: Any
) -> dict[str, Any]:
  """Where a row comes from."""
  return {
    "method": method,
    "model": model,
    "instruction_id": admitted.id,
    "request": admitted.request,
    "in_context": list(admitted.seeds),
    "most_similar": admitted.nearest[0][1] if admitted.nearest else None,
    **more,
  }


def plain(value: Any) -> Any:
  """What JSON can hold of an option: dataclasses by field, functions by name.

  >>> plain({"rule": str.strip, "of": (1, 2)})
  {'rule': 'str.strip', 'of': [1, 2]}
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)
    }
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | collections.deque):
    return [plain(v) for v in value]
  if callable(value):
    return getattr(value, "__qualname__", type(value).__name__)
  return value


def json_text(value: Any) -> str:
  """JSON for a person to read."""
  return json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n"


def _seed_rows(seeds: Sequence[Seed]) -> list[dict[str, Any]]:
  return [
    {
      "instruction": s.instruction,
      "input": given,
      "output": output,
      "id": f"seed_{s.id}_{k}",
      "provenance": {
        "method": "seed",
        "instruction_id": s.id,
        "is_classification": s.is_classification,
      },
    }
    for s in seeds
    for k, (given, output) in enumerate(s.instances)
  ]


def _count(seeds: Sequence[Seed]) -> int:
  return sum(len(s.instances) for s in seeds)


def _kept_first(item) -> tuple[bool, int]:
  reason, n = item
  return reason != decisions.KEPT, -n
