"""OLMo of February 2024 (Groeneveld et al. 2024, arXiv:2402.00838)."""

from flan_jax.convert.tables import parts
from flan_jax.convert.tables.family import Family, Field
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

OLMO = Family(
  model_type="olmo",
  architecture="OlmoForCausalLM",
  config_type=DecoderConfig,
  # Norms have no parameters.
  rows=tuple(row for row in parts.decoder_rows() if "norm" not in row.ours),
  fields=(
    *parts.SIZES,
    parts.activation("hidden_act", "silu"),
    parts.tied(False),
    Field("clip_qkv", "clip_qkv", float, None, nullable=True),
  ),
  parts=(
    parts.head_dim(implied=True),
    parts.attention_bias(),
    parts.no_windows(),
    rope(),
  ),
  fixed=(("norm", "layer"), ("norm_epsilon", 1e-5)),
  must=(parts.NO_DROPOUT,),
)
