"""The decoder-only network: one stack of layers, driven by `DecoderConfig`.

Vaswani et al. 2017 without the encoder, with what later families changed:
RMSNorm (Zhang & Sennrich 2019), gated mlps (Shazeer 2020), RoPE (Su et al.
2021), grouped queries (Ainslie et al. 2023, arXiv:2305.13245), sliding windows
(Jiang et al. 2023, arXiv:2310.06825), norms of queries and keys, soft caps.

B batch, S keys, T target, D model, H heads, G kv-heads, K size per head,
F mlp, V vocabulary, N layers.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flan_jax.models import attention, dense, layers, placement, rope, stack
from flan_jax.models.decoder_config import DecoderConfig


class LayerCache(NamedTuple):
  """Keys (turned by RoPE) and values of one layer."""

  key_BGSK: Array
  value_BGSK: Array


class View(NamedTuple):
  """Where tokens stand and what each of them sees.

  Attributes:
    mask_BTS: the keys that each query may read, without regard to windows.
    query_T, key_S: indices whose differences are distances, the same for all
      rows.
    positions_BT: of each query in its own text, for RoPE.
    length_BT: tokens of that text, for scalings that depend on it.
    causal: whether the mask lets no query t read a key s > t.
    segments_BT: if the mask is just that within segments, their numbers.
  """

  mask_BTS: Bool[Array, "#B T S"]
  query_T: Int[Array, " T"]
  key_S: Int[Array, " S"]
  positions_BT: Int[Array, "#B T"]
  length_BT: Int[Array, "#B T"]
  causal: bool = False
  segments_BT: Int[Array, "B T"] | None = None


class Kind(NamedTuple):
  """What all layers of a kind share: their mask and RoPE's cos and sin."""

  mask_BTS: Bool[Array, "#B T S"]
  segments_BT: Int[Array, "B T"] | None
  cos_BTk: Float[Array, "#B T K/2"] | None
  sin_BTk: Float[Array, "#B T K/2"] | None


def kind_of(config: DecoderConfig, name: str, view: View) -> Kind:
  """The mask and rotation of "full" or "sliding" layers."""
  c, mask_BTS = config, view.mask_BTS
  theta, scaling = c.rope_theta, c.rope_scaling
  if name == "sliding":
    distance_TS = view.query_T[:, None] - view.key_S[None, :]
    mask_BTS = mask_BTS & (abs(distance_TS) < c.sliding_window)
    if c.rope_theta_sliding is not None:
      theta, scaling = c.rope_theta_sliding, None
  if c.position == "relative":
    return Kind(mask_BTS, view.segments_BT, None, None)
  return Kind(
    mask_BTS,
    view.segments_BT,
    *rope.angles(view.positions_BT, c.head_dim, theta, scaling, view.length_BT),
  )


def _norm(config: DecoderConfig, name: str) -> nn.Module:
  if config.norm == "layer":
    return layers.LayerNorm(config.dtype, config.norm_epsilon, name=name)
  one_plus = config.norm == "rms_one_plus"
  return layers.RMSNorm(config.dtype, config.norm_epsilon, one_plus, name=name)


