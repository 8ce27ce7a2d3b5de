"""Mixtures: rates, what of them is on this machine, and their examples.

`resolve` is what a job calls: it takes a mixture's name, says which datasets
are not prepared, and stops or leaves them out, as the job wishes. It works for
any task or mixture in seqio's registry, ours or another project's.

Source: Wei et al., 2022 (arXiv 2109.01652), section 2.4 (examples-proportional
mixing with a maximum rate of 3,000); Raffel et al., 2020 (arXiv 1910.10683),
section 3.5.2.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import seqio

from flan_jax.data import (
  catalogue,
  collection,
  forms,
  preprocessors,
  sources,
  spec,
  submixtures,
  template,
)
from flan_jax.data.splits import Split
from flan_jax.errors import UserError
from flan_jax.tasks import clusters


def rate(task: seqio.Task, maximum: int | None = None) -> float:
  """Training examples of a task, at most `maximum`; needs its dataset.

  Of a task that is for evaluation alone, its test examples.
  """
  split = "train" if "train" in task.splits else "test"
  if task.cache_dir:
    examples = task.get_cached_stats(split)["examples"]
  else:
    examples = task.num_input_examples(split)
  return float(min(examples, maximum) if maximum else examples)


# As published: training mixtures are capped, evaluation mixtures are not.
train_rate = functools.partial(rate, maximum=spec.MAX_RATE)


def of_split(
  split: Split, form: forms.Form = forms.PLAIN
) -> dict[str, seqio.Mixture]:
  """The two mixtures of a split by name, of tasks that are registered.

  A task without training rows has no exemplars, and is in no few-shot mixture.
  """
  pairs = (
    ("train", split.train, train_rate),
    ("eval", split.evaluation, rate),
  )
  out = {}
  for which, tasks, how in pairs:
    if form.shots:
      tasks = [t for t in tasks if t not in clusters.EVALUATION_ONLY]
    if tasks:
      name = split.mixture(which, form.name)
      parts = [(catalogue.registered_name(t, form), how) for t in tasks]
      out[name] = seqio.Mixture(name, parts)
  return out


@dataclasses.dataclass(frozen=True)
class Missing:
  """A task whose dataset is not prepared.

  Attributes:
    task: its name in seqio's registry.
    dataset, version, found, folder, command, by_hand: see
      `sources.NotPreparedError`.
    message: the whole, as one sentence.
  """

  task: str
  dataset: str
  version: str
  found: tuple[str, ...]
  folder: str
  command: str
  by_hand: bool
  message: str


@dataclasses.dataclass(frozen=True)
class Resolved:
  """What of a mixture is on this machine.

  Attributes:
    mixture: of the present tasks alone.
    present: names of its tasks, in seqio's order.
    missing: tasks left out.
    rows: task -> split -> rows, before rows are dropped by `keep`.
    rates: task -> its share of the examples; they sum to 1.
    parts: what of its sub-mixtures is here (`submixtures.py`); {} without.
  """

  mixture: seqio.Mixture | seqio.Task
  present: tuple[str, ...]
  missing: tuple[Missing, ...]
  rows: Mapping[str, Mapping[str, int]]
  rates: Mapping[str, float]
  parts: Mapping[str, submixtures.Share] = dataclasses.field(
    default_factory=dict
  )


def resolve(
  name: str, missing: str = "error", *, split: str = "train"
) -> Resolved:
  """The mixture or task `name`, of the datasets that are prepared.

  >>> resolve("flan_holdout_nli_train", missing="skip").rates[
  ...   "flan_sst2"]  # doctest: +SKIP
  0.11

  Args:
    name: in seqio's registry, after `catalogue.register()`.
    missing: "error" raises for datasets that are not prepared, "skip" leaves
      them out and lists them in the result.
    split: the split that must have usable rows.

  Raises:
    UserError: no such mixture (names the nearest), datasets or sub-mixtures
      are missing, none is left, or a task's split is empty or has no usable
      row.
  """
  if missing not in ("error", "skip"):
    raise UserError(
      f"MISSING_DATASETS is {missing!r}; write 'error' or 'skip'."
    )
  mixture = whole = submixtures.now(registered(name))
  tasks = {t.name: t for t in seqio.get_subtasks(mixture)}
  gone = {n: m for n, t in tasks.items() if (m := _missing(t))}
  if gone and (missing == "error" or len(gone) == len(tasks)):
    lines = "\n".join(f"  {n}: {m.message}" for n, m in gone.items())
    left = "" if len(gone) < len(tasks) else " Not one is left."
    way_out = (
      ' Prepare them, or set MISSING_DATASETS="skip" to go on without them.'
      if missing == "error"
      else ""
    )
    raise UserError(
      f"{name}: {len(gone)} of {len(tasks)} datasets are not prepared."
      f"{left}{way_out}\n{lines}"
    )
  absent = submixtures.absent(whole, {n: m.message for n, m in gone.items()})
  if gone or absent:
    mixture = _without(mixture, gone.keys())
  present = {n: t for n, t in tasks.items() if n not in gone}
  rows = {
    n: {s: t.num_input_examples(s) for s in t.splits}
    for n, t in present.items()
  }
  for n, t in present.items():
    _check_usable(t, n, split)
  rates = _rates(mixture, present)
  return Resolved(
    mixture,
    tuple(present),
    tuple(gone.values()),
    rows,
    rates,
    submixtures.shares(whole, rates, absent),
  )


def check_vocabulary(
  resolved: Resolved | None, vocabulary: seqio.Vocabulary
) -> None:
  """Raises UserError where a task was tokenised with another vocabulary.

  Ids of another vocabulary would train without a word. Tasks of the catalogue
  follow `register`; a mixture made of them before keeps the old ones.
  """
  for task in seqio.get_subtasks(resolved.mixture) if resolved else ():
    for name, feature in task.output_features.items():
      if feature.vocabulary != vocabulary:
        raise UserError(
          f"task {task.name!r}: its {name} are made with"
          f" {feature.vocabulary}, the run's VOCABULARY is {vocabulary}. Give"
          " the run the task's vocabulary, or the task the run's."
        )


def seqio_task(resolved: Resolved, name: str) -> seqio.Task:
  """The task of a mixture that seqio knows as `name`."""
  (found,) = (t for t in seqio.get_subtasks(resolved.mixture) if t.name == name)
  return found


def copy_fingerprint(resolved: Resolved, task: str) -> str:
  """Eight hex digits of a task's local copy: its TFDS description and files.

  Another number of rows, other shards or features give other digits; "" for
  other people's sources.
  """
  found = seqio_task(resolved, task)
  source = found.source
  return source.fingerprint() if hasattr(source, "fingerprint") else ""


def catalogue_tasks(*resolved: Resolved | None) -> list[spec.Task]:
  """Our tasks among those of mixtures, each once; other people's are left out.

  >>> [t.name for t in catalogue_tasks(resolve("flan_rte"))]  # doctest: +SKIP
  ['rte']
  """
  found = {}
  for one in resolved:
    for task in by_seqio_name(one).values() if one is not None else ():
      found[task.name] = task
  return list(found.values())


def by_seqio_name(resolved: Resolved) -> dict[str, spec.Task]:
  """Our tasks of a mixture by their names in seqio's registry."""
  tasks = seqio.get_subtasks(resolved.mixture)
  ours = {t.name: catalogue.of_seqio(t) for t in tasks}
  return {name: task for name, task in ours.items() if task is not None}


