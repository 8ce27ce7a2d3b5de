"""Evaluates a model on held-out tasks: every template, FLAN's protocol.

`evaluate_tasks` is what the trainer calls before, during and after tuning;
`evaluate` also writes the answers and the page about them. Read top to
bottom: rows -> batches -> scores -> numbers -> files.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flan_jax import config as config_lib
from flan_jax import evaluated, summary
from flan_jax.convert import fingerprint
from flan_jax.data import (
  collection,
  inventory,
  mixtures,
  spec,
  template,
)
from flan_jax.data import directory as directory_lib
from flan_jax.data import seen as seen_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import answer_file, generation, rank, report, results
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import SPLITS, EvaluationSet
from flan_jax.models import rule_adapter as rule_adapter_lib
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.training import checks, processes, sharding
from flan_jax.training import progress as progress_lib
from flan_jax.training import record as record_lib


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
  stop_strings: Sequence[str] = (),
  rules: rule_adapter_lib.Rules | None = None,
  predictions: str | os.PathLike | None = None,
  kept: str | os.PathLike | None = None,
  run: str = "",
  progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
  """Evaluates `model` on every task with all templates, FLAN's protocol.

  >>> rows = EvaluationSet.prepare([rte, cb], vocabulary=vocabulary,
  ...   lengths={"inputs": 512, "targets": 64}, batch_size=32)
  ...                                                     # doctest: +SKIP
  >>> before = evaluate_tasks(model, params, rows)        # doctest: +SKIP
  >>> before.headline["eval/rte/accuracy_mean"]           # doctest: +SKIP
  52.7

  With parameters on a mesh it is called in `partition.laid_out()`.

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
    score: one of `rank.SCORES`, by which choices are ranked.
    stop_strings: texts that end a generated answer too.
    rules: on the logits while answers are generated; None: none.
    predictions: file for every answer, one JSON object a line.
    kept: folder whose `ranked.jsonl` and `generated.jsonl` keep scores and
      generated answers as they come, `AnswerFile`: an evaluation that was
      stopped goes on from them.
    run: what they belong to: a name of the parameters.
    progress: called with (batches and inputs done, in all).

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
  config = DecodeConfig(
    end_ids=tasks.end_ids, stop_strings=tuple(stop_strings), rules=rules
  )
  files = None, None
  if kept is not None:
    files = _answer_files(pathlib.Path(kept), tasks, splits, run, model, config)
  ranked, answered = _run(
    model, params, tasks, splits, score, config, files, progress
  )
  seconds = time.monotonic() - start
  order = _by_split(tasks, splits, ranked, answered)
  if predictions is not None:
    results.write(predictions, tasks, order)
  return results.evaluation(tasks, order, seconds, score)


