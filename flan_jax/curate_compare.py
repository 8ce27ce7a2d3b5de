"""Compares ways of selecting rows by the held-out loss of what they train.

  python launch/run.py --gin_file=gin/curate_compare.gin \
      --gin.DATA="{'dolly': 'dolly.json'}"

For every data set: rows that are empty or too long for a row of a batch are
left out; rows are held out; a model is trained on all others, and gives the
vectors where no others are given; every method selects its share, and a random
choice of equal size is drawn; a model is trained on each, with several seeds.
All steps are kept, so the same command goes on where it was stopped.
"""

import hashlib
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import config as config_lib
from flan_jax import curate_select
from flan_jax.curation import (
  embeddings,
  manifest,
  report,
  selection,
  selectors,
  trials,
)
from flan_jax.curation import rows as rows_lib
from flan_jax.curation.budget import Budget
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import files
from flan_jax.training import progress

ALL = "all rows"
RESULTS = "results.jsonl"


def compare(
  *,
  data: Mapping[str, str | Sequence[str]],
  output_dir: str,
  recipes: Sequence[selection.Recipe],
  budget: Budget,
  training: trials.Training,
  seeds: int = 3,
  held_out: float = 0.1,
  most_held_out: int = 500,
  embedder: embeddings.Embedder | None = None,
  embedded_part: str = "row",
  embedding_length: int = 128,
  memory_gib: float = 8.0,
) -> list[dict[str, Any]]:
  """Trains on every method's rows, writes tables and a page for each data set.

  Args:
    data: name -> a file or several, see `curation/rows.py`.
    output_dir: gets a folder for each data set.
    recipes: methods; each name once.
    budget: what each one selects; a filter that leaves less takes all it left,
      and is compared with as many random rows.
    training: how models are trained.
    seeds: trials of each method; random rows are drawn anew in each one.
    held_out: share of the rows, by what is asked.
    most_held_out: rows at most.
    embedder: of vectors, of the rows that are not held out; None: the model
      that was trained on all rows, the mean of its last hidden states.
    embedded_part: of a row, of `rows.PARTS`.
    embedding_length: tokens of a row that are read for its vector.
    memory_gib: see `curate_select.select`.

  Returns:
    The table's rows: `data`, `method`, `rows`, `answer_tokens`, `loss` and
    its `deviation` over seeds, `random_loss`, `difference` and its
    `difference_deviation`, `losses`.

  Raises:
    UserError: no data set, a name twice, fewer than one seed, too few rows.
  """
  display = progress.Display()
  names = [recipe.title for recipe in recipes]
  for name in names:
    if names.count(name) > 1 or name.startswith(("random", ALL)):
      raise UserError(
        f"RECIPES has the name {name!r} twice, or it stands for the rows that"
        " all are compared with; give each one a name of its own."
      )
  if seeds < 1 or not data:
    raise UserError(
      f"SEEDS is {seeds} and DATA names {len(data)} data sets; both must be 1"
      " or more."
    )
  if embedder is not None and len(data) > 1:
    raise UserError(
      "EMBEDDER gives the vectors of one data set, and DATA names"
      f" {len(data)}: compare them one by one."
    )
  out = []
  for name, paths in data.items():
    made = _one(
      name,
      paths,
      pathlib.Path(output_dir) / name,
      recipes=recipes,
      budget=budget,
      training=training,
      seeds=seeds,
      held_out=held_out,
      most_held_out=most_held_out,
      embedder=embedder,
      embedded_part=embedded_part,
      embedding_length=embedding_length,
      memory_gib=memory_gib,
      display=display,
    )
    out += made
  return out


def split(
  rows: Sequence[rows_lib.Row], share: float, most: int
) -> tuple[list[rows_lib.Row], list[rows_lib.Row]]:
  """Rows to choose from and held-out rows; equal prompts are on one side.

  >>> rows = [{"instruction": str(i), "input": ""} for i in range(100)]
  >>> [len(side) for side in split(rows, 0.1, 500)]
  [94, 6]

  Raises:
    UserError: a share out of range, or a side without rows.
  """
  if not 0 < share < 1 or most < 1:
    raise UserError(
      f"HELD_OUT is {share} and MOST_HELD_OUT {most}; a share between 0 and 1,"
      " and 1 row or more."
    )
  pool, held = [], []
  for row in rows:
    digest = hashlib.sha256(
      rows_lib.prompt(row).encode("utf-8", "surrogatepass")
    ).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    (held if draw < share else pool).append((draw, row))
  # The lowest draws, so that a smaller limit is a part of a larger one.
  held = [row for _, row in sorted(held, key=lambda pair: pair[0])[:most]]
  if not held or not pool:
    raise UserError(
      f"HELD_OUT {share:g} of {len(rows):,} rows leaves {len(pool):,} to choose"
      f" from and {len(held):,} held out; both need some."
    )
  return [row for _, row in pool], held


