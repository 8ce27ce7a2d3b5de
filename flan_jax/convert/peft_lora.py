"""LoRA in PEFT's layout: which tensors are whose, and which options we have.

PEFT's `lora_A.weight` is [r, in] and `lora_B.weight` [out, r], of the torch
module that has the kernel; ours are [d, r] and [r, f].
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flan_jax.convert import hf, tables, trees
from flan_jax.convert.tables.family import Family
from flan_jax.errors import UserError
from flan_jax.models import lora, quantised

_log = logging.getLogger(__name__)
_PREFIX = "base_model.model."
# What the tensors say already, or what matters before training alone.
_INERT = frozenset(
  (
    *("alora_invocation_tokens", "auto_mapping", "base_model_name_or_path"),
    *("bias", "exclude_modules", "inference_mode", "init_lora_weights"),
    *("layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout"),
    *("megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("revision", "target_modules", "task_type", "use_rslora"),
  )
)
# Other ways to begin change the base's own kernels.
_STARTS = (True, False, "gaussian", None)


def read(folder: Any, base: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """The options, as `WithLora.described`, and A and B by our names.

  Args:
    folder: a `peft.Folder`.
    base: the source of the base.

  Raises:
    UserError: an option that ours has not, or tensors that are of no kernel of
      the base, or of another rank or width (both named).
  """
  config, where = folder.config, str(folder.path)
  _check_options(config, where)
  theirs = {module: name for name, module in modules(base).items()}
  arrays: dict[str, np.ndarray] = {}
  stray = []
  for name, array in folder.arrays.items():
    found = re.fullmatch(r"(.*)\.lora_([AB])(\.default)?\.weight", name)
    module = found[1].removeprefix(_PREFIX) if found else None
    if module not in theirs:
      stray.append(name)
      continue
    kernel = theirs[module]
    array = np.ascontiguousarray(array.T).astype(np.float32)
    side = found[2].lower()
    d, f = base.shapes[kernel].shape
    shape = (d, config["r"]) if side == "a" else (config["r"], f)
    if array.shape != shape:
      raise UserError(
        f"{where}: {name} is {list(array.shape[::-1])}; r = {config['r']} and"
        f" {base.path}, where {kernel} is [{d}, {f}], need"
        f" {list(shape[::-1])}. The adapter is of another model."
      )
    scope = kernel.removesuffix("/kernel")
    arrays[f"{lora.KEY}/{scope}/lora_{side}"] = array
  if stray or not arrays:
    some = ", ".join(stray[:3]) or "no tensor at all"
    raise UserError(
      f"{where} has {some}, which is LoRA of no kernel of {base.path}: an"
      " adapter of another model, or of parts (embedding, head) that ours"
      " does not adapt."
    )
  kernels = {n.rsplit("/", 1)[0] for n in arrays}
  lone = [n for n in kernels for x in "ab" if f"{n}/lora_{x}" not in arrays]
  if lone:
    raise UserError(f"{where} has one of A and B alone of {lone[0]}.")
  every = [n for n in base.shapes if quantised.is_kernel(n)]
  mine = [f"{n.removeprefix(f'{lora.KEY}/')}/kernel" for n in kernels]
  options = lora.Lora(
    rank=config["r"],
    alpha=float(config.get("lora_alpha", 8)),
    dropout=float(config.get("lora_dropout", 0.0)),
    targets=regex_of(mine, every),
    rank_stabilised=bool(config.get("use_rslora")),
  )
  return options.described(), arrays


def write(source: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The config of PEFT and its tensors, of a checkpoint with LoRA."""
  options = lora.Lora.of(source.adapter)
  if options.base_type is not None:
    _log.warning(
      "%s was trained on a base in %s, which adapter_config.json cannot say: on"
      " the base as it is, its logits are a little different.",
      source.path,
      options.base_type,
    )
  known = modules(source.base)
  arrays, adapted = {}, set()
  for name in source.own:
    scope, side = name.removeprefix(f"{lora.KEY}/").rsplit("/lora_", 1)
    module = known[f"{scope}/kernel"]
    adapted.add(module)
    key = f"{_PREFIX}{module}.lora_{side.upper()}.weight"
    arrays[key] = np.asarray(source.read(name), np.float32).T
  return {
    "task_type": task_type(source.base),
    "r": options.rank,
    "lora_alpha": options.alpha,
    "lora_dropout": options.dropout,
    "use_rslora": options.rank_stabilised,
    "target_modules": short(adapted, known.values()),
    "bias": "none",
    "fan_in_fan_out": False,
  }, arrays


