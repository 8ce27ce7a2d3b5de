"""OLMo 2 (OLMo Team 2024, arXiv:2501.00656): only outputs are normed."""

from flan_jax.convert.tables import parts
from flan_jax.convert.tables.family import Family
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

OLMO2 = Family(
  model_type="olmo2",
  architecture="Olmo2ForCausalLM",
  config_type=DecoderConfig,
  rows=(
    *parts.decoder_rows(
      post_self_attention_layer_norm="post_attention_layernorm",
      post_mlp_layer_norm="post_feedforward_layernorm",
    ),
    *parts.qk_norm_rows(),
  ),
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.epsilon(1e-5),
    parts.tied(False),
  ),
  parts=(
    parts.head_dim(implied=True),
    parts.attention_bias(),
    parts.no_windows(),
    rope(),
  ),
  fixed=(("pre_norm", False), ("post_norm", True), ("qk_norm", "width")),
  must=(parts.NO_DROPOUT,),
)
