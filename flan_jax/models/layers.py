"""Layers of T5, with T5X's parameter names.

B batch, S source, T target or query, D model, H heads, K size per head, F mlp,
V vocabulary. Parameters are float32; a layer computes in its `dtype`.
"""

import functools
import math
import operator
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flan_jax.models import attention, placement
from flan_jax.models.dense import ADAPTERS, Dense, Dtype, fan_in

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": functools.partial(nn.gelu, approximate=True),  # T5X's gelu is tanh
  "linear": lambda x: x,
  "relu": nn.relu,
  "silu": nn.silu,
}


def dropout(
  x: Array,
  rate: float | Float[Array, ""],
  rng: Array | None,
  broadcast_axis: int | None = None,
) -> Array:
  """Zeroes entries with probability `rate` and scales the others up.

  Args:
    x: any shape.
    rate: in [0, 1); an array where it is known only while the program runs.
    rng: None switches dropout off.
    broadcast_axis: all positions along this axis share one draw. T5 does so
      along the length, which also makes the draw cheap.
  """
  told = isinstance(rate, jax.Array)
  if rng is None or (not told and rate == 0.0):
    return x
  shape = list(x.shape)
  if broadcast_axis is not None:
    shape[broadcast_axis] = 1
  keep = jax.random.bernoulli(rng, 1.0 - rate, shape)
  kept = (1.0 - rate).astype(x.dtype) if told else 1.0 - rate
  return x * (keep.astype(x.dtype) / kept)


class Dropout(nn.Module):
  """`dropout` on the module's "dropout" stream; identity without one.

  Without a `rate` of its own it is given one in the call, as an array.
  """

  rate: float | None
  broadcast_axis: int | None = -2

  def __call__(self, x: Array, rate: Float[Array, ""] | None = None) -> Array:
    on = (self.rate is None or self.rate > 0.0) and self.has_rng("dropout")
    rng = self.make_rng("dropout") if on else None
    rate = self.rate if rate is None else rate
    return dropout(x, rate, rng, self.broadcast_axis)


class RMSNorm(nn.Module):
  """Divides by the root mean square, without subtracting a mean.

  Zhang & Sennrich 2019, equation 4; statistics in float32.
  """

  dtype: Dtype = jnp.float32
  epsilon: float = 1e-6
  one_plus: bool = False  # multiplies by 1 + scale, in float32 (Gemma)

  @nn.compact
  def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    init = nn.initializers.zeros if self.one_plus else nn.initializers.ones
    scale_D = self.param("scale", init, x.shape[-1:])
    x = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = x * jax.lax.rsqrt(variance + self.epsilon)
    if self.one_plus:
      return (y * (1.0 + scale_D)).astype(self.dtype)
    return y.astype(self.dtype) * scale_D.astype(self.dtype)


class LayerNorm(nn.Module):
  """To mean 0 and variance 1, without parameters; statistics in float32.

  Groeneveld et al. 2024 (arXiv:2402.00838), section 2.1.
  """

  dtype: Dtype = jnp.float32
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    x = x.astype(jnp.float32)
    x -= jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(variance + self.epsilon)).astype(self.dtype)


class Kernel(nn.Module):
  """The matrix of a head, made here and multiplied by `head.Head`."""

  features: int
  vocab_size: int

  @nn.compact
  def __call__(self) -> Float[Array, "D V"]:
    init = fan_in("truncated_normal")
    return self.param("kernel", init, (self.features, self.vocab_size))


# Beside an embedding: vectors of each row's own, see `Embedding`.
PROMPT = "prompt_BPD"


class Embedding(nn.Module):
  """Token vectors by lookup.

  Beside the table there may be `prompt_BPD`, vectors of each row's own, which
  soft prompts put there (`soft_prompt.py`): id V + p is vector p of the row,
  so that a prompt is read, placed and masked as tokens are.
  """

  vocab_size: int
  features: int
  dtype: Dtype = jnp.float32
  stddev: float = 1.0

  @nn.compact
  def __call__(self, tokens: Int[Array, "*b"]) -> Float[Array, "*b D"]:
    shape = (self.vocab_size, self.features)
    init = nn.initializers.normal(self.stddev)
    embedding = self.param("embedding", init, shape)
    prompt_BPD = self.get_variable("params", PROMPT)
    return placement.lookup(embedding, tokens, self.dtype, prompt_BPD)


