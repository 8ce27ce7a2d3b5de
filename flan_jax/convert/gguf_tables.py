"""What llama.cpp calls our tensors, and what its architectures are to us.

Tables only; `gguf_config.py` reads the metadata, `gguf.py` the tensors.
"""

import dataclasses
import re
from collections.abc import Mapping

_BLOCK = "decoder/layers_{i}/"
_ATTENTION = _BLOCK + "self_attention/"


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One of their names and how it becomes ours.

  Attributes:
    ours: our name; `{i}` is the layer.
    transposed: theirs is (out, in), ours (in, out).
    heads: "query" or "key" where rows may be interleaved (`Architecture`).
    norm: a norm's scale, to which Gemma's files add 1.
  """

  ours: str
  transposed: bool = False
  heads: str | None = None
  norm: bool = False


def _both(theirs: str, ours: str, heads: str | None = None):
  """Kernel and bias of a projection."""
  return {
    f"{theirs}.weight": Tensor(f"{ours}/kernel", transposed=True, heads=heads),
    f"{theirs}.bias": Tensor(f"{ours}/bias", heads=heads),
  }


def _norm(theirs: str, ours: str):
  return {f"{theirs}.weight": Tensor(f"{ours}/scale", norm=True)}


# Their pattern -> ours; a file has those that its architecture has.
TENSORS: Mapping[str, Tensor] = {
  "token_embd.weight": Tensor("decoder/token_embedder/embedding"),
  "output.weight": Tensor("decoder/logits_dense/kernel", transposed=True),
  **_norm("output_norm", "decoder/decoder_norm"),
  **_both("blk.{i}.attn_q", _ATTENTION + "query", heads="query"),
  **_both("blk.{i}.attn_k", _ATTENTION + "key", heads="key"),
  **_both("blk.{i}.attn_v", _ATTENTION + "value"),
  **_both("blk.{i}.attn_output", _ATTENTION + "out"),
  **_norm("blk.{i}.attn_q_norm", _ATTENTION + "query_norm"),
  **_norm("blk.{i}.attn_k_norm", _ATTENTION + "key_norm"),
  **_norm("blk.{i}.attn_norm", _BLOCK + "pre_self_attention_layer_norm"),
  **_norm(
    "blk.{i}.post_attention_norm", _BLOCK + "post_self_attention_layer_norm"
  ),
  **_norm("blk.{i}.ffn_norm", _BLOCK + "pre_mlp_layer_norm"),
  **_norm("blk.{i}.post_ffw_norm", _BLOCK + "post_mlp_layer_norm"),
  **_both("blk.{i}.ffn_gate", _BLOCK + "mlp/wi_0"),
  **_both("blk.{i}.ffn_up", _BLOCK + "mlp/wi_1"),
  **_both("blk.{i}.ffn_down", _BLOCK + "mlp/wo"),
}
# Not a parameter: the divisors of RoPE's frequencies (Llama 3).
ROPE_FREQS = "rope_freqs.weight"


def ours(theirs: str) -> tuple[str, Tensor] | None:
  """Our name and the rule for one of their tensors; None if we have none.

  >>> ours("blk.3.attn_q.weight")[0]
  'decoder/layers_3/self_attention/query/kernel'
  """
  match = re.fullmatch(r"blk\.(\d+)\.(.*)", theirs)
  rule = TENSORS.get(f"blk.{{i}}.{match[2]}" if match else theirs)
  if rule is None:
    return None
  return rule.ours.replace("{i}", match[1] if match else ""), rule


@dataclasses.dataclass(frozen=True)
class Architecture:
  """One `general.architecture`.

  Attributes:
    options: fields of DecoderConfig that the architecture itself fixes.
    interleaved: rows of queries and keys are stored with the two halves of a
      head interleaved, as llama.cpp's RoPE of this architecture wants them.
    window_pattern: kinds of layers if `attention.sliding_window` is set; None:
      it must not be.
    softcaps: whether it reads the soft caps.
    width_scale_layers: the depth of that one size whose queries are scaled by
      the model's width per head instead of the head's size (Gemma 27B).
  """

  options: Mapping[str, object]
  interleaved: bool = False
  window_pattern: tuple[str, ...] | None = None
  softcaps: bool = False
  width_scale_layers: int | None = None


_GEMMA = {
  "norm": "rms_one_plus",
  "post_norm": True,
  "mlp_activations": ("gelu", "linear"),
}
_GLOBAL_AFTER_FIVE = (*["sliding"] * 5, "full")
ARCHITECTURES: Mapping[str, Architecture] = {
  # Llama 2 and 3, SmolLM2, Mistral.
  "llama": Architecture({}, interleaved=True, window_pattern=("sliding",)),
  "qwen2": Architecture({}),
  "qwen3": Architecture({"qk_norm": "head"}),
  "gemma2": Architecture(
    _GEMMA,
    window_pattern=("sliding", "full"),
    softcaps=True,
    width_scale_layers=46,
  ),
  "gemma3": Architecture(
    {**_GEMMA, "qk_norm": "head"},
    window_pattern=_GLOBAL_AFTER_FIVE,
    width_scale_layers=62,
  ),
  "olmo": Architecture({"norm": "layer"}, interleaved=True),
  "olmo2": Architecture(
    {"qk_norm": "width", "pre_norm": False, "post_norm": True}
  ),
}
