"""Results: from ranked and generated examples to answers, numbers and lines.

`answer` is what a metric is given for one example, `evaluation` the numbers of
all of them, `write` every answer as a line of JSON (predictions.jsonl).
"""

import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.eval import answers as answers_lib
from flan_jax.eval import generation, outputs, postprocess, protocol, rank
from flan_jax.eval.evaluation import Evaluation, Sample
from flan_jax.eval.evaluation_set import EvaluationSet

SAMPLES_PER_TASK = 2

Result = rank.Scored | generation.Generated
# Results by split, in the order of the set's examples.
BySplit = Mapping[str, Sequence[Result]]


def evaluation(
  tasks: EvaluationSet, by_split: BySplit, seconds: float, score: str
) -> Evaluation:
  """The numbers of all tasks.

  Args:
    tasks: what was evaluated.
    by_split: results of each split; the last split is reported, the first of
      two picks the best template.
    seconds: wall time of the model's part.
    score: by which choices were ranked.

  Raises:
    UserError: what `protocol.summarise` raises.
  """
  splits = tuple(by_split)
  reported = by_split[splits[-1]]
  dev = by_split[splits[0]] if len(splits) > 1 else []
  results, samples, cut = {}, [], {}
  by_score, unmatched = {}, {}
  worst, at_random, confusions = [], [], {}
  reported, dev = map(_by_task, (reported, dev))
  for task in tasks.tasks:
    mine = reported.get(task.name, [])
    given = [answer(task, r) for r in mine]
    results[task.name] = protocol.summarise(
      task,
      given,
      [answer(task, r) for r in dev.get(task.name, ())],
      cluster=tasks.cluster_of.get(task.name, ""),
    )
    for name in _scores(mine):
      by_score.setdefault(name, {})[task.name] = _mean(
        task,
        given if name == score else [answer(task, r.by(name)) for r in mine],
      )
    seen = [_sample(r, a) for r, a in zip(mine, given, strict=True)]
    samples += _samples(seen)
    metric = protocol.metric_of(task, task.metrics[0])
    worst += outputs.worst(metric, given, seen)
    at_random += outputs.at_random(seen)
    missed = [_unmatched(task, r) for r in mine]
    if any(missed):
      unmatched[task.name] = sum(missed)
    table = outputs.confusion(given, missed)
    if table is not None:
      confusions[task.name] = table
    unfinished = sum(not getattr(r, "complete", True) for r in mine)
    if unfinished:
      cut[task.name] = unfinished
  return Evaluation(
    tasks=results,
    clusters=protocol.clusters(results.values()),
    samples=tuple(samples),
    split=splits[-1],
    examples=sum(map(len, by_split.values())),
    seconds=seconds,
    cut=cut,
    score=score,
    by_score=by_score,
    unmatched=unmatched,
    options_shown=tasks.options_shown,
    worst=tuple(worst),
    random=tuple(at_random),
    confusions=confusions,
  )


def answer(task: Any, result: Result) -> answers_lib.Answer:
  """What metrics are given for one example.

  A generated text is post-processed as its task says; where the example has
  choices, it counts as the choice that it is (`postprocess.choice`), and as a
  wrong one where it is none.
  """
  e = result.example
  prediction = label = -1
  ties = 1
  if isinstance(result, rank.Scored):
    prediction, label, ties = result.prediction, result.label, result.ties
    text = e.choices_text[prediction]
  else:
    text = _processed(task, result)
    if e.choices:
      prediction, label = postprocess.choice(text, e.choices_text), e.label
    if e.choices and prediction < 0:
      prediction = _wrong(e)
  return answers_lib.Answer(
    index=e.index,
    template=e.template,
    label=label,
    prediction=prediction,
    choices=tuple(e.choices_text),
    text=text,
    references=tuple(e.references) or (e.targets_text,),
    ties=ties,
    group=e.group,
  )