def _one(
  name, paths, folder, *, recipes, budget, training, seeds, held_out,
  most_held_out, embedder, embedded_part, embedding_length, memory_gib, display,
):  # fmt: skip
  read = rows_lib.read(paths, "DATA")
  fit = trials.fits(read, training)
  rows, held = split(
    [row for row, fitting in zip(read, fit, strict=True) if fitting],
    held_out,
    most_held_out,
  )
  manifest.begin(folder)
  subsets = folder / "subsets"
  subsets.mkdir(exist_ok=True)
  rows_lib.write(folder / "held_out.jsonl", held)
  rows_lib.write(subsets / "all.jsonl", rows)
  lengths = selection.count_tokens(rows, training.vocabulary)
  display.say(
    f"{name}: {len(rows):,} rows to choose from, {len(held):,} held out;"
    f" {fit.count(False):,} longer than TASK_FEATURE_LENGTHS are left out"
  )
  key = {
    "options": _options(
      recipes, budget, training, embedded_part, embedding_length
    ),
    "held_out": manifest.describe(folder / "held_out.jsonl").sha256,
    "rows": manifest.describe(subsets / "all.jsonl").sha256,
    "vectors": None if embedder is None else dict(embedder.identity),
  }
  tested = trials.Trials(training, folder / "held_out.jsonl")
  results = _Results(folder / RESULTS, key, display)

  # A model trained on all rows, which also gives vectors.
  vectors = folder / f"vectors-{results.fingerprint}.npy"
  x_ND = None
  if embedder is not None:
    x_ND = curate_select.embed(
      rows, embedder, folder=folder, part=embedded_part, display=display
    )

  def on_all(seed: int):
    params, found = tested.run(subsets / "all.jsonl", seed)
    results.add(ALL, seed, found, len(rows), lengths.outputs.sum())
    return params

  if embedder is None and not vectors.exists():
    made_ND = embeddings.mean_states(
      training.model,
      on_all(0),
      training.vocabulary,
      [rows_lib.text(row, embedded_part) for row in rows],
      length=embedding_length,
    )
    embeddings.save(vectors, made_ND)
  if embedder is None:
    x_ND = np.load(vectors, allow_pickle=False)
    embeddings.check(x_ND, "vectors of the model trained on all rows")

  chosen, sizes = {}, {}
  for recipe in recipes:
    path = subsets / f"{recipe.title}-{results.fingerprint}.npy"
    if not path.exists():
      found = selection.choose(
        rows,
        recipe,
        budget,
        lengths=lengths,
        x_ND=x_ND,
        memory_gib=memory_gib,
        all_that_pass=True,
      )
      embeddings.save(path, found.rows)
      display.say(f"{name}, {recipe.title}: {len(found.rows):,} rows selected")
    chosen[recipe.title] = np.load(path, allow_pickle=False)
    sizes[recipe.title] = len(chosen[recipe.title])

  # One seed after the other, so that a stopped run has whole ones.
  for seed in range(seeds):
    if not results.has(ALL, seed):
      on_all(seed)
    todo = {
      f"random {size:,}": selectors.Random(seed)(
        selectors.Candidates(lengths.rows, lengths.outputs), size, None
      )[0]
      for size in sorted(set(sizes.values()), reverse=True)
    }
    for label, taken in (todo | chosen).items():
      if results.has(label, seed):
        continue
      path = subsets / f"{label.replace(' ', '_').replace(',', '')}.jsonl"
      rows_lib.write(path, [rows[i] for i in taken])
      _, found = tested.run(path, seed)
      results.add(label, seed, found, len(taken), lengths.outputs[taken].sum())
  table = results.table(name, sizes, seeds)
  _finish(
    folder, name, paths, table, key, rows, held, lengths, x_ND, chosen,
    memory_gib, seeds, display, fit.count(False),
  )  # fmt: skip
  return table


