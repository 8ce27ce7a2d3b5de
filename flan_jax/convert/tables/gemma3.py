"""Gemma 3, text only (Gemma Team 2025, arXiv:2503.19786)."""

from flan_jax.convert.tables import gemma2, parts
from flan_jax.convert.tables.family import Family
from flan_jax.convert.tables.rope import two_ropes
from flan_jax.models.decoder_config import DecoderConfig

GEMMA3 = Family(
  model_type="gemma3_text",
  architecture="Gemma3ForCausalLM",
  config_type=DecoderConfig,
  rows=(*gemma2.ROWS, *parts.qk_norm_rows()),
  fields=(
    *parts.SIZES,
    parts.activation("hidden_activation", "gelu_pytorch_tanh"),
    parts.epsilon(1e-6),
    parts.tied(True),
    parts.softcap("final_logit_softcapping", "logits_softcap", None),
  ),
  parts=(
    parts.head_dim(256),
    parts.attention_bias(),
    parts.query_scale(256),
    parts.embedding_scale(),
    parts.windows_by_pattern(6),
    two_ropes(1_000_000.0, 10_000.0),
  ),
  fixed=(("norm", "rms_one_plus"), ("post_norm", True), ("qk_norm", "head")),
  must=(
    parts.NO_DROPOUT,
    parts.CAUSAL,
    # The reference has the field and does not apply it.
    ("attn_logit_softcapping", (None,)),
  ),
  inert=frozenset(("hidden_act",)),
  # Placeholder of images, which the text models have no embedding for.
  outside=("<image_soft_token>",),
)
