"""Llama 2 and 3, SmolLM2 (a Llama by its model_type), and Mistral.

Touvron et al. 2023 (arXiv:2307.09288), Llama Team 2024 (arXiv:2407.21783),
Jiang et al. 2023 (arXiv:2310.06825).
"""

from flan_jax.convert.tables import parts
from flan_jax.convert.tables.family import Family, Field
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

ROWS = parts.decoder_rows(
  pre_self_attention_layer_norm="input_layernorm",
  pre_mlp_layer_norm="post_attention_layernorm",
)

LLAMA = Family(
  model_type="llama",
  architecture="LlamaForCausalLM",
  config_type=DecoderConfig,
  rows=ROWS,
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.epsilon(1e-6),
    parts.tied(False),
    Field("mlp_bias", "mlp_bias", bool, False),
  ),
  parts=(
    parts.head_dim(),
    parts.attention_bias(),
    parts.no_windows(),
    rope(),
  ),
  must=(parts.NO_DROPOUT,),
  buffers=parts.BUFFERS,
)

MISTRAL = Family(
  model_type="mistral",
  architecture="MistralForCausalLM",
  config_type=DecoderConfig,
  rows=ROWS,
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.epsilon(1e-6),
    parts.tied(False),
  ),
  parts=(parts.head_dim(), parts.one_window(4096), rope()),
  must=(parts.NO_DROPOUT,),
  buffers=parts.BUFFERS,
)
