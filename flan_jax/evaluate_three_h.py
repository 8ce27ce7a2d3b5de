"""Tables people's ratings of responses: helpful, honest, harmless.

  python launch/run.py --gin_file=gin/eval_three_h.gin \
      --gin.RATINGS=ratings.csv

Read top to bottom: records -> values -> agreement -> files. The records are
described in `eval/three_h.py`.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flan_jax.eval import files as files_lib
from flan_jax.eval import page_text, three_h
from flan_jax.training import progress as progress_lib


def evaluate_three_h(
  *,
  ratings: str | os.PathLike,
  output_dir: str | os.PathLike,
  columns: Mapping[str, str] | None = None,
  on_bad_row: str = "error",
) -> pathlib.Path:
  """Reads ratings and writes their table and the agreement of raters.

      evaluate_three_h(ratings="ratings.csv", output_dir="runs/three_h")
      # runs/three_h/three_h.md

  Args:
    ratings: a CSV or JSONL file, see `three_h.read`.
    output_dir: where `three_h.md` and `three_h.json` go.
    columns: our name of a column -> the file's, where they differ.
    on_bad_row: "error" or "skip".

  Returns:
    The path of `three_h.md`.

  Raises:
    UserError: what `three_h.read` raises; a folder that cannot be written.
  """
  found = three_h.read(ratings, columns=columns, on_bad_row=on_bad_row)
  scores = three_h.scores(found.rows)
  agreed = three_h.agreements(found.rows)
  preferred = three_h.preferences(found.rows)
  folder = pathlib.Path(output_dir)
  files_lib.write(
    folder,
    {
      "three_h.md": _page(found, scores, agreed, preferred),
      "three_h.json": json.dumps(
        {
          "rows": found.lines,
          "records": len(found.rows),
          "skipped": found.skipped,
          "scores": [dataclasses.asdict(s) for s in scores],
          "agreement": {
            name: _without_nan(dataclasses.asdict(a))
            for name, a in agreed.items()
          },
          "preferences": (
            None if preferred is None else dataclasses.asdict(preferred)
          ),
        },
        indent=1,
        ensure_ascii=False,
      ),
    },
    "table",
  )
  display = progress_lib.Display()
  for note in found.skipped:
    display.say(f"left out: {note}")
  display.table("ratings", _HEADER, list(map(_cells, scores)))
  rows = [_agreement(name, a) for name, a in agreed.items()]
  display.table("agreement of raters", _AGREEMENT, rows)
  path = folder / "three_h.md"
  display.say(f"table: {path}")
  return path


_HEADER = (
  "system", "heading", "question", "value", "95 % interval", "responses",
  "ratings",
)  # fmt: skip
_AGREEMENT = (
  "question", "equal pairs", "alpha", "95 % interval", "responses", "ratings",
)  # fmt: skip


def _page(found, scores, agreed, preferred) -> str:
  lines = [
    "# Ratings: helpful, honest, harmless",
    "",
    f"{len(found.rows):,} records of {found.lines:,} rows;"
    f" {len(found.skipped):,} left out. overall: mean of 1 to 7; items: yes, in"
    " per cent. Raters of one response are averaged; intervals are over"
    " examples.",
    "",
    *files_lib.markdown_table(_HEADER, list(map(_cells, scores)), 3),
    "",
    "## Agreement of raters",
    "",
    "equal pairs: of the pairs of ratings of one response, in per cent; alpha:"
    " Krippendorff's, ordinal for overall, nominal for items.",
    "",
    *files_lib.markdown_table(
      _AGREEMENT, [_agreement(name, a) for name, a in agreed.items()]
    ),
    "",
  ]
  if preferred is not None:
    lines += [
      f"Which of two responses is better: raters agree in"
      f" {page_text.score(preferred.percent)} % of"
      f" {preferred.comparisons:,} comparisons.",
      "",
    ]
  if found.skipped:
    lines += ["## Left out", "", *(f"* {note}" for note in found.skipped), ""]
  return "\n".join(lines)


def _cells(s: three_h.Score) -> tuple[str, ...]:
  def number(x):
    return f"{x:.2f}" if s.question == three_h.OVERALL else page_text.score(x)

  return (
    s.system,
    s.heading,
    s.question,
    number(s.mean),
    " to ".join(map(number, s.interval)),
    f"{s.responses:,}",
    f"{s.ratings:,}",
  )


def _agreement(name: str, a: Any) -> tuple[str, ...]:
  def number(x):
    return page_text.DASH if math.isnan(x) else f"{x:.3f}"

  percent = page_text.DASH if math.isnan(a.percent) else f"{a.percent:.1f}"
  interval = page_text.DASH
  if not math.isnan(a.interval[0]):
    interval = " to ".join(map(number, a.interval))
  return (
    name,
    percent,
    number(a.alpha),
    interval,
    f"{a.units:,}",
    f"{a.ratings:,}",
  )


def _without_nan(value):
  """JSON has no NaN: null in its place."""
  if isinstance(value, dict):
    return {k: _without_nan(v) for k, v in value.items()}
  if isinstance(value, tuple):
    return [_without_nan(v) for v in value]
  return None if isinstance(value, float) and math.isnan(value) else value
