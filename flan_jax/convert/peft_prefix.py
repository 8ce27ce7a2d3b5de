"""Prefix tuning in PEFT's layout: `prompt_embeddings` [P, 2 N G K].

Of each position the keys of layer 0, its values, the keys of layer 1, ... PEFT
puts them into the cache as they are and lets the tokens stand at P, P + 1, ...;
ours stand at 0, 1, ..., so that keys are turned by RoPE's angle of -P.

P positions, N layers, G kv-heads, K head size.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from flan_jax.errors import UserError
from flan_jax.models import prefix, rope
from flan_jax.models.decoder_config import DecoderConfig

EMBEDDINGS = "prompt_embeddings"
_SCOPE = "decoder/layers_{}/self_attention"
# What the array says already, or what matters before training alone.
_INERT = frozenset(
  (
    *("auto_mapping", "base_model_name_or_path", "encoder_hidden_size"),
    *("inference_mode", "init_weights", "num_attention_heads", "num_layers"),
    *("num_transformer_submodules", "num_virtual_tokens", "peft_type"),
    # Folded into the vectors where PEFT saves them.
    *("peft_version", "prefix_projection", "revision", "task_type"),
    "token_dim",
  )
)


def read(folder: Any, base: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """The options, as `WithPrefix.described`, and keys and values by our names.

  Args:
    folder: a `peft.Folder`.
    base: the source of the base.

  Raises:
    UserError: an option that ours has not, a base whose prefixes PEFT and ours
      read differently, or an array of another shape than it needs (both
      named).
  """
  c = _checked(base)
  for name, value in folder.config.items():
    if name not in _INERT and value:
      raise UserError(
        f"{folder.path}: {name} is {value!r}, which ours does not compute."
      )
  width = c.num_kv_heads * c.head_dim
  length = folder.config.get("num_virtual_tokens")
  shapes = {name: list(x.shape) for name, x in folder.arrays.items()}
  wanted = {EMBEDDINGS: [length, 2 * c.num_layers * width]}
  if shapes != wanted:
    raise UserError(
      f"{folder.path} has {shapes}; {length} positions before {base.path} are"
      f" {wanted}. The prefix is of another model."
    )
  array = folder.arrays[EMBEDDINGS].astype(np.float32)
  array_NPf = array.reshape(length, 2 * c.num_layers, width).swapaxes(0, 1)
  arrays = {}
  for layer in range(c.num_layers):
    key, value = array_NPf[2 * layer : 2 * layer + 2]
    scope = f"{prefix.KEY}/{_SCOPE.format(layer)}"
    arrays[f"{scope}/prefix_key"] = _turned(key, c, -length)
    arrays[f"{scope}/prefix_value"] = value
  return prefix.Prefix(length).described(), arrays


def write(source: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The config of PEFT and its array, of a checkpoint with a prefix.

  Raises:
    UserError: a base whose prefixes PEFT reads differently; layers without a
      prefix, which PEFT does not have.
  """
  c = _checked(source.base)
  options = prefix.Prefix.of(source.adapter)
  parts = []
  for layer in range(c.num_layers):
    scope = f"{prefix.KEY}/{_SCOPE.format(layer)}"
    if f"{scope}/prefix_key" not in source.own:
      raise UserError(
        f"{source.path} has no prefix in layer {layer}, and PEFT's is in every"
        f" layer: train with PREFIX_TARGETS={prefix.Prefix().targets!r} for it."
      )
    key, value = (
      np.asarray(source.read(f"{scope}/{part}"), np.float32)
      for part in prefix.PARTS
    )
    parts += [_turned(key, c, options.length), value]
  return {
    "task_type": "CAUSAL_LM",
    "num_virtual_tokens": options.length,
    "token_dim": c.num_kv_heads * c.head_dim,
    "num_transformer_submodules": 1,
    "num_attention_heads": c.num_kv_heads,
    "num_layers": c.num_layers,
    "encoder_hidden_size": c.num_kv_heads * c.head_dim,
    "prefix_projection": False,
  }, {EMBEDDINGS: np.concatenate(parts, axis=1)}


def _turned(key_Pf, config, positions):
  """Keys, each turned on by so many positions."""
  P, K = len(key_Pf), config.head_dim
  where_1P = jnp.full((1, P), positions)
  cos, sin = rope.angles(where_1P, K, config.rope_theta, config.rope_scaling)
  turned = rope.rotate(jnp.asarray(key_Pf).reshape(1, P, -1, K), cos, sin)
  return np.asarray(turned, np.float32).reshape(P, -1)


def _checked(base):
  """The config of a base whose prefixes can be turned into PEFT's."""
  c, why = base.config, None
  if not isinstance(c, DecoderConfig):
    why = "is an encoder-decoder, where PEFT's has a place among the tokens"
  elif c.position != "rope" or "sliding" in c.kinds:
    why = "has layers that PEFT gives a place to, or a window"
  elif c.rope_scaling and c.rope_scaling.kind not in ("linear", "llama3"):
    why = f"scales RoPE by {c.rope_scaling.kind!r}, as no fixed angle does"
  if why is not None:
    raise UserError(
      f"{base.path} {why}: a prefix of ours has none there. PREFIX_TUNING is"
      " read and written for decoder-only models with RoPE and full attention."
    )
  return c