def evaluate(
  *,
  initial_checkpoint_path: str,
  eval_mixture_or_task_name: str | None = None,
  task_feature_lengths: Mapping[str, int],
  output_dir: str | os.PathLike | None = None,
  model: Any = None,
  vocabulary: Any = None,
  mixture_or_task_module: str | None = None,
  task_collection: Any = None,
  batch_size: int = 32,
  prompt_prefix: str | None = None,
  prompt_suffix: str | None = None,
  inputs_eos: bool | None = None,
  shot_answer: str | None = None,
  shot_separator: str | None = None,
  few_shot_tokens: int | None = None,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  eval_examples: int | None = None,
  answer_by: str | None = None,
  score: str = "sum",
  options_shown: bool = True,
  stop_strings: Sequence[str] = (),
  allow_seen: bool = False,
  rule_adapter: rule_adapter_lib.RuleAdapter | None = None,
  layout: sharding.Layout | None = None,
) -> pathlib.Path:
  """Evaluates one checkpoint and writes the page about it.

  Writes `report.html`, `.json` and `.md`, `predictions.jsonl` with every
  answer, `ranked.jsonl` with the scores of choices and `generated.jsonl` with
  texts as the model wrote them. An evaluation that was stopped goes on from the
  latter two. What is None is taken
  from the run that made the checkpoint, where there is one (its `run.json`).

  Args:
    initial_checkpoint_path: a checkpoint of any format in
      `convert/source.py`: a MODEL_DIR of ours, a Hugging Face folder, ...
    eval_mixture_or_task_name: mixture whose tasks are evaluated; None: what
      the run held out.
    task_feature_lengths: limits in tokens, `{"inputs": 512, "targets": 64}`.
    output_dir: where the files go; made if it is not there. None: a folder of
      its own under `runs/`.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with the checkpoint.
    mixture_or_task_module: module to import, which registers seqio tasks.
    task_collection: a `data/collection.py: Collection` to register; None: the
      catalogue alone.
    batch_size: inputs per batch.
    prompt_prefix, prompt_suffix: text around every prompt.
    inputs_eos: whether EOS stands between a prompt and its answer. Without a
      run: it does for encoder-decoder models alone.
    shot_answer, shot_separator, few_shot_tokens: of few-shot mixtures, see
      `template.Wrapper`.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    eval_examples: rows at most per task and split; None: all.
    answer_by: how tasks are answered, see `EvaluationSet.prepare`.
    score: by which choices are ranked, one of `rank.SCORES`.
    options_shown: whether prompts list the options.
    stop_strings: texts that end a generated answer too.
    allow_seen: whether datasets that the run was trained on are evaluated.
    rule_adapter: rules on the logits while answers are generated; None: none.
    layout: where the parameters lie, see `evaluated.load_params`.

  Returns:
    The path of the page.

  Raises:
    UserError: a name, a dataset, a checkpoint or a folder that is not there;
      a vocabulary that is not the model's; a dataset that was trained on.
  """
  checks.numbers(
    batch_size=batch_size,
    **({} if eval_examples is None else {"eval_examples": eval_examples}),
  )
  checks.lengths(task_feature_lengths)
  opened, model, vocabulary = evaluated.open_model(
    initial_checkpoint_path, model, vocabulary
  )

  # Rows: as the run was trained, of what it did not see.
  where = evaluated.address(initial_checkpoint_path, opened)
  runs = record_lib.lineage(where)
  trained = runs[0] if runs else None
  wrapper = _wrapper(
    trained,
    model.kind,
    prefix=prompt_prefix,
    suffix=prompt_suffix,
    eos=inputs_eos,
    answer=shot_answer,
    separator=shot_separator,
    shot_tokens=few_shot_tokens,
  )
  task_collection = collection.register(
    task_collection, vocabulary, wrapper=wrapper, kind=model.kind
  )
  if mixture_or_task_module is not None:
    checks.import_module(mixture_or_task_module)
  data = directory_lib.choose(tfds_data_dir, task_collection)
  mixture = eval_mixture_or_task_name or _held_out(trained)
  held_out = mixtures.resolve(mixture, missing_datasets, split="test")
  mixtures.check_vocabulary(held_out, vocabulary)
  seen = seen_lib.seen([r.data for r in runs], held_out)
  seen_lib.check(seen, mixture, allow_seen)
  rows = EvaluationSet.prepare(
    mixtures.catalogue_tasks(held_out),
    vocabulary=vocabulary,
    lengths=task_feature_lengths,
    batch_size=batch_size,
    max_examples=eval_examples,
    wrapper=wrapper,
    form_of=mixtures.forms_of(held_out),
    kind=model.kind,
    answer_by=answer_by,
    options_shown=options_shown,
  )

  # The run: its record, its folder, what it is going to do.
  record = record_lib.make(
    {
      "source": data.source,
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "checkpoint": where,
      "wrapper": dataclasses.asdict(wrapper),
      "train": trained.data.get("train", {}) if trained else {},
      "eval": inventory.described(mixture, held_out),
      "seen": seen,
      "missing": sorted({f"{m.dataset}:{m.version}" for m in held_out.missing}),
    }
  )
  folder = evaluated.claim_folder(output_dir, record)
  display = progress_lib.Display(quiet=not processes.is_first())
  display.say(f"checkpoint: {opened.path} ({opened.format}), {model.kind}")
  display.say(f"data:       {data.label}")
  count = sum(map(len, rows.examples.values()))
  display.say(
    f"evaluates:  {mixture}, {len(rows.tasks)} tasks, {count:,} rows x"
    " templates"
  )
  summary.missing(display, held_out.missing)
  for task, by in seen.items():
    display.say(f"note: {task} was trained on ({', '.join(by)})")

  rules = None
  if rule_adapter is not None:
    rules, without = rule_adapter.of(vocabulary.encode, vocabulary.decode)
    for note in rule_adapter_lib.missing_notes(without):
      display.say(note)
  params, partition = evaluated.load_params(opened, model, layout)
  with evaluated.computing(partition):
    result = evaluate_tasks(
      model,
      params,
      rows,
      score=score,
      stop_strings=stop_strings,
      rules=rules,
      predictions=folder / "predictions.jsonl",
      kept=folder,
      run=f"{where} {fingerprint.fingerprint(params)}",
      progress=progress_lib.answered(display),
    )
  page = report.write_report(
    folder,
    run={
      **dataclasses.asdict(record),
      "name": mixture,
      "data_label": data.label + _said(seen),
    },
    after=result,
    missing={f"{m.dataset}:{m.version}": m.message for m in held_out.missing},
  )
  summary.results(display, None, result)
  display.say(f"report: {page}")
  return page