class Mlp(nn.Module):
  """One hidden layer; gated when there are two activations.

  ("gelu", "linear") is gelu(x wi_0) * (x wi_1) wo: GEGLU of Shazeer 2020,
  equation 5. ("relu",) has kernels wi and wo.
  """

  features: int
  activations: tuple[str, ...]
  dropout_rate: float
  dtype: Dtype = jnp.float32
  use_bias: bool = False

  @nn.compact
  def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    dense = functools.partial(Dense, dtype=self.dtype, use_bias=self.use_bias)
    wide = ("embed", "mlp")
    x_BTD = placement.enter(x_BTD)
    hidden = []
    for i, name in enumerate(self.activations):
      kernel = "wi" if len(self.activations) == 1 else f"wi_{i}"
      h_BTF = dense(self.features, axes=wide, name=kernel)(x_BTD)
      h_BTF = placement.constrain(h_BTF, "batch", None, "mlp")
      hidden.append(ACTIVATIONS[name](h_BTF))
    h_BTF = functools.reduce(operator.mul, hidden)
    h_BTF = Dropout(self.dropout_rate)(h_BTF)
    y_BTD = dense(x_BTD.shape[-1], axes=wide[::-1], name="wo")(h_BTF)
    return placement.leave(y_BTD)


def relative_bucket(
  distance: np.ndarray,
  *,
  bidirectional: bool,
  num_buckets: int = 32,
  max_distance: int = 128,
) -> np.ndarray:
  """Bucket of key position minus query position.

  >>> relative_bucket(np.array([-200, -9, -1, 0, 1]), bidirectional=True)
  array([15,  8,  1,  0, 17])

  Half of a direction's buckets are exact distances, the other half grow
  logarithmically up to `max_distance` and share the last bucket beyond. Causal
  attention has no positive distances, so it spends all buckets on one side.
  Raffel et al. 2020, section 2.1. In numpy, since positions are known when a
  program is traced and float32 logarithms round differently per device.
  """
  offset = np.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    offset = np.where(distance > 0, num_buckets, 0)
    distance = np.abs(distance)
  else:
    distance = np.maximum(-distance, 0)
  exact = num_buckets // 2
  # The small term keeps log(2**k) from landing just below its integer.
  ratio = np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact)
  far = exact + np.floor(ratio * (num_buckets - exact) + 1e-6).astype(int)
  far = np.minimum(far, num_buckets - 1)
  return offset + np.where(distance < exact, distance, far)


class RelativePositionBias(nn.Module):
  """One learnt number per head and bucket, shared by all layers of a stack.

  Array indices serve as positions: the difference of two indices within a
  packed segment is the difference of the segment's own positions, and no other
  pair is attended to.
  """

  num_heads: int
  bidirectional: bool
  num_buckets: int = 32
  max_distance: int = 128
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, query_T: Int[Array, " T"], key_S: Int[np.ndarray, " S"]
  ) -> Float[Array, "H T S"]:
    table_HN = self.param(
      "rel_embedding",
      nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
      (self.num_heads, self.num_buckets),
    )
    bucket = functools.partial(
      relative_bucket,
      bidirectional=self.bidirectional,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )
    if isinstance(query_T, np.ndarray):
      bucket_TS = bucket(key_S[None, :] - query_T[:, None])
    else:
      # While decoding, the query's index is known on the device alone.
      most = int(key_S.max())
      of_distance = jnp.asarray(bucket(np.arange(-most, most + 1)))
      bucket_TS = of_distance[key_S[None, :] - query_T[:, None] + most]
    # A product with a one-hot: its gradient is a product too, where a gather's
    # would be a scatter of T * S terms into 32 cells.
    one_hot_NTS = jnp.arange(self.num_buckets)[:, None, None] == bucket_TS
    bias_HTS = jnp.einsum(
      "hn,nts->hts",
      table_HN.astype(self.dtype),
      one_hot_NTS.astype(self.dtype),
    )
    return placement.constrain(bias_HTS, "heads", None, None)


