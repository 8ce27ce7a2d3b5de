"""Decoding with a cache of keys and values.

B batch, S source, T target, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from flan_jax.models import t5


def greedy(
  model: t5.EncoderDecoder,
  params: t5.Params,
  encoder_input_tokens_BS: Int[Array, "B S"],
  *,
  max_decode_len: int,
  eos_id: int = 1,
) -> Int[Array, "B T"]:
  """The likeliest token at each step, until every row has ended.

  >>> decode = jax.jit(greedy, static_argnames=("model", "max_decode_len"))
  >>> tokens_BT = decode(model, params, inputs_BS, max_decode_len=8)
  ... # doctest: +SKIP

  The encoder runs once and each layer's keys and values of its output are made
  once. The decoder starts from id 0.

  Args:
    encoder_input_tokens_BS: ids, padded with 0.
    max_decode_len: T in tokens, EOS included.
    eos_id: ends a row.

  Returns:
    ids with EOS, zeros after it. A row that has not ended has no EOS.
  """
  B = encoder_input_tokens_BS.shape[0]
  encoded = model.encode(params, encoder_input_tokens_BS)
  variables = {"params": params}

  def write(tokens_BT, ended_B, logits_BV, index):
    token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    token_B = jnp.where(ended_B, 0, token_B)
    tokens_BT = jax.lax.dynamic_update_slice(
      tokens_BT, token_B[:, None], (0, index)
    )
    return tokens_BT, ended_B | (token_B == eos_id)

  def unfinished(state):
    index, _, ended_B, _ = state
    return (index < max_decode_len) & ~jnp.all(ended_B)

  def step(state):
    index, tokens_BT, ended_B, caches = state
    token_B1 = jax.lax.dynamic_slice_in_dim(tokens_BT, index - 1, 1, axis=1)
    logits_BV, caches = model.module.apply(
      variables, encoded, token_B1, caches, index, method="decode_step"
    )
    tokens_BT, ended_B = write(tokens_BT, ended_B, logits_BV, index)
    return index + 1, tokens_BT, ended_B, caches

  logits_BV, caches = model.module.apply(
    variables,
    encoded,
    jnp.zeros((B, 1), jnp.int32),
    max_decode_len,
    method="start_decoding",
  )
  tokens_BT, ended_B = write(
    jnp.zeros((B, max_decode_len), jnp.int32),
    jnp.zeros((B,), bool),
    logits_BV,
    0,
  )
  state = (jnp.int32(1), tokens_BT, ended_B, caches)
  return jax.lax.while_loop(unfinished, step, state)[1]
