"""Keeps the rows that a judge grades highly: AlpaGasus.

  python launch/run.py --gin_file=gin/curate_alpagasus.gin \
      --gin_file=gin/backends/endpoint.gin \
      --gin.BASE_URL=http://localhost:8000/v1 --gin.ENDPOINT_MODEL=my-judge \
      --gin.DATA_PATH=alpaca_data.json

Beside the rows that are kept it writes as many at random and as many of the
longest outputs, the baselines to train on for comparison.

Source: Chen et al., 2023, "AlpaGasus: training a better Alpaca with fewer data"
(arXiv 2307.08701), sections 2 and 4.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.curation import rating as rating_lib
from flan_jax.curation import rows as rows_lib
from flan_jax.curation import run as run_lib
from flan_jax.curation import selectors
from flan_jax.curation.rating import Rating
from flan_jax.endpoint.request import Generator
from flan_jax.errors import UserError
from flan_jax.eval import files
from flan_jax.training import checks

METHOD = "alpagasus"
STAGE = "rating"
LOW = "below the threshold"
NOT_DRAWN = "not drawn"
UNREADABLE_FILE = "unreadable.jsonl"
SCORES_FILE = "scores.json"


def alpagasus(
  *,
  judge: Generator,
  data_path: str | Sequence[str],
  output_dir: str | os.PathLike,
  rating: Rating | None = None,
  threshold: float = 4.5,
  subset: int | None = None,
  baselines: bool = True,
  seed: int = 0,
) -> dict[str, Any]:
  """Rates every row and keeps those with a grade of `threshold` or more.

      alpagasus(judge=Endpoint("http://localhost:8000/v1", "my-judge"),
                data_path="alpaca_data.json",
                output_dir="runs/alpagasus")["rows"]
      # 9229

  The folder gets `data.jsonl`, rows with their `rating`; `unreadable.jsonl`,
  rows without one, which are in neither half; `scores.json`, the histogram;
  `random.jsonl` and `longest.jsonl`, as many rows as `data.jsonl` has;
  `decisions.jsonl`; `manifest.json`, with the judge as the model of the filter,
  so that a comparison by the same judge is flagged (`flan_jax/judge.py`,
  CURATION_MANIFESTS); and `journal.jsonl`, from which a stopped run goes on.

  Args:
    judge: an `Endpoint` or a `Checkpoint`.
    data_path: of rows, see `rows.read`.
    output_dir: a folder.
    rating: how the judge is asked.
    threshold: the lowest grade that is kept.
    subset: keeps so many of those, at random; None: all.
    baselines: whether the two other files are written.
    seed: of `subset` and the random rows.

  Returns:
    Counts, as the manifest has them.

  Raises:
    UserError: rows that cannot be read, a threshold off the scale, no row
      kept, or fewer than `subset`; what the judge raises.
  """
  rating = rating or Rating()
  low, high = rating.scale
  if not low < threshold <= high:
    raise UserError(
      f"THRESHOLD is {threshold} on a scale from {low:g} to {high:g}: it would"
      f" keep {'all' if threshold <= low else 'no'} rows. Give a grade above"
      f" {low:g} and at most {high:g}."
    )
  if subset is not None:
    checks.numbers(subset=subset)
  rows = rows_lib.read(data_path)
  with run_lib.open_run(METHOD, output_dir, judge) as run:
    run.say(f"{len(rows):,} rows to rate by {run.asker.model}")
    rated = rating_lib.rate(rows, rating, run.asker)
    good = [
      n
      for n, r in enumerate(rated)
      if r.score is not None and r.score >= threshold
    ]
    scores = [r.score for r in rated if r.score is not None]
    histogram = rating_lib.histogram(scores)
    _show(run, histogram, len(rows), len(scores))
    if not scores:
      raise UserError(
        f"none of {len(rows):,} ratings could be read; the first answer is"
        f" {rated[0].said[:100]!r}. Give a stronger judge, or a QUESTION whose"
        f" answer begins with a number from {low:g} to {high:g}."
      )
    if not good:
      raise UserError(
        f"no row has a grade of {threshold:g} or more: {histogram}. Lower"
        " THRESHOLD."
      )
    kept = good
    if subset is not None:
      if subset > len(good):
        raise UserError(
          f"SUBSET is {subset:,} and {len(good):,} rows have a grade of"
          f" {threshold:g} or more. Lower SUBSET or THRESHOLD."
        )
      draws = np.random.default_rng(seed)
      kept = sorted(draws.choice(good, subset, replace=False).tolist())
    _decide(run, rows, rated, set(kept), threshold)
    unreadable = [
      rows[n] | {"rating_error": r.error, "judge_said": r.said}
      for n, r in enumerate(rated)
      if r.score is None
    ]
    run.write(UNREADABLE_FILE, unreadable)
    files.write(
      run.folder, {SCORES_FILE: run_lib.json_text(histogram)}, "histogram"
    )
    run.add_output(SCORES_FILE)
    if baselines:
      for name, chosen in _baselines(rows, len(kept), seed).items():
        run.write(f"{name}.jsonl", [rows[n] for n in chosen])
    return run.finish(
      [rows[n] | {"rating": rated[n].score} for n in kept],
      inputs={"data": data_path},
      options={
        "rating": rating,
        "threshold": threshold,
        "subset": subset,
        "baselines": baselines,
        "seed": seed,
      },
      model_role="filter",
      table=_table(histogram, len(rows), threshold),
      more={
        "read": len(rows),
        "rated": len(scores),
        "unreadable": len(unreadable),
        "histogram": histogram,
      },
      notes=[
        f"{run.asker.model} graded the rows: another model should judge what is"
        " trained on them.",
        "longest.jsonl: by characters of the output.",
      ],
    )


def _decide(run, rows, rated, kept, threshold):
  for n, (row, r) in enumerate(zip(rows, rated, strict=True)):
    reason = None
    if r.score is None:
      reason = r.error
    elif r.score < threshold:
      reason = LOW
    elif n not in kept:
      reason = NOT_DRAWN
    fields = {key: row[key] for key in rows_lib.TEXTS}
    more = {"score": r.score}
    if r.score is None:
      more["said"] = r.said
    run.decisions.write(STAGE, row["id"], fields, reason=reason, **more)


def _table(histogram, total, threshold) -> dict[str, Any]:
  """The histogram of grades for the page."""
  most = max(histogram.values())
  return {
    "title": "Grades",
    "header": ["grade", "rows", "share, %", ""],
    "rows": [
      [
        grade,
        f"{n:,}",
        f"{100 * n / total:.1f}",
        "█" * max(1, round(30 * n / most)),
      ]
      for grade, n in histogram.items()
    ],
    "note": f"Rows with {threshold:g} or more are kept;"
    f" {total - sum(histogram.values()):,} have no grade that could be read.",
  }


def _baselines(rows, count: int, seed: int) -> dict[str, list[int]]:
  lengths = np.array([len(row["output"]) for row in rows], np.int64)
  among = selectors.Candidates(tokens=lengths, outputs=lengths)
  return {
    selector.name: sorted(selector(among, count, None)[0].tolist())
    for selector in (selectors.Random(seed), selectors.Longest())
  }


def _show(run, histogram, total, rated):
  most = max(histogram.values(), default=1)
  run.display.table(
    f"grades of {rated:,} of {total:,} rows; {total - rated:,} could not be"
    " read",
    ("grade", "rows", ""),
    [
      (grade, n, "#" * max(1, round(40 * n / most)))
      for grade, n in histogram.items()
    ],
  )
