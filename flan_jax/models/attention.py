"""Dot-product attention: masks, grouped queries, T5's additive position bias.

B batch, S source (keys), T target (queries), H heads, G kv-heads, K size per
head.

Vaswani et al. 2017, section 3.2.1; grouped queries of Ainslie et al. 2023
(arXiv:2305.13245). As in Dao et al. 2022 (arXiv:2205.14135) the backward pass
makes the weights again from queries and keys, so that no [B, H, T, S] array is
kept from the forward pass. Where they can, a GPU does it all in cuDNN's kernel
(`fits_cudnn`) and a TPU in splash attention (`fits_splash`).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flan_jax.models import placement

MASKED = -1e10  # finite: a row with no key at all averages over every key

# Numbers that a CPU's cache holds (4 MB). Batches with more weights than that
# go through attention one example after another on a CPU, which XLA's batched
# products make 1.7 times as fast for [16, 8, 256, 256] weights (forward and
# backward) and 1.4 times for [16, 8, 64, 256]. Other devices and small batches
# take all at once.
CPU_CACHE = 2**20


def attend(
  query_BTHK: Float[Array, "B T H K"],
  key_BSGK: Float[Array, "B S G K"],
  value_BSGK: Float[Array, "B S G K"],
  mask_BTS: Bool[Array, "#B T S"],
  bias_HTS: Float[Array, "H T S"] | None = None,
  softcap: float | None = None,
  *,
  causal: bool = False,
  segments_BT: Int[Array, "B T"] | None = None,
  window: int | None = None,
) -> Float[Array, "B T H K"]:
  """softmax(query key + bias, masked) value, without 1/sqrt(K).

  Two equally likely keys; the third is masked:

  >>> query, key = jnp.ones((1, 1, 1, 2)), jnp.ones((1, 3, 1, 2))
  >>> value = jnp.array([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])[None, :, None]
  >>> attend(query, key, value, jnp.array([[[True, True, False]]]))
  Array([[[[2., 1.]]]], dtype=float32)

  The softmax is in float32 whatever the type of the queries. Differentiable
  once, in reverse. With a `softcap` c, products of query and key enter as
  c tanh(product / c) (Gemma Team 2024, arXiv:2408.00118, section 2).

  Args:
    query_BTHK: heads h R, ..., h R + R - 1 read key and value h, of which
      there are G = H / R.
    key_BSGK, value_BSGK: keys and values.
    mask_BTS: which keys each query reads.
    bias_HTS: added to the products, before the mask.
    softcap: c above.
    causal: says of the mask that no query t reads a key s > t, which spares a
      kernel half of the work. It masks nothing itself.
    segments_BT: says that the mask is this and no more: keys of the query's
      segment, not later than it, and with a `window` less than so many tokens
      before it. A TPU's kernel takes that instead of the mask.
  """
  if segments_BT is not None and bias_HTS is None:
    x = query_BTHK, key_BSGK, value_BSGK, segments_BT
    if fits_splash(query_BTHK, key_BSGK):
      return _attend_splash(*x, window=window, softcap=softcap)
  if fits_cudnn(query_BTHK, key_BSGK, softcap):
    x = query_BTHK, key_BSGK, value_BSGK, mask_BTS, bias_HTS
    return _attend_cudnn(*x, causal=causal)
  B, T, H, K = query_BTHK.shape
  G = key_BSGK.shape[2]
  R = H // G
  query_BRTGK = query_BTHK
  if R > 1:
    # Queries that share a key stand one below the other as queries of one
    # head, so that no key or value is repeated in memory.
    query_BRTGK = query_BTHK.reshape(B, T, G, R, K)
    query_BRTGK = jnp.moveaxis(query_BRTGK, 3, 1).reshape(B, R * T, G, K)
    mask_BTS = jnp.tile(mask_BTS, (1, R, 1))
    if bias_HTS is not None:
      bias_HTS = bias_HTS.reshape(G, R * T, -1)
  # Heads before positions: each head is then a plain product of two matrices.
  query, key, value = (
    jnp.swapaxes(x, 1, 2) for x in (query_BRTGK, key_BSGK, value_BSGK)
  )
  mask_bias = jnp.where(mask_BTS, 0.0, MASKED).astype(jnp.float32)
  mask_bias = jnp.broadcast_to(mask_bias, (B, *mask_BTS.shape[1:]))
  out = _attend(query, key, value, mask_bias, bias_HTS, softcap)
  out_BTHK = jnp.swapaxes(out, 1, 2)
  if R > 1:
    out_BTHK = jnp.moveaxis(out_BTHK.reshape(B, R, T, G, K), 1, 3)
  return out_BTHK.reshape(B, T, H, K)


def fits_cudnn(query_BTHK, key_BSGK, softcap: float | None = None) -> bool:
  """Whether cuDNN takes these arrays, where the program will run.

  It wants 16-bit numbers, heads of at most 128 in steps of 8, and even
  lengths; it has no soft cap. One query, as in decoding, gains nothing by it.
  On an H100, forward and backward in bfloat16: T5-XL's encoder of [16, 1024]
  tokens takes 5.6 ms a layer instead of 14.2, a Llama layer of 32 heads, 8
  kv-heads and [8, 2048] tokens 2.9 ms instead of 17.2.
  """
  (_, T, _, K), S = query_BTHK.shape, key_BSGK.shape[1]
  return (
    placement.platform() == "gpu"
    and query_BTHK.dtype in (jnp.bfloat16, jnp.float16)
    and softcap is None
    and K % 8 == 0
    and K <= 128
    and T > 1
    and T % 2 == 0
    and S % 2 == 0
  )


def fits_splash(query_BTHK, key_BSGK) -> bool:
  """Whether splash attention takes these arrays, where the program will run.

  It wants lengths in steps of 128, and of a mesh that splits heads that it
  divides the kv-heads too.
  """
  if placement.platform() != "tpu":
    return False
  from flan_jax.models import attention_tpu  # Pallas takes a second to import

  return attention_tpu.fits(query_BTHK, key_BSGK) and (
    key_BSGK.shape[2] % placement.share("heads") == 0
  )


def _attend_splash(
  query_BTHK, key_BTGK, value_BTGK, segments_BT, *, window, softcap
):
  from flan_jax.models import attention_tpu

  def attend(*x):
    return attention_tpu.attend(*x, window=window, softcap=softcap)

  # A kernel is a program of one device; the partitioner cannot split it.
  heads = ("batch", None, "heads", None)
  on_each = placement.per_device(
    attend, (heads, heads, heads, ("batch", None)), heads
  )
  return on_each(query_BTHK, key_BTGK, value_BTGK, segments_BT)


def _attend_cudnn(
  query_BTHK, key_BSGK, value_BSGK, mask_BTS, bias_HTS, *, causal
):
  mask = jnp.broadcast_to(mask_BTS, (query_BTHK.shape[0], *mask_BTS.shape[1:]))[
    :, None
  ]
  bias = None
  if bias_HTS is not None:
    # The kernel takes one array to add; bias and mask become it.
    masked = jnp.asarray(MASKED, query_BTHK.dtype)
    bias = jnp.where(mask, bias_HTS.astype(query_BTHK.dtype)[None], masked)
    mask = None
  return jax.nn.dot_product_attention(
    query_BTHK,
    key_BSGK,
    value_BSGK,
    bias,
    mask,
    scale=1.0,
    is_causal=causal and mask_BTS.shape[1] == mask_BTS.shape[2],
    implementation="cudnn",
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query_BHTK, key_BHSK, value_BHSK, mask_BTS, bias_HTS, softcap):
  x = (query_BHTK, key_BHSK, value_BHSK, mask_BTS, bias_HTS)
  return _attend_fwd(*x, softcap)[0]


def _attend_fwd(query_BHTK, key_BHSK, value_BHSK, mask_BTS, bias_HTS, softcap):
  def example(none, x):
    query, key, value, mask = x
    exp_HTS, sum_HT1, _ = _exp_scores(query, key, mask, bias_HTS, softcap)
    out = jnp.einsum("hts,hsk->htk", exp_HTS.astype(value.dtype), value)
    return none, (out / sum_HT1).astype(value.dtype)

  by_head = map(_by_head, (query_BHTK, key_BHSK, value_BHSK))
  x = (*by_head, mask_BTS)
  _, out_BHTK = _each_example(example, None, x)
  return out_BHTK, (*x, bias_HTS, out_BHTK)


def _attend_bwd(softcap, residuals, gradient_BHTK):
  *x, bias_HTS, out_BHTK = residuals
  out_BHTK, gradient_BHTK = map(_by_head, (out_BHTK, gradient_BHTK))

  def example(bias_gradient, x):
    query, key, value, mask, out, gradient = x
    exp_HTS, sum_HT1, slope_HTS = _exp_scores(
      query, key, mask, bias_HTS, softcap
    )
    weights = exp_HTS / sum_HT1
    # d weights, then through the softmax: w * (dw - sum(w dw)); the sum over
    # keys is also the sum over K of out * gradient.
    d_weights = _scores(gradient, value)
    inner_HT1 = jnp.sum(
      (out * gradient).astype(jnp.float32), axis=-1, keepdims=True
    )
    d_scores = weights * (d_weights - inner_HT1)
    if bias_gradient is not None:
      bias_gradient += d_scores
    if slope_HTS is not None:
      d_scores *= slope_HTS
    d_scores = d_scores.astype(query.dtype)
    d_query = jnp.einsum("hts,hsk->htk", d_scores, key)
    # Turning the small factor spares XLA's CPU backend from turning the
    # weights, which took longer than the product: 19 ms against 8.
    turn = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    weights = weights.astype(value.dtype)
    d_key = turn(jnp.einsum("hkt,hts->hks", turn(query), d_scores))
    d_value = turn(jnp.einsum("hkt,hts->hks", turn(gradient), weights))
    return bias_gradient, (d_query, d_key, d_value)

  zero = None if bias_HTS is None else jnp.zeros(bias_HTS.shape, jnp.float32)
  bias_gradient, gradients = _each_example(
    example, zero, (*x, out_BHTK, gradient_BHTK)
  )
  if bias_gradient is not None:
    bias_gradient = bias_gradient.astype(bias_HTS.dtype)
  return (*map(_by_head, gradients), None, bias_gradient)


_attend.defvjp(_attend_fwd, _attend_bwd)


def _by_head(x_BHTK):
  return placement.constrain(x_BHTK, "batch", "heads", None, None)


def _scores(query_HTK, key_HSK):
  return jnp.einsum(
    "htk,hsk->hts", query_HTK, key_HSK, preferred_element_type=jnp.float32
  )


def _exp_scores(query_HTK, key_HSK, mask_TS, bias_HTS, softcap):
  """exp(scores - largest), its sum over keys, and the softcap's slope."""
  scores_HTS, slope_HTS = _scores(query_HTK, key_HSK), None
  if softcap is not None:
    tanh_HTS = jnp.tanh(scores_HTS / softcap)
    scores_HTS, slope_HTS = softcap * tanh_HTS, 1.0 - jnp.square(tanh_HTS)
  if bias_HTS is not None:
    scores_HTS += bias_HTS.astype(jnp.float32)
  scores_HTS += mask_TS[None]
  exp_HTS = jnp.exp(scores_HTS - jnp.max(scores_HTS, axis=-1, keepdims=True))
  return exp_HTS, jnp.sum(exp_HTS, axis=-1, keepdims=True), slope_HTS


def _each_example(example, zero, x):
  """`example(total, x) -> total, y` over the batch, totals added up."""

  def in_turn(zero, x):
    return jax.lax.scan(example, zero, x)

  def at_once(zero, x):
    totals, y = jax.vmap(example, in_axes=(None, 0))(zero, x)
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), totals), y

  (B, H, T, _), S = x[0].shape, x[1].shape[2]
  if B * H * T * S < CPU_CACHE:
    return at_once(zero, x)
  return jax.lax.platform_dependent(zero, x, cpu=in_turn, default=at_once)
