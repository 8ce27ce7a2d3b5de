"""Evaluates a checkpoint on MMLU and BIG-Bench Hard from local folders.

Each benchmark gets a folder with a page and every answer, as `evaluate.py`
writes them; beside them stands one table with the normalised average of all
(Chung et al., 2022, arXiv 2210.11416, section 2.3).
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import evaluate, evaluated
from flan_jax.convert import fingerprint
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError, check_known
from flan_jax.eval import bbh, mmlu, normalised, page_text, prompted, report
from flan_jax.eval import files as files_lib
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.training import checks, processes, sharding
from flan_jax.training import progress as progress_lib
from flan_jax.training import record as record_lib

# Name -> whether a chain of thought is asked for, and the benchmark.
BENCHMARKS: Mapping[str, tuple[Any, bool]] = {
  "mmlu": (mmlu, False),
  "mmlu_cot": (mmlu, True),
  "bbh": (bbh, False),
  "bbh_cot": (bbh, True),
}
# What a model writes that goes on with the next question.
_STOP = ("\nQ:", "\n\nQuestion:")


def evaluate_benchmarks(
  *,
  initial_checkpoint_path: str,
  benchmarks: Sequence[str],
  task_feature_lengths: Mapping[str, int],
  mmlu_dir: str | None = None,
  bbh_dir: str | None = None,
  mmlu_shots: int | None = None,
  bbh_shots: int | None = None,
  output_dir: str | os.PathLike | None = None,
  model: Any = None,
  vocabulary: Any = None,
  batch_size: int = 8,
  form: prompted.Form | None = None,
  eval_examples: int | None = None,
  layout: sharding.Layout | None = None,
) -> pathlib.Path:
  """Evaluates one checkpoint on benchmarks and writes their table.

  Args:
    initial_checkpoint_path: a checkpoint of any format in `convert/source.py`.
    benchmarks: of `BENCHMARKS`, each once.
    task_feature_lengths: limits in tokens; exemplars that do not fit in
      `inputs` are left out. A chain of thought has `targets` at most.
    mmlu_dir: folder of MMLU as published, see `eval/mmlu.py`.
    bbh_dir: folder of BIG-Bench Hard as published, see `eval/bbh.py`.
    mmlu_shots, bbh_shots: solved questions before each question; None: 5, 3.
    output_dir: where the files go; None: a folder of its own under `runs/`.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with the checkpoint.
    batch_size: inputs per batch.
    form: what surrounds every prompt; None: nothing does.
    eval_examples: questions at most per task, the first; None: all.
    layout: where the parameters lie, see `evaluated.load_params`.

  Returns:
    The path of the table, `benchmarks.md`; `benchmarks.json` has the same.

  Raises:
    UserError: an unknown benchmark or one given twice, a folder that is
      missing, not as published or has no effect; a checkpoint that cannot be
      read; a question that does not fit.
  """
  form = form or prompted.Form()
  settings = {mmlu: (mmlu_dir, mmlu_shots), bbh: (bbh_dir, bbh_shots)}
  _check_benchmarks(benchmarks, settings)
  checks.numbers(
    batch_size=batch_size,
    **({} if eval_examples is None else {"eval_examples": eval_examples}),
  )
  checks.lengths(task_feature_lengths)
  questions = {}
  for name in benchmarks:
    benchmark, cot = BENCHMARKS[name]
    folder, shots = settings[benchmark]
    shots = benchmark.SHOTS if shots is None else shots
    questions[name] = benchmark.load(folder, shots=shots, cot=cot)
  opened, model, vocabulary = evaluated.open_model(
    initial_checkpoint_path, model, vocabulary
  )
  sets = {
    name: prompted.evaluation_set(
      asked,
      vocabulary=vocabulary,
      kind=model.kind,
      lengths=task_feature_lengths,
      batch_size=batch_size,
      form=form,
      max_examples=eval_examples,
    )
    for name, asked in questions.items()
  }
  record = record_lib.make(
    {
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "checkpoint": evaluated.address(initial_checkpoint_path, opened),
      "form": dataclasses.asdict(form),
      "shots": {name: _shots(rows) for name, rows in sets.items()},
    }
  )
  folder = evaluated.claim_folder(output_dir, record)
  display = progress_lib.Display(quiet=not processes.is_first())
  display.say(f"checkpoint: {opened.path} ({opened.format}), {model.kind}")
  params, partition = evaluated.load_params(opened, model, layout)
  scores = []
  with evaluated.computing(partition):
    for name, rows in sets.items():
      stop = _stop(rows, name)
      result = answer(
        name, rows, model, params, folder / name, record, display, stop
      )
      scores.append(normalised.score(name, result.tasks.values()))
  if len(scores) > 1:
    scores.append(normalised.average(scores))
  path = write_table(folder, scores)
  display.table("benchmarks", _HEADER, list(map(_cells, scores)))
  display.say(f"table: {path}")
  return path


def _stop(rows: EvaluationSet, name: str) -> tuple[str, ...]:
  """Texts that end an answer, of which one without a chain is one line."""
  if all(task.kind == "classification" for task in rows.tasks):
    return ()
  return _STOP if BENCHMARKS[name][1] else (*_STOP, "\n")


def answer(
  name: str,
  rows: EvaluationSet,
  model: Any,
  params: Any,
  folder: pathlib.Path,
  record: record_lib.Record,
  display: progress_lib.Display,
  stop_strings: Sequence[str],
) -> Evaluation:
  """Answers one benchmark and writes its page and every answer to `folder`.

  Answers are kept as they come: what was stopped goes on.
  """
  count = len(rows.examples[prompted.SPLIT])
  display.say(
    f"{name}: {len(rows.tasks)} tasks, {count:,} questions, {_shots(rows)}"
    " solved ones before each"
  )
  result = evaluate.evaluate_tasks(
    model,
    params,
    rows,
    stop_strings=stop_strings,
    predictions=folder / "predictions.jsonl",
    kept=folder,
    run=f"{record.fingerprint()} {fingerprint.fingerprint(params)} {name}",
  )
  report.write_report(
    folder, run={**dataclasses.asdict(record), "name": name}, after=result
  )
  return result


def _check_benchmarks(names: Sequence[str], settings: Mapping[Any, tuple]):
  if isinstance(names, str) or not names or len(set(names)) != len(names):
    raise UserError(
      f"BENCHMARKS is {names!r}; write some of {tuple(BENCHMARKS)}, each once,"
      " as ('mmlu', 'bbh_cot')."
    )
  for name in names:
    check_known("BENCHMARKS", name, BENCHMARKS)
  for benchmark, (folder, shots) in settings.items():
    title = benchmark.__name__.rpartition(".")[2]
    asked = [n for n in names if BENCHMARKS[n][0] is benchmark]
    if asked and folder is None:
      raise UserError(
        f"{asked[0]} is read from a local folder: --gin.{title.upper()}_DIR=..."
        f" (its layout is described in flan_jax/eval/{title}.py)."
      )
    for option, value in (("DIR", folder), ("SHOTS", shots)):
      if value is not None and not asked:
        raise UserError(
          f"{title.upper()}_{option}={value!r} has no effect, since BENCHMARKS"
          f" is {tuple(names)}; leave it out or add {title!r}."
        )


def _shots(rows) -> str:
  """How many exemplars prompts have after fitting: "5", or "3 to 5"."""
  found = {e.shots for e in rows.examples[prompted.SPLIT]}
  low, high = min(found), max(found)
  return str(low) if low == high else f"{low} to {high}"


# -------------------------------------------------------------------- table

_HEADER = (
  "benchmark", "tasks", "n", "score", "95 % interval", "chance", "normalised",
  "95 % interval",
)  # fmt: skip


def write_table(
  folder: pathlib.Path, scores: Sequence[normalised.Score]
) -> pathlib.Path:
  """Writes benchmarks.md and benchmarks.json; returns the former's path.

  Raises:
    UserError: the folder cannot be written.
  """
  rows = [tuple(map(str, _cells(s))) for s in scores]
  text = "\n".join(files_lib.markdown_table(_HEADER, rows))
  values = [{k: v for k, v in vars(s).items() if k != "draws"} for s in scores]
  files = {
    "benchmarks.json": json.dumps(values, indent=1),
    "benchmarks.md": f"# Benchmarks\n\n{text}\n",
  }
  files_lib.write(folder, files, "table")
  return folder / "benchmarks.md"


def _cells(s: normalised.Score) -> tuple:
  return (
    s.name,
    s.tasks,
    f"{s.n:,}",
    page_text.score(s.raw),
    page_text.between(s.raw_interval, " to "),
    page_text.score(s.chance),
    page_text.score(s.normalised),
    page_text.between(s.interval, " to "),
  )
