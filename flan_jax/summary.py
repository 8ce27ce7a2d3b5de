"""What a run prints before its first step and after its last one."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from flan_jax.data.directory import Directory
from flan_jax.eval.evaluation import Evaluation
from flan_jax.training.progress import Display


def start(
  display: Display,
  *,
  folder: pathlib.Path,
  data: Directory,
  training: Any,
  held_out: Any | None,
  model: Any,
  params: Any,
  train_steps: int,
):
  """Says what will run and on which data, with row counts.

  Args:
    display: where to.
    folder: the run's folder.
    data: which data directory.
    training: `mixtures.Resolved` of the training mixture.
    held_out: likewise of the evaluation mixture, or None.
    model: `EncoderDecoder`.
    params: its parameters.
    train_steps: steps in all.
  """
  display.say(f"run:    {folder}")
  display.say(f"data:   {data.label}")
  size = sum(x.size for x in jax.tree.leaves(params))
  devices = jax.devices()
  display.say(
    f"model:  {type(model).__name__}, {size:,} parameters, on"
    f" {len(devices)} x {devices[0].device_kind}"
  )
  display.say(f"steps:  {train_steps:,}\n")
  total = sum(training.rates.values())
  display.table(
    f"training on {training.name}",
    ("task", "train rows", "validation", "share %"),
    [
      (
        name,
        training.rows[name]["train"],
        training.rows[name].get("validation", ""),
        100 * training.rates[name] / total,
      )
      for name in training.present
    ],
  )
  if held_out is not None:
    display.say("")
    display.table(
      f"held out: {held_out.name}",
      ("task", "validation", "test rows"),
      [
        (
          name,
          held_out.rows[name].get("validation", ""),
          held_out.rows[name]["test"],
        )
        for name in held_out.present
      ],
    )
  display.say("")


def missing(display: Display, reasons: Mapping[str, str]):
  """Names every dataset that is left out, and why."""
  for name, reason in reasons.items():
    display.say(f"left out (MISSING_DATASETS = 'skip'): {name}: {reason}")
  if reasons:
    display.say("")


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
        old.spread.mean if old else "",
        result.spread.mean,
        result.spread.median,
        f"{result.spread.min:.1f}-{result.spread.max:.1f}",
        "" if result.best_dev_score is None else result.best_dev_score,
      )
    )
  rows.append(
    (
      "mean of clusters",
      "",
      before.mean if before is not None else "",
      after.mean,
      "",
      "",
      "",
    )
  )
  display.say("")
  display.table(
    f"held-out results ({after.split} rows, over templates)",
    ("task", "metric", "before", "after", "median", "range", "best dev"),
    rows,
  )
  display.say("")
