"""Gemma 3, text only (Gemma Team 2025, arXiv:2503.19786).

The models that also read images hold one; it is read out of them.
"""

import dataclasses

from flan_jax.convert.tables import gemma2, parts
from flan_jax.convert.tables.family import Family, Within
from flan_jax.convert.tables.rope import two_ropes
from flan_jax.models.decoder_config import DecoderConfig

# The config of a language model within a larger names only what differs.
_SIZES = {
  "vocab_size": 262_208,
  "hidden_size": 2304,
  "intermediate_size": 9216,
  "num_hidden_layers": 26,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
}

WITH_IMAGES = Within(
  model_type="gemma3",
  architecture="Gemma3ForConditionalGeneration",
  config="text_config",
  fields=frozenset(
    (
      "boi_token_index",
      "eoi_token_index",
      "image_token_index",
      "mm_tokens_per_image",
      "vision_config",
    )
  ),
  prefixes=(
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
  ),
  rest=(
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
  ),
)

GEMMA3 = Family(
  model_type="gemma3_text",
  architecture="Gemma3ForCausalLM",
  config_type=DecoderConfig,
  rows=(*gemma2.ROWS, *parts.qk_norm_rows()),
  fields=(
    *(dataclasses.replace(f, default=_SIZES[f.theirs]) for f in parts.SIZES),
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
  within=WITH_IMAGES,
)
