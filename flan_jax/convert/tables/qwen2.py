"""Qwen2 and Qwen2.5 (Qwen Team 2024, arXiv:2412.15115)."""

from flan_jax.convert.tables import llama, parts
from flan_jax.convert.tables.family import Family
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

QWEN2 = Family(
  model_type="qwen2",
  architecture="Qwen2ForCausalLM",
  config_type=DecoderConfig,
  rows=llama.ROWS,
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.epsilon(1e-6),
    parts.tied(False),
  ),
  parts=(
    parts.head_dim(implied=True),
    parts.switched_window(),
    rope(),
  ),
  # Biases of queries, keys and values, and no switch for them.
  fixed=(("qkv_bias", True),),
  must=(parts.NO_DROPOUT,),
  buffers=parts.BUFFERS,
)
