"""The page of a curation run, from the files in its folder.

Besides what every run has (`manifest.json`, `decisions.jsonl`, `data.jsonl`) a
run may leave numbers for plots in `figures.json`:

* `coverage`: name -> [[rows taken, covering radius, mean distance], ...]
* `map`: "kept" and "dropped" -> [[x, y], ...]
* `similarity`: title -> label -> [similarity to the nearest, ...]
* `table`: `title`, `header`, `rows`, `note`

Decisions with `nearest`, [[text, score], ...], give a similarity histogram
without it.
"""

import collections
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.curation import decisions as decisions_lib
from flan_jax.curation import manifest as manifest_lib
from flan_jax.curation import overlap, page, tokens
from flan_jax.errors import UserError
from flan_jax.page import markup

PAGE = "report.html"
FIGURES = "figures.json"
DATA = "data.jsonl"
# Dropped rows whose lengths and verbs are shown; texts whose overlap is.
_DROPPED = 20_000
_COMPARED = 2_000


def write(folder: str | os.PathLike, title: str | None = None) -> pathlib.Path:
  """Writes `report.html` into a run's folder.

      write("runs/curate_k_center")
      # PosixPath('runs/curate_k_center/report.html')

  Args:
    folder: of a run with a manifest.
    title: of the page; None: the method's name.

  Returns:
    The path of the page.

  Raises:
    UserError: a file is missing or damaged, or the page cannot be written.
  """
  folder = pathlib.Path(folder)
  made = manifest_lib.read(folder)
  kept = _lines(folder / DATA) if DATA in made.outputs else []
  ids = {str(row.get("id")) for row in kept}
  examples: dict[tuple[str, str], list] = {}
  dropped, nearest = [], collections.defaultdict(list)
  if decisions_lib.FILE in made.outputs:
    for one in decisions_lib.read(folder / decisions_lib.FILE):
      label = page.KEPT if one["kept"] else "dropped"
      if one.get("nearest"):
        nearest[label].append(float(one["nearest"][0][1]))
      if one["kept"]:
        continue
      some = examples.setdefault((one["stage"], one["reason"]), [])
      if len(some) < page.EXAMPLES:
        some.append(one)
      if len(dropped) < _DROPPED and str(one["id"]) not in ids:
        dropped.append(one.get("row") or {})
  figures: dict[str, Any] = {}
  if (folder / FIGURES).exists():
    figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
  if nearest:
    figures.setdefault("similarity", {})["ROUGE-L to the most similar"] = (
      nearest
    )
  content = page.render(
    title or f"Curation: {markup.readable(made.method)}",
    manifest=made,
    kept=kept,
    dropped=dropped,
    examples=examples,
    figures=figures,
  )
  markup.write(folder / PAGE, content)
  return folder / PAGE


def overlaps(
  texts: Sequence[str], kept: Sequence[bool], tokenizer: str = "words"
) -> dict[str, list[float]]:
  """ROUGE-L F of texts to the most similar other one, of all and of kept ones.

  >>> made = overlaps(["a b", "a b", "c d"], [True, False, True])
  >>> made["all rows"], made["kept among kept"]
  ([1.0, 1.0, 0.0], [0.0, 0.0])

  Of more than 2,000 texts some at random are compared with one another, so the
  numbers of two runs are comparable for like numbers of texts alone.
  """
  rng = np.random.default_rng(0)
  out = {}
  for label, rows in (
    ("all rows", np.arange(len(texts))),
    ("kept among kept", np.flatnonzero(kept)),
  ):
    if len(rows) > _COMPARED:
      rows = np.sort(rng.choice(rows, _COMPARED, replace=False))
    out[label] = overlap.nearest_scores(
      [texts[i] for i in rows], tokenizer=tokens.resolve(tokenizer)
    ).tolist()
  return out


def _lines(path: pathlib.Path) -> list[Mapping[str, Any]]:
  try:
    with open(path, encoding="utf-8") as file:
      return [json.loads(line) for line in file if line.strip()]
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{path} cannot be read: {reason}.") from None
