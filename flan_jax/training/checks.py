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
