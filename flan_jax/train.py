"""Tunes a checkpoint on a mixture and evaluates it on held-out clusters.

Read top to bottom: data, model, state, evaluation before, steps, evaluation
after, report. What a batch goes through before the step is
`training/input.py`; the step is `training/step.py`.

  python launch/run.py --gin_file=gin/flan_holdout_nli.gin
"""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from flan_jax import evaluate, summary
from flan_jax.convert import load, native
from flan_jax.data import (
  catalogue,
  features,
  inventory,
  mixtures,
  template,
  vocabulary_files,
)
from flan_jax.data import directory as directory_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import report
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.training import (
  allocator,
  checkpoint,
  checks,
  compiled,
  progress,
  sharding,
  writers,
)
from flan_jax.training import input as input_lib
from flan_jax.training import loss as loss_lib
from flan_jax.training import record as record_lib
from flan_jax.training import validation as validation_lib

# A training step whose loss is not finite is skipped; this many in a row mean
# that the run does not recover.
MAX_NONFINITE_STEPS = 20
# Batches of validation rows for the teacher-forced loss: enough for a curve.
VALIDATION_BATCHES = 8


def train(
  *,
  mixture_or_task_name: str,
  eval_mixture_or_task_name: str | None,
  task_feature_lengths: Mapping[str, int],
  vocabulary: Any,
  model: Any,
  optimizer: Any,
  train_steps: int,
  batch_size: int,
  mixture_or_task_module: str | None = None,
  task_collection: Any = None,
  wrapper: template.Wrapper = template.PLAIN,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  layout: sharding.Layout | None = None,
  model_dir: str | None = None,
  initial_checkpoint_path: str | None = None,
  microbatches: int = 1,
  pack: bool = True,
  random_seed: int = 0,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
  loss_normalizing_factor: str | float | None = loss_lib.REAL_TOKENS,
  log_period: int = 10,
  checkpoint_period: int = 100,
  checkpoints_to_keep: int = 2,
  eval_period: int = 200,
  eval_examples: int | None = 50,
) -> pathlib.Path:
  """Trains, evaluates and reports; goes on where an earlier start stopped.

  Args:
    mixture_or_task_name: seqio name of what to train on (its `train` split).
    eval_mixture_or_task_name: catalogue mixture whose tasks are held out and
      evaluated with all templates; None evaluates nothing.
    task_feature_lengths: tokens a row, `{"inputs": 256, "targets": 64}`.
    vocabulary: a seqio vocabulary.
    model: `models/t5.py: EncoderDecoder` or `models/decoder.py: DecoderOnly`.
    optimizer: of `training/optimiser.py`.
    train_steps: updates in all.
    batch_size: packed rows an update, over all devices and micro-batches.
    mixture_or_task_module: module to import, which registers seqio tasks.
    task_collection: a `data/collection.py: Collection` to register; None: the
      catalogue alone.
    wrapper: what surrounds every prompt, in training and evaluation.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    layout: the mesh of devices and what logical axes mean on it, from
      gin/hardware; None: all devices along `data`, the model whole on each.
    model_dir: the run's folder; None makes one under `runs/`.
    initial_checkpoint_path: parameters to start from, a checkpoint of any
      format in `convert/source.py`; None: random.
    microbatches: parts of a batch whose gradients are added up.
    pack: several examples a row.
    random_seed: of parameters, data order, templates drawn and dropout.
    z_loss: weight of log(Z)^2, `LossConfig`.
    label_smoothing: see `LossConfig`.
    loss_normalizing_factor: see `LossConfig`.
    log_period: steps between lines of the progress display.
    checkpoint_period: steps between checkpoints.
    checkpoints_to_keep: latest ones; the best by validation loss stays too.
    eval_period: steps between evaluations.
    eval_examples: rows at most per held-out dataset and split; None: all.

  Returns:
    The run's folder.

  Raises:
    UserError: everything that a user can mend, before the first step where
      it can be known then.
  """
  display = progress.Display()
  checks.numbers(
    train_steps=train_steps,
    batch_size=batch_size,
    log_period=log_period,
    checkpoint_period=checkpoint_period,
    eval_period=eval_period,
    microbatches=microbatches,
    checkpoints_to_keep=checkpoints_to_keep,
    **({} if eval_examples is None else {"eval_examples": eval_examples}),
  )
  checks.lengths(task_feature_lengths)
  partition = sharding.Partition.of(
    layout or sharding.Layout(),
    config=model.config,
    batch_size=batch_size,
    accumulate=microbatches,
  )
  checks.vocabulary(vocabulary, model)
  vocabulary_lib.check_padding(vocabulary, model.kind)
  convert = features.batches_for(
    model.kind, vocabulary_lib.begin_id(vocabulary)
  )
  allocator.for_model(model)

  # Data: names -> tasks -> what is there.
  catalogue.register(vocabulary, wrapper=wrapper)
  if task_collection is not None:
    task_collection.register(vocabulary, wrapper=wrapper)
  if mixture_or_task_module is not None:
    checks.import_module(mixture_or_task_module)
  data = directory_lib.choose(tfds_data_dir, catalogue.load())
  training = mixtures.resolve(mixture_or_task_name, missing_datasets)
  held_out, missing = None, training.missing
  if eval_mixture_or_task_name is not None:
    held_out = mixtures.resolve(
      eval_mixture_or_task_name, missing_datasets, split="test"
    )
    missing += held_out.missing
  for one in (training, held_out):
    mixtures.check_vocabulary(one, vocabulary)

  # The run: its record, its folder, what it is going to do.
  record = record_lib.make(
    {
      "source": "sample" if data.embedded else str(data.path.resolve()),
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "train": inventory.described(mixture_or_task_name, training),
      "eval": inventory.described(eval_mixture_or_task_name, held_out),
      "missing": sorted({f"{m.dataset}:{m.version}" for m in missing}),
    }
  )
  folder = record_lib.choose_directory(model_dir, record)
  resumed = record_lib.claim(folder, record)
  vocabulary_files.keep(vocabulary, folder / native.VOCABULARY)
  lengths = dict(task_feature_lengths)

  # State: from this run's latest checkpoint, a given one, or fresh.
  checkpoints = checkpoint.Checkpoints(
    folder / "checkpoints",
    keep=checkpoints_to_keep,
    keep_best=1,
    best_metric="validation/loss",
    best_mode="min",
  )
  restored = checkpoints.restore_latest(
    partition.abstract_state(model, optimizer)
  )
  if restored is not None:
    state, details = restored.state, restored.extra.get("details")
  else:
    state, details = _initial_state(
      model, optimizer, random_seed, initial_checkpoint_path, partition
    )
  start = int(state.step)
  if start > train_steps:
    raise UserError(
      f"the run in {folder} is at step {start:,} already, beyond TRAIN_STEPS"
      f" {train_steps:,}; give more steps, or another MODEL_DIR."
    )
  batches = input_lib.ReadAhead(
    input_lib.training_batches(
      training,
      convert=convert,
      lengths=lengths,
      batch_size=batch_size,
      seed=random_seed,
      pack=pack,
      start_step=start,
    )
  )
  summary.start(
    display,
    folder=folder,
    data=data,
    described=record.data,
    model=model,
    params=state.params,
    train_steps=train_steps,
  )
  summary.missing(display, missing)
  tasks = mixtures.catalogue_tasks(training, held_out)
  lost = vocabulary_lib.check_representable(
    vocabulary, vocabulary_lib.template_texts(tasks)
  )
  if lost:
    display.say(f"note: {vocabulary_lib.describe_lost(vocabulary, lost)}\n")
  if resumed:
    display.say(f"going on with this run from step {start:,}\n")

  # What is compiled, and what is evaluated.
  loss_config = loss_lib.LossConfig(
    z_loss, label_smoothing, loss_normalizing_factor
  )
  train_step = compiled.train_step(
    partition,
    state,
    model=model,
    optimiser=optimizer,
    loss_config=loss_config,
    accumulate=microbatches,
    dropout_seed=random_seed,
  )
  validation = validation_lib.Validation(
    training,
    model=model,
    loss_config=loss_config,
    convert=convert,
    lengths=lengths,
    batch_size=batch_size,
    partition=partition,
    batches=VALIDATION_BATCHES,
    accumulate=microbatches,
  )
  held_out_set = None
  if held_out is not None:
    held_out_set = EvaluationSet.prepare(
      mixtures.catalogue_tasks(held_out),
      vocabulary=vocabulary,
      lengths=lengths,
      batch_size=batch_size,
      max_examples=eval_examples,
      wrapper=wrapper,
      form_of=mixtures.forms_of(held_out),
      kind=model.kind,
    )
  log = writers.MetricsLog(folder, start)

  def measure(params, step: int) -> dict[str, float]:
    scalars, said = {}, []
    if step > 0:
      scalars |= validation(params)
      said.append(f"validation loss {scalars['validation/loss']:.3f}")
    if held_out_set is not None:
      result = _held_out(model, params, held_out_set, folder, step)
      scalars |= result.headline
      said.append(f"held-out mean {result.mean:.1f}")
    log.write(step, scalars)
    display.say(f"step {step:,}: {', '.join(said)}")
    return scalars

  if start == 0 and held_out_set is not None:
    measure(state.params, 0)

  def logged(step: int) -> bool:
    return step == start + 1 or step % log_period == 0

  # The steps. Metrics stay on the device until they are logged, so that the
  # next step is dispatched while this one computes.
  left_out = input_lib.InThread(
    functools.partial(_left_out, folder, training, lengths)
  )
  pending: list[tuple[int, Mapping[str, jax.Array]]] = []
  nonfinite = 0
  clock = time.monotonic()
  with display.steps(train_steps, start) as bar:
    for step in range(start + 1, train_steps + 1):
      batch = partition.put(next(batches))
      state, metrics = train_step(state, batch)
      pending.append((step, metrics))
      if step == start + 1:
        # A second pass over the data and a second pipeline: off the path to
        # the first step.
        validation.start()
        left_out.start()
      last = step == train_steps
      measuring = last or step % eval_period == 0
      saving = last or step % checkpoint_period == 0
      # What a checkpoint covers is in the log before it: a run that goes on
      # from there leaves no gap in the curve.
      if measuring or saving or logged(step):
        rows = _fetched(pending, clock)
        for row in rows:
          log.write(row["step"], {k: v for k, v in row.items() if k != "step"})
        bar.update(step, rows[-1])
        nonfinite = _nonfinite(rows, nonfinite)
        pending, clock = [], time.monotonic()
      scalars = {}
      if measuring:
        bar.pause()
        scalars = measure(state.params, step)
        bar.resume()
        clock = time.monotonic()
      if saving:
        extra = {"step": step, **native.extra_of(model.config, details)}
        checkpoints.save(step, state, extra, scalars, final=last)
  batches.close()
  checkpoints.close()
  log.close()

  # The report.
  before, after = _saved(folder, 0), _saved(folder, train_steps)
  page = report.write_report(
    folder,
    run={
      **dataclasses.asdict(record),
      "data_label": data.label,
      "left_out": left_out.result(),
    },
    curves=writers.read(folder / "metrics.jsonl"),
    before=before,
    after=after,
    missing={f"{m.dataset}:{m.version}": m.message for m in missing},
  )
  summary.left_out(display, left_out.result())
  if after is not None:
    summary.results(display, before, after)
  display.say(f"checkpoint:   {checkpoints.latest_path()}")
  display.say(f"TensorBoard:  tensorboard --logdir {folder / 'tensorboard'}")
  display.say(f"report:       {page}")
  return folder