def forms_of(resolved: Resolved) -> dict[str, forms.Form]:
  """The form in which a mixture has each of our tasks, by our name.

  Of a dataset whose prompts are tasks of their own, all those of its prompts
  that are in the mixture.
  """
  out: dict[str, forms.Form] = {}
  for task in seqio.get_subtasks(resolved.mixture):
    ours = catalogue.of_seqio(task)
    if ours is None:
      continue
    form = catalogue.form_of(task)
    if ours.name in out and isinstance(ours, collection.CollectionTask):
      both = {*out[ours.name].templates, *form.templates}
      form = forms.Form("", tuple(sorted(both)))
    out[ours.name] = form
  return out


def registered(name: str) -> seqio.Mixture | seqio.Task:
  for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
    if name in registry.names():
      return registry.get(name)
  known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
  near = difflib.get_close_matches(name, known, 1, 0.0)
  hint = f"the nearest is {near[0]!r}" if near else "nothing is registered"
  raise UserError(f"There is no mixture or task {name!r}; {hint}.")


def _needed(mixture: seqio.Mixture) -> tuple[str, ...]:
  """Features without which its examples are not what they were.

  Raises:
    UserError: some of its tasks have them and others do not.
  """
  found = {
    t.name: getattr(t, "flan_jax_passthrough", ()) for t in mixture.tasks
  }
  kinds = set(found.values())
  if len(kinds) > 1:
    having = [name for name, needed in found.items() if needed]
    lacking = [name for name, needed in found.items() if not needed]
    raise UserError(
      f"{mixture.name}: {having[0]} has loss weights of its own and"
      f" {lacking[0]} has none; conversations cannot be mixed with such tasks"
      " for a decoder-only model. Train on one after the other."
    )
  return kinds.pop() if kinds else ()


def _missing(task: seqio.Task) -> Missing | None:
  """What is missing of a task; None if it can be read."""
  source = task.source
  if task.cache_dir:
    return None
  try:
    if isinstance(source, sources.Source):
      source.sizes()
    elif isinstance(source, seqio.TfdsDataSource) and source.tfds_dataset.name:
      name, _, version = source.tfds_dataset.name.partition(":")
      sources.tfds_builder(name, version)
  except sources.NotPreparedError as e:
    return Missing(
      task.name,
      e.name,
      e.version,
      e.found,
      e.folder,
      e.command,
      e.by_hand,
      str(e),
    )
  return None


