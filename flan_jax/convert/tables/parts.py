"""Fields of a config.json that belong together, for decoder-only families."""

import dataclasses

from flan_jax.convert.tables.family import Field, Part, Row
from flan_jax.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"

# ACT2FN's names of what `layers.ACTIVATIONS` has; the first is written. Its
# "gelu" is the exact form, ours T5X's, by tanh.
ACTIVATIONS = (
  ("silu", ("silu", "linear")),
  ("swish", ("silu", "linear")),
  ("gelu_pytorch_tanh", ("gelu", "linear")),
  ("gelu_new", ("gelu", "linear")),
  ("relu", ("relu", "linear")),
)

SIZES = (
  Field("vocab_size", "vocab_size", int),
  Field("hidden_size", "emb_dim", int),
  Field("intermediate_size", "mlp_dim", int),
  Field("num_hidden_layers", "num_layers", int),
  Field("num_attention_heads", "num_heads", int),
  # null or left out: as many as of queries.
  Field("num_key_value_heads", "num_kv_heads", int, None, nullable=True),
)


def activation(theirs: str, default: str) -> Field:
  """The activation of the gate; its product with a linear one is the MLP."""
  return Field(theirs, "mlp_activations", str, default, values=ACTIVATIONS)


def softcap(theirs: str, ours: str, default: float | None) -> Field:
  return Field(theirs, ours, float, default, nullable=True)


def tied(default: bool) -> Field:
  return Field("tie_word_embeddings", "logits_via_embedding", bool, default)


def epsilon(default: float) -> Field:
  return Field("rms_norm_eps", "norm_epsilon", float, default)