class Attention(nn.Module):
  """Multi-head attention without 1/sqrt(K): it is folded into the query's init.

  Keys and values are made by `keys_values`, so that a decoder can cache them.
  Before them an adapter may put its own (`prefix.py`).
  Queries, keys and values are three products. One product with the three
  kernels side by side is no faster on a CPU (forward and backward of 5120
  tokens of 384 dimensions 231 ms against 209, of 4096 of 256 88 against 87),
  and on an H100 saves at most 0.1 ms of a layer's 20 (16,384 tokens of 2048).
  """

  num_heads: int
  head_dim: int
  features: int
  dropout_rate: float
  dtype: Dtype = jnp.float32

  def setup(self):
    def dense(features, init, axes=("embed", "joined_kv")):
      return Dense(features, self.dtype, init, axes=axes)

    width = self.num_heads * self.head_dim
    init = fan_in("normal")
    scale = 1.0 / math.sqrt(self.head_dim)
    self.query = dense(width, lambda *args: init(*args) * scale)
    self.key = dense(width, init)
    self.value = dense(width, init)
    self.out = dense(self.features, init, ("joined_kv", "embed"))

  def _split(self, x):
    x = x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)
    return placement.constrain(x, "batch", None, "heads", None)

  def keys_values(
    self, x_BSD: Float[Array, "B S D"]
  ) -> tuple[Float[Array, "B S H K"], Float[Array, "B S H K"]]:
    x_BSD = placement.enter(x_BSD)
    return self._split(self.key(x_BSD)), self._split(self.value(x_BSD))

  def __call__(
    self,
    x_BTD: Float[Array, "B T D"],
    key_BSHK: Float[Array, "B S H K"],
    value_BSHK: Float[Array, "B S H K"],
    mask_BTS: Bool[Array, "#B T S"],
    bias_HTS: Float[Array, "H T S"] | None = None,
    *,
    causal: bool = False,
  ) -> Float[Array, "B T D"]:
    query_BTHK = self._split(self.query(placement.enter(x_BTD)))
    if self.dropout_rate > 0.0 and self.has_rng("dropout"):
      # T5 drops a key for all queries at once, so that dropping it from the
      # weights is the same as dropping it from the values, and far cheaper.
      shape = (value_BSHK.shape[0], value_BSHK.shape[1], self.num_heads, 1)
      keep = dropout(
        jnp.ones(shape, self.dtype),
        self.dropout_rate,
        self.make_rng("dropout"),
      )
      value_BSHK = value_BSHK * keep
    prefix = self.get_variable(ADAPTERS, "adapter")
    if prefix is not None:
      key_BSHK, value_BSHK, mask_BTS, bias_HTS = prefix(
        key_BSHK, value_BSHK, mask_BTS, bias_HTS
      )
      causal = False
    out_BTHK = attention.attend(
      query_BTHK, key_BSHK, value_BSHK, mask_BTS, bias_HTS, causal=causal
    )
    out_BTW = out_BTHK.reshape(*out_BTHK.shape[:2], -1)
    return placement.leave(self.out(out_BTW))


def attention_mask(
  query_BT: Int[Array, "B T"],
  key_BS: Int[Array, "B S"],
  query_segment_BT: Int[Array, "B T"] | None = None,
  key_segment_BS: Int[Array, "B S"] | None = None,
  *,
  causal: bool = False,
) -> Bool[Array, "B T S"]:
  """Which key each query may read: no padding (0), its own segment, no future.

  >>> attention_mask(*2 * [jnp.array([[5, 7, 0]])], causal=True).astype(int)
  Array([[[1, 0, 0],
          [1, 1, 0],
          [0, 0, 0]]], dtype=int32)
  """
  mask_BTS = (query_BT[:, :, None] > 0) & (key_BS[:, None, :] > 0)
  if query_segment_BT is not None and key_segment_BS is not None:
    mask_BTS &= query_segment_BT[:, :, None] == key_segment_BS[:, None, :]
  if causal:
    T, S = query_BT.shape[1], key_BS.shape[1]
    mask_BTS &= np.arange(T)[:, None] >= np.arange(S)[None, :]
  return mask_BTS