def _without(mixture: seqio.Mixture, gone) -> seqio.Mixture:
  """The mixture without the tasks named in `gone`; rates stay."""
  kept = []
  # seqio offers the parts by name only, and these need not be registered.
  for name, part in mixture._task_map.items():
    if name in gone:
      continue
    if isinstance(part, seqio.Mixture):
      if all(t.name in gone for t in part.tasks):
        continue
      part = _without(part, gone)
    kept.append((part, mixture.rate_per_task_name[name]))
  return seqio.Mixture(mixture.name, kept, sample_fn=mixture._sample_fn)


def _rates(mixture, tasks: Mapping[str, seqio.Task]) -> dict[str, float]:
  if isinstance(mixture, seqio.Task):
    return {mixture.name: 1.0}
  rates = {n: mixture.get_rate(t) for n, t in tasks.items()}
  total = sum(rates.values())
  return {n: r / total for n, r in rates.items()}


def _check_usable(task: seqio.Task, name: str, split: str, every: bool = False):
  ours = catalogue.of_seqio(task)
  if (
    ours is None
    or task.cache_dir
    or not isinstance(task.source, sources.Source)
  ):
    return
  if split not in task.splits:
    return
  if isinstance(ours, collection.CollectionTask):  # its sources say so
    return
  # Looking takes a graph per task; without `keep` only empty texts are left
  # out, and a stream that ends says so (`examples`).
  if ours.keep is None and not every:
    return
  rows = task.source.get_dataset(split)
  prepared = preprocessors.prepare_rows(ours)(rows)
  if not any(True for _ in template.user_errors(prepared.take(1))):
    raise UserError(
      f"{name}: not one of the {task.source.rows(split)} rows of split"
      f" {split!r} is usable: all are dropped by keep= or have an empty field."
      " Check the data in"
      f" {task.source!r}, or leave the task out of the mixture."
    )


def check_train_examples(training: Resolved, wanted: int | None) -> None:
  """Raises UserError where a task would not heed TRAIN_EXAMPLES."""
  if wanted is None:
    return
  others = [
    name
    for name in training.present
    if not isinstance(catalogue.of_seqio(seqio_task(training, name)), spec.Task)
  ]
  if others:
    raise UserError(
      f"TRAIN_EXAMPLES={wanted} holds for the catalogue's tasks alone;"
      f" {len(others)} of the {len(training.present)} tasks to train on are"
      f" others, such as {others[0]}. Remove it, or train on flan_... tasks."
    )


def examples(
  resolved: Resolved,
  lengths: Mapping[str, int],
  *,
  split: str = "train",
  seed: int | None,
  shuffle: bool = True,
  num_epochs: int | None = None,
  use_cached: bool = False,
  shard_info: seqio.ShardInfo | None = None,
  passthrough: tuple[str, ...] = ("template", "trimmed", "example_index"),
) -> Iterator[dict[str, Any]]:
  """Tokenised examples of a resolved mixture as numpy arrays, mixed.

  Args:
    resolved: from `resolve`.
    lengths: of inputs and targets, in tokens, EOS included.
    split: ours, "train", "validation" or "test".
    seed: decides order and templates; None takes a new one each time.
    shuffle: whether rows are shuffled.
    num_epochs: over each task; None repeats without end.
    use_cached: whether seqio's cached rows are read.
    shard_info: this process's part of the data.
    passthrough: features kept beside inputs and targets; seqio's mixtures
      drop all others.

  Yields:
    `inputs` int32 [S'], `targets` int32 [T'], and the `passthrough` features.

  Raises:
    template.DataError: a row that templates cannot be applied to, or lengths
      that are too short for a prompt without any of its fields.
  """
  kwargs, mixture = {}, resolved.mixture
  if isinstance(mixture, seqio.Mixture):
    ours = all(catalogue.of_seqio(t) for t in mixture.tasks)
    kwargs["passthrough_features"] = (
      *(passthrough if ours else ()),
      *_needed(mixture),
    )
    # seqio leaves tasks without the split out too, with a warning for each.
    lacking = {t.name for t in mixture.tasks if split not in t.splits}
    if lacking and len(lacking) < len(mixture.tasks):
      mixture = _without(mixture, lacking)
  dataset = mixture.get_dataset(
    lengths,
    split=split,
    shuffle=shuffle,
    seed=seed,
    num_epochs=num_epochs,
    use_cached=use_cached,
    shard_info=shard_info,
    **kwargs,
  )
  yield from template.user_errors(dataset.as_numpy_iterator())
  if num_epochs is None:
    for task in seqio.get_subtasks(resolved.mixture):
      _check_usable(task, task.name, split, every=True)
    raise UserError(
      f"{resolved.mixture.name}: the stream of split {split!r} ended, though it"
      " repeats: one of its tasks yields nothing."
    )
