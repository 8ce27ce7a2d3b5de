"""Evaluates a model on held-out tasks: every template, FLAN's protocol.

`evaluate_tasks` is what the trainer calls before, during and after tuning;
`evaluate` also writes the answers and the page about them. Read top to
bottom: rows -> batches -> scores -> numbers -> files.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flan_jax.convert import load
from flan_jax.data import catalogue, mixtures, spec, template
from flan_jax.data import directory as directory_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import generation, protocol, rank, report
from flan_jax.eval.evaluation import Evaluation, Sample
from flan_jax.eval.evaluation_set import SPLITS, EvaluationSet
from flan_jax.training import checks
from flan_jax.training import record as record_lib

SAMPLES_PER_TASK = 2


def evaluate_tasks(
  model: Any,
  params: Any,
  tasks: Iterable[spec.Task] | EvaluationSet,
  *,
  vocabulary: Any = None,
  lengths: Mapping[str, int] | None = None,
  batch_size: int = 32,
  max_examples: int | None = None,
  splits: Sequence[str] | None = None,
  wrapper: template.Wrapper = template.PLAIN,
  score: str = "sum",
  predictions: str | os.PathLike | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
  """Evaluates `model` on every task with all templates, FLAN's protocol.

  >>> rows = EvaluationSet.prepare([rte, cb], vocabulary=vocabulary,
  ...   lengths={"inputs": 512, "targets": 64}, batch_size=32)
  ...                                                     # doctest: +SKIP
  >>> before = evaluate_tasks(model, params, rows)        # doctest: +SKIP
  >>> before.headline["eval/rte/accuracy_mean"]           # doctest: +SKIP
  52.7

  Args:
    model: `models/t5.py: EncoderDecoder` or `models/decoder.py: DecoderOnly`.
    params: the model's parameters.
    tasks: tasks, or the `EvaluationSet` of them (then `vocabulary`,
      `lengths`, `batch_size`, `max_examples` and `wrapper` are the set's).
    vocabulary: see `EvaluationSet.prepare`.
    lengths: see `EvaluationSet.prepare`.
    batch_size: see `EvaluationSet.prepare`.
    max_examples: see `EvaluationSet.prepare`.
    splits: the last one is reported; with two, the first one picks the best
      template. Default: all that the set has.
    wrapper: see `EvaluationSet.prepare`.
    score: `sum` or `mean`, see `rank.rank`.
    predictions: file for every answer, one JSON object a line.
    progress: called with (batches done, batches in all).

  Raises:
    UserError: what `prepare`, `rank.rank` and `protocol.summarise` raise; a
      predictions file that cannot be written.
  """
  if not isinstance(tasks, EvaluationSet):
    tasks = EvaluationSet.prepare(
      tasks,
      vocabulary=vocabulary,
      lengths=lengths,
      batch_size=batch_size,
      max_examples=max_examples,
      splits=splits or SPLITS,
      wrapper=wrapper,
      kind=model.kind,
    )
  if tasks.kind != model.kind:
    raise UserError(
      f"the evaluation set was prepared for {tasks.kind} models, but this one"
      f" is {model.kind}: give EvaluationSet.prepare(kind={model.kind!r})."
    )
  splits = tuple(splits or tasks.examples)
  if set(splits) - set(tasks.examples):
    raise UserError(
      f"evaluation splits {splits}: the set holds {tuple(tasks.examples)}."
    )
  start = time.monotonic()
  ranked, generated = _run(model, params, tasks, splits, score, progress)
  seconds = time.monotonic() - start
  order = _by_split(tasks, splits, ranked, generated)
  if predictions is not None:
    write_predictions(predictions, order)
  return _evaluation(tasks, splits, order, seconds, score)


def evaluate(
  *,
  eval_mixture_or_task_name: str,
  task_feature_lengths: Mapping[str, int],
  vocabulary: Any,
  model: Any,
  initial_checkpoint_path: str,
  output_dir: str | os.PathLike,
  batch_size: int = 32,
  wrapper: template.Wrapper = template.PLAIN,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  eval_examples: int | None = None,
  score: str = "sum",
) -> pathlib.Path:
  """Evaluates one checkpoint and writes the page about it.

  Writes `report.html`, `.json` and `.md`, and `predictions.jsonl` with every
  answer.

  Args:
    eval_mixture_or_task_name: mixture whose tasks are evaluated.
    task_feature_lengths: limits in tokens, `{"inputs": 512, "targets": 64}`.
    vocabulary: the one that the checkpoint was trained with.
    model: `models/t5.py: EncoderDecoder` or `models/decoder.py: DecoderOnly`.
    initial_checkpoint_path: a checkpoint of any format in
      `convert/source.py`: a MODEL_DIR of ours, a Hugging Face folder, ...
    output_dir: where the files go; made if it is not there.
    batch_size: inputs per batch.
    wrapper: what surrounds every prompt.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    eval_examples: rows at most per task and split; None: all.
    score: `sum` or `mean`, see `eval/rank.py`.

  Returns:
    The path of the page.

  Raises:
    UserError: a name, a dataset, a checkpoint or a folder that is not there;
      a vocabulary that is not the model's.
  """
  checks.vocabulary(vocabulary, model)
  vocabulary_lib.check_padding(vocabulary, model.kind)
  catalogue.register(vocabulary, wrapper=wrapper)
  data = directory_lib.choose(tfds_data_dir, catalogue.load())
  held_out = mixtures.resolve(
    eval_mixture_or_task_name, missing_datasets, split="test"
  )
  rows = EvaluationSet.prepare(
    mixtures.catalogue_tasks(held_out),
    vocabulary=vocabulary,
    lengths=task_feature_lengths,
    batch_size=batch_size,
    max_examples=eval_examples,
    wrapper=wrapper,
    form_of=mixtures.forms_of(held_out),
    kind=model.kind,
  )
  params = load.load_params(initial_checkpoint_path, model)
  output_dir = pathlib.Path(output_dir)
  result = evaluate_tasks(
    model,
    params,
    rows,
    score=score,
    predictions=output_dir / "predictions.jsonl",
  )
  described = {
    "mixture": eval_mixture_or_task_name,
    "tasks": {name: {"rows": by} for name, by in rows.rows.items()},
  }
  record = record_lib.make({"source": data.label, "eval": described})
  return report.write_report(
    output_dir,
    run={
      **dataclasses.asdict(record),
      "name": eval_mixture_or_task_name,
      "data_label": data.label,
    },
    after=result,
    missing={f"{m.dataset}:{m.version}": m.message for m in held_out.missing},
  )


def write_predictions(path: str | os.PathLike, by_split: Mapping) -> None:
  """One JSON object per (row, template): prompt, scores and answer.

  Keys: task, split, template, index, inputs_text; ranked examples have
  choices, scores, prediction, label (indices); generated ones prediction (a
  text), references and complete.

  Raises:
    UserError: the file cannot be written.
  """
  path = pathlib.Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
      for split, results in by_split.items():
        for r in results:
          row = {"task": r.example.task, "split": split} | _raw(r)
          file.write(json.dumps(row, ensure_ascii=False) + "\n")
  except OSError as e:
    raise UserError(
      f"predictions file {str(path)!r} cannot be written: {e.strerror}."
    ) from None


def _run(model, params, tasks, splits, score, progress):
  ranking, generating = tasks.plans(splits)
  total = len(ranking.batches) + len(generating.batches_BS)

  def report(offset):
    return (
      (lambda done, _: progress(offset + done, total)) if progress else None
    )

  return (
    rank.rank(model, params, ranking, score=score, progress=report(0)),
    generation.generate(
      model,
      params,
      generating,
      decode=tasks.vocabulary.decode,
      end_ids=tasks.end_ids,
      progress=report(len(ranking.batches)),
    ),
  )


def _by_split(tasks, splits, ranked, generated) -> dict[str, list]:
  by_example = {id(r.example): r for r in (*ranked, *generated)}
  return {
    split: [by_example[id(e)] for e in tasks.examples[split]]
    for split in splits
  }


def _evaluation(tasks, splits, order, seconds, score) -> Evaluation:
  reported = order[splits[-1]]
  dev = order[splits[0]] if len(splits) > 1 else []
  results, samples, cut = {}, [], {}
  for task in tasks.tasks:
    mine = [r for r in reported if r.example.task == task.name]
    results[task.name] = protocol.summarise(
      task,
      [_answer(r) for r in mine],
      [_answer(r) for r in dev if r.example.task == task.name],
      cluster=tasks.cluster_of.get(task.name, ""),
    )
    samples += _samples(mine)
    unfinished = sum(not getattr(r, "complete", True) for r in mine)
    if unfinished:
      cut[task.name] = unfinished
  return Evaluation(
    tasks=results,
    clusters=protocol.clusters(results.values()),
    samples=tuple(samples),
    split=splits[-1],
    examples=sum(map(len, order.values())),
    seconds=seconds,
    cut=cut,
    score=score,
  )


def _references(example) -> tuple[str, ...]:
  return tuple(example.references) or (example.targets_text,)


def _answer(result) -> protocol.Answer:
  e = result.example
  if isinstance(result, rank.Scored):
    return protocol.Answer(
      index=e.index,
      template=e.template,
      label=e.label,
      prediction=result.prediction,
      choices=tuple(e.choices_text),
      text=e.choices_text[result.prediction],
      references=_references(e),
      ties=result.ties,
      group=e.group,
    )
  return protocol.Answer(
    e.index, e.template, -1, -1, (), result.text, _references(e)
  )


def _samples(results) -> list[Sample]:
  """Different rows under different templates, whatever was answered."""
  templates = sorted({r.example.template for r in results})
  out = []
  for number in range(SAMPLES_PER_TASK):
    chosen = templates[(number * len(templates)) // SAMPLES_PER_TASK]
    rows = [r for r in results if r.example.template == chosen]
    result = rows[(number * len(rows)) // SAMPLES_PER_TASK]
    e, answer = result.example, _answer(result)
    ranked = isinstance(result, rank.Scored)
    out.append(
      Sample(
        task=e.task,
        template=e.template,
        index=e.index,
        prompt=e.inputs_text,
        choices=answer.choices,
        scores=result.scores if ranked else (),
        answer=answer.text,
        expected=answer.references[0],
        correct=answer.text in answer.references if ranked else None,
      )
    )
  return out


def _raw(result) -> dict[str, Any]:
  e = result.example
  out = {
    "template": int(e.template),
    "index": int(e.index),
    "inputs_text": e.inputs_text,
  }
  if isinstance(result, rank.Scored):
    return out | {
      "choices": list(e.choices_text),
      "scores": list(result.scores),
      "prediction": result.prediction,
      "label": int(e.label),
    }
  return out | {
    "prediction": result.text,
    "references": list(_references(e)),
    "complete": result.complete,
  }