class SelfAttention(nn.Module):
  """Attention of T tokens to themselves and to what a cache holds.

  Before these an adapter may put keys and values of its own (`prefix.py`).
  """

  config: DecoderConfig
  causal: bool = False
  layer: str = "full"

  @nn.compact
  def __call__(self, x_BTD, cache, kind: Kind, bias_HTS, index):
    c = self.config
    x_BTD = placement.enter(x_BTD)
    query = self._heads("query", c.num_heads, x_BTD)
    key = self._heads("key", c.num_kv_heads, x_BTD)
    value = self._heads("value", c.num_kv_heads, x_BTD)
    if kind.cos_BTk is not None:
      query = rope.rotate(query, kind.cos_BTk, kind.sin_BTk)
      key = rope.rotate(key, kind.cos_BTk, kind.sin_BTk)
    own = LayerCache(jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))
    cache = _extended(cache, own, index)
    scale = c.query_scale or 1.0 / math.sqrt(c.head_dim)
    value_BGSK = cache.value_BGSK
    if c.dropout_rate > 0.0 and self.has_rng("dropout"):
      # As T5: a key is dropped for all queries of a row at once.
      keep = layers.dropout(
        jnp.ones((*value_BGSK.shape[:3], 1), value_BGSK.dtype),
        c.dropout_rate,
        self.make_rng("dropout"),
      )
      value_BGSK = value_BGSK * keep
    read = (
      jnp.swapaxes(cache.key_BGSK, 1, 2),
      jnp.swapaxes(value_BGSK, 1, 2),
      kind.mask_BTS,
      bias_HTS,
    )
    prefix = self.get_variable(dense.ADAPTERS, "adapter")
    # Of a layer that is told its kind while it runs no window is known.
    plain = prefix is None and self.layer != "either"
    out_BTHK = attention.attend(
      query * jnp.asarray(scale, query.dtype),
      *(read if prefix is None else prefix(*read)),
      c.attention_softcap,
      causal=self.causal and prefix is None,
      segments_BT=kind.segments_BT if plain else None,
      window=c.sliding_window if self.layer == "sliding" else None,
    )
    out_BTW = out_BTHK.reshape(*out_BTHK.shape[:2], -1)
    out = layers.Dense(
      c.emb_dim,
      c.dtype,
      layers.fan_in("normal"),
      c.out_bias,
      ("joined_kv", "embed"),
      name="out",
    )
    return placement.leave(out(out_BTW)), cache

  def _heads(self, name, count, x_BTD):
    """One projection, cut, normed and split into heads."""
    c = self.config
    init = layers.fan_in("normal")
    # A model that does not scale its products has it in the first queries.
    scale = 1.0
    if name == "query" and c.query_scale is not None:
      scale = 1.0 / (math.sqrt(c.head_dim) * c.query_scale)
    project = layers.Dense(
      count * c.head_dim,
      c.dtype,
      lambda *args: init(*args) * scale,
      c.qkv_bias,
      ("embed", "joined_kv"),
      name=name,
    )
    y_BTW = project(x_BTD)
    if c.clip_qkv is not None:
      y_BTW = jnp.clip(y_BTW, -c.clip_qkv, c.clip_qkv)
    normed = c.qk_norm if name != "value" else "none"
    if normed == "width":
      y_BTW = _norm(c, f"{name}_norm")(y_BTW)
    y_BTHK = y_BTW.reshape(*y_BTW.shape[:-1], count, c.head_dim)
    y_BTHK = placement.constrain(y_BTHK, "batch", None, "heads", None)
    if normed == "head":
      y_BTHK = _norm(c, f"{name}_norm")(y_BTHK)
    return y_BTHK


def _extended(cache, own: LayerCache, index) -> LayerCache:
  """A cache and further keys: behind it, or written into it at `index`."""
  if cache is None:
    return own
  if index is None:
    return jax.tree.map(
      lambda old, new: jnp.concatenate([old, new], axis=2), cache, own
    )
  write = functools.partial(
    jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=2
  )
  return jax.tree.map(write, cache, own)


class Layer(nn.Module):
  """x + attention, then x + mlp, each normed before, after or both.

  Called with a cache of earlier keys and values, or None; whether it is a
  sliding layer, which only a scanned stack of both kinds needs to be told; and
  its rate of residual dropout, likewise where layers of such a stack differ.

  Attributes:
    kind: "full" or "sliding"; "either" in a scanned stack of both.
    residual_dropout: the layer's rate, of `DecoderConfig.residual_rates`; None
      where it is told.
    room: None keeps no keys and values; a number keeps them and adds room for
      so many more.
    causal: as of `View`.
  """

  config: DecoderConfig
  kind: str = "full"
  residual_dropout: float | None = 0.0
  room: int | None = None
  causal: bool = False

  @nn.compact
  def __call__(self, x_BTD, own, kinds, bias_HTS, index):
    c = self.config
    x_BTD = placement.constrain(x_BTD, "batch", "length", None)
    cache, sliding, rate = own
    if self.kind == "either":
      kind = jax.tree.map(
        functools.partial(jnp.where, sliding), kinds["sliding"], kinds["full"]
      )
    else:
      kind = kinds[self.kind]
    # T5 drops a dimension along a whole row, GPT each entry on its own.
    shared = -2 if c.residual_dropout is None else None
    drop = layers.Dropout(self.residual_dropout, shared)

    def normed(name, on, x):
      return _norm(c, name)(x) if on else x

    y_BTD = normed("pre_self_attention_layer_norm", c.pre_norm, x_BTD)
    attend = SelfAttention(c, self.causal, self.kind, name="self_attention")
    y_BTD, cache = attend(y_BTD, cache, kind, bias_HTS, index)
    y_BTD = normed("post_self_attention_layer_norm", c.post_norm, y_BTD)
    x_BTD += drop(y_BTD, rate)

    y_BTD = normed("pre_mlp_layer_norm", c.pre_norm, x_BTD)
    mlp = layers.Mlp(
      c.mlp_dim,
      c.mlp_activations,
      c.dropout_rate,
      c.dtype,
      c.mlp_bias,
      name="mlp",
    )
    y_BTD = normed("post_mlp_layer_norm", c.post_norm, mlp(y_BTD))
    x_BTD += drop(y_BTD, rate)

    if self.room is None:
      return x_BTD, None
    more = ((0, 0), (0, 0), (0, self.room), (0, 0))
    return x_BTD, jax.tree.map(lambda x: jnp.pad(x, more), cache)


