"""Compares two evaluated runs: the same rows, paired, in a table and a page.

Read top to bottom: recorded answers -> differences -> files.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from flan_jax.data import remote, sample
from flan_jax.errors import UserError
from flan_jax.eval import changed, compare, page_compare, recorded
from flan_jax.eval import files as files_lib
from flan_jax.eval.page_text import DASH, score
from flan_jax.training import progress as progress_lib

_COLUMNS = ("task", "value", "n", "first", "second", "difference",
            "95 % interval", "p", "p (Holm)")  # fmt: skip


def compare_runs(
  *, run_a: str, run_b: str, output_dir: str, split: str = "test"
) -> pathlib.Path:
  """Writes comparison.html and comparison.json; prints the table.

  Args:
    run_a: a folder with predictions.jsonl, or such a file, which may be in a
      bucket: the baseline.
    run_b: the other, of the same tasks, templates and rows.
    output_dir: where the files go; made if it is not there.
    split: whose answers are compared.

  Returns:
    The path of comparison.html.

  Raises:
    UserError: answers that cannot be read or are not of the same rows; one
      folder given twice. Nothing is written then.
  """
  here_a, here_b = map(_here, (run_a, run_b))
  if recorded.file_of(here_a).resolve() == recorded.file_of(here_b).resolve():
    raise UserError(f"RUN_A and RUN_B are both {run_a!r}; give two runs.")
  a, b = (recorded.read(run, split=split) for run in (here_a, here_b))
  rows = compare.compare(a, b)
  means = compare.means(rows)
  counts, shown = changed.changed(a, b)
  shown = changed.with_prompts(shown, here_a, split)

  display = progress_lib.Display()
  display.table(
    f"{run_b} against {run_a}, {split} rows",
    _COLUMNS,
    [_cells(row) for row in (*rows, *means)],
  )
  page = page_compare.render((run_a, run_b), rows, means, counts, shown)
  value = {
    "runs": [run_a, run_b],
    "split": split,
    "differences": [_plain(row) for row in rows],
    "means": [_plain(row) for row in means],
    "changed": {task: dataclasses.asdict(c) for task, c in counts.items()},
  }
  folder = pathlib.Path(output_dir)
  files = {
    "comparison.json": json.dumps(value, indent=1),
    "comparison.html": page,
  }
  files_lib.write(folder, files, "table")
  path = folder / "comparison.html"
  display.say(f"comparison: {os.fspath(path)}")
  return path


def _here(run: str) -> str:
  copies = sample.cache_directory() / "compared"
  return str(remote.local_copy(run, copies, ("checkpoints", "processes")))


def _cells(row: compare.Difference) -> tuple[str, ...]:
  low, high = row.interval
  return (
    page_compare.label(row), row.value, f"{row.n:,}", score(row.a),
    score(row.b), score(row.difference, sign=True),
    f"{score(low, sign=True)} to {score(high, sign=True)}", f"{row.p:.4f}",
    DASH if row.p_holm is None else f"{row.p_holm:.4f}",
  )  # fmt: skip


def _plain(row: compare.Difference) -> dict[str, Any]:
  value = dataclasses.asdict(dataclasses.replace(row, draws=None))
  del value["draws"]
  return value
