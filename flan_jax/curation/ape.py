"""Finds the instruction that examples of a task follow: APE.

  python launch/run.py --gin_file=gin/curate_ape.gin \
      --gin_file=gin/backends/endpoint.gin \
      --gin.BASE_URL=http://localhost:8000/v1 --gin.ENDPOINT_MODEL=my-model \
      --gin.TASK_PATH=antonyms.jsonl

Source: Zhou et al., 2023, "Large language models are human-level prompt
engineers" (arXiv 2211.01910).
"""

import dataclasses
import os
import random
from collections.abc import Sequence
from typing import Any

from flan_jax.curation import ape_search
from flan_jax.curation import run as run_lib
from flan_jax.curation.ape_scores import Score
from flan_jax.curation.ape_search import Search
from flan_jax.curation.ape_templates import Example, Templates
from flan_jax.curation.asking import Asker
from flan_jax.endpoint.request import Generator
from flan_jax.errors import UserError
from flan_jax.eval import files, pairs

METHOD = "ape"
CANDIDATES = "candidates.jsonl"
BEST = "best.json"


def ape(
  *,
  generator: Generator,
  task_path: str,
  output_dir: str | os.PathLike,
  scorer: Generator | None = None,
  templates: Templates | None = None,
  search: Search | None = None,
  score: Score | None = None,
  test_samples: int = 100,
) -> dict[str, Any]:
  """Proposes instructions from examples and keeps the best one.

      ape(generator=Checkpoint("checkpoints/smollm2_135m"),
          task_path="antonyms.jsonl", output_dir="runs/ape")["best"]
      # 'write the opposite of the word'

  The folder gets `candidates.jsonl`, all with their scores, best first;
  `best.json`; `data.jsonl`, the examples of the search with the best
  instruction; `decisions.jsonl`; `manifest.json`; and `journal.jsonl`, from
  which a stopped run goes on.

  Args:
    generator: an `Endpoint` or a `Checkpoint` that proposes.
    task_path: JSON lines with `input` and `output`, a text or a list of all
      texts that are right.
    output_dir: a folder.
    scorer: what the candidates are tried with; None: the generator.
    templates: texts of the search.
    search: how it goes.
    score: of a candidate on an example.
    test_samples: examples that the search does not see, on which the best one
      is scored; 0: none.

  Returns:
    What `best.json` holds, and counts.

  Raises:
    UserError: examples that cannot be read or are too few; see `search`.
  """
  templates, search = templates or Templates(), search or Search()
  score = score or Score()
  examples = read(task_path)
  if test_samples < 0:
    raise UserError(f"TEST_SAMPLES is {test_samples}; give 0 or more.")
  if len(examples) - test_samples < search.demos:
    raise UserError(
      f"TASK_PATH {task_path} has {len(examples):,} examples; TEST_SAMPLES ="
      f" {test_samples} are set apart, which leaves fewer than DEMOS ="
      f" {search.demos}. Lower one of them."
    )
  order = list(range(len(examples)))
  random.Random(f"{search.seed} split").shuffle(order)
  test = [examples[i] for i in order[:test_samples]]
  seen = [examples[i] for i in order[test_samples:]]
  with run_lib.open_run(METHOD, output_dir, generator) as run:
    scoring = run.asker if scorer is None else Asker(scorer, run.asker.journal)
    candidates, history = ape_search.search(
      seen,
      search,
      score,
      templates,
      proposer=run.asker,
      scorer=scoring,
      decisions=run.decisions,
      say=run.say,
    )
    best = candidates[0]
    result: dict[str, Any] = {
      "best": best.instruction,
      "score": best.score,
      "evaluated": best.evaluated,
      "kind": score.kind if score.kind != "execution" else score.metric,
      "history": history,
      "unscored": sum(c.score is None for c in candidates),
      **_tested(best, test, score, templates, scoring),
    }
    run.write(CANDIDATES, [dataclasses.asdict(c) for c in candidates])
    files.write(run.folder, {BEST: run_lib.json_text(result)}, "result")
    run.add_output(BEST)
    _show(run, candidates, result)
    data = [
      {
        "instruction": best.instruction,
        "input": e.input,
        "output": e.outputs[0],
        "id": f"{METHOD}_{i:06d}",
        "provenance": {"method": METHOD, "model": run.asker.model},
      }
      for i, e in enumerate(seen)
    ]
    more_models = {} if scorer is None else {"scorer": scoring.identity}
    return run.finish(
      data,
      inputs={"task": task_path},
      options={
        "templates": templates,
        "search": search,
        "score": score,
        "test_samples": test_samples,
      },
      model_role="generator",
      more_models=more_models,
      table={
        "title": f"Instructions by {result['kind'].replace('_', ' ')}",
        "header": ["instruction", "score", "samples"],
        "rows": [
          [c.instruction, _said(c.score), str(c.evaluated)]
          for c in candidates[:20]
        ],
        "note": "The best 20.",
      },
      more=result,
    )


def read(path: str) -> list[Example]:
  """The examples of a task.

  Raises:
    UserError: the file cannot be read, or a row has no input or output.
  """
  out = []
  for number, row in enumerate(pairs.read_rows(path, "TASK_PATH"), 1):
    outputs = row.get("output")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    fine = isinstance(outputs, list) and outputs
    if (
      not fine
      or not all(isinstance(o, str) and o.strip() for o in outputs)
      or not isinstance(row.get("input"), str)
    ):
      raise UserError(
        f"TASK_PATH {path}, row {number}: an example has 'input', a text, and"
        " 'output', a text or a list of texts that are not empty; it is"
        f" {str(dict(row))[:80]}."
      )
    out.append(Example(row["input"], tuple(outputs)))
  if not out:
    raise UserError(f"TASK_PATH {path} has no example.")
  return out


def _tested(
  best, test: Sequence[Example], score, templates, asker
) -> dict[str, Any]:
  """The best instruction on examples that the search has not seen."""
  if not test:
    return {}
  scores = score([(best.instruction, e, 0) for e in test], templates, asker)
  found = [s for s in scores if s is not None]
  mean = sum(found) / len(found) if found else None
  return {"test_score": mean, "test_samples": len(found)}


def _said(score: float | None) -> str:
  return "-" if score is None else f"{score:.4f}"


def _show(run, candidates, result):
  run.display.table(
    f"{len(candidates):,} instructions, {result['kind']}",
    ("score", "samples", "instruction"),
    [(_said(c.score), c.evaluated, c.instruction) for c in candidates[:10]],
  )
  if result.get("test_score") is not None:
    run.say(
      f"the best one on {result['test_samples']:,} other examples:"
      f" {result['test_score']:.4f}"
    )