class Stack(nn.Module):
  """Embedding, layers and last norm: from tokens to what the head multiplies.

  Attributes:
    room: as of `Layer`.
  """

  config: DecoderConfig

  @nn.compact
  def __call__(self, tokens_BT, view: View, caches=None, index=None, room=None):
    """Hidden states and the layers' caches (see `room` of `Layer`).

    Args:
      tokens_BT: none below 0.
      caches: of earlier tokens: one per layer, or stacked when scanned.
      index: where in the caches the tokens go; None: behind them.
    """
    c = self.config
    # Hidden states begin with variance about 1, and so do logits.
    stddev = 1.0 / c.embedding_scale
    if c.logits_via_embedding:
      stddev = 1.0 / (math.sqrt(c.emb_dim) * c.logits_scale)
    embed = layers.Embedding(
      c.vocab_size, c.emb_dim, c.dtype, stddev, name="token_embedder"
    )
    x_BTD = embed(tokens_BT)
    if c.embedding_scale != 1.0:
      x_BTD *= jnp.asarray(c.embedding_scale, x_BTD.dtype)
    x_BTD = layers.Dropout(c.dropout_rate)(x_BTD)
    bias_HTS = None
    if c.position == "relative":
      relative = layers.RelativePositionBias(
        c.num_heads, bidirectional=False, dtype=c.dtype, name="relpos_bias"
      )
      bias_HTS = relative(view.query_T, view.key_S)
    kinds = {name: kind_of(c, name, view) for name in sorted(set(c.kinds))}
    each, fields = self._each_layer(caches, room, view.causal)
    x_BTD, caches = stack.run_layers(
      Layer,
      c,
      c.num_layers,
      x_BTD,
      each,
      kinds,
      bias_HTS,
      index,
      fields=fields,
    )
    x_BTD = _norm(c, "decoder_norm")(x_BTD)
    x_BTD = layers.Dropout(c.dropout_rate)(x_BTD)
    if not c.logits_via_embedding:
      layers.Kernel(c.emb_dim, c.vocab_size, name="logits_dense")()
    if c.logits_scale != 1.0:
      x_BTD = x_BTD.astype(jnp.float32) * c.logits_scale
    return x_BTD, caches

  def _each_layer(self, caches, room, causal):
    """Inputs of their own and fields of the layers, for `run_layers`."""
    kinds, rates = self.config.kinds, self.config.residual_rates
    common = {"room": room, "causal": causal}
    if not self.config.scan_layers:
      fields = [
        {"kind": kind, "residual_dropout": rate, **common}
        for kind, rate in zip(kinds, rates, strict=True)
      ]
      caches = [None] * len(kinds) if caches is None else caches
      return [(cache, None, None) for cache in caches], fields
    # What layers differ in, the one layer of a scanned stack is told.
    field = {"kind": kinds[0], "residual_dropout": rates[0], **common}
    sliding_N = rate_N = None
    if len(set(kinds)) > 1:
      field["kind"] = "either"
      sliding_N = jnp.array([kind == "sliding" for kind in kinds])
    if len(set(rates)) > 1:
      field["residual_dropout"] = None
      rate_N = jnp.array(rates, jnp.float32)
    return (caches, sliding_N, rate_N), [field]


class Decoder(nn.Module):
  """The network under T5X's scope `decoder`."""

  config: DecoderConfig

  def setup(self):
    self.decoder = Stack(self.config)

  def __call__(self, *args, **kwargs):
    return self.decoder(*args, **kwargs)
