"""(IA)3 in PEFT's layout.

PEFT's `ia3_l` is [out, 1] of a module whose output is multiplied, and [1, in]
of one of `feedforward_modules`, whose input is; ours are [f] and [d].
"""

import re
from typing import Any

import numpy as np

from flan_jax.convert import peft_lora
from flan_jax.errors import UserError
from flan_jax.models import ia3, quantised

_PREFIX = "base_model.model."
# What the tensors say already, or what matters before training alone.
_INERT = frozenset(
  (
    *("auto_mapping", "base_model_name_or_path", "exclude_modules"),
    *("feedforward_modules", "inference_mode", "init_ia3_weights"),
    *("peft_type", "peft_version", "revision", "target_modules", "task_type"),
  )
)


def read(folder: Any, base: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """The options, as `WithIa3.described`, and the vectors by our names.

  Args:
    folder: a `peft.Folder`.
    base: the source of the base.

  Raises:
    UserError: an option that ours has not, or tensors that are of no kernel of
      the base, or of another width (both named).
  """
  where = str(folder.path)
  for name, value in folder.config.items():
    if name not in _INERT and value:
      raise UserError(
        f"{where}: {name} is {value!r}, which ours does not compute."
      )
  theirs = {m: name for name, m in peft_lora.modules(base).items()}
  arrays: dict[str, np.ndarray] = {}
  kernels: dict[str, list[str]] = {side: [] for side in ia3.SIDES}
  for name, array in folder.arrays.items():
    found = re.fullmatch(r"(.*)\.ia3_l(\.default)?", name)
    module = found[1].removeprefix(_PREFIX) if found else None
    if module not in theirs:
      raise UserError(
        f"{where} has {name}, which is (IA)3 of no kernel of {base.path}: an"
        " adapter of another model, or of parts that ours does not adapt."
      )
    kernel = theirs[module]
    d, f = base.shapes[kernel].shape
    side = {(1, d): "ia3_input", (f, 1): "ia3_output"}.get(array.shape)
    if side is None:
      raise UserError(
        f"{where}: {name} is {list(array.shape)}; {base.path}, where {kernel}"
        f" is [{d}, {f}], needs [1, {d}] or [{f}, 1]. The adapter is of"
        " another model."
      )
    kernels[side].append(kernel)
    scope = kernel.removesuffix("/kernel")
    arrays[f"{ia3.KEY}/{scope}/{side}"] = array.reshape(-1).astype(np.float32)
  if not kernels["ia3_output"]:
    raise UserError(
      f"{where} has no vector of an output; ours has one at least."
    )
  every = [name for name in base.shapes if quantised.is_kernel(name)]
  inputs = kernels["ia3_input"]
  options = ia3.Ia3(
    outputs=peft_lora.regex_of(kernels["ia3_output"], every),
    inputs=peft_lora.regex_of(inputs, every) if inputs else None,
  )
  return options.described(), arrays


def write(source: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The config of PEFT and its tensors, of a checkpoint with (IA)3."""
  known = peft_lora.modules(source.base)
  arrays: dict[str, np.ndarray] = {}
  adapted, inputs = set(), set()
  for name in source.own:
    scope, side = name.removeprefix(f"{ia3.KEY}/").rsplit("/", 1)
    module = known[f"{scope}/kernel"]
    adapted.add(module)
    vector = np.asarray(source.read(name), np.float32)
    if side == "ia3_input":
      inputs.add(module)
    shape = (1, -1) if side == "ia3_input" else (-1, 1)
    arrays[f"{_PREFIX}{module}.ia3_l"] = vector.reshape(shape)
  return {
    "task_type": peft_lora.task_type(source.base),
    "target_modules": peft_lora.short(adapted, known.values()),
    "feedforward_modules": peft_lora.short(inputs, known.values()),
    "fan_in_fan_out": False,
  }, arrays
