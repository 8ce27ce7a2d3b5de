"""Qwen3, dense (Qwen Team 2025, arXiv:2505.09388): queries, keys normed."""

from flan_jax.convert.tables import llama, parts
from flan_jax.convert.tables.family import Family
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

QWEN3 = Family(
  model_type="qwen3",
  architecture="Qwen3ForCausalLM",
  config_type=DecoderConfig,
  rows=(*llama.ROWS, *parts.qk_norm_rows()),
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.epsilon(1e-6),
    parts.tied(False),
  ),
  parts=(
    parts.head_dim(128),
    parts.attention_bias(),
    parts.switched_window(),
    rope(),
  ),
  fixed=(("qk_norm", "head"),),
  must=(parts.NO_DROPOUT,),
)
