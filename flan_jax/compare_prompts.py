"""Prompt tuning before several checkpoints, compared: FLAN's last experiment.

Wei et al. 2022 (arXiv:2109.01652, section 4.5): a soft prompt for a task is
tuned before the base model and before the instruction-tuned one.

  python launch/run.py --gin_file=gin/prompt_tuning_flan_vs_base.gin \
      --gin.TUNED_CHECKPOINT_PATH=runs/flan_holdout_nli_smollm2

Every run is one of `train.py`, in a folder of its own; what was stopped goes
on. Read top to bottom: runs -> numbers -> prompts -> files.
"""

import dataclasses
import itertools
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import measuring
from flan_jax.convert import load, part, prompts
from flan_jax.errors import UserError
from flan_jax.eval import files as files_lib
from flan_jax.eval import prompt_words
from flan_jax.page import markup
from flan_jax.training import checks, progress
from flan_jax.training import record as record_lib

_HEADER = ("task", "checkpoint", "seed", "metric", "n", "before", "after",
           "best template")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tuned:
  """One run: a task, a checkpoint and a seed.

  Attributes:
    task: its name in the catalogue.
    checkpoint: what the comparison calls the checkpoint.
    seed: of the run.
    metric: the task's primary one.
    rows: test rows.
    before, after: mean over templates, of the prompt as it begins and as it
      was tuned.
    best: test value of the template that is best on validation rows; None
      where there is none.
    folder: of the run.
  """

  task: str
  checkpoint: str
  seed: int
  metric: str
  rows: int
  before: float
  after: float
  best: float | None
  folder: str


def compare(
  *,
  train: Callable[..., pathlib.Path],
  train_steps: int,
  tasks: Sequence[str],
  base_checkpoint_path: str,
  tuned_checkpoint_path: str,
  seeds: Sequence[int] = (0,),
  output_dir: str = "prompt_comparison",
  nearest: int = 5,
) -> pathlib.Path:
  """Tunes a prompt for each task, checkpoint and seed, and writes the page.

  Args:
    train: `train.train` with all that the runs have in common.
    train_steps: of each run, as `train` has it.
    tasks: names of the catalogue, such as ("cb", "rte").
    base_checkpoint_path: the model as it was before instruction tuning.
    tuned_checkpoint_path: the model after it, without the tasks' clusters.
    seeds: of the runs; the spread over them is reported.
    output_dir: where the runs and the page go.
    nearest: tokens that are shown for each vector of a prompt.

  Returns:
    The path of comparison.html; comparison.json and comparison.md are beside.

  Raises:
    UserError: no task or seed; what a run raises.
  """
  if not tasks or not seeds:
    raise UserError(
      f"TASKS = {list(tasks)!r}, SEEDS = {list(seeds)!r}: give at least one of"
      " each."
    )
  checks.limits(nearest=nearest)
  paths = {"base": base_checkpoint_path, "tuned": tuned_checkpoint_path}
  if (
    pathlib.Path(paths["base"]).resolve()
    == pathlib.Path(paths["tuned"]).resolve()
  ):
    raise UserError(
      "BASE_CHECKPOINT_PATH and TUNED_CHECKPOINT_PATH are both"
      f" {base_checkpoint_path!r}; give two checkpoints."
    )
  out = pathlib.Path(output_dir)
  runs = []
  for task, seed, name in itertools.product(tasks, seeds, paths):
    folder = out / task / f"{name}_{seed}"
    if measuring.kept(folder, train_steps) is None:
      train(
        mixture_or_task_name=f"flan_{task}",
        eval_mixture_or_task_name=f"flan_{task}",
        initial_checkpoint_path=paths[name],
        random_seed=int(seed),
        model_dir=str(folder),
      )
    runs.append(_tuned(folder, train_steps, task, name, int(seed)))
  means = _means(runs)
  words, alike = _prompts(runs, nearest)
  text = _markdown(paths, runs, means, words, alike)
  value = {
    "checkpoints": paths,
    "train_steps": train_steps,
    "runs": [dataclasses.asdict(r) for r in runs],
    "means": means,
    "nearest_tokens": words,
    "similarity": [
      {"checkpoint": c, "prompts": pair, "cosine": x}
      for c, found in alike.items()
      for pair, x in found.items()
    ],
  }
  files_lib.write(
    out,
    {
      "comparison.json": json.dumps(value, indent=1),
      "comparison.md": text,
      "comparison.html": _page(paths, runs, means, words, alike),
    },
    "comparison",
  )
  display = progress.Display()
  display.table("prompt tuning", _HEADER, [_row(r) for r in runs])
  display.table("means over seeds", _MEANS, [_mean_row(m) for m in means])
  display.say(f"report: {out / 'comparison.html'}")
  return out / "comparison.html"


def _tuned(folder, steps, task, name, seed) -> Tuned:
  before, after = (measuring.kept(folder, n) for n in (0, steps))
  if after is None:
    raise UserError(
      f"{folder} has no evaluation at step {steps}: set EVAL_PERIOD so that the"
      " last step is evaluated, and make room if the disk is full."
    )
  (result,) = after.tasks.values()
  (first,) = before.tasks.values()
  return Tuned(
    task,
    name,
    seed,
    result.primary,
    result.rows,
    first.main.spread.mean,
    result.main.spread.mean,
    result.main.best_dev_score,
    str(folder),
  )


_MEANS = ("task", "seeds", "base", "± s.d.", "tuned", "± s.d.", "difference")