def modules(base: Any) -> dict[str, str]:
  """Our name of every kernel of the base's layers -> its torch module.

  Raises:
    UserError: no family of Hugging Face has such a model.
  """
  family = _family(base)
  kernels = [name for name in base.shapes if quantised.is_kernel(name)]
  rows = hf.names(family, kernels)
  return {n: row.theirs.removesuffix(".weight") for n, row in rows.items()}


def task_type(base: Any) -> str:
  """What PEFT calls the model's kind."""
  return "CAUSAL_LM" if _family(base).causal else "SEQ_2_SEQ_LM"


def _family(base: Any) -> Family:
  if hasattr(base, "family"):
    return base.family
  if base.config is None:
    raise UserError(
      f"{base.path} ({base.format}) does not say what model it is: convert it"
      " to OUTPUT_FORMAT='hf' or 'flan_jax' with its MODEL first."
    )
  said = (getattr(base, "details", None) or {}).get("model_type")
  return tables.written_by(base.config, said)[0]


def short(chosen: Iterable[str], every: Iterable[str]) -> list[str]:
  """`target_modules`: last names where all modules of a name are chosen.

  >>> short({"l.0.q", "l.1.q", "l.0.v"}, ["l.0.q", "l.1.q", "l.0.v", "l.1.v"])
  ['l.0.v', 'q']
  """
  chosen, out = set(chosen), set()
  by_last: dict[str, set[str]] = {}
  for module in every:
    by_last.setdefault(module.rsplit(".", 1)[-1], set()).add(module)
  for last, of_name in by_last.items():
    out |= {last} if of_name <= chosen else of_name & chosen
  return sorted(out)


def regex_of(chosen: Iterable[str], every: Iterable[str]) -> str:
  r"""A regex of exactly these names.

  >>> every = [f"d/layers_{i}/{x}/kernel" for i in (0, 1) for x in "qv"]
  >>> regex_of(every[::2], every)
  'd/layers_\\d+/q/kernel'
  >>> regex_of(every[:3], every)
  'd/layers_(0|1)/q/kernel|d/layers_(0)/v/kernel'
  """
  layers: dict[str, list[int]] = {}
  for name in sorted(chosen):
    group, layer = trees.stacked(name)
    layers.setdefault(group, []).append(layer or 0)
  counts = trees.layer_counts(every)
  full = all(len(own) == counts[group] for group, own in layers.items())

  def number(own):
    return r"\d+" if full else f"({'|'.join(map(str, sorted(own)))})"

  return "|".join(
    re.sub(
      r"(^|/)layers/", lambda m, own=own: f"{m[1]}layers_{number(own)}/", group
    )
    for group, own in sorted(layers.items())
  )


def _check_options(config: Mapping[str, Any], where: str) -> None:
  if not isinstance(config.get("r"), int):
    raise UserError(f"{where}: adapter_config.json has no rank r.")
  bias = config.get("bias", "none")
  if bias != "none":
    raise UserError(
      f"{where}: bias is {bias!r}; ours adapts kernels alone ('none')."
    )
  start = config.get("init_lora_weights", True)
  if start not in _STARTS:
    raise UserError(
      f"{where}: init_lora_weights is {start!r}, which changes the base's own"
      " kernels too. Merge the adapter into its model with PEFT, and give that."
    )
  for name, value in config.items():
    if name not in _INERT and value and name != "megatron_core":
      raise UserError(
        f"{where}: {name} is {value!r}, which ours does not compute. Merge the"
        " adapter into its model with PEFT (merge_and_unload), and give that."
      )
