"""T5's network: its sizes and its two stacks, as T5X computes them.

Raffel et al. 2020 (arXiv:1910.10683) section 2.1; v1.1 has the gated GELU of
Shazeer 2020 (arXiv:2002.05202) and a head of its own. Parameter names and
numbers agree with T5X.

B batch, S source, T target, D model, H heads, K size per head, F mlp,
V vocabulary, C choices, N layers.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from flan_jax.errors import UserError, check_known
from flan_jax.models import layers, placement, stack

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes and options of one T5. The names are T5X's.

  Attributes:
    vocab_size: rows of the embedding; at least the vocabulary's size.
      Published checkpoints pad 32,100 to 32,128.
    emb_dim, num_heads, head_dim, mlp_dim: D, H, K and F.
    num_encoder_layers, num_decoder_layers: N on either side.
    mlp_activations: ("gelu", "linear") for v1.1, ("relu",) for v1.0.
    logits_via_embedding: True for v1.0: the embedding is the head too, and
      logits are divided by sqrt(D).
    dropout_rate: everywhere T5 drops; only while training.
    dtype: of activations. Parameters, logits, attention's softmax and norms'
      statistics are float32 whatever it is.
    scan_layers: one compiled layer, parameters stacked on a first axis N (see
      `stack_layers`). Compiles faster; the numbers are the same.
    remat_policy: what the backward pass recomputes. "none" keeps everything,
      "minimal" keeps projections, "full" keeps the input of each layer.

  Raises:
    UserError: an unknown activation or remat policy, a size below 1, a rate
      outside [0, 1).
  """

  vocab_size: int
  emb_dim: int = 512
  num_heads: int = 6
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  head_dim: int = 64
  mlp_dim: int = 1024
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = False
  dropout_rate: float = 0.1
  dtype: str = "float32"
  scan_layers: bool = False
  remat_policy: str = "none"

  def __post_init__(self):
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and value < 1:
        raise UserError(
          f"T5Config.{field.name} is {value}; it must be 1 or more."
        )
    for name in self.mlp_activations:
      check_known("T5Config.mlp_activations", name, layers.ACTIVATIONS)
    for name, known in (
      ("remat_policy", stack.REMAT_POLICIES),
      ("dtype", ("float32", "bfloat16")),
    ):
      check_known(f"T5Config.{name}", getattr(self, name), known)
    if not 0.0 <= self.dropout_rate < 1.0:
      raise UserError(
        f"T5Config.dropout_rate is {self.dropout_rate}; it must be in [0, 1)."
      )


class LayerCache(NamedTuple):
  """Keys and values of one decoder layer while it decodes."""

  self_key_BTHK: Array
  self_value_BTHK: Array
  cross_key_BSHK: Array
  cross_value_BSHK: Array


class Cache(NamedTuple):
  """What `decode_step` reads and writes: a list of layers, or stacked."""

  layers: list[LayerCache] | LayerCache
  mask_BS: Bool[Array, "B S"]


class Encoded(NamedTuple):
  """The encoder's output and which of its positions hold tokens."""

  hidden_BSD: Float[Array, "B S D"]
  mask_BS: Bool[Array, "B S"]


def _attention(config: T5Config, name: str) -> layers.Attention:
  return layers.Attention(
    num_heads=config.num_heads,
    head_dim=config.head_dim,
    features=config.emb_dim,
    dropout_rate=config.dropout_rate,
    dtype=config.dtype,
    name=name,
  )


def _mlp(config: T5Config) -> layers.Mlp:
  return layers.Mlp(
    config.mlp_dim,
    config.mlp_activations,
    config.dropout_rate,
    config.dtype,
    name="mlp",
  )


class EncoderLayer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  config: T5Config

  @nn.compact
  def __call__(self, x_BSD, _, mask_BSS, bias_HSS):
    x_BSD = placement.constrain(x_BSD, "batch", "length", None)
    drop = layers.Dropout(self.config.dropout_rate)
    norm = functools.partial(layers.RMSNorm, self.config.dtype)
    attend = _attention(self.config, "attention")
    y_BSD = norm(name="pre_attention_layer_norm")(x_BSD)
    keys_values = attend.keys_values(y_BSD)
    x_BSD += drop(attend(y_BSD, *keys_values, mask_BSS, bias_HSS))
    y_BSD = norm(name="pre_mlp_layer_norm")(x_BSD)
    x_BSD += drop(_mlp(self.config)(y_BSD))
    return x_BSD, None