def _said(seen: Mapping[str, list[str]]) -> str:
  if not seen:
    return ""
  return f"; not held out, but trained on: {', '.join(seen)}"


def _wrapper(trained, kind: str, **given) -> template.Wrapper:
  """What surrounds prompts: as given, else as the run was trained."""
  plain = template.Wrapper(eos=kind == "encoder_decoder")
  options = {
    "prefix": "PROMPT_PREFIX",
    "suffix": "PROMPT_SUFFIX",
    "eos": "INPUTS_EOS",
    "answer": "SHOT_ANSWER",
    "separator": "SHOT_SEPARATOR",
    "shot_tokens": "FEW_SHOT_TOKENS",
  }
  values = {}
  for field, value in given.items():
    if value is None:
      value = getattr(plain, field)
      if trained is not None:
        value = trained.option(options[field], value)
    values[field] = value
  return template.Wrapper(**values)


def _held_out(trained) -> str:
  """The mixture that the run of the checkpoint held out."""
  name = trained.data.get("eval", {}).get("mixture") if trained else None
  if name is None:
    raise UserError(
      "the checkpoint is of no run that says what it held out. Say what to"
      " evaluate: --gin.EVAL_MIXTURE_OR_TASK_NAME=flan_holdout_nli_eval, or"
      " flan_all_eval for every dataset."
    )
  return name


def _run(model, params, tasks, splits, score, config, files, progress):
  ranking, generating = tasks.plans(splits)
  if config.stop_strings and not generating.inputs:
    raise UserError(
      f"STOP_STRINGS {config.stop_strings!r} have no effect: all answers are"
      " ranked. Leave them out."
    )
  if config.rules and not generating.inputs:
    raise UserError(
      "RULE_ADAPTER has no effect: all answers are ranked. Leave it out."
    )
  if score != "sum" and not ranking.batches:
    raise UserError(
      f"SCORE {score!r} has no effect: all answers are generated. Leave it out."
    )
  ranked_file, generated_file = files
  total = len(ranking.batches) + len(generating.inputs)

  def report(offset):
    return (
      (lambda done, _: progress(offset + done, total)) if progress else None
    )

  return (
    rank.rank(
      model,
      params,
      ranking,
      score=score,
      file=ranked_file,
      progress=report(0),
    ),
    generation.generate(
      model,
      params,
      generating,
      decode=tasks.vocabulary.decode,
      config=config,
      file=generated_file,
      progress=report(len(ranking.batches)),
    ),
  )


def _answer_files(folder, tasks, splits, run, model, config):
  """Files of scores and of texts, of this model and these options alone."""
  split_of = {id(e): split for split in splits for e in tasks.examples[split]}

  def key(e):
    return {
      "task": e.task,
      "split": split_of[id(e)],
      "template": int(e.template),
      "index": int(e.index),
    }

  ranking, generating = tasks.plans(splits)
  lengths = sorted(tasks.lengths.items())
  free = tasks.unconditional
  out = []
  for name, needed, options in (
    ("ranked", ranking.batches, (None if free is None else free.tolist(),)),
    ("generated", generating.inputs, (config, lengths)),
  ):
    out.append(
      answer_file.AnswerFile(
        folder / f"{name}.jsonl",
        run=config_lib.fingerprint(repr((run, model, *options))),
        key=key,
        share=processes.from_first,
      )
      if needed
      else None
    )
  return out


def _by_split(tasks, splits, ranked, generated) -> dict[str, list]:
  by_example = {id(r.example): r for r in (*ranked, *generated)}
  return {
    split: [by_example[id(e)] for e in tasks.examples[split]]
    for split in splits
  }
