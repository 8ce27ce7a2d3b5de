"""T5 v1.1 and v1.0 (so also LM-adapted T5, FLAN-T5, T0) as pure functions.

The network is `t5_network.py`; here is what training, ranking and decoding
call: functions of parameters and arrays.

B batch, S source, T target, D model, V vocabulary, C choices, N layers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flan_jax.models import dense, stack
from flan_jax.models.head import Head
from flan_jax.models.stack import Params
from flan_jax.models.t5_network import T5, Batch, Cache, Encoded, T5Config

BATCH_FEATURES = (
  "encoder_input_tokens",
  "decoder_input_tokens",
  "decoder_target_tokens",
  "encoder_segment_ids",
  "decoder_segment_ids",
)


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
  """T5 as pure functions of parameters; hashable, so a static jit argument.

  >>> model = EncoderDecoder(T5Config(vocab_size=128, emb_dim=32))
  >>> params = model.init(jax.random.key(0))
  >>> params["token_embedder"]["embedding"].shape
  (128, 32)

  A batch has seqio's names: `encoder_input_tokens` [B, S],
  `decoder_input_tokens` and `decoder_target_tokens` [B, T] and, when packed,
  `encoder_segment_ids` and `decoder_segment_ids`. Positions are accepted and
  not read, since positions are relative. Other entries are ignored.
  """

  config: T5Config
  kind: ClassVar[str] = "encoder_decoder"

  @functools.cached_property
  def module(self) -> T5:
    return T5(self.config)

  def init(
    self, rng: Array, batch_shapes: Mapping[str, tuple[int, ...]] | None = None
  ) -> Params:
    """Fresh parameters, float32, named as in T5X.

    `batch_shapes` may be left out: no parameter depends on them.
    """
    del batch_shapes
    tokens_11 = jnp.ones((1, 1), jnp.int32)
    batch = {
      "encoder_input_tokens": tokens_11,
      "decoder_input_tokens": tokens_11,
      "decoder_target_tokens": tokens_11,
    }
    return jax.jit(self.module.init)({"params": rng}, batch)["params"]

  def hidden(
    self, params: Params, batch: Batch, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T D"]:
    """What the head multiplies; dropout if and only if there is a key.

    In the type of activations, or float32 where it has been rescaled (v1.0).
    """
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    tokens = {k: v for k, v in batch.items() if k in BATCH_FEATURES}
    return self._apply(params, tokens, rngs=rngs)

  def head(self, params: Params) -> Head:
    """The head's matrix: its own, or the embedding (v1.0)."""
    if self.config.logits_via_embedding:
      return Head(params["token_embedder"]["embedding"], tied=True)
    return Head(params["decoder"]["logits_dense"]["kernel"])

  def logits(
    self, params: Params, batch: Batch, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T V"]:
    """Teacher-forced logits, float32; dropout if and only if there is a key."""
    hidden_BTD = self.hidden(params, batch, dropout_rng=dropout_rng)
    return self.head(params).logits(hidden_BTD)

  def encode(self, params: Params, inputs_BS: Int[Array, "B S"]) -> Encoded:
    """The encoder alone, for `score`. Padding of the inputs is -1 or 0."""
    return self._apply(params, inputs_BS, method="encode")

  def score(
    self, params: Params, encoded: Encoded, choices_BCT: Int[Array, "B C T"]
  ) -> Float[Array, "B C T"]:
    """Log p(token | input, earlier tokens) of each choice; 0 at padding.

    The choices of an example stand in one decoder row as packed segments, so
    each reads the one encoded input and none reads another.

    Args:
      encoded: of B examples, from `encode`.
      choices_BCT: token ids with EOS, padded with -1 or 0. A choice that is
        all padding scores 0 everywhere.
    """
    B, C, T = choices_BCT.shape
    targets_BT = choices_BCT.reshape(B, C * T)
    inputs_BCT = jnp.pad(choices_BCT[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    segments_1T = jnp.repeat(jnp.arange(1, C + 1), T)[None]
    hidden_BTD = self._apply(
      params,
      encoded,
      inputs_BCT.reshape(B, C * T),
      targets_BT,
      None,
      segments_1T,
      method="decode",
    )
    log_prob_BT = self.head(params).log_prob(hidden_BTD, targets_BT)
    return jnp.where(targets_BT > 0, log_prob_BT, 0.0).reshape(B, C, T)

  def start_decoding(
    self, params: Params, inputs_BS: Int[Array, "B S"], cache_length: int
  ) -> tuple[Float[Array, "B V"], Cache]:
    """Logits of the first token after the inputs, and a cache to go on with.

    The encoder runs once and each layer's keys and values of its output are
    made once. The decoder starts from id 0, as T5X's does.

    Args:
      inputs_BS: token ids, padded on the right with -1 or 0.
      cache_length: how many new tokens the cache has room for.
    """
    encoded = self.encode(params, inputs_BS)
    hidden_BD, cache = self._apply(
      params, encoded, cache_length, method="start_decoding"
    )
    return self.head(params).logits(hidden_BD), cache

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
    hidden_BD, cache = self._apply(
      params, token_B, cache, index + 1, method="decode_step"
    )
    return self.head(params).logits(hidden_BD), cache

  def take_rows(self, cache: Cache, rows: Int[Array, " R"]) -> Cache:
    """The cache of some rows, in another order or more than once."""
    return stack.take_rows(cache, rows, scanned=self.config.scan_layers)

  def _apply(self, params, *args, **fields):
    return self.module.apply(dense.variables(params), *args, **fields)

  def model_flops(self, batch_shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Floating-point operations of one training step: 3 x forward matmuls.

    Looking up an embedding counts 0, recomputation (`remat_policy`) too, and
    attention counts every pair of positions, masked or not.

    >>> shapes = {
    ...   "encoder_input_tokens": (16, 256),
    ...   "decoder_input_tokens": (16, 64),
    ... }
    >>> benchmark = T5Config(
    ...   vocab_size=32128, emb_dim=256, num_heads=8, head_dim=32,
    ...   num_encoder_layers=4, num_decoder_layers=4, mlp_dim=1024)
    >>> round(EncoderDecoder(benchmark).model_flops(shapes) / 1e9, 1)
    212.4
    """
    c = self.config
    B, S = batch_shapes["encoder_input_tokens"]
    _, T = batch_shapes["decoder_input_tokens"]
    width = c.num_heads * c.head_dim
    project = 2 * c.emb_dim * width  # one of query, key, value, out; per token
    mlp = 2 * c.emb_dim * c.mlp_dim * (len(c.mlp_activations) + 1)
    pairs = 4 * width  # scores and weighted sum, per pair of positions
    encoder = S * (4 * project + mlp) + S * S * pairs
    decoder = (
      T * (6 * project + mlp) + 2 * S * project + (T * T + T * S) * pairs
    )
    head = T * 2 * c.emb_dim * c.vocab_size
    forward = c.num_encoder_layers * encoder + c.num_decoder_layers * decoder
    return 3.0 * B * (forward + head)
