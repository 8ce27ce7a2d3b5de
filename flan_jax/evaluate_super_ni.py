"""Evaluates a checkpoint on Super-NaturalInstructions, track by track."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import evaluate_benchmarks, evaluated
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import files as files_lib
from flan_jax.eval import page_text, prompted, recorded, super_ni
from flan_jax.training import checks, processes, sharding
from flan_jax.training import progress as progress_lib
from flan_jax.training import record as record_lib


def evaluate_super_ni(
  *,
  initial_checkpoint_path: str,
  super_ni_dir: str,
  task_feature_lengths: Mapping[str, int],
  track: str = "default",
  positives: int = super_ni.POSITIVES,
  instances: int = super_ni.INSTANCES,
  tokenizer: str | None = None,
  output_dir: str | os.PathLike | None = None,
  model: Any = None,
  vocabulary: Any = None,
  batch_size: int = 8,
  form: prompted.Form | None = None,
  layout: sharding.Layout | None = None,
) -> pathlib.Path:
  """Evaluates one checkpoint on a track's test tasks and writes the table.

  Args:
    initial_checkpoint_path: a checkpoint of any format in `convert/source.py`.
    super_ni_dir: a checkout of natural-instructions, see `eval/super_ni.py`.
    task_feature_lengths: limits in tokens; positive examples that do not fit
      in `inputs` are left out.
    track: `default` (English) or `xlingual`.
    positives: solved examples before each instance, at most.
    instances: of each task, the first.
    tokenizer: a tokenizer.json whose tokens ROUGE-L counts in the
      cross-lingual track (published numbers: GPT-2's); None: characters.
    output_dir: where the files go; None: a folder of its own under `runs/`.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with the checkpoint.
    batch_size: inputs per batch.
    form: what surrounds every prompt; None: nothing does.
    layout: where the parameters lie, see `evaluated.load_params`.

  Returns:
    The path of the table, `super_ni.md`; `super_ni.json` has the same.

  Raises:
    UserError: what `super_ni.load` and `super_ni.scores` raise; a checkpoint
      or tokenizer that cannot be read; an instance that does not fit.
  """
  form = form or prompted.Form()
  checks.numbers(batch_size=batch_size)
  checks.lengths(task_feature_lengths)
  tokens = _tokens(tokenizer, track)
  questions = super_ni.load(
    super_ni_dir, track=track, positives=positives, instances=instances
  )
  opened, model, vocabulary = evaluated.open_model(
    initial_checkpoint_path, model, vocabulary
  )
  rows = prompted.evaluation_set(
    questions,
    vocabulary=vocabulary,
    kind=model.kind,
    lengths=task_feature_lengths,
    batch_size=batch_size,
    form=form,
  )
  record = record_lib.make(
    {
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "checkpoint": evaluated.address(initial_checkpoint_path, opened),
      "form": dataclasses.asdict(form),
      "tasks": {task.name: len(asked) for task, asked in questions.items()},
    }
  )
  folder = evaluated.claim_folder(output_dir, record)
  display = progress_lib.Display(quiet=not processes.is_first())
  display.say(f"checkpoint: {opened.path} ({opened.format}), {model.kind}")
  params, partition = evaluated.load_params(opened, model, layout)
  with evaluated.computing(partition):
    evaluate_benchmarks.answer(
      f"Super-NaturalInstructions, {track} track",
      rows,
      model,
      params,
      folder,
      record,
      display,
      # What a model writes that goes on with the next example.
      ("\nInput:", "Positive Example", "Now complete"),
    )
  scores = super_ni.scores(recorded.read(folder), track, tokens)
  path = write_table(folder, scores)
  display.table(scores[0].signature, _HEADER, list(map(_cells, scores)))
  display.say(f"table: {path}")
  return path


def _tokens(path: str | None, track: str):
  """The tokens of a tokenizer.json, without the mark of a blank."""
  if path is None:
    return None
  if track != "xlingual":
    raise UserError(
      f"SUPER_NI_TOKENIZER={path!r} has no effect in track {track!r}; leave it"
      " out, or set SUPER_NI_TRACK='xlingual'."
    )
  import tokenizers

  try:
    found = tokenizers.Tokenizer.from_file(path)
  except Exception as e:  # the library raises Exception itself
    raise UserError(
      f"SUPER_NI_TOKENIZER {path!r} is no tokenizer.json: {e}."
    ) from None
  return lambda text: [t.lstrip("Ġ") for t in found.encode(text).tokens]


_HEADER = (
  "category", "tasks", "n", "ROUGE-L", "95 % interval", "exact match",
  "95 % interval", "looked at",
)  # fmt: skip


def write_table(
  folder: pathlib.Path, scores: Sequence[super_ni.CategoryScore]
) -> pathlib.Path:
  """Writes super_ni.md and super_ni.json; returns the former's path.

  Raises:
    UserError: the folder cannot be written.
  """
  rows = [tuple(map(str, _cells(s))) for s in scores]
  lines = files_lib.markdown_table(_HEADER, rows)
  one = scores[0]
  head = f"Track {one.track}, means over instances. {one.signature}."
  files_lib.write(
    folder,
    {
      "super_ni.json": json.dumps(list(map(dataclasses.asdict, scores))),
      "super_ni.md": "\n".join(
        ["# Super-NaturalInstructions", "", head, "", *lines, ""]
      ),
    },
    "table",
  )
  return folder / "super_ni.md"


def _cells(s: super_ni.CategoryScore) -> tuple:
  return (
    s.category,
    s.tasks,
    f"{s.n:,}",
    page_text.score(s.rouge_l),
    " to ".join(map(page_text.score, s.rouge_l_interval)),
    page_text.score(s.exact_match),
    " to ".join(map(page_text.score, s.exact_match_interval)),
    {"rougeL": "ROUGE-L", "exact_match": "exact match"}[s.preferred],
  )
