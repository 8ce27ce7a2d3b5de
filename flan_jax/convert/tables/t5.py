"""T5 v1.0 and v1.1, LM-adapted T5, FLAN-T5, T0 and UL2; mT5.

Raffel et al. 2020 (arXiv:1910.10683), Xue et al. 2021 (arXiv:2010.11934), Tay
et al. 2022 (arXiv:2205.05131).

v1.0 ties its head and scales what it multiplies, all others have a head of
their own. transformers 5 writes `tie_word_embeddings` true whatever the model
is; what the file said before is then in `scale_decoder_outputs`.
"""

from flan_jax.convert.tables.family import Family, Field, Part, Row
from flan_jax.errors import UserError
from flan_jax.models.t5_network import T5Config

# feed_forward_proj -> (our activations, dense_act_fn that goes with it). "gelu"
# alone is missing: it is the exact form, ours is T5X's, by tanh.
_ACTIVATIONS = {
  "relu": (("relu",), "relu"),
  "silu": (("silu",), "silu"),
  "gelu_new": (("gelu",), "gelu_new"),
  "gated-gelu": (("gelu", "linear"), "gelu_new"),
  "gated-gelu_new": (("gelu", "linear"), "gelu_new"),
  "gated-silu": (("silu", "linear"), "silu"),
  "gated-relu": (("relu", "linear"), "relu"),
}


def _activations(default: str) -> Part:
  """The gate and its function, which newer files say three times."""

  def read(json, values):
    name = json.get("feed_forward_proj", default)
    if name not in _ACTIVATIONS:
      raise UserError(
        f"feed_forward_proj is {name!r}; our T5 computes"
        f" {', '.join(_ACTIVATIONS)}."
      )
    ours, function = _ACTIVATIONS[name]
    for field, value in (
      ("dense_act_fn", function),
      ("is_gated_act", len(ours) > 1),
    ):
      if json.get(field, value) != value:
        raise UserError(
          f"{field} is {json[field]!r}, but feed_forward_proj {name!r} means"
          f" {value!r}. Correct the one that is wrong."
        )
    return {"mlp_activations": ours}

  def write(config):
    name = next(
      (n for n, (o, _) in _ACTIVATIONS.items() if o == config.mlp_activations),
      None,
    )
    return {"feed_forward_proj": name}

  names = ("feed_forward_proj", "dense_act_fn", "is_gated_act")
  return Part(names, read, write)


def _head() -> Part:
  """A head of its own or the embedding, with the scale that goes with it."""

  def read(json, values):
    tied = json.get("tie_word_embeddings", True)
    scaled = json.get("scale_decoder_outputs", tied)
    if scaled and not tied:
      raise UserError(
        "tie_word_embeddings is false and scale_decoder_outputs true; no T5"
        " has a head of its own that is scaled."
      )
    return {"logits_via_embedding": bool(scaled)}

  def write(config):
    return {"tie_word_embeddings": config.logits_via_embedding}

  return Part(("tie_word_embeddings", "scale_decoder_outputs"), read, write)


def _decoder_layers() -> Part:
  """As many as of the encoder where the file does not say."""
  name = "num_decoder_layers"

  def read(json, values):
    layers = json.get(name)
    if layers is None:
      layers = values["num_encoder_layers"]
    return {"num_decoder_layers": layers}

  return Part((name,), read, lambda config: {name: config.num_decoder_layers})


# Every T5 begins with the padding token; transformers has no default for it.
_START = Part(
  (), lambda json, values: {}, lambda config: {"decoder_start_token_id": 0}
)


def _rows() -> tuple[Row, ...]:
  copies = tuple(
    f"{name}.weight"
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
  )
  rows = [
    Row("token_embedder/embedding", "shared.weight", copies=copies),
    Row("decoder/logits_dense/kernel", "lm_head.weight", "transpose"),
  ]
  blocks = {
    "encoder": (("attention", "SelfAttention"), ("mlp", "DenseReluDense")),
    "decoder": (
      ("self_attention", "SelfAttention"),
      ("encoder_decoder_attention", "EncDecAttention"),
      ("mlp", "DenseReluDense"),
    ),
  }
  norms = {
    "attention": "pre_attention",
    "self_attention": "pre_self_attention",
    "encoder_decoder_attention": "pre_cross_attention",
    "mlp": "pre_mlp",
  }
  for side, parts in blocks.items():
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rows += [
      Row(f"{side}/relpos_bias/rel_embedding", f"{side}.{bias}", "transpose"),
      Row(f"{side}/{side}_norm/scale", f"{side}.final_layer_norm.weight"),
    ]
    for number, (ours, theirs) in enumerate(parts):
      our, their = f"{side}/layers_{{i}}", f"{side}.block.{{i}}.layer.{number}"
      kernels = dict(query="q", key="k", value="v", out="o")
      if ours == "mlp":
        kernels = {name: name for name in ("wi", "wi_0", "wi_1", "wo")}
      norm = f"{our}/{norms[ours]}_layer_norm/scale"
      rows.append(Row(norm, f"{their}.layer_norm.weight"))
      rows += [
        Row(
          f"{our}/{ours}/{a}/kernel",
          f"{their}.{theirs}.{b}.weight",
          "transpose",
        )
        for a, b in kernels.items()
      ]
  return tuple(rows)


_FIELDS = (
  Field("vocab_size", "vocab_size", int),
  Field("d_model", "emb_dim", int),
  Field("d_kv", "head_dim", int),
  Field("d_ff", "mlp_dim", int),
  Field("num_layers", "num_encoder_layers", int),
  Field("num_heads", "num_heads", int),
)
_MUST = (
  ("is_encoder_decoder", (True,)),
  ("is_decoder", (False,)),
  ("relative_attention_num_buckets", (32,)),
  ("relative_attention_max_distance", (128,)),
  ("layer_norm_epsilon", (1e-6,)),
)
# Dropout is a run's, initialisation is over, and how a text is generated is
# said to the decoder.
_INERT = frozenset(
  (
    *("classifier_dropout", "dropout_rate", "gradient_checkpointing"),
    *("initializer_factor", "n_positions", "output_past", "prefix"),
    *("early_stopping", "length_penalty", "max_length", "min_length"),
    *("no_repeat_ngram_size", "num_beams"),
  )
)
# Some old files hold it; no T5 reads it.
_BUFFERS = (
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)

T5 = Family(
  model_type="t5",
  architecture="T5ForConditionalGeneration",
  config_type=T5Config,
  rows=_rows(),
  fields=_FIELDS,
  parts=(_decoder_layers(), _activations("relu"), _head(), _START),
  must=_MUST,
  inert=_INERT,
  buffers=_BUFFERS,
)

# Never ties; what its files say of it is not read by transformers 5 either.
MT5 = Family(
  model_type="mt5",
  architecture="MT5ForConditionalGeneration",
  config_type=T5Config,
  rows=_rows(),
  fields=_FIELDS,
  fixed=(("logits_via_embedding", False),),
  parts=(_decoder_layers(), _activations("gated-gelu"), _START),
  must=(*_MUST, ("tie_word_embeddings", (False, True))),
  inert=_INERT,
  buffers=_BUFFERS,
)
