"""Logical axes of parameters, by T5X's names: what a mesh rule speaks of.

One table for both kinds of model. Stacked layers (`layers` in the name) have
the axis `layers` first. The names are T5X's standard logical axes, but for
`norm`: T5X calls a norm's scale `embed` too, and splitting such a vector saves
nothing and costs a collective.
"""

import difflib
import re
from typing import Any

import jax

from flan_jax.errors import UserError

# Last scopes of a parameter's name -> its logical axes.
PARAMETER_AXES = (
  (r"token_embedder/embedding", ("vocab", "embed")),
  (r"logits_dense/kernel", ("embed", "vocab")),
  (r"relpos_bias/rel_embedding", ("heads", "relpos_buckets")),
  (r"(query|key|value)/kernel", ("embed", "joined_kv")),
  (r"(query|key|value)/bias", ("joined_kv",)),
  (r"out/kernel", ("joined_kv", "embed")),
  (r"wi(_\d+)?/kernel", ("embed", "mlp")),
  (r"wi(_\d+)?/bias", ("mlp",)),
  (r"wo/kernel", ("mlp", "embed")),
  (r"(out|wo)/bias", ("norm",)),
  # LoRA: A reads what the kernel reads, B gives what it gives.
  (r"(query|key|value|wi(_\d+)?)/lora_a", ("embed", "lora_rank")),
  (r"(query|key|value)/lora_b", ("lora_rank", "joined_kv")),
  (r"wi(_\d+)?/lora_b", ("lora_rank", "mlp")),
  (r"out/lora_a", ("joined_kv", "lora_rank")),
  (r"wo/lora_a", ("mlp", "lora_rank")),
  (r"(out|wo)/lora_b", ("lora_rank", "embed")),
  (r"\w+/ia3_(in|out)put", ("norm",)),
  (r"\w*attention/prefix_(key|value)", ("prompt", "joined_kv")),
  (r"\w+_norm/scale", ("norm",)),
  (r"soft_prompt/(encoder|decoder)/prompt", ("prompt", "prompt_embed")),
)
# Axes of activations that no parameter has.
ACTIVATION_AXES = ("batch", "length")
KNOWN = (
  *dict.fromkeys(a for _, axes in PARAMETER_AXES for a in axes),
  "layers",
  # Of kernels in 4 bits: what lies within blocks and groups of their scales.
  "block",
  *ACTIVATION_AXES,
)

_STACK = "layers"


def of_parameter(name: str, rank: int) -> tuple[str, ...]:
  """The logical axes of a parameter, scanned or not.

  >>> of_parameter("encoder/layers_0/mlp/wo/kernel", 2)
  ('mlp', 'embed')
  >>> of_parameter("decoder/layers/self_attention/query/kernel", 3)
  ('layers', 'embed', 'joined_kv')

  A kernel in fewer bits (`models/quantised.py`) lies like the kernel:

  >>> of_parameter("encoder/layers_0/mlp/wo/kernel/nf4", 3)
  ('mlp', 'block', 'embed')

  Args:
    name: its path, `/` between scopes.
    rank: its number of dimensions.

  Raises:
    UserError: the table has no line for it, or one of another rank.
  """
  stacked = (_STACK,) if _STACK in name.split("/") else ()
  stored = re.fullmatch(r"(.*/kernel)/(nf4|int8|scale\w*)", name)
  if stored is not None:
    wide, out = of_parameter(stored[1], len(stacked) + 2)[-2:]
    of_stored = {
      # An int8 kernel's scale is of each output, an nf4 one's of each block.
      "scale": {1: (out,), 2: (wide, out)},
      "int8": {2: (wide, out)},
      "nf4": {3: (wide, "block", out)},
    }.get(stored[2], {2: (wide, "block")})
    if rank - len(stacked) in of_stored:
      return stacked + of_stored[rank - len(stacked)]
  for pattern, axes in PARAMETER_AXES:
    if re.fullmatch(f"(.*/)?{pattern}", name):
      if len(stacked + axes) != rank:
        raise UserError(
          f"parameter {name} has {rank} dimensions, its logical axes are"
          f" {stacked + axes}: one a dimension is needed"
          " (training/axes.py: PARAMETER_AXES)."
        )
      return stacked + axes
  last = "/".join(name.split("/")[-2:])
  known = [re.sub(r"\(|\)|\\.\+?|\?", "", p) for p, _ in PARAMETER_AXES]
  near = difflib.get_close_matches(last, known, 1, 0.0)[0]
  raise UserError(
    f"parameter {name} has no logical axes, so that a mesh cannot place it;"
    f" the nearest that has is {near}. Add a line to PARAMETER_AXES in"
    " training/axes.py, or use a mesh of `data` alone."
  )


def of_tree(params: Any) -> dict[str, tuple[str, ...]]:
  """`of_parameter` of every leaf of a tree of arrays or shapes, by name."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  named = ((path_name(path), leaf) for path, leaf in leaves)
  return {name: of_parameter(name, len(x.shape)) for name, x in named}


def path_name(path: tuple[Any, ...]) -> str:
  """`encoder/encoder_norm/scale` for a jax key path."""
  return jax.tree_util.keystr(path, simple=True, separator="/")