def _means(runs: Sequence[Tuned]) -> list[dict[str, Any]]:
  """Of each task: mean and standard deviation over seeds, and the difference.

  The difference is the mean of the seeds' own, tuned less base.
  """
  out = []
  for task in dict.fromkeys(r.task for r in runs):
    values = {
      name: [r.after for r in runs if (r.task, r.checkpoint) == (task, name)]
      for name in ("base", "tuned")
    }
    differences = [
      b - a for a, b in zip(values["base"], values["tuned"], strict=True)
    ]
    row: dict[str, Any] = {"task": task, "seeds": len(differences)}
    for name, each in values.items():
      row[name] = statistics.mean(each)
      row[f"{name}_sd"] = statistics.stdev(each) if len(each) > 1 else None
    row["difference"] = statistics.mean(differences)
    out.append(row)
  return out


def _prompts(runs: Sequence[Tuned], count: int):
  """Nearest tokens of every prompt, and how like those of one base are."""
  words, alike = {}, {}
  tables: dict[str, tuple[Any, Any]] = {}
  for name in dict.fromkeys(r.checkpoint for r in runs):
    own = {}
    for run in (r for r in runs if r.checkpoint == name):
      source = load.opened(run.folder)
      if not isinstance(source, part.PartSource) or source.adapter is None:
        return {}, {}  # no soft prompts, but LoRA, say
      if source.adapter["kind"] != "soft_prompt":
        return {}, {}
      if name not in tables:
        tables[name] = _table_of(source), load.vocabulary_of(source)
      table, vocabulary = tables[name]
      for side, vectors in prompts.vectors_of(source).items():
        label = f"{run.task}, seed {run.seed}, {side}"
        own[label] = vectors
        near = prompt_words.nearest_tokens(vectors, table, count=count)
        words[f"{name}: {label}"] = prompt_words.words(near, vocabulary)
    alike[name] = prompt_words.similarity(own)
    tables.pop(name, None)
  return words, alike


def _table_of(source) -> np.ndarray:
  names = ("token_embedder/embedding", "decoder/token_embedder/embedding")
  (name,) = (n for n in names if n in source.base.shapes)
  return np.asarray(source.base.read(name), np.float32)


def _row(run: Tuned) -> tuple[str, ...]:
  return (
    run.task,
    run.checkpoint,
    str(run.seed),
    run.metric,
    f"{run.rows:,}",
    f"{run.before:.1f}",
    f"{run.after:.1f}",
    "–" if run.best is None else f"{run.best:.1f}",
  )


def _mean_row(mean: Mapping[str, Any]) -> tuple[str, ...]:
  def spread(name):
    return "–" if mean[name] is None else f"{mean[name]:.1f}"

  return (
    mean["task"],
    str(mean["seeds"]),
    f"{mean['base']:.1f}",
    spread("base_sd"),
    f"{mean['tuned']:.1f}",
    spread("tuned_sd"),
    f"{mean['difference']:+.1f}",
  )


def _data(runs) -> str:
  """Of which data the numbers are."""
  labels = set()
  for run in runs:
    for record in record_lib.lineage(run.folder)[:1]:
      labels.add(record.data["source"])
  sample = "sample" in labels
  return (
    "the embedded sample, whose numbers say nothing"
    if sample
    else (", ".join(sorted(labels)))
  )


def _markdown(paths, runs, means, words, alike) -> str:
  table = files_lib.markdown_table
  out = ["# Prompt tuning before two checkpoints", ""]
  out += [f"* {name}: {path}" for name, path in paths.items()]
  out += [f"* data: {_data(runs)}", "", "## Means over seeds", ""]
  out += [*table(_MEANS, [_mean_row(m) for m in means]), "", "## Runs", ""]
  out += [*table(_HEADER, [_row(r) for r in runs], 4), ""]
  if words:
    out += ["## Nearest tokens of each vector", ""]
  for name, found in words.items():
    out += [f"### {name}", "", *prompt_words.markdown(found), ""]
  for name, found in alike.items():
    if found:
      out += [f"## How like the prompts are: {name}", ""]
      out += [*prompt_words.similarity_markdown(found), ""]
  return "\n".join(out)


def _page(paths, runs, means, words, alike) -> str:
  parts = ["<h1>Prompt tuning before two checkpoints</h1>"]
  said = "".join(
    f"{markup.text(name)}: {markup.text(path)}<br>"
    for name, path in paths.items()
  )
  parts.append(f"<p class='lead'>{said}data: {markup.text(_data(runs))}</p>")
  parts += ["<h2>Means over seeds</h2>"]
  parts.append(_html(_MEANS, [_mean_row(m) for m in means], 1))
  parts += ["<h2>Runs</h2>", _html(_HEADER, [_row(r) for r in runs], 4)]
  for name, found in words.items():
    rows = [
      (str(place), ", ".join(f"{w['text']!r} {w['cosine']:.2f}" for w in near))
      for place, near in enumerate(found)
    ]
    parts.append(f"<h2>Nearest tokens: {markup.text(name)}</h2>")
    parts.append(_html(("position", "tokens (cosine)"), rows))
  for name, found in alike.items():
    if found:
      parts.append(f"<h2>How like the prompts are: {markup.text(name)}</h2>")
      rows = [(a, b, f"{x:.3f}") for (a, b), x in found.items()]
      parts.append(_html(("prompt", "prompt", "cosine of means"), rows))
  return markup.document("Prompt tuning before two checkpoints", parts)


def _html(header, rows, text_columns: int = 2) -> str:
  def line(row):
    cells = (
      f"<td{' class=text' if i < text_columns else ''}>{markup.text(x)}</td>"
      for i, x in enumerate(row)
    )
    return f"<tr>{''.join(cells)}</tr>"

  return markup.table(header, map(line, rows), text_columns)