def write(
  path: str | os.PathLike, tasks: EvaluationSet, by_split: BySplit
) -> None:
  """One JSON object per (row, template): prompt, scores and answer.

  Keys: task, split, template, index, inputs_text, references and, of some
  tasks, group. With choices: choices, prediction and label (indices). Ranked:
  score (by which one is chosen), scores (its values) and by_score (those of
  all `rank.SCORES`). Generated: text as the model wrote it, complete, and as
  prediction, without choices, the post-processed text.

  Args:
    path: its folder is made if it is not there.
    tasks: what was evaluated.
    by_split: results of each split.

  Raises:
    UserError: the file cannot be written.
  """
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.name}.draft")
  of_name = {t.name: t for t in tasks.tasks}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
      for split, results in by_split.items():
        for r in results:
          row = {"task": r.example.task, "split": split}
          row |= _row(of_name[r.example.task], r)
          file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(draft, path)
  except OSError as e:
    raise UserError(
      f"predictions file {str(path)!r} cannot be written: {e.strerror}."
    ) from None


def _row(task, result) -> dict[str, Any]:
  e, given = result.example, answer(task, result)
  row: dict[str, Any] = {
    "template": int(e.template),
    "index": int(e.index),
    "inputs_text": e.inputs_text,
  }
  if given.group:
    row["group"] = given.group
  if given.choices:
    row["choices"] = list(given.choices)
  if isinstance(result, rank.Scored):
    row["score"] = result.score
    row["scores"] = list(result.scores)
    row["by_score"] = {k: list(v) for k, v in result.by_score.items()}
  else:
    row |= {"text": result.text, "complete": result.complete}
  row["prediction"] = given.prediction if given.choices else given.text
  if given.choices:
    row["label"] = int(given.label)
  row["references"] = list(given.references)
  return row


def _processed(task, result) -> str:
  """A generated text after the task's post-processing."""
  return postprocess.get(getattr(task, "postprocess", None))(result.text)


def _wrong(example) -> int:
  """A choice that is not right; any but the label where all are."""
  others = [i for i in range(len(example.choices)) if i != example.label]
  texts = example.choices_text
  wrong = (i for i in others if texts[i] not in example.references)
  return next(wrong, others[0])


def _scores(results) -> tuple[str, ...]:
  """The scores that there are of one task's ranked choices."""
  ranked = [r for r in results if isinstance(r, rank.Scored)]
  return tuple(ranked[0].by_score) if ranked else ()


def _by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
  out: dict[str, list[Result]] = {}
  for result in results:
    out.setdefault(result.example.task, []).append(result)
  return out


def _mean(task, answers) -> float:
  """Mean over templates of the value that stands for a task."""
  metric = protocol.metric_of(task, task.metrics[0])
  by_template = answers_lib.by_template(task.name, answers)
  return statistics.fmean(
    metric.function(*answers_lib.pairs(metric, rows))[metric.primary]
    for rows in by_template.values()
  )


def _unmatched(task, result) -> bool:
  """Whether a generated answer is none of its example's choices."""
  e = result.example
  if isinstance(result, rank.Scored) or not e.choices:
    return False
  return postprocess.choice(_processed(task, result), e.choices_text) < 0


def _samples(samples: Sequence[Sample]) -> list[Sample]:
  """Different rows under different templates, whatever was answered."""
  templates = sorted({s.template for s in samples})
  out = []
  for number in range(SAMPLES_PER_TASK):
    chosen = templates[(number * len(templates)) // SAMPLES_PER_TASK]
    rows = [s for s in samples if s.template == chosen]
    out.append(rows[(number * len(rows)) // SAMPLES_PER_TASK])
  return out


def _sample(result: Result, given: answers_lib.Answer) -> Sample:
  e = result.example
  return Sample(
    task=e.task,
    template=e.template,
    index=e.index,
    prompt=e.inputs_text,
    choices=given.choices,
    scores=result.scores if isinstance(result, rank.Scored) else (),
    answer=given.text,
    expected=given.references[0],
    correct=given.right if given.choices else None,
  )
