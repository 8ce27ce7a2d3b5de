"""Decoder-only models as pure functions of parameters and arrays.

The network is `decoder_network.py`, its options `decoder_config.py`; here is
what training, ranking and decoding call.

B batch, S source, T target, D model, V vocabulary, C choices, N layers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flan_jax.errors import UserError
from flan_jax.models import dense, stack
from flan_jax.models.decoder_config import DecoderConfig
from flan_jax.models.decoder_network import Decoder, LayerCache, View
from flan_jax.models.head import Head
from flan_jax.models.rope import RopeScaling
from flan_jax.models.stack import Params

__all__ = ["Cache", "DecoderConfig", "DecoderOnly", "Prefix", "RopeScaling"]

Batch = Mapping[str, Array]


class Cache(NamedTuple):
  """Keys and values of inputs and new tokens; a list of layers, or stacked.

  Rows end at the same index: `valid_BS` says where each row's inputs begin.
  """

  layers: list[LayerCache] | LayerCache
  valid_BS: Bool[Array, "B S"]


class Prefix(NamedTuple):
  """The inputs, run once: their cache, and what the head reads after them."""

  layers: list[LayerCache] | LayerCache
  valid_BS: Bool[Array, "B S"]
  hidden_BD: Float[Array, "B D"]


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
  """A decoder-only model; hashable, so a static jit argument.

  >>> model = DecoderOnly(DecoderConfig(vocab_size=128, emb_dim=32))
  >>> params = model.init(jax.random.key(0))
  >>> params["decoder"]["token_embedder"]["embedding"].shape
  (128, 32)

  A batch has seqio's names, all [B, T]: `decoder_input_tokens`, and when
  packed or padded `decoder_segment_ids` (1, 2, ... and 0 for padding) and
  `decoder_positions` (from 0 in each segment; made from the segments where
  absent). Padding is never told by an id, since id 0 may be a token. With
  `prefix_lm` also `decoder_causal_attention`, 1 on the positions of inputs.
  Other entries are ignored.

  With a RoPE scaling that depends on the length, a batch's rotations are those
  of each text's whole length, and a cache's those of the length when a token
  was written. The two are equal up to `original_max_position`, and beyond it
  for "longrope" if the inputs are longer already.
  """

  config: DecoderConfig
  kind: ClassVar[str] = "decoder_only"

  @functools.cached_property
  def module(self) -> Decoder:
    return Decoder(self.config)

  def init(
    self, rng: Array, batch_shapes: Mapping[str, tuple[int, ...]] | None = None
  ) -> Params:
    """Fresh parameters, float32, named as in T5X.

    `batch_shapes` may be left out: no parameter depends on them.
    """
    del batch_shapes
    ones_11 = jnp.ones((1, 1), jnp.int32)
    batch = {
      "decoder_input_tokens": ones_11 - 1,
      "decoder_causal_attention": ones_11,
    }

    @jax.jit
    def init(rng):
      return self.module.init({"params": rng}, *self._training_view(batch))

    return init(rng)["params"]

  def hidden(
    self, params: Params, batch: Batch, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T D"]:
    """What the head multiplies; dropout if and only if there is a key.

    In the type of activations, or float32 where `logits_scale` is set.

    Raises:
      UserError: a prefix LM whose batch does not say which positions are
        inputs.
    """
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    return self._apply(params, *self._training_view(batch), rngs=rngs)[0]

  def head(self, params: Params) -> Head:
    """The head's matrix: its own, or the embedding."""
    softcap, part = self.config.logits_softcap, params["decoder"]
    if self.config.logits_via_embedding:
      return Head(part["token_embedder"]["embedding"], True, softcap)
    return Head(part["logits_dense"]["kernel"], False, softcap)

  def logits(
    self, params: Params, batch: Batch, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T V"]:
    """Logits of each next token, float32; dropout iff there is a key."""
    hidden_BTD = self.hidden(params, batch, dropout_rng=dropout_rng)
    return self.head(params).logits(hidden_BTD)

  def encode(self, params: Params, inputs_BS: Int[Array, "B S"]) -> Prefix:
    """The inputs alone, for `score`.

    Args:
      inputs_BS: token ids, the begin id first where a model has one; padded on
        the right with -1.
    """
    return self._prefix(params, inputs_BS, 0)

  def score(
    self, params: Params, prefix: Prefix, choices_BCT: Int[Array, "B C T"]
  ) -> Float[Array, "B C T"]:
    """Log p(token | input, earlier tokens) of each choice; 0 at padding.

    The choices of an example stand side by side behind the one run over its
    inputs; each reads the inputs and itself.

    Args:
      prefix: of B examples, from `encode`.
      choices_BCT: token ids with EOS, padded with -1. A choice that is all
        padding scores 0 everywhere.
    """
    B, C, T = choices_BCT.shape
    D = prefix.hidden_BD.shape[-1]
    first_BC1D = jnp.broadcast_to(prefix.hidden_BD[:, None, None], (B, C, 1, D))
    hidden_BCTD = first_BC1D
    if T > 1:
      tokens = jnp.maximum(choices_BCT[:, :, :-1], 0).reshape(B, -1)
      view = self._choices_view(prefix.valid_BS, C, T - 1)
      hidden, _ = self._apply(params, tokens, view, prefix.layers)
      hidden_BCTD = jnp.concatenate(
        [first_BC1D, hidden.reshape(B, C, T - 1, D)], axis=2
      )
    log_prob_BT = self.head(params).log_prob(
      hidden_BCTD.reshape(B, C * T, D), choices_BCT.reshape(B, C * T)
    )
    return jnp.where(choices_BCT >= 0, log_prob_BT.reshape(B, C, T), 0.0)

  def start_decoding(
    self, params: Params, inputs_BS: Int[Array, "B S"], cache_length: int
  ) -> tuple[Float[Array, "B V"], Cache]:
    """Logits of the first token after the inputs, and a cache to go on with.

    Args:
      inputs_BS: as of `encode`. Rows may differ in length.
      cache_length: how many new tokens the cache has room for.
    """
    prefix = self._prefix(params, inputs_BS, cache_length)
    logits_BV = self.head(params).logits(prefix.hidden_BD)
    return logits_BV, Cache(prefix.layers, prefix.valid_BS)

  def decode_step(
    self,
    params: Params,
    token_B: Int[Array, " B"],
    cache: Cache,
    index: Int[Array, ""] | int,
  ) -> tuple[Float[Array, "B V"], Cache]:
    """Logits after one more token of each row, and the cache with it.

    Args:
      index: how many new tokens the cache holds: 0 at the first call.
    """
    S = cache.valid_BS.shape[1]
    first = cache.layers if self.config.scan_layers else cache.layers[0]
    key_S = np.arange(first.key_BGSK.shape[-2])
    query_1 = jnp.asarray(index + S)[None]
    # New tokens of all rows stand at the same indices, inputs end at S.
    room = len(key_S) - S
    valid_BS = jnp.pad(
      cache.valid_BS, ((0, 0), (0, room)), constant_values=True
    )
    position_B1 = jnp.sum(cache.valid_BS, axis=1, keepdims=True) + index
    view = View(
      mask_BTS=valid_BS[:, None] & (key_S <= query_1[:, None]),
      query_T=query_1,
      key_S=key_S,
      positions_BT=position_B1,
      length_BT=position_B1 + 1,
    )
    hidden_B1D, layers = self._apply(
      params, token_B[:, None], view, cache.layers, index + S, room=0
    )
    logits_BV = self.head(params).logits(hidden_B1D[:, 0])
    return logits_BV, cache._replace(layers=layers)

  def take_rows(
    self, cache: Cache | Prefix, rows: Int[Array, " R"]
  ) -> Cache | Prefix:
    """The cache of some rows, in another order or more than once."""
    return stack.take_rows(cache, rows, scanned=self.config.scan_layers)

  def model_flops(self, batch_shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Floating-point operations of one training step: 3 x forward matmuls.

    Looking up an embedding counts 0, recomputation (`remat_policy`) too, and
    attention counts every pair of positions, masked or not.

    >>> llama = DecoderConfig(
    ...   vocab_size=32_000, emb_dim=384, num_heads=6, num_layers=6,
    ...   mlp_dim=1024, logits_via_embedding=True)
    >>> shapes = {"decoder_input_tokens": (16, 320)}
    >>> round(DecoderOnly(llama).model_flops(shapes) / 1e9, 1)
    748.9
    """
    c = self.config
    B, T = batch_shapes["decoder_input_tokens"]
    width = c.num_heads * c.head_dim
    kv_width = c.num_kv_heads * c.head_dim
    layer = 2 * c.emb_dim * (2 * width + 2 * kv_width)
    layer += 2 * c.emb_dim * c.mlp_dim * (len(c.mlp_activations) + 1)
    layer += 4 * T * width  # scores and weighted sum
    head = 2 * c.emb_dim * c.vocab_size
    return 3.0 * B * T * (c.num_layers * layer + head)

  def _apply(self, params, *args, **fields):
    return self.module.apply(dense.variables(params), *args, **fields)

  def _training_view(self, batch):
    """Tokens and view of a batch; padding, which nothing sees, is id 0."""
    tokens_BT = batch["decoder_input_tokens"]
    segments_BT = batch.get("decoder_segment_ids")
    index_T = np.arange(tokens_BT.shape[1])
    mask_BTS = (index_T[:, None] >= index_T)[None]
    if self.config.prefix_lm:
      inputs_BT = batch.get("decoder_causal_attention")
      if inputs_BT is None:
        raise UserError(
          "DecoderConfig.prefix_lm is True, but the batch has no"
          " 'decoder_causal_attention' to say which positions are inputs."
          " Add it, or set prefix_lm to False."
        )
      inputs_BT = inputs_BT > 0
      mask_BTS = mask_BTS | (inputs_BT[:, :, None] & inputs_BT[:, None, :])
    positions_BT = batch.get("decoder_positions")
    length_BT = jnp.full((1, 1), tokens_BT.shape[1])
    if segments_BT is not None:
      tokens_BT = jnp.where(segments_BT > 0, tokens_BT, 0)
      same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
      mask_BTS = mask_BTS & same_BTS
      if positions_BT is None:
        positions_BT = _positions(segments_BT)
      length_BT = jnp.max(
        jnp.where(same_BTS, positions_BT[:, None] + 1, 0), axis=-1
      )
    if positions_BT is None:
      positions_BT = index_T[None]
    causal = not self.config.prefix_lm
    if not causal:
      segments_BT = None
    elif segments_BT is None:
      segments_BT = jnp.zeros(tokens_BT.shape, jnp.int32)
    view = View(
      mask_BTS, index_T, index_T, positions_BT, length_BT, causal, segments_BT
    )
    return tokens_BT, view

  def _prefix(self, params, inputs_BS, room):
    """Runs inputs moved to the right, so that all rows end at one index."""
    S = inputs_BS.shape[1]
    length_B1 = jnp.sum(inputs_BS >= 0, axis=1, keepdims=True)
    index_S = np.arange(S)
    positions_BS = index_S + length_B1 - S
    valid_BS = positions_BS >= 0
    positions_BS = jnp.maximum(positions_BS, 0)
    tokens_BS = jnp.take_along_axis(inputs_BS, positions_BS, axis=1)
    mask_BSS = jnp.repeat(valid_BS[:, None], S, axis=1)
    causal = not self.config.prefix_lm
    if causal:
      mask_BSS = mask_BSS & (index_S[:, None] >= index_S)
    view = View(mask_BSS, index_S, index_S, positions_BS, length_B1, causal)
    hidden_BSD, layers = self._apply(
      params, jnp.where(valid_BS, tokens_BS, 0), view, room=room
    )
    return Prefix(layers, valid_BS, hidden_BSD[:, -1])

  def _choices_view(self, valid_BS, C, T):
    """C choices of T tokens side by side behind the inputs of each row."""
    S = valid_BS.shape[1]
    index_T = np.tile(np.arange(T), C)
    choice_T = np.repeat(np.arange(C), T)
    own_TT = choice_T[:, None] == choice_T
    own_TT &= index_T[:, None] >= index_T
    mask_BTS = jnp.concatenate(
      [
        jnp.broadcast_to(valid_BS[:, None], (len(valid_BS), C * T, S)),
        jnp.broadcast_to(own_TT, (len(valid_BS), C * T, C * T)),
      ],
      axis=-1,
    )
    positions_BT = jnp.sum(valid_BS, axis=1, keepdims=True) + index_T
    key_S = np.concatenate([np.arange(S), S + index_T])
    return View(mask_BTS, S + index_T, key_S, positions_BT, positions_BT + 1)


def _positions(segments_BT):
  """From 0 in each segment, for batches that do not say."""
  index_T = jnp.arange(segments_BT.shape[1])
  new_BT = jnp.diff(segments_BT, axis=1, prepend=segments_BT[:, :1]) != 0
  starts_BT = jax.lax.cummax(jnp.where(new_BT, index_T, 0), axis=1)
  return index_T - starts_BT
