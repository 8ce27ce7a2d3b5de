"""Renders and tokenises a mixture once, to files that training reads quickly.

  python launch/run.py --gin_file=gin/cache.gin --gin.CACHE_DIR=/data/cache

An Apache Beam pipeline: every shard of every task is one element, written by
`data/cached_shards.py` wherever it lands. Run again, it writes what is missing.
"""

import dataclasses
import difflib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.data import cached, cached_shards, mixtures, remote, template
from flan_jax.errors import UserError, check_known
from flan_jax.training import checks, progress

DIRECT = "direct"
# What Beam calls its runners; another class can be named by its full path.
RUNNERS = (
  DIRECT,
  "DataflowRunner",
  "FlinkRunner",
  "SparkRunner",
  "PortableRunner",
  "PrismRunner",
)
FORMATS = ("flan_jax", "seqio")


def cache(
  *,
  mixture_or_task_name: str,
  cache_dir: str | None,
  task_feature_lengths: Mapping[str, int],
  vocabulary: Any,
  mixture_or_task_module: str | None = None,
  task_collection: Any = None,
  wrapper: template.Wrapper = template.PLAIN,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  train_examples: int | None = None,
  split: str = "train",
  draws: int = 1,
  random_seed: int = 0,
  file_format: str = "flan_jax",
  verify: bool = False,
  runner: str = DIRECT,
  parallel: int = 2,
  pipeline_options: Sequence[str] = (),
) -> remote.Path:
  """Writes what is missing of a mixture's cache.

  Args:
    mixture_or_task_name: seqio name; all rows of its tasks are written,
      whatever their rates.
    cache_dir: folder of the cache, or one in gs://; several mixtures may share
      it.
    task_feature_lengths: tokens a row, as the training run has them.
    vocabulary: a seqio vocabulary.
    mixture_or_task_module: module to import, which registers seqio tasks.
    task_collection: a `data/collection.py: Collection` to register.
    wrapper: what surrounds every prompt.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    train_examples: training rows of each task of the catalogue at most.
    split: ours.
    draws: how often templates are drawn for each row; epoch n of training
      reads draw n modulo this.
    random_seed: decides what is drawn.
    file_format: "flan_jax", or "seqio": what `seqio_cache_tasks` writes, for
      other projects (`use_cached=True`).
    verify: look at every byte that is there already.
    runner: "direct": processes of this machine; or one of Beam's runners.
    parallel: of the direct runner, processes at a time.
    pipeline_options: Beam's own, `("--project=mine", "--region=...")`.

  Returns:
    A file of the cache folder, named after the mixture, that lists its tasks.

  Raises:
    UserError: everything that a user can mend.
  """
  display = progress.Display()
  if cache_dir is None:
    raise UserError("CACHE_DIR is not given: --gin.CACHE_DIR=/data/cache.")
  checks.numbers(draws=draws, parallel=parallel)
  checks.limits(train_examples=train_examples)
  checks.lengths(task_feature_lengths)
  check_known("FORMAT", file_format, FORMATS)
  options = beam_options(runner, parallel, pipeline_options)
  if file_format == "seqio":
    remote.check_folder(cache_dir, "CACHE_DIR (with FORMAT='seqio')")
  if file_format == "seqio" and draws != 1:
    raise UserError(
      f"DRAWS is {draws}, which has no effect on FORMAT='seqio': its files hold"
      " rows, of which templates are drawn when they are read. Leave it 1."
    )
  setting = cached_shards.Setting(
    vocabulary,
    wrapper,
    task_collection,
    mixture_or_task_module,
    tfds_data_dir,
    train_examples,
  )
  data = setting.prepare()
  setting = dataclasses.replace(setting, tfds_data_dir=str(data.path))
  resolved = mixtures.resolve(
    mixture_or_task_name, missing_datasets, split=split
  )
  mixtures.check_vocabulary(resolved, vocabulary)
  if file_format == "seqio":
    from flan_jax.data import cached_seqio as form
  else:
    form = cached_shards
  tasks, anew = {}, []
  for name in resolved.present:
    task = mixtures.seqio_task(resolved, name)
    cached.check_features(task)
    key = cached.key(
      task, split=split, lengths=task_feature_lengths, wrapper=wrapper
    )
    works = form.plan(cache_dir, key, draws=draws, seed=random_seed)
    with remote.looked_at(cache_dir):
      if form.clear_other(works[0]):
        anew.append(name)
    tasks[name] = works
  todo = [
    work
    for works in tasks.values()
    for work in works
    if not form.is_written(work, verify)
  ]
  total = sum(map(len, tasks.values()))
  display.say(
    f"data: {data.label}\n{len(tasks)} tasks, {total} shards, of which"
    f" {total - len(todo)} are there"
    + (f"; written anew with other options: {', '.join(anew)}" if anew else "")
  )
  began = time.monotonic()
  if todo:
    run(setting, form.__name__, todo, options)
  manifests = {name: form.finish(works) for name, works in tasks.items()}
  path = _overview(cache_dir, mixture_or_task_name, split, manifests, tasks)
  display.table(
    f"{mixture_or_task_name} in {cache_dir}",
    ("task", "examples", "shards", "MB"),
    [
      (
        name,
        sum(m["rows"]),
        len(m["shards"]),
        sum(s["bytes"] for s in m["shards"]) / 1e6,
      )
      for name, m in manifests.items()
    ],
  )
  examples = sum(sum(m["rows"]) for m in manifests.values())
  display.say(
    f"{examples:,} examples, {len(todo)} shards written in"
    f" {time.monotonic() - began:.0f} s; list: {path}"
  )
  return path