class DecoderLayer(nn.Module):
  """Self-attention, attention to the encoder, mlp; each as x + f(norm(x)).

  With `cache_length`, the keys and values go into a new cache of that length.
  With a cache, the one token in `x_B1D` is written at `index` and reads it.
  """

  config: T5Config
  cache_length: int = 0

  @nn.compact
  def __call__(
    self, x_BTD, cache, encoded_BSD, self_mask, cross_mask, bias_HTS, index
  ):
    x_BTD = placement.constrain(x_BTD, "batch", "length", None)
    drop = layers.Dropout(self.config.dropout_rate)
    norm = functools.partial(layers.RMSNorm, self.config.dtype)
    self_attend = _attention(self.config, "self_attention")
    cross_attend = _attention(self.config, "encoder_decoder_attention")

    y_BTD = norm(name="pre_self_attention_layer_norm")(x_BTD)
    key, value = self_attend.keys_values(y_BTD)
    if cache is None:
      cross_key, cross_value = cross_attend.keys_values(encoded_BSD)
    else:
      write = functools.partial(
        jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=1
      )
      key = write(cache.self_key_BTHK, key)
      value = write(cache.self_value_BTHK, value)
      _, _, cross_key, cross_value = cache
      cache = LayerCache(key, value, cross_key, cross_value)
    y_BTD = self_attend(y_BTD, key, value, self_mask, bias_HTS, causal=True)
    x_BTD += drop(y_BTD)

    y_BTD = norm(name="pre_cross_attention_layer_norm")(x_BTD)
    x_BTD += drop(cross_attend(y_BTD, cross_key, cross_value, cross_mask))

    y_BTD = norm(name="pre_mlp_layer_norm")(x_BTD)
    x_BTD += drop(_mlp(self.config)(y_BTD))
    if self.cache_length:
      more = self.cache_length - key.shape[1]
      pad = functools.partial(
        jnp.pad, pad_width=((0, 0), (0, more), (0, 0), (0, 0))
      )
      cache = LayerCache(pad(key), pad(value), cross_key, cross_value)
    return x_BTD, cache


def _relative_bias(config: T5Config, bidirectional: bool):
  return layers.RelativePositionBias(
    config.num_heads,
    bidirectional=bidirectional,
    dtype=config.dtype,
    name="relpos_bias",
  )


class Encoder(nn.Module):
  """The encoder's stack on embedded tokens."""

  config: T5Config

  @nn.compact
  def __call__(self, x_BSD, mask_BSS):
    c, S = self.config, x_BSD.shape[1]
    x_BSD = layers.Dropout(c.dropout_rate)(x_BSD)
    index_S = np.arange(S)
    bias_HSS = _relative_bias(c, bidirectional=True)(index_S, index_S)
    x_BSD, _ = stack.run_layers(
      EncoderLayer, c, c.num_encoder_layers, x_BSD, None, mask_BSS, bias_HSS
    )
    x_BSD = layers.RMSNorm(c.dtype, name="encoder_norm")(x_BSD)
    # The one place where T5X drops each position on its own.
    return layers.Dropout(c.dropout_rate, broadcast_axis=None)(x_BSD)


class Decoder(nn.Module):
  """The decoder's stack on embedded tokens: what the head multiplies."""

  config: T5Config

  @nn.compact
  def __call__(
    self,
    x_BTD,
    encoded_BSD,
    self_mask,
    cross_mask,
    *,
    caches=None,
    cache_length: int = 0,
    index=None,
  ):
    c, T = self.config, x_BTD.shape[1]
    x_BTD = layers.Dropout(c.dropout_rate)(x_BTD)
    index_S = np.arange(self_mask.shape[-1])
    index_T = np.arange(T) if index is None else jnp.asarray(index)[None]
    bias_HTS = _relative_bias(c, bidirectional=False)(index_T, index_S)
    x_BTD, caches = stack.run_layers(
      DecoderLayer,
      c,
      c.num_decoder_layers,
      x_BTD,
      caches,
      encoded_BSD,
      self_mask,
      cross_mask,
      bias_HTS,
      index,
      fields=[{"cache_length": cache_length}] * c.num_decoder_layers,
    )
    x_BTD = layers.RMSNorm(c.dtype, name="decoder_norm")(x_BTD)
    x_BTD = layers.Dropout(c.dropout_rate)(x_BTD)
    if c.logits_via_embedding:
      return x_BTD.astype(jnp.float32) / math.sqrt(c.emb_dim), caches
    layers.Kernel(c.emb_dim, c.vocab_size, name="logits_dense")()
    return x_BTD, caches


