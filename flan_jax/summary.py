"""What a run prints before its first step and after its last one."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from flan_jax.data import remote
from flan_jax.data.directory import Directory
from flan_jax.eval import page_text
from flan_jax.eval.evaluation import Evaluation
from flan_jax.models import quantised
from flan_jax.training.accounting import CATEGORIES
from flan_jax.training.progress import Display


def start(
  display: Display,
  *,
  folder: remote.Path,
  data: Directory,
  described: Mapping[str, Any],
  model: Any,
  params: Any,
  train_steps: int,
  trained: Any = None,
):
  """Says what will run and on which data, with row counts.

  Args:
    display: where to.
    folder: the run's folder.
    data: which data directory.
    described: of the record: `train` and `eval` with `mixture` and `tasks`,
      `cache` if there is one.
    model: `EncoderDecoder`.
    params: its parameters.
    train_steps: steps in all.
    trained: the parameters that are trained, where others are frozen.
  """
  size = quantised.numbers(params)
  devices = jax.devices()
  display.say(f"run:    {folder}")
  display.say(f"data:   {data.label}")
  if "cache" in described:
    cache = described["cache"]
    draws = " or ".join(map(str, cache["draws"]))
    display.say(
      f"cache:  {cache['examples']:,} examples, {draws} draws of a template"
      f" for each row ({cache['digest']})"
    )
  display.say(
    f"model:  {type(model).__name__}, {size:,} parameters, on"
    f" {len(devices)} x {devices[0].device_kind}"
  )
  if trained is not None:
    own = sum(x.size for x in jax.tree.leaves(trained))
    display.say(f"trains: {own:,} parameters; the others are frozen")
  display.say(f"steps:  {train_steps:,}\n")
  train, held_out = described["train"], described["eval"]
  if "submixtures" in train:
    _submixtures(display, train)
  display.table(
    f"training on {train['mixture']}",
    ("task", "train rows", "validation", "share of examples, %"),
    [
      (
        name,
        task["rows"].get("train", ""),
        task["rows"].get("validation", ""),
        100 * task["rate"],
      )
      for name, task in train["tasks"].items()
    ],
  )
  display.say("")
  if held_out:
    display.table(
      f"held out: {held_out['mixture']}",
      ("task", "validation rows", "test"),
      [
        (name, task["rows"].get("validation", ""), task["rows"]["test"])
        for name, task in held_out["tasks"].items()
      ],
    )
    display.say("")


def _submixtures(display: Display, train: Mapping[str, Any]):
  """Shares of a mixture's parts, as asked for and as they are."""
  parts = train["submixtures"]
  display.table(
    f"sub-mixtures of {train['mixture']}",
    ("sub-mixture", "tasks here", "of", "share wanted, %", "share, %"),
    [
      (
        name,
        part["tasks"],
        part["known"],
        100 * part["wanted"],
        100 * part["share"],
      )
      for name, part in parts.items()
    ],
  )
  for name, part in parts.items():
    if part["absent"]:
      display.say(
        f"absent, and its share is the others': {name}: {part['absent']}"
      )
  display.say("")


def missing(display: Display, missing: Iterable[Any]):
  """Names every dataset that is left out (`mixtures.Missing`) and what
  prepares it, a line each; the report has TFDS's own words too."""
  by_name = {m.dataset: m for m in missing}
  if not by_name:
    return
  display.say(
    f"left out, since MISSING_DATASETS = 'skip' and they are not prepared in"
    f" {next(iter(by_name.values())).folder}: {len(by_name)} datasets"
  )
  for m in sorted(by_name.values(), key=lambda m: m.dataset):
    by_hand = " (needs files fetched by hand)" if m.by_hand else ""
    display.say(f"  {m.command}{by_hand}")
  display.say("")


def left_out(display: Display, counts: Mapping[str, Mapping[str, int]]):
  """Names tasks of which training rows were not used, with the reasons."""
  for name, reasons in counts.items():
    said = [f"{n:,} {why.replace('_', ' ')}" for why, n in reasons.items() if n]
    if said:
      display.say(f"training rows left out of {name}: {', '.join(said)}")


_COLUMNS = ("task", "metric", "n", "before", "after", "95 %", "median",
            "range", "best dev")  # fmt: skip


def results(display: Display, before: Evaluation | None, after: Evaluation):
  """The held-out table, before and after, in each task's first metric."""
  rows = []
  for task in after.tasks.values():
    name, result = next(iter(task.metrics.items()))
    old = before.tasks[task.task].metrics[name] if before is not None else None
    rows.append(
      (
        task.task,
        name,
        task.rows,
        old.spread.mean if old else "",
        result.spread.mean,
        page_text.between(result.interval, "-"),
        result.spread.median,
        page_text.between((result.spread.min, result.spread.max), "-"),
        "" if result.best_dev_score is None else result.best_dev_score,
      )
    )
  rows.append(
    (
      "mean of clusters",
      "",
      sum(task.rows for task in after.tasks.values()),
      before.mean if before is not None else "",
      after.mean,
      page_text.between(after.interval, "-"),
      "",
      "",
      "",
    )
  )
  display.say("")
  display.table(
    f"held-out results ({after.split} rows, over templates)",
    _COLUMNS,
    rows,
  )
  display.say("")


def resumed(display: Display, step: int, changed: Sequence[str]):
  """Says from where a run goes on, and in what it differs from before."""
  if changed:
    display.say("RESUME_CHANGED: from here on this run differs in")
    for line in changed:
      display.say(f"  {line}")
  display.say(f"going on with this run from step {step:,}\n")


def spent(display: Display, seconds: Mapping[str, float]):
  """Where the time went: `accounting.Account.totals()`."""
  wall = max(seconds["wall"], 1e-9)
  said = [
    f"{name} {seconds[name]:,.1f} s ({100 * seconds[name] / wall:.0f} %)"
    for name in CATEGORIES
    if seconds[name] / wall >= 0.001
  ]
  display.say(f"time:         {wall:,.1f} s: {', '.join(said)}")


def where(
  display: Display,
  home: remote.Path,
  checkpoint: remote.Path | None,
  page: pathlib.Path,
):
  """Says where what the run made is.

  Args:
    display: where to.
    home: the run's folder, which may be in a bucket.
    checkpoint: path of the latest one.
    page: the report, by its name in the folder.
  """
  display.say(f"checkpoint:   {checkpoint}")
  display.say(f"TensorBoard:  tensorboard --logdir {home / 'tensorboard'}")
  display.say(f"report:       {home / page.name}")
