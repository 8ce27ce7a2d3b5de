"""Dot-product attention with T5's additive position bias.

B batch, S source (keys), T target (queries), H heads, K size per head.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MASKED = -1e10  # finite: a row with no key at all averages over every key


def attend(
  query_BTHK: Float[Array, "B T H K"],
  key_BSHK: Float[Array, "B S H K"],
  value_BSHK: Float[Array, "B S H K"],
  mask_BTS: Bool[Array, "#B T S"],
  bias_HTS: Float[Array, "H T S"] | None = None,
  *,
  float32_logits: bool = False,
) -> Float[Array, "B T H K"]:
  """softmax(query key + bias, masked) value, without 1/sqrt(K)."""
  if float32_logits:
    query_BTHK = query_BTHK.astype(jnp.float32)
    key_BSHK = key_BSHK.astype(jnp.float32)
  logits_BHTS = jnp.einsum("bthk,bshk->bhts", query_BTHK, key_BSHK)
  if bias_HTS is not None:
    logits_BHTS += bias_HTS.astype(logits_BHTS.dtype)
  mask_bias = jnp.where(mask_BTS, 0.0, MASKED).astype(logits_BHTS.dtype)
  logits_BHTS += mask_bias[:, None]
  weights_BHTS = jax.nn.softmax(logits_BHTS).astype(value_BSHK.dtype)
  return jnp.einsum("bhts,bshk->bthk", weights_BHTS, value_BSHK)
