"""What a run measures on its way, and keeps beside it for the report.

`evaluation_<step>.json` has the held-out tasks, `predictions/step_<step>.jsonl`
every answer, `metrics.jsonl` the headline with the validation loss, and
`prompt.json` what the vectors of a soft prompt are near.
"""

import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flan_jax import evaluate
from flan_jax.data import inventory, mixtures
from flan_jax.errors import UserError
from flan_jax.eval import prompt_words
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.training import loop, progress, sharding, validation, writers

_log = logging.getLogger(__name__)


class Measuring:
  """Validation loss and held-out tasks at a step: `measuring(params, step)`."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    model: Any,
    validation: validation.Validation,
    held_out: EvaluationSet | None,
    partition: sharding.Partition,
    vocabulary: Any,
    log: writers.MetricsLog,
    display: progress.Display,
  ):
    """Args:
    folder: of the run.
    model: that is trained.
    validation: of the training mixture.
    held_out: None evaluates nothing.
    partition: where parameters lie.
    vocabulary: that says what the vectors of a soft prompt are near.
    log: gets the scalars.
    display: gets a line.
    """
    self._folder = folder
    self._model = model
    self._validation = validation
    self._held_out = held_out
    self._partition = partition
    self._vocabulary = vocabulary
    self._log = log
    self._display = display

  def __call__(self, params: Any, step: int) -> dict[str, float]:
    """The scalars; at step 0 of the held-out tasks alone."""
    scalars, said = {}, []
    if step > 0:
      scalars |= self._validation(params)
      said.append(f"validation loss {scalars['validation/loss']:.3f}")
    if self._held_out is not None:
      result = self._evaluated(params, step)
      if result is not None:
        scalars |= result.headline
        said.append(f"held-out mean {result.mean:.1f}")
    # Of several processes none has the whole table of tokens.
    if hasattr(self._model, "vectors") and jax.process_count() == 1:
      write(self._folder / "prompt.json", self._words(params))
    self._log.write(step, scalars)
    self._display.say(f"step {step:,}: {', '.join(said)}")
    return scalars

  def due(self, start: int, periods: loop.Periods) -> bool:
    """Whether the parameters that a start begins with are to be measured.

    Those before the first step are, and those of a start that was stopped
    while it measured them.
    """
    if start == 0:
      return self._held_out is not None
    return periods.measuring(start) and not any(
      row["step"] == start and "validation/loss" in row
      for row in writers.read(self._log.path)
    )

  def _words(self, params) -> dict[str, Any]:
    """What each vector of a soft prompt is near, by side."""
    table_VD = np.asarray(self._model.embedding(params))
    out = {}
    for side, vectors_NPD in self._model.vectors(params).items():
      near = prompt_words.nearest_tokens(np.asarray(vectors_NPD)[0], table_VD)
      out[side] = prompt_words.words(near, self._vocabulary)
    return out

  def _evaluated(self, params, step: int) -> Evaluation | None:
    """None: it cannot be kept. A run does not end for a full disk."""
    try:
      with self._partition.laid_out():
        result = evaluate.evaluate_tasks(
          self._model,
          params,
          self._held_out,
          predictions=self._folder / "predictions" / f"step_{step}.jsonl",
        )
      write(self._folder / f"evaluation_{step}.json", result.to_json())
    except (OSError, UserError) as error:
      if not isinstance(error.__context__ or error, OSError):
        raise
      _log.warning(
        "The evaluation at step %d is not kept: %s. The run goes on.",
        step,
        error,
      )
      return None
    return result


def kept(folder: pathlib.Path, step: int) -> Evaluation | None:
  """The evaluation at a step, as it was kept; None: there is none."""
  path = folder / f"evaluation_{step}.json"
  if not path.exists():
    return None
  return Evaluation.from_json(json.loads(path.read_text()))


def left_out(
  folder: pathlib.Path, training: mixtures.Resolved, lengths: Mapping[str, int]
) -> dict[str, dict[str, int]]:
  """Training rows that are not used, by task and reason; counted once.

  Args:
    folder: of the run, which keeps them.
    training: what is trained on.
    lengths: of inputs and targets in tokens.
  """
  path = folder / "left_out.json"
  if not path.exists():
    write(path, inventory.left_out(training, lengths))
  return json.loads(path.read_text())


def kept_prompt(folder: pathlib.Path) -> dict[str, Any]:
  """What the vectors of the run's soft prompt are near; {} without one."""
  path = folder / "prompt.json"
  return json.loads(path.read_text()) if path.exists() else {}


def write(path: pathlib.Path, value: Any) -> None:
  """JSON, whole or not at all."""
  draft = path.with_suffix(".tmp")
  draft.write_text(json.dumps(value))
  os.replace(draft, path)
