"""Beam search with a length penalty, as T5X does it.

The best `beam_size` unfinished hypotheses are followed. Those that end leave
them and compete by log p / ((5 + length) / 6)^alpha (Wu et al. 2016,
arXiv:1609.08144, section 7). A row's search is over when no hypothesis that
goes on can become better than the worst of `beam_size` ended ones.

B batch, K beams, L beams before a step (1 at the start, then K), N candidates,
T target, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flan_jax.models.decoding_config import LENGTH_PENALTY, DecodeConfig
from flan_jax.models.sampling import is_end


class State(NamedTuple):
  """Where the search stands; `advance` goes on from it.

  Attributes:
    index: tokens that each live hypothesis has.
    live_tokens_BKT: of the hypotheses that go on; -1 where there is none yet.
    live_log_prob_BK: highest first.
    ended_tokens_BKT: of the best ones that ended, end id included.
    ended_score_BK: highest first; -inf where no hypothesis is.
    idle_B: rows of padding alone.
    finite_B: whether all logits were.
    cache: of the model, for B K rows.
  """

  index: Int[Array, ""]
  live_tokens_BKT: Int[Array, "B K T"]
  live_log_prob_BK: Float[Array, "B K"]
  ended_tokens_BKT: Int[Array, "B K T"]
  ended_score_BK: Float[Array, "B K"]
  idle_B: Bool[Array, " B"]
  finite_B: Bool[Array, " B"]
  cache: Any


def penalty(
  length: Int[Array, "*b"] | int, config: DecodeConfig
) -> Float[Array, "*b"]:
  """What a log-probability of `length` tokens is divided by.

  >>> penalty(7, DecodeConfig("beam", beam_size=2, length_penalty=1.0)).item()
  2.0
  """
  alpha = config.length_penalty
  alpha = LENGTH_PENALTY if alpha is None else alpha
  return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def start(
  model: Any, params: Any, inputs_BS: Int[Array, "B S"], config: DecodeConfig
) -> State:
  """Reads the inputs and makes the first hypotheses."""
  B, K, T = inputs_BS.shape[0], config.beam_size, config.max_decode_len
  logits_BV, cache = model.start_decoding(params, inputs_BS, T)
  state = State(
    index=jnp.int32(0),
    live_tokens_BKT=jnp.full((B, 1, T), -1, jnp.int32),
    live_log_prob_BK=jnp.zeros((B, 1)),
    ended_tokens_BKT=jnp.full((B, K, T), -1, jnp.int32),
    ended_score_BK=jnp.full((B, K), -jnp.inf),
    idle_B=jnp.all(inputs_BS < 0, axis=1),
    finite_B=jnp.ones(B, bool),
    cache=None,
  )
  state, rows_R = _extend(state, logits_BV[:, None], config)
  return state._replace(cache=model.take_rows(cache, rows_R))


def advance(
  model: Any, params: Any, state: State, until: Int[Array, ""], config
) -> State:
  """Goes on until hypotheses have `until` tokens or every search is over."""
  longest = penalty(config.max_decode_len, config)

  def unfinished(state):
    reachable_B = state.live_log_prob_BK[:, 0] / longest
    over_B = state.idle_B | (state.ended_score_BK[:, -1] > reachable_B)
    return (state.index < until) & ~jnp.all(over_B)

  def step(state):
    B, K, _ = state.live_tokens_BKT.shape
    token_BK = jax.lax.dynamic_index_in_dim(
      state.live_tokens_BKT, state.index - 1, axis=2, keepdims=False
    )
    logits_RV, cache = model.decode_step(
      params, token_BK.reshape(B * K), state.cache, state.index - 1
    )
    logits_BKV = logits_RV.reshape(B, K, -1)
    state, rows_R = _extend(state, logits_BKV, config)
    return state._replace(cache=model.take_rows(cache, rows_R))

  return jax.lax.while_loop(unfinished, step, state)


def best(
  state: State, count: int
) -> tuple[Int[Array, "B C T"], Float[Array, "B C"]]:
  """The `count` best hypotheses of each row, the best one first.

  Ended ones come first. Where they are too few, unfinished ones follow, with
  their log-probability as it is, as T5X returns them.
  """
  K = state.ended_score_BK.shape[1]
  ended_B1 = jnp.sum(state.ended_score_BK > -jnp.inf, axis=1, keepdims=True)
  slot_1K = jnp.arange(K)[None]
  from_BK = jnp.where(slot_1K < ended_B1, slot_1K, K + slot_1K - ended_B1)
  from_BC = from_BK[:, :count]
  scores_BN = jnp.concatenate(
    [state.ended_score_BK, state.live_log_prob_BK], axis=1
  )
  tokens_BNT = jnp.concatenate(
    [state.ended_tokens_BKT, state.live_tokens_BKT], axis=1
  )
  return (
    jnp.take_along_axis(tokens_BNT, from_BC[..., None], axis=1),
    jnp.take_along_axis(scores_BN, from_BC, axis=1),
  )


def _extend(state: State, logits_BLV, config: DecodeConfig):
  """Hypotheses with a token more, and which row of the cache each is from."""
  B, L, V = logits_BLV.shape
  K = config.beam_size
  logits_BLV = logits_BLV.astype(jnp.float32)
  norm_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
  log_prob_BLV = logits_BLV + (state.live_log_prob_BK - norm_BL)[..., None]
  # So many that K go on even if every end id of every beam is among them.
  count = K * (1 + len(config.end_ids))
  log_prob_BN, place_BN = jax.lax.top_k(log_prob_BLV.reshape(B, L * V), count)
  parent_BN, token_BN = place_BN // V, place_BN % V
  tokens_BNT = jax.lax.dynamic_update_slice(
    jnp.take_along_axis(state.live_tokens_BKT, parent_BN[..., None], axis=1),
    token_BN[..., None],
    (0, 0, state.index),
  )
  ends_BN = is_end(token_BN, config.end_ids)

  live_log_prob_BK, kept_BK = jax.lax.top_k(
    jnp.where(ends_BN, -jnp.inf, log_prob_BN), K
  )
  parent_BK = jnp.take_along_axis(parent_BN, kept_BK, axis=1)
  score_BN = jnp.where(
    ends_BN, log_prob_BN / penalty(state.index + 1, config), -jnp.inf
  )
  ended_score_BK, best_BK = jax.lax.top_k(
    jnp.concatenate([state.ended_score_BK, score_BN], axis=1), K
  )
  ended_BNT = jnp.concatenate([state.ended_tokens_BKT, tokens_BNT], axis=1)
  state = State(
    index=state.index + 1,
    live_tokens_BKT=jnp.take_along_axis(tokens_BNT, kept_BK[..., None], axis=1),
    live_log_prob_BK=live_log_prob_BK,
    ended_tokens_BKT=jnp.take_along_axis(ended_BNT, best_BK[..., None], axis=1),
    ended_score_BK=ended_score_BK,
    idle_B=state.idle_B,
    finite_B=state.finite_B & jnp.all(jnp.isfinite(norm_BL), axis=1),
    cache=state.cache,
  )
  rows_BK = jnp.arange(B)[:, None] * L + parent_BK
  return state, rows_BK.reshape(B * K)