class _Results:
  """Trials done, a line each; those of other options are not looked at."""

  def __init__(self, path: pathlib.Path, key: Mapping[str, Any], display):
    text = json.dumps(key, sort_keys=True)
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:8]
    self._path, self._display = path, display
    self._found: dict[tuple[str, int], dict[str, Any]] = {}
    if path.exists():
      lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
      whole = [line for line in lines if line.endswith("\n")]
      if whole != lines:  # the last one was cut off when the run was killed
        files.write(path.parent, {path.name: "".join(whole)}, "comparison")
      for line in whole:
        one = json.loads(line)
        if one["run"] == self.fingerprint:
          self._found[one["method"], one["seed"]] = one

  def has(self, method: str, seed: int) -> bool:
    return (method, seed) in self._found

  def add(self, method, seed, found, rows, tokens):
    one = {
      "run": self.fingerprint, "method": method, "seed": seed,
      "rows": int(rows), "answer_tokens": int(tokens), **found,
    }  # fmt: skip
    self._found[method, seed] = one
    with open(self._path, "a", encoding="utf-8") as file:
      file.write(json.dumps(one) + "\n")
    self._display.say(
      f"{method}, seed {seed}: held-out loss {found['loss']:.4f}"
      f" ({found['start_loss']:.4f} before), {rows:,} rows"
    )

  def table(self, data: str, sizes, seeds) -> list[dict[str, Any]]:
    """One row a method, the lowest loss first; random ones with the others."""
    out = []
    for method in dict.fromkeys(method for method, _ in self._found):
      some = [
        self._found[method, seed]
        for seed in range(seeds)
        if self.has(method, seed)
      ]
      losses = [one["loss"] for one in some]
      others, pairs = [], []
      if method in sizes:
        others = [
          self._found[f"random {sizes[method]:,}", seed]["loss"]
          for seed in range(seeds)
        ]
        pairs = [a - b for a, b in zip(losses, others, strict=True)]
      elif method != ALL and not method.startswith("random"):
        continue
      out.append(
        {
          "data": data,
          "method": method,
          "rows": some[0]["rows"],
          "answer_tokens": round(
            statistics.mean(one["answer_tokens"] for one in some)
          ),
          "loss": statistics.mean(losses),
          "deviation": _deviation(losses),
          "random_loss": statistics.mean(others) if others else None,
          "difference": statistics.mean(pairs) if pairs else None,
          "difference_deviation": _deviation(pairs),
          "losses": losses,
        }
      )
    return sorted(out, key=lambda row: row["loss"])


def _deviation(values: Sequence[float]) -> float | None:
  return statistics.stdev(values) if len(values) > 1 else None


def _options(recipes, budget, training, part, length) -> dict[str, Any]:
  return {
    "recipes": {recipe.title: recipe.options for recipe in recipes},
    "budget": selection.described(budget),
    "training": {
      **selection.described(training),
      "vocabulary": vocabulary_lib.fingerprint(training.vocabulary),
    },
    "embedded_part": part,
    "embedding_length": length,
    "config": _config(),
  }


def _config() -> list[str]:
  """What was configured, for options that are functions; less what may vary."""
  current = config_lib.current()
  lines = current[0].text.splitlines() if current else []
  free = ("OUTPUT_DIR", "SEEDS", "DATA", "MEMORY_GIB")
  return [line for line in lines if line.split(" = ", 1)[0] not in free]


HEADER = (
  "method", "rows", "answer tokens", "held-out loss", "\u00b1 over seeds",
  "random, as many rows", "difference", "\u00b1 of the difference",
)  # fmt: skip


def _cells(row) -> tuple[str, ...]:
  def said(value, form="{:.4f}"):
    if value is None or not math.isfinite(value):
      return "\u2013"
    return form.format(value)

  return (
    row["method"],
    f"{row['rows']:,}",
    f"{row['answer_tokens']:,}",
    said(row["loss"]),
    said(row["deviation"]),
    said(row["random_loss"]),
    said(row["difference"], "{:+.4f}"),
    said(row["difference_deviation"]),
  )


def _finish(
  folder, name, paths, table, key, rows, held, lengths, x_ND, chosen,
  memory_gib, seeds, display, left_out,
):  # fmt: skip
  shown = [_cells(row) for row in table]
  note = (
    f"{seeds} seed{'s' * (seeds != 1)}; nats a held-out answer token,"
    f" {len(held):,} rows; the difference is the mean over seeds of the loss"
    " less that of as many random rows with the same seed; below 0 is better,"
    " and what is within its deviation (\u00b1) is no difference."
    f" {left_out:,} rows are empty or longer than a row of a batch and"
    " were left out of all."
  )
  figures = curate_select.shown(x_ND, chosen, memory_gib)
  figures["table"] = {
    "title": "Held-out loss", "header": HEADER, "rows": shown, "note": note,
  }  # fmt: skip
  markdown = [f"# {name}", "", *files.markdown_table(HEADER, shown), "", note]
  files.write(
    folder,
    {
      report.FIGURES: json.dumps(figures, allow_nan=False),
      "table.json": json.dumps(table, indent=1),
      "table.md": "\n".join(markdown) + "\n",
    },
    "comparison",
  )
  manifest.write(
    folder,
    method="compare",
    inputs={"data": paths},
    outputs=(RESULTS, "table.json", "table.md", "held_out.jsonl"),
    options=key,
    counts={f"selection by {m}": {"kept": len(r)} for m, r in chosen.items()},
    totals={
      "rows_in": len(rows),
      "tokens_in": int(lengths.rows.sum()),
    },
  )
  page = report.write(folder, f"Selection compared: {name}")
  display.table(f"{name}: {note}", HEADER, shown)
  display.say(f"table:  {folder / 'table.md'}")
  display.say(f"report: {page}")