def head_dim(default: int | None = None, *, implied: bool = False) -> Part:
  """Size per head; without a default D / H.

  `implied`: the family's own config has no such field, so it is written only
  where it differs from D / H.
  """

  def read(json, values):
    stated = json.get("head_dim")
    if stated is not None:
      return {"head_dim": stated}
    if default is not None and "head_dim" not in json:
      return {"head_dim": default}
    D, H = values["emb_dim"], values["num_heads"]
    if D % H:
      raise UserError(
        f"hidden_size {D} is no multiple of num_attention_heads {H}, and there"
        " is no head_dim."
      )
    return {"head_dim": D // H}

  def write(config):
    if implied and config.head_dim * config.num_heads == config.emb_dim:
      return {}
    return {"head_dim": config.head_dim}

  return Part(("head_dim",), read, write)


def attention_bias() -> Part:
  """One switch for the biases of all four projections."""

  def read(json, values):
    stated = bool(json.get("attention_bias"))
    return {"qkv_bias": stated, "out_bias": stated}

  return Part(
    ("attention_bias",), read, lambda c: {"attention_bias": c.qkv_bias}
  )


def query_scale(default: int) -> Part:
  """Scores are divided by the root of `query_pre_attn_scalar` (Gemma)."""
  name = "query_pre_attn_scalar"

  def read(json, values):
    return {"query_scale": json.get(name, default) ** -0.5}

  def write(config):
    scale = config.query_scale or config.head_dim**-0.5
    return {name: round(scale**-2)}

  return Part((name,), read, write)


def embedding_scale() -> Part:
  """Embedded tokens are multiplied by the root of D (Gemma)."""
  return Part(
    (),
    lambda json, values: {"embedding_scale": values["emb_dim"] ** 0.5},
    lambda config: {},
  )


def no_windows() -> Part:
  """Every layer sees everything; `layer_types` may say so."""

  def read(json, values):
    kinds = json.get("layer_types") or []
    if set(kinds) - {FULL}:
      raise UserError(
        f"layer_types is {kinds}, but in this family every layer is {FULL!r}."
      )
    return {}

  return Part(("layer_types",), read, lambda config: {})


def one_window(default: int) -> Part:
  """A window of every layer, or of none (Mistral)."""
  name = "sliding_window"

  def read(json, values):
    window = json.get(name, default)
    kind = FULL if window is None else SLIDING
    kinds = json.get("layer_types") or []
    if set(kinds) - {kind}:
      raise UserError(
        f"layer_types is {kinds}, but with {name} {window} every layer of this"
        f" family is {kind!r}."
      )
    return _windows([kind] * values["num_layers"], window)

  def write(config):
    return {name: config.sliding_window}

  return Part((name, "layer_types"), read, write)


def switched_window(default: int = 4096, first: int = 28) -> Part:
  """`use_sliding_window`; without `layer_types` from `max_window_layers` on."""

  def read(json, values):
    N = values["num_layers"]
    window = json.get("sliding_window", default)
    if not json.get("use_sliding_window"):
      window = None
    kinds = json.get("layer_types")
    if kinds is None:
      start = json.get("max_window_layers", first)
      sliding = [window is not None and i >= start for i in range(N)]
      kinds = [SLIDING if on else FULL for on in sliding]
    return _windows(kinds, window, N)

  def write(config):
    kinds = _kinds(config)
    on = SLIDING in kinds
    return {
      "use_sliding_window": on,
      "sliding_window": config.sliding_window,
      "max_window_layers": kinds.index(SLIDING) if on else len(kinds),
      "layer_types": kinds,
    }

  names = ("use_sliding_window", "sliding_window", "max_window_layers")
  return Part((*names, "layer_types"), read, write)


def windows_by_pattern(period: int, default: int = 4096) -> Part:
  """`layer_types`, else every `period`-th layer is full (Gemma 2: 2, 3: 6)."""
  older = ("sliding_window_pattern", "_sliding_window_pattern")

  def read(json, values):
    N = values["num_layers"]
    window = json.get("sliding_window", default)
    kinds = json.get("layer_types")
    if kinds is None:
      every = next((json[n] for n in older if json.get(n)), period)
      kinds = [SLIDING if (i + 1) % every else FULL for i in range(N)]
    return _windows(kinds, window, N)

  def write(config):
    # A window that no layer has is not ours to know.
    window = config.sliding_window or default
    return {"sliding_window": window, "layer_types": _kinds(config)}

  return Part(("sliding_window", "layer_types", *older), read, write)


def _windows(kinds, window, count=None):
  if count is not None and len(kinds) != count:
    raise UserError(
      f"layer_types names {len(kinds)} layers, num_hidden_layers is {count}."
    )
  stray = set(kinds) - {FULL, SLIDING}
  if stray:
    raise UserError(
      f"layer_types has {', '.join(sorted(stray))}; our layers are {FULL} or"
      f" {SLIDING}."
    )
  pattern = tuple("sliding" if kind == SLIDING else "full" for kind in kinds)
  if "sliding" not in pattern:
    window = None
  elif window is None:
    raise UserError(
      f"layer_types has {SLIDING} layers, but there is no sliding_window (or"
      " use_sliding_window is off)."
    )
  return {"layer_pattern": pattern, "sliding_window": window}


def _kinds(config):
  return [SLIDING if kind == "sliding" else FULL for kind in config.kinds]


_ATTENTION = "self_attention"
_PROJECTIONS = (
  (f"{_ATTENTION}/query", "self_attn.q_proj"),
  (f"{_ATTENTION}/key", "self_attn.k_proj"),
  (f"{_ATTENTION}/value", "self_attn.v_proj"),
  (f"{_ATTENTION}/out", "self_attn.o_proj"),
  ("mlp/wi_0", "mlp.gate_proj"),
  ("mlp/wi_1", "mlp.up_proj"),
  ("mlp/wo", "mlp.down_proj"),
)


def decoder_rows(**norms: str) -> tuple[Row, ...]:
  """Llama's names for everything; a family's own for its layers' norms.

  >>> decoder_rows(pre_mlp_layer_norm="norm2")[-1].theirs
  'model.layers.{i}.norm2.weight'
  """
  ours, theirs = "decoder/layers_{i}", "model.layers.{i}"
  rows = [
    Row("decoder/token_embedder/embedding", "model.embed_tokens.weight"),
    Row("decoder/decoder_norm/scale", "model.norm.weight"),
    Row("decoder/logits_dense/kernel", "lm_head.weight", "transpose"),
  ]
  for our, their in _PROJECTIONS:
    kernel, bias = f"{ours}/{our}/kernel", f"{ours}/{our}/bias"
    rows.append(Row(kernel, f"{theirs}.{their}.weight", "transpose"))
    rows.append(Row(bias, f"{theirs}.{their}.bias"))
  for our, their in norms.items():
    rows.append(Row(f"{ours}/{our}/scale", f"{theirs}.{their}.weight"))
  # Where the embedding is the head too, some files hold it twice.
  copies = ("lm_head.weight",)
  rows[0] = dataclasses.replace(rows[0], copies=copies)
  return tuple(rows)


def qk_norm_rows() -> tuple[Row, ...]:
  return tuple(
    Row(
      f"decoder/layers_{{i}}/{_ATTENTION}/{our}_norm/scale",
      f"model.layers.{{i}}.self_attn.{their}_norm.weight",
    )
    for our, their in (("query", "q"), ("key", "k"))
  )


# Buffers in files of older programs; RoPE's config decides them.
BUFFERS = ("model.layers.{i}.self_attn.rotary_emb.inv_freq",)
NO_DROPOUT = ("attention_dropout", (0.0,))
CAUSAL = ("use_bidirectional_attention", (False, None))