class T5(nn.Module):
  """The network; `EncoderDecoder` is the interface others use."""

  config: T5Config

  def setup(self):
    c = self.config
    self.token_embedder = layers.Embedding(c.vocab_size, c.emb_dim, c.dtype)
    self.encoder = Encoder(c)
    self.decoder = Decoder(c)

  def encode(self, tokens_BS, segment_ids_BS=None) -> Encoded:
    mask_BSS = layers.attention_mask(
      tokens_BS, tokens_BS, segment_ids_BS, segment_ids_BS
    )
    # Padding may be -1 too, which is no row of the embedding.
    x_BSD = self.token_embedder(jnp.maximum(tokens_BS, 0))
    return Encoded(self.encoder(x_BSD, mask_BSS), tokens_BS > 0)

  def decode(
    self,
    encoded: Encoded,
    input_tokens_BT,
    target_tokens_BT,
    encoder_segment_ids_BS=None,
    decoder_segment_ids_BT=None,
  ) -> Float[Array, "B T D"]:
    """What the head multiplies. Targets are read for their padding alone."""
    self_mask = layers.attention_mask(
      target_tokens_BT,
      target_tokens_BT,
      decoder_segment_ids_BT,
      decoder_segment_ids_BT,
      causal=True,
    )
    cross_mask = layers.attention_mask(
      target_tokens_BT,
      encoded.mask_BS,
      decoder_segment_ids_BT,
      encoder_segment_ids_BS,
    )
    x_BTD = self.token_embedder(jnp.maximum(input_tokens_BT, 0))
    x_BTD, _ = self.decoder(x_BTD, encoded.hidden_BSD, self_mask, cross_mask)
    return x_BTD

  def start_decoding(self, encoded: Encoded, cache_length: int, before_BP=None):
    """Hidden states after id 0, and a cache with room for more tokens.

    `before_BP` are tokens that the decoder reads before id 0.
    """
    B = encoded.mask_BS.shape[0]
    tokens_BT = jnp.zeros((B, 1), jnp.int32)
    if before_BP is not None:
      tokens_BT = jnp.concatenate([before_BP, tokens_BT], axis=1)
    T = tokens_BT.shape[1]
    x_BTD, caches = self.decoder(
      self.token_embedder(tokens_BT),
      encoded.hidden_BSD,
      jnp.tril(jnp.ones((1, T, T), bool)),
      jnp.repeat(encoded.mask_BS[:, None], T, axis=1),
      cache_length=T + cache_length,
    )
    return x_BTD[:, -1], Cache(caches, encoded.mask_BS)

  def decode_step(self, token_B, cache: Cache, index):
    """Hidden states after the token at position `index`; the cache with it."""
    caches = cache.layers
    first = caches if self.config.scan_layers else caches[0]
    length = first.self_key_BTHK.shape[-3]
    x_B1D, caches = self.decoder(
      self.token_embedder(token_B[:, None]),
      None,
      (jnp.arange(length) <= index)[None, None],
      cache.mask_BS[:, None],
      caches=caches,
      index=index,
    )
    return x_B1D[:, 0], cache._replace(layers=caches)

  def __call__(self, batch: Batch) -> Float[Array, "B T D"]:
    encoded = self.encode(
      batch["encoder_input_tokens"], batch.get("encoder_segment_ids")
    )
    return self.decode(
      encoded,
      batch["decoder_input_tokens"],
      batch["decoder_target_tokens"],
      batch.get("encoder_segment_ids"),
      batch.get("decoder_segment_ids"),
    )
