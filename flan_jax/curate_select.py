"""Selects rows of an instruction data set: the job of gin/curate_*.gin.

  python launch/run.py --gin_file=gin/curate_k_center.gin \
      --gin.DATA_PATH=dolly.json --gin.FRACTION=0.1 \
      --gin.EMBEDDINGS_PATH=dolly.npy

Read top to bottom: rows -> tokens, vectors -> choice -> files and page.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.curation import (
  coverage,
  decisions,
  embeddings,
  manifest,
  report,
  selection,
  selectors,
)
from flan_jax.curation import rows as rows_lib
from flan_jax.curation.budget import Budget
from flan_jax.errors import UserError
from flan_jax.eval import files
from flan_jax.training import progress

# Points of the map, and rows whose nearest neighbours are looked for.
POINTS = 4_000
NEIGHBOURS = 4_000


def select(
  *,
  data_path: str | Sequence[str],
  output_dir: str,
  recipe: selection.Recipe,
  budget: Budget,
  vocabulary: Any,
  embedder: embeddings.Embedder | None = None,
  embedded_part: str = "row",
  memory_gib: float = 8.0,
) -> pathlib.Path:
  """Writes the chosen rows, every decision, a manifest and a page.

  The folder gets `data.jsonl`, the rows in the order in which they were taken;
  `decisions.jsonl`, each row at each stage; `figures.json`; `manifest.json`;
  `report.html`; and the vectors where a checkpoint made them.

  Args:
    data_path: a file or several, see `curation/rows.py`.
    output_dir: the run's folder; an earlier run's files are replaced.
    recipe: how rows are chosen.
    budget: how many.
    vocabulary: that tokens are counted in.
    embedder: of the rows' vectors; needed by some methods, and with others it
      only shows how well the choice covers all rows. None: no vectors.
    embedded_part: of a row that a checkpoint embeds, of `rows.PARTS`.
    memory_gib: that the vectors of one group may take, in GiB.

  Returns:
    The path of `data.jsonl`.

  Raises:
    UserError: rows, vectors or a budget that cannot be used.
  """
  began = time.monotonic()
  display = progress.Display()
  if memory_gib <= 0:
    raise UserError(f"MEMORY_GIB is {memory_gib:g}; it must be above 0.")
  rows = rows_lib.read(data_path)
  folder = manifest.begin(output_dir)
  lengths = selection.count_tokens(rows, vocabulary)
  display.say(f"rows in: {len(rows):,} of {int(lengths.rows.sum()):,} tokens")
  x_ND = embed(
    rows, embedder, folder=folder, part=embedded_part, display=display
  )
  chosen = selection.choose(
    rows, recipe, budget, lengths=lengths, x_ND=x_ND, memory_gib=memory_gib
  )
  counts = write_decisions(folder, rows, recipe, chosen)
  rows_lib.write(folder / report.DATA, [rows[i] for i in chosen.rows])
  compared = {recipe.title: chosen.rows}
  if x_ND is not None and not isinstance(recipe.selector, selectors.Random):
    drawn = np.random.default_rng(0).permutation(len(rows))
    compared["random"] = drawn[: len(chosen.rows)]
  figures = shown(x_ND, compared, memory_gib)
  figures.setdefault("similarity", {})["ROUGE-L of instructions"] = (
    report.overlaps(
      [row["instruction"] for row in rows], chosen.kept(len(rows))
    )
  )
  files.write(
    folder, {report.FIGURES: json.dumps(figures, allow_nan=False)}, "figures"
  )
  models = {} if embedder is None else {"embeddings": dict(embedder.identity)}
  made = manifest.write(
    folder,
    method=recipe.title,
    inputs={"data": data_path, **_vectors_file(embedder)},
    outputs=(report.DATA, decisions.FILE),
    options={
      **recipe.options,
      "budget": selection.described(budget),
      "embedded_part": embedded_part,
    },
    counts=counts,
    models=models,
    totals={
      "rows_in": len(rows),
      "rows_kept": len(chosen.rows),
      "tokens_in": int(lengths.rows.sum()),
      "tokens_kept": int(lengths.rows[chosen.rows].sum()),
      "output_tokens_kept": int(lengths.outputs[chosen.rows].sum()),
      "cost": 0.0,
      "seconds": round(time.monotonic() - began, 1),
    },
  )
  page = report.write(folder)
  for stage, reasons in made.counts.items():
    said = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
    display.say(f"{stage}: {said}")
  display.say(
    f"kept: {len(chosen.rows):,} rows of {made.totals['tokens_kept']:,} tokens"
  )
  display.say(f"data:     {folder / report.DATA}")
  display.say(f"manifest: {folder / manifest.NAME}")
  display.say(f"report:   {page}")
  return folder / report.DATA


def embed(rows, embedder, *, folder, part, display):
  """Checked vectors of the rows, or None without an embedder."""
  if embedder is None:
    return None
  texts = [rows_lib.text(row, part) for row in rows]
  said = time.monotonic()

  def told(done: int):
    nonlocal said
    if time.monotonic() - said > 10:
      said = time.monotonic()
      display.say(f"embedded: {done:,} of {len(rows):,} rows")

  x_ND = embeddings.cached(embedder, texts, folder, told)
  embeddings.check(x_ND, f"vectors of {embedder.identity['model']}")
  return x_ND


def write_decisions(folder, rows, recipe, chosen) -> dict[str, dict[str, int]]:
  """`decisions.jsonl`; returns how many of each, by stage."""
  kept = set(chosen.rows.tolist())
  place = {row: n for n, row in enumerate(chosen.rows.tolist())}
  with decisions.Decisions(folder) as said:
    for i, row in enumerate(rows):
      for one in recipe.filters:
        reason = chosen.dropped[one.name].get(i)
        said.write(f"filter: {one.name}", row["id"], row, reason=reason)
        if reason is not None:
          break
      else:
        more: dict[str, Any] = dict(chosen.numbers.get(i, {}))
        if i in chosen.group_of:
          more["group"] = chosen.group_of[i]
        if i in kept:
          more["place"] = place[i]
        said.write(
          selection.SELECTION,
          row["id"],
          row,
          reason=None if i in kept else selection.NOT_TAKEN,
          **more,
        )
    return said.counts


def shown(x_ND, chosen, memory_gib) -> dict[str, Any]:
  """Numbers of the page's plots of vectors; {} without vectors.

  Args:
    x_ND: checked vectors, or None.
    chosen: name -> rows taken, in order; the map shows the first.
    memory_gib: see `select`; rows at random where all are larger.
  """
  if x_ND is None:
    return {}
  rng = np.random.default_rng(0)
  N, D = x_ND.shape
  most = int(memory_gib * embeddings.GIB / (4 * D))
  some_N = np.arange(N)
  if most < N:
    some_N = np.sort(rng.choice(N, max(most // 2, 1), replace=False))
  units_ND = embeddings.units(x_ND, some_N, memory_gib=memory_gib)
  place_N = np.full(N, -1)
  place_N[some_N] = np.arange(len(some_N))
  curves = {}
  for name, rows in chosen.items():
    there = place_N[rows]
    made = coverage.curve(units_ND, there[there >= 0])
    curves[name] = [[c.count, c.radius, c.mean] for c in made]
  rows = next(iter(chosen.values()))
  taken_N = np.isin(some_N, rows)
  drawn_N = np.arange(len(some_N))
  if len(drawn_N) > POINTS:
    drawn_N = np.sort(rng.choice(len(some_N), POINTS, replace=False))
    drawn_N = np.union1d(drawn_N, np.flatnonzero(taken_N)[:POINTS])
  points_N2 = coverage.plane(units_ND).round(4)[drawn_N]
  neighbours = {
    "all rows": np.arange(len(some_N)),
    "kept among kept": np.flatnonzero(taken_N),
  }
  for label, found in neighbours.items():
    if len(found) > NEIGHBOURS:
      found = np.sort(rng.choice(found, NEIGHBOURS, replace=False))
    neighbours[label] = coverage.nearest_cosines(units_ND[found]).tolist()
  return {
    "coverage": curves,
    "map": {
      "kept": points_N2[taken_N[drawn_N]].tolist(),
      "dropped": points_N2[~taken_N[drawn_N]].tolist(),
    },
    "similarity": {"Cosine of vectors": neighbours},
  }


def _vectors_file(embedder) -> dict[str, str]:
  if isinstance(embedder, embeddings.FromFile):
    return {"embeddings": embedder.path}
  return {}