def beam_options(
  runner: str, parallel: int = 1, given: Sequence[str] = ()
) -> dict[str, Any]:
  """The runner and options for Beam.

  >>> beam_options("direct", parallel=2)["runner"].rpartition(".")[2]
  'FnApiRunner'

  Args:
    runner: see `cache`.
    parallel: processes of the direct runner.
    given: options as on Beam's command line.

  Returns:
    `runner` and `flags`.

  Raises:
    UserError: a runner that is not known, an option that is none, or one that
      another macro of the job has.
  """
  if "." not in runner:
    check_known("RUNNER", runner, RUNNERS)
  for option in given:
    if not option.startswith("--"):
      near = difflib.get_close_matches(f"--{option}", [f"--{option}"], 1)[0]
      raise UserError(
        f"PIPELINE_OPTIONS has {option!r}; write options as on Beam's command"
        f" line, {near!r}."
      )
    if option.partition("=")[0] == "--runner":
      raise UserError(
        f"PIPELINE_OPTIONS has {option!r}; RUNNER says which runner."
      )
  if runner != DIRECT:
    return {"runner": runner, "flags": list(given)}
  # By its own name: Beam's DirectRunner looks for a program to download first.
  mode = "in_memory" if parallel == 1 else "multi_processing"
  return {
    "runner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "flags": [
      f"--direct_num_workers={parallel}",
      f"--direct_running_mode={mode}",
      "--default_sdk_harness_log_level=WARNING",
      *given,
    ],
  }


def run(
  setting: cached_shards.Setting,
  form: str,
  works: Sequence[Any],
  options: Mapping[str, Any],
) -> None:
  """Writes shards, each somewhere.

  Args:
    setting: of the job.
    form: the module whose `write` writes one.
    works: the shards.
    options: from `beam_options`.

  Raises:
    UserError: Apache Beam is not installed, or what a shard raised.
  """
  try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ModuleNotFoundError:
    raise UserError(
      "Apache Beam, which writes the cache, is not installed; run"
      " pip install 'flan_jax[beam]'."
    ) from None
  # save_main_session would pickle all that the launcher has.
  given = PipelineOptions(options["flags"], save_main_session=False)
  try:
    with beam.Pipeline(options["runner"], options=given) as pipeline:
      lines = (
        pipeline
        | "shards" >> beam.Create(list(works))
        # So that shards spread over the workers.
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.Map(_write, setting, form)
      )
      lines | "count" >> beam.combiners.Count.Globally()
  except Exception as e:
    said = _user_error(e)
    if said is None:
      raise
    raise UserError(said) from e


# Before a message that a worker of another process passes on as text.
_SAID = "UserError of a shard: "


def _write(work, setting, form: str) -> str:
  import importlib

  try:
    importlib.import_module(form).write(setting, work)
  except UserError as e:
    raise UserError(f"{_SAID}{json.dumps(str(e))}") from e
  return str(work.line)


def _user_error(error: BaseException) -> str | None:
  """The message of a shard's UserError, which Beam wraps in its own text."""
  _, found, rest = str(error).partition(_SAID)
  if not found:
    return None
  message, _ = json.JSONDecoder().raw_decode(rest)
  return message


def _overview(cache_dir, name, split, manifests, tasks) -> remote.Path:
  """Writes which folders a mixture's tasks have."""
  path = remote.as_path(cache_dir) / f"{name}.{split}.json"
  value = {
    "mixture": name,
    "split": split,
    "tasks": {
      task: {
        "folder": str(remote.as_path(works[0].folder).relative_to(path.parent)),
        "rows": manifests[task]["rows"],
        "key": works[0].key,
        "versions": manifests[task]["versions"],
      }
      for task, works in tasks.items()
    },
  }
  text = json.dumps(value, indent=1, sort_keys=True)
  if not path.exists() or path.read_text() != text:
    cached_shards.replace_json(path, value)
  return path
