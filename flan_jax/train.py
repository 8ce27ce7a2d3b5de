"""Tunes a checkpoint on a mixture and evaluates it on held-out clusters.

Read top to bottom: data, model, state, evaluation before, steps, evaluation
after, report. What a batch goes through before the step is
`training/input.py`; the step is `training/step.py`.

  python launch/run.py --gin_file=gin/flan_holdout_nli.gin
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from flan_jax import cached_command, config, measuring, summary
from flan_jax.convert import bases, native
from flan_jax.curation import manifest as manifest_lib
from flan_jax.data import (
  collection,
  features,
  inventory,
  mixtures,
  template,
  vocabulary_files,
)
from flan_jax.data import directory as directory_lib
from flan_jax.data import seen as seen_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data import waiting as waiting_lib
from flan_jax.errors import UserError
from flan_jax.eval import report
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.training import (
  accounting,
  allocator,
  checkpoint,
  checks,
  compilation,
  compiled,
  loop,
  processes,
  profile,
  progress,
  sharding,
  writers,
)
from flan_jax.training import cached_input as cached_input_lib
from flan_jax.training import input as input_lib
from flan_jax.training import loss as loss_lib
from flan_jax.training import meter as meter_lib
from flan_jax.training import mirror as mirror_lib
from flan_jax.training import record as record_lib
from flan_jax.training import survival as survival_lib
from flan_jax.training import trainable as trainable_lib
from flan_jax.training import validation as validation_lib


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
  train_examples: int | None = None,
  cached_input: cached_input_lib.CachedInput = cached_input_lib.NONE,
  layout: sharding.Layout | None = None,
  model_dir: str | None = None,
  initial_checkpoint_path: str | None = None,
  adapter: Any = None,
  trainable: str | None = None,
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
  allow_seen: bool = False,
  survival: survival_lib.Survival = survival_lib.DEFAULT,
  resume_changed: bool = False,
  profile_steps: tuple[int, int] | None = None,
  compilation_cache: str | None = compilation.DEFAULT,
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
    train_examples: training rows of each task of the catalogue at most, the
      first ones; None: as many as the paper takes.
    cached_input: what gin/cache.gin wrote for this mixture.
    layout: the mesh of devices and what logical axes mean on it, from
      gin/hardware; None: all devices along `data`, the model whole on each.
    model_dir: the run's folder, or one in gs://; None makes one under `runs/`.
    initial_checkpoint_path: parameters to start from, a checkpoint of any
      format in `convert/source.py`; None: random.
    adapter: what is trained on top of them, `models/prompt_tuning.py` or
      `models/lora.py`; None: nothing, the model itself is trained.
    trainable: regex of the whole names of the parameters that are trained, the
      others are frozen; None: the adapter's, or all without one.
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
    allow_seen: whether datasets that are trained on, here or by the run that
      this one begins from, are evaluated as if they were held out.
    survival: how often what may fail, and how long is waited.
    resume_changed: go on with the run in `model_dir` although its mixture,
      seed or anything else was another one.
    profile_steps: first and last step of a trace for TensorBoard; None: none.
    compilation_cache: folder of compiled programs; "default": see
      `compilation.folder`; None: none.

  Returns:
    The run's folder, on this machine.

  Raises:
    UserError: all that a user can mend, before the first step where it can be.
    Stopped: SIGTERM or SIGINT came, and what was done is saved.
  """
  display = progress.Display(quiet=not processes.is_first())
  checks.numbers(
    train_steps=train_steps,
    batch_size=batch_size,
    log_period=log_period,
    checkpoint_period=checkpoint_period,
    eval_period=eval_period,
    microbatches=microbatches,
    checkpoints_to_keep=checkpoints_to_keep,
  )
  checks.limits(eval_examples=eval_examples, train_examples=train_examples)
  checks.lengths(task_feature_lengths)
  survival.check_periods(checkpoint_period)
  checks.resume_changed(resume_changed, model_dir)
  checks.profile_steps(profile_steps, train_steps)
  partition = sharding.Partition.of(
    layout or sharding.Layout(),
    config=model.config,
    batch_size=batch_size,
    accumulate=microbatches,
  )
  checks.vocabulary(vocabulary, model)
  vocabulary_lib.check_padding(vocabulary, model.kind)
  if adapter is not None:
    model = adapter.on(model, vocabulary)
    trainable = trainable or model.trainable
  checks.frozen(model, trainable, initial_checkpoint_path, pack)
  convert = features.batches_for(
    model.kind, vocabulary_lib.begin_id(vocabulary)
  )
  allocator.for_model(model)
  compilations = compilation.Compilations(compilation.folder(compilation_cache))

  # Data: names -> tasks -> what is there.
  task_collection = collection.register(
    task_collection,
    vocabulary,
    wrapper=wrapper,
    train_examples=train_examples,
    kind=model.kind,
  )
  if mixture_or_task_module is not None:
    checks.import_module(mixture_or_task_module)
  data = directory_lib.choose(tfds_data_dir, task_collection)
  training = mixtures.resolve(mixture_or_task_name, missing_datasets)
  mixtures.check_train_examples(training, train_examples)
  held_out, missing = None, training.missing
  if eval_mixture_or_task_name is not None:
    held_out = mixtures.resolve(
      eval_mixture_or_task_name, missing_datasets, split="test"
    )
    missing += held_out.missing
  for one in (training, held_out):
    mixtures.check_vocabulary(one, vocabulary)
  cached = cached_input.steps(
    training,
    kind=model.kind,
    vocabulary=vocabulary,
    lengths=task_feature_lengths,
    wrapper=wrapper,
    pack=pack,
    batch_size=batch_size,
    seed=random_seed,
    rows=partition.own_rows(batch_size),
    rebuild=cached_command.rebuild(cached_input.folder, mixture_or_task_name),
  )
  if held_out is not None:
    own = {"train": {"tasks": dict.fromkeys(training.present)}}
    began = record_lib.lineage(initial_checkpoint_path)
    seen_lib.check(
      seen_lib.seen([own, *(r.data for r in began)], held_out),
      eval_mixture_or_task_name,
      allow_seen,
    )

  # The run: its record, its folder, what it is going to do.
  curated = manifest_lib.recorded(collection.data_paths(task_collection))
  record = record_lib.make(
    {
      "source": data.source,
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "train": inventory.described(mixture_or_task_name, training),
      "eval": inventory.described(eval_mixture_or_task_name, held_out),
      "missing": sorted({f"{m.dataset}:{m.version}" for m in missing}),
      **({} if cached is None else {"cache": cached.described()}),
      **({"curation": curated} if curated else {}),
    },
    began_from=initial_checkpoint_path,
  )
  run_folder = record_lib.choose_directory(model_dir, record, buckets=True)
  processes.check_equal(record.fingerprint())
  mirror = mirror_lib.Mirror(processes.own_folder(run_folder))
  folder = mirror.folder
  changed = record_lib.claim(
    folder, record, resume_changed=resume_changed, home=mirror.home
  )
  account = accounting.Account(folder, config.began())
  vocabulary_files.keep(vocabulary, folder / native.VOCABULARY)
  lengths = dict(task_feature_lengths)

  # State: from this run's latest checkpoint, a given one, or fresh.
  checkpoints = checkpoint.Checkpoints(
    run_folder / "checkpoints",
    keep=checkpoints_to_keep,
    keep_best=1,
    best_metric="validation/loss",
    best_mode="min",
    keep_period=survival.checkpoint_keep_period,
    period=checkpoint_period,
    max_failed_saves=survival.max_failed_saves,
    before_commit=mirror.push,
  )
  shapes = partition.abstract_state(model, optimizer, trainable)
  restored, saved, frozen = checkpoints.restore_latest(shapes), {}, None
  if restored is not None:
    state, saved = restored.state, restored.extra
    details = saved.get("details")
    extra = bases.kept(saved)
    if trainable is not None:
      frozen = bases.read_again(
        initial_checkpoint_path, model, partition, trainable, extra["base"]
      )
  elif initial_checkpoint_path is None:
    state, details = partition.fresh_state(model, optimizer, random_seed), None
    extra = {}
  else:
    params, frozen, details, extra = bases.begin(
      initial_checkpoint_path, model, partition, lengths, trainable, random_seed
    )
    state = partition.state_of(params, optimizer)
  start = int(state.step)
  if start > train_steps:
    raise UserError(
      f"the run in {folder} is at step {start:,} already, beyond TRAIN_STEPS"
      f" {train_steps:,}; give more steps, or another MODEL_DIR."
    )
  account.resume(start)
  waiting = waiting_lib.Waiting()
  batches = functools.partial(
    input_lib.training_batches,
    training,
    convert=convert,
    lengths=lengths,
    batch_size=batch_size,
    seed=random_seed,
    pack=pack,
    waiting=waiting,
    cached=cached,
    workers=cached_input.workers,
  )
  summary.start(
    display,
    folder=mirror.home,
    data=data,
    described=record.data,
    model=model,
    params=trainable_lib.merge(state.params, frozen),
    train_steps=train_steps,
    trained=state.params if trainable is not None else None,
  )
  summary.missing(display, missing)
  tasks = mixtures.catalogue_tasks(training, held_out)
  lost = vocabulary_lib.check_representable(
    vocabulary, vocabulary_lib.template_texts(tasks)
  )
  if lost:
    display.say(f"note: {vocabulary_lib.describe_lost(vocabulary, lost)}\n")
  if changed is not None:
    summary.resumed(display, start, changed)

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
    frozen=frozen is not None,
  )

  def take(state, batch):
    return train_step(*(x for x in (state, frozen, batch) if x is not None))

  validation = validation_lib.Validation(
    training,
    model=model,
    loss_config=loss_config,
    convert=convert,
    lengths=lengths,
    batch_size=batch_size,
    partition=partition,
    accumulate=microbatches,
    pack=pack,
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

  measure = measuring.Measuring(
    folder,
    model=model,
    validation=validation,
    held_out=held_out_set,
    partition=partition,
    vocabulary=vocabulary,
    log=log,
    display=display,
  )
  periods = loop.Periods(
    train_steps, log_period, checkpoint_period, eval_period
  )
  if measure.due(start, periods):
    with account.spending("evaluation"):
      measure(trainable_lib.merge(state.params, frozen), start)

  # The steps. Other passes over the data begin after the first of them.
  left_out = input_lib.InThread(
    functools.partial(measuring.left_out, folder, training, lengths)
  )

  def begun():
    validation.start()
    left_out.start()

  meter = meter_lib.Meter(account, model)
  steps = loop.Loop(
    folder=folder,
    train_step=take,
    put_batch=partition.put,
    batches=lambda number: batches(start_step=number),
    waiting=waiting,
    vocabulary=vocabulary,
    template=shapes,
    measure=lambda params, step: measure(
      trainable_lib.merge(params, frozen), step
    ),
    begun=begun,
    extra={**native.extra_of(model.config, details), **extra},
    periods=periods,
    survival=survival,
    checkpoints=checkpoints,
    log=log,
    account=account,
    meter=meter,
    profile=profile.Profile(profile_steps, folder / "tensorboard"),
    compilations=compilations,
    display=display,
  )
  with mirror:
    steps.run(state, start, saved)
  with account.spending("checkpoint"):
    checkpoints.close()
  log.close()
  compilations.close()

  # The report.
  before = measuring.kept(folder, 0)
  after = measuring.kept(folder, train_steps)
  page = report.write_report(
    folder,
    run={
      **dataclasses.asdict(record),
      "data_label": data.label,
      "left_out": left_out.result(),
      "time": account.totals(),
      "speed": meter.summary(),
      "prompt": measuring.kept_prompt(folder),
    },
    curves=writers.read(folder / "metrics.jsonl"),
    before=before,
    after=after,
    missing={f"{m.dataset}:{m.version}": m.message for m in missing},
  )
  summary.left_out(display, left_out.result())
  summary.spent(display, account.totals())
  account.close()
  if after is not None:
    summary.results(display, before, after)
  summary.where(display, mirror.home, checkpoints.latest_path(), page)
  mirror.finish()
  return folder
