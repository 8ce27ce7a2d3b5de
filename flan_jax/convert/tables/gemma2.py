"""Gemma 2 (Gemma Team 2024, arXiv:2408.00118)."""

from flan_jax.convert.tables import parts
from flan_jax.convert.tables.family import Family
from flan_jax.convert.tables.rope import rope
from flan_jax.models.decoder_config import DecoderConfig

ROWS = parts.decoder_rows(
  pre_self_attention_layer_norm="input_layernorm",
  post_self_attention_layer_norm="post_attention_layernorm",
  pre_mlp_layer_norm="pre_feedforward_layernorm",
  post_mlp_layer_norm="post_feedforward_layernorm",
)

GEMMA2 = Family(
  model_type="gemma2",
  architecture="Gemma2ForCausalLM",
  config_type=DecoderConfig,
  rows=ROWS,
  fields=(
    *parts.SIZES,
    parts.activation("hidden_activation", "gelu_pytorch_tanh"),
    parts.epsilon(1e-6),
    parts.tied(True),
    parts.softcap("final_logit_softcapping", "logits_softcap", 30.0),
    parts.softcap("attn_logit_softcapping", "attention_softcap", 50.0),
  ),
  parts=(
    parts.head_dim(256),
    parts.attention_bias(),
    parts.query_scale(256),
    parts.embedding_scale(),
    parts.windows_by_pattern(2),
    rope(),
  ),
  fixed=(("norm", "rms_one_plus"), ("post_norm", True)),
  must=(parts.NO_DROPOUT, parts.CAUSAL),
  # Written by older programs beside hidden_activation, and read by none.
  inert=frozenset(("hidden_act", "cache_implementation")),
)
