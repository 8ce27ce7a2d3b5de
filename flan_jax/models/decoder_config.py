"""Sizes and options of a decoder-only model, one dataclass for all families.

Llama 2/3, SmolLM2, Mistral, Qwen2/2.5, Qwen3, Gemma 2, Gemma 3 (text), OLMo,
OLMo 2 and T5X's decoder-only example, which is also the shape of LaMDA.
"""

import dataclasses

from flan_jax.errors import UserError, check_known
from flan_jax.models import layers, stack
from flan_jax.models.rope import RopeScaling

NORMS = ("rms", "rms_one_plus", "layer")
QK_NORMS = ("none", "head", "width")
POSITIONS = ("rope", "relative")
LAYER_KINDS = ("full", "sliding")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and options of one decoder-only model; the names are T5X's.

  >>> DecoderConfig(vocab_size=128, num_heads=8, num_kv_heads=2).kinds
  ('full', 'full', 'full', 'full', 'full', 'full', 'full', 'full')

  Attributes:
    vocab_size: rows of the embedding; at least the vocabulary's size.
    emb_dim, num_heads, num_layers, head_dim, mlp_dim: D, H, N, K and F.
    num_kv_heads: G, heads of keys and values; divides H. None: H.
    mlp_activations: ("silu", "linear") for SwiGLU, ("gelu", "linear") for
      GEGLU with the tanh form.
    norm: "rms"; "rms_one_plus", which multiplies by 1 + scale (Gemma); or
      "layer", LayerNorm without parameters (OLMo).
    norm_epsilon: of every norm.
    pre_norm, post_norm: whether a block's input is normed, and its output
      before it is added (Gemma both, OLMo 2 only the output).
    qk_norm: norm of queries and keys: "none", per "head" (Qwen3, Gemma 3), or
      over the "width" of all heads (OLMo 2).
    qkv_bias, out_bias, mlp_bias: which projections have a bias.
    clip_qkv: queries, keys and values are cut to this size (OLMo).
    position: "rope", or "relative" with T5's buckets.
    rope_theta: the base of RoPE.
    rope_theta_sliding: base of the sliding layers, which then are not scaled
      (Gemma 3); None: as the others.
    rope_scaling: to longer contexts; see `RopeScaling`.
    sliding_window: tokens that a sliding layer sees, its own included.
    layer_pattern: "full" or "sliding", repeated over the layers.
    query_scale: of the products of queries and keys; None: 1 / sqrt(K). 1.0
      for T5X, which folds it into the query's initialisation.
    attention_softcap, logits_softcap: c in c tanh(x / c) (Gemma 2).
    embedding_scale: of embedded tokens; sqrt(D) for Gemma.
    logits_via_embedding: the embedding is the head too.
    logits_scale: of the head's input; 1 / sqrt(D) for T5X's tied head.
    prefix_lm: positions of the inputs see each other, later ones too.
    dropout_rate: where T5 drops; only while training.
    residual_dropout: instead of that, the rate at which each entry of what a
      block adds to the residual stream is dropped (InstructGPT 0.2); or the
      rates of the first and the last layer, (0.0, 0.3), between which it rises
      linearly (LIMA: Zhou et al. 2023, arXiv:2305.11206, section 3). None:
      `dropout_rate` there too.
    dtype: of activations. Parameters, logits, attention's softmax and norms'
      statistics are float32 whatever it is.
    scan_layers: one compiled layer, parameters stacked on a first axis N (see
      `stack.stack_layers`). Compiles faster; the numbers are the same.
    remat_policy: what the backward pass recomputes. "none" keeps everything,
      "minimal" keeps projections, "full" keeps the input of each layer.

  Raises:
    UserError: an unknown name, a size below 1, sizes that do not divide, or an
      option without effect.
  """

  vocab_size: int
  emb_dim: int = 512
  num_heads: int = 8
  num_kv_heads: int | None = None
  num_layers: int = 8
  head_dim: int = 64
  mlp_dim: int = 1408
  mlp_activations: tuple[str, ...] = ("silu", "linear")
  norm: str = "rms"
  norm_epsilon: float = 1e-6
  pre_norm: bool = True
  post_norm: bool = False
  qk_norm: str = "none"
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  clip_qkv: float | None = None
  position: str = "rope"
  rope_theta: float = 10_000.0
  rope_theta_sliding: float | None = None
  rope_scaling: RopeScaling | None = None
  sliding_window: int | None = None
  layer_pattern: tuple[str, ...] = ("full",)
  query_scale: float | None = None
  attention_softcap: float | None = None
  logits_softcap: float | None = None
  embedding_scale: float = 1.0
  logits_via_embedding: bool = False
  logits_scale: float = 1.0
  prefix_lm: bool = False
  dropout_rate: float = 0.0
  residual_dropout: float | tuple[float, float] | None = None
  dtype: str = "float32"
  scan_layers: bool = False
  remat_policy: str = "none"

  def __post_init__(self):
    for name in ("mlp_activations", "layer_pattern"):
      object.__setattr__(self, name, tuple(getattr(self, name)))
    if self.num_kv_heads is None:
      object.__setattr__(self, "num_kv_heads", self.num_heads)
    for name in ("vocab_size", "emb_dim", "num_heads", "num_kv_heads"):
      self._at_least_one(name)
    for name in ("num_layers", "head_dim", "mlp_dim"):
      self._at_least_one(name)
    for name in self.mlp_activations:
      check_known("DecoderConfig.mlp_activations", name, layers.ACTIVATIONS)
    for name in self.layer_pattern:
      check_known("DecoderConfig.layer_pattern", name, LAYER_KINDS)
    for name, known in (
      ("norm", NORMS),
      ("qk_norm", QK_NORMS),
      ("position", POSITIONS),
      ("remat_policy", stack.REMAT_POLICIES),
      ("dtype", ("float32", "bfloat16")),
    ):
      check_known(f"DecoderConfig.{name}", getattr(self, name), known)
    self._check_numbers()
    self._check_residual_dropout()
    self._check_positions()
    self._check_window()

  @property
  def kinds(self) -> tuple[str, ...]:
    """The kind of each layer."""
    pattern = self.layer_pattern
    return tuple(pattern[i % len(pattern)] for i in range(self.num_layers))

  @property
  def residual_rates(self) -> tuple[float, ...]:
    """The rate of each layer's residual dropout.

    >>> config = DecoderConfig(vocab_size=128, num_layers=4,
    ...                        residual_dropout=(0.0, 0.3))
    >>> [round(rate, 2) for rate in config.residual_rates]
    [0.0, 0.1, 0.2, 0.3]
    """
    given = self.residual_dropout
    if not isinstance(given, tuple):
      rate = self.dropout_rate if given is None else given
      return (rate,) * self.num_layers
    first, last = given
    step = (last - first) / (self.num_layers - 1)
    return tuple(first + step * i for i in range(self.num_layers))

  def _at_least_one(self, name):
    if getattr(self, name) < 1:
      raise UserError(
        f"DecoderConfig.{name} is {getattr(self, name)}; it must be 1 or more."
      )

  def _check_numbers(self):
    if self.num_heads % self.num_kv_heads:
      raise UserError(
        f"DecoderConfig.num_kv_heads is {self.num_kv_heads}, which does not"
        f" divide num_heads, {self.num_heads}."
      )
    for name in ("mlp_activations", "layer_pattern"):
      if not getattr(self, name):
        raise UserError(f"DecoderConfig.{name} is empty; name at least one.")
    for name in ("clip_qkv", "query_scale", "rope_theta_sliding"):
      self._positive(name)
    for name in ("attention_softcap", "logits_softcap", "sliding_window"):
      self._positive(name)
    for name in ("norm_epsilon", "rope_theta", "embedding_scale"):
      self._positive(name)
    self._positive("logits_scale")
    if not 0.0 <= self.dropout_rate < 1.0:
      raise UserError(
        f"DecoderConfig.dropout_rate is {self.dropout_rate}; it must be in"
        " [0, 1)."
      )
    if not (self.pre_norm or self.post_norm):
      raise UserError(
        "DecoderConfig.pre_norm and post_norm are both False; a layer needs"
        " one of the two."
      )

  def _check_residual_dropout(self):
    given = self.residual_dropout
    if given is None:
      return
    if isinstance(given, list):
      given = tuple(given)
      object.__setattr__(self, "residual_dropout", given)
    rates = given if isinstance(given, tuple) else (given,)
    numbers = all(isinstance(r, int | float) for r in rates)
    if isinstance(given, tuple) and len(rates) != 2:
      why = "give one rate, or two: of the first and of the last layer"
    elif not numbers or not all(0.0 <= rate < 1.0 for rate in rates):
      why = "rates are numbers in [0, 1)"
    elif isinstance(given, tuple) and rates[0] == rates[1]:
      why = f"its rates are equal; write {rates[0]}"
    elif isinstance(given, tuple) and self.num_layers == 1:
      why = "between two rates there are at least two layers; give one rate"
    elif given == 0.0 == self.dropout_rate:
      why = "it has no effect, since dropout_rate is 0 too; leave it out"
    else:
      return
    raise UserError(f"DecoderConfig.residual_dropout is {given}: {why}.")

  def _positive(self, name):
    value = getattr(self, name)
    if value is not None and value <= 0:
      raise UserError(
        f"DecoderConfig.{name} is {value}; it must be above 0"
        f"{'' if name in ALWAYS else ', or None for none'}."
      )

  def _check_positions(self):
    if self.position == "rope":
      if self.head_dim % 2:
        raise UserError(
          f"DecoderConfig.head_dim is {self.head_dim}; position 'rope' turns"
          " pairs of dimensions, so it must be even."
        )
      self._check_factors()
      return
    default = {"rope_theta": 10_000.0}
    for name in ("rope_theta", "rope_theta_sliding", "rope_scaling"):
      if getattr(self, name) != default.get(name):
        raise UserError(
          f"DecoderConfig.{name} is {getattr(self, name)}, but position"
          " 'relative' does not read it. Leave it out, or set position to"
          " 'rope'."
        )

  def _check_factors(self):
    scaling = self.rope_scaling
    if scaling is None or scaling.kind != "longrope":
      return
    for name in ("short_factor", "long_factor"):
      count = len(getattr(scaling, name))
      if count != self.head_dim // 2:
        raise UserError(
          f"RopeScaling.{name} has {count} numbers; a head of"
          f" {self.head_dim} dimensions needs {self.head_dim // 2}."
        )

  def _check_window(self):
    sliding = "sliding" in self.kinds
    if sliding and self.sliding_window is None:
      raise UserError(
        "DecoderConfig.layer_pattern has 'sliding' layers, but sliding_window"
        " is None; set it to the number of tokens they see."
      )
    for name in ("sliding_window", "rope_theta_sliding"):
      if not sliding and getattr(self, name) is not None:
        raise UserError(
          f"DecoderConfig.{name} is {getattr(self, name)}, but layer_pattern"
          f" {self.layer_pattern} over num_layers {self.num_layers} has no"
          " 'sliding' layer that reads it. Leave it out, or name such layers in"
          " layer_pattern."
        )


# Numbers that cannot be left out by None.
ALWAYS = ("norm_epsilon", "rope_theta", "embedding_scale", "logits_scale")