def _left_out(folder, training, lengths) -> dict[str, dict[str, int]]:
  """Training rows that are not used, by task and reason; counted once."""
  path = folder / "left_out.json"
  if not path.exists():
    _write(path, inventory.left_out(training, lengths))
  return json.loads(path.read_text())


def _write(path: pathlib.Path, value: Any):
  """JSON, whole or not at all."""
  draft = path.with_suffix(".tmp")
  draft.write_text(json.dumps(value))
  os.replace(draft, path)


def _initial_state(model, optimizer, seed, initial_checkpoint_path, partition):
  """The state, and what a checkpoint says beside the model (`NativeSource`)."""
  if initial_checkpoint_path is None:
    return partition.fresh_state(model, optimizer, seed), None
  source = load.opened(initial_checkpoint_path)
  where = partition.params(jax.eval_shape(model.init, jax.random.key(seed)))
  params = load.load_params(source, model, where)
  return partition.state_of(params, optimizer), getattr(source, "details", None)


def _held_out(model, params, held_out_set, folder, step) -> Evaluation:
  """Evaluates, and keeps the result beside the run for the report."""
  result = evaluate.evaluate_tasks(
    model,
    params,
    held_out_set,
    predictions=folder / "predictions" / f"step_{step}.jsonl",
  )
  _write(folder / f"evaluation_{step}.json", result.to_json())
  return result


