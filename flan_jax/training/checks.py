"""What can be said of a run's options before anything is read or built."""

import importlib
import math
from typing import Any

from flan_jax.errors import UserError


def numbers(**options: int) -> None:
  """Raises UserError unless every option is a whole number of 1 or more.

  >>> numbers(train_steps=300, batch_size=16)
  """
  for name, value in options.items():
    if not isinstance(value, int) or value < 1:
      raise UserError(f"{name.upper()} is {value!r}; give 1 or more.")


def limits(**options: int | None) -> None:
  """`numbers` of options that may be None, which is no limit.

  >>> limits(eval_examples=None, train_examples=32)
  """
  numbers(**{n: value for n, value in options.items() if value is not None})


def lengths(value: Any) -> None:
  """Raises UserError unless `value` gives tokens for inputs and targets.

  >>> lengths({"inputs": 512, "targets": 128})
  """
  if (
    not isinstance(value, dict)
    or set(value) != {"inputs", "targets"}
    or not all(isinstance(n, int) and n > 1 for n in value.values())
  ):
    raise UserError(
      f"TASK_FEATURE_LENGTHS is {value!r}; write"
      " {'inputs': 512, 'targets': 128}, in tokens, EOS included."
    )


def vocabulary(chosen: Any, model: Any) -> None:
  """Raises UserError if the vocabulary has ids that the model has no row for.

  XLA would clamp such an id without a word.
  """
  size, rows = chosen.vocab_size, model.config.vocab_size
  if size > rows:
    raise UserError(
      f"the vocabulary has {size:,} ids, the model's embedding {rows:,} rows:"
      f" set its vocab_size to {math.ceil(size / 128) * 128:,} or more, or"
      " give the vocabulary that the checkpoint was trained with."
    )


def import_module(name: str) -> None:
  """Imports MIXTURE_OR_TASK_MODULE, or raises UserError."""
  try:
    importlib.import_module(name)
  except ModuleNotFoundError as e:
    raise UserError(
      f"MIXTURE_OR_TASK_MODULE {name!r} cannot be imported: {e}. It must be on"
      " PYTHONPATH or installed."
    ) from e


def frozen(
  model: Any, trainable: str | None, initial_checkpoint_path: Any, pack: bool
) -> None:
  """Raises UserError where a part of the parameters cannot be trained alone.

  Args:
    model: adapted or not.
    trainable: TRAINABLE, or the adapter's.
    initial_checkpoint_path: the base.
    pack: PACK.
  """
  if trainable is not None and initial_checkpoint_path is None:
    raise UserError(
      f"TRAINABLE = {trainable!r} freezes the other parameters, and"
      " INITIAL_CHECKPOINT_PATH = None makes them random: name the checkpoint"
      " that they are of."
    )
  if pack and not getattr(model, "packs", True):
    raise UserError(
      "PACK = True puts several examples in a row, and a soft prompt stands"
      " before one: set PACK = False."
    )


def profile_steps(steps: Any, train_steps: int) -> None:
  """Raises UserError unless `steps` are None or two steps of the run.

  >>> profile_steps((20, 25), 300)
  """
  if steps is not None and not (
    isinstance(steps, list | tuple)
    and len(steps) == 2
    and all(isinstance(n, int) for n in steps)
    and 1 <= steps[0] <= steps[1] <= train_steps
  ):
    raise UserError(
      f"PROFILE_STEPS is {steps!r}; give the first and the last step to trace,"
      f" from 1 to TRAIN_STEPS ({train_steps:,}): (20, 25), say."
    )


def resume_changed(wanted: bool, model_dir: str | None) -> None:
  """Raises UserError where RESUME_CHANGED has no run to go on with.

  >>> resume_changed(False, None)
  """
  if wanted and model_dir is None:
    raise UserError(
      "RESUME_CHANGED has no effect without MODEL_DIR: a changed configuration"
      " has a folder of its own then. Name the run's folder:"
      " --gin.MODEL_DIR=..."
    )