def _saved(folder, step) -> Evaluation | None:
  path = folder / f"evaluation_{step}.json"
  if not path.exists():
    return None
  return Evaluation.from_json(json.loads(path.read_text()))


def _fetched(pending, clock) -> list[dict[str, float]]:
  """Rows of metrics off the device; waits for the last step.

  `train/tokens_per_second` counts tokens, not padding, of inputs and targets.
  """
  values = jax.device_get([metrics for _, metrics in pending])
  seconds = time.monotonic() - clock
  tokens = sum(v["input_tokens"] + v["target_tokens"] for v in values)
  rate = float(tokens) / max(seconds, 1e-9)
  return [
    {
      "step": step,
      **{f"train/{name}": float(x) for name, x in value.items()},
      "train/tokens_per_second": rate,
    }
    for (step, _), value in zip(pending, values, strict=True)
  ]


def _nonfinite(rows, before: int) -> int:
  """Steps in a row whose loss was not finite; too many end the run."""
  for row in rows:
    before = before + 1 if row["train/nonfinite"] else 0
    if before >= MAX_NONFINITE_STEPS:
      raise UserError(
        f"the loss or its gradient was not finite for {before} steps up to"
        f" step {row['step']}; those updates were skipped. Lower LEARNING_RATE"
        " or start from another checkpoint; this run's last checkpoint is from"
        " before them or the same."
      )
  return before
