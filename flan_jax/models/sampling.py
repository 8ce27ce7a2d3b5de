"""Greedy decoding and sampling, a token for every row at each step.

Which tokens a row gets depends on its own input, key and the parameters, never
on the rows beside it.

B batch, K answers per input, R = B K rows, T target, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from flan_jax.models import rule_adapter
from flan_jax.models.decoding_config import DecodeConfig


class State(NamedTuple):
  """Where decoding stands; `advance` goes on from it.

  Attributes:
    index: tokens that each row has.
    tokens_RT: -1 where there is none (yet).
    log_probs_RT: of the tokens, as the model gives them; None: not asked for.
    ended_R: rows that need no more tokens.
    finite_R: whether the logits of all of a row's tokens were finite.
    keys_R: of the rows' draws; None: greedy.
    cache: of the model, with every token but the last one.
    said_RV: which tokens were said, for `rule_adapter.Rules`; None: nothing
      asks for it.
  """

  index: Int[Array, ""]
  tokens_RT: Int[Array, "R T"]
  log_probs_RT: Float[Array, "R T"] | None
  ended_R: Bool[Array, " R"]
  finite_R: Bool[Array, " R"]
  keys_R: Key[Array, " R"] | None
  cache: Any
  said_RV: Bool[Array, "R V"] | None = None


def start(
  model: Any,
  params: Any,
  inputs_BS: Int[Array, "B S"],
  keys_B: Key[Array, " B"] | None,
  config: DecodeConfig,
) -> State:
  """Reads the inputs and decodes each row's first token."""
  B, T = inputs_BS.shape[0], config.max_decode_len
  logits_RV, cache = model.start_decoding(params, inputs_BS, T)
  # A row of padding alone is there to fill the batch: it waits for nothing.
  ended_R = jnp.all(inputs_BS < 0, axis=1)
  keys_R, samples = keys_B, config.num_samples
  if samples > 1:
    rows_R = jnp.repeat(jnp.arange(B), samples)
    cache = model.take_rows(cache, rows_R)
    logits_RV, ended_R = logits_RV[rows_R], ended_R[rows_R]
  if keys_B is not None:
    number_R = jnp.tile(jnp.arange(samples), B)
    keys_R = jax.vmap(jax.random.fold_in)(
      jnp.repeat(keys_B, samples, axis=0), number_R
    )
  said_RV = None
  if config.rules is not None:
    said_RV = config.rules.start(inputs_BS, logits_RV.shape[-1])
    if said_RV is not None:
      said_RV = jnp.repeat(said_RV, samples, axis=0)
  shape = B * samples, T
  state = State(
    index=jnp.int32(0),
    tokens_RT=jnp.full(shape, -1, jnp.int32),
    log_probs_RT=jnp.zeros(shape) if config.return_scores else None,
    ended_R=ended_R,
    finite_R=jnp.ones(B * samples, bool),
    keys_R=keys_R,
    cache=cache,
    said_RV=said_RV,
  )
  return _write(state, logits_RV, config)


def advance(
  model: Any, params: Any, state: State, until: Int[Array, ""], config
) -> State:
  """Goes on until every row has `until` tokens or has ended."""

  def unfinished(state):
    return (state.index < until) & ~jnp.all(state.ended_R)

  def step(state):
    token_R1 = jax.lax.dynamic_slice_in_dim(
      state.tokens_RT, state.index - 1, 1, axis=1
    )
    # An ended row reads some token, and nothing reads that row.
    token_R = jnp.maximum(token_R1[:, 0], 0)
    logits_RV, cache = model.decode_step(
      params, token_R, state.cache, state.index - 1
    )
    return _write(state._replace(cache=cache), logits_RV, config)

  return jax.lax.while_loop(unfinished, step, state)


def _write(state: State, logits_RV, config: DecodeConfig) -> State:
  """The state with a token more, picked by the logits."""
  logits_RV = logits_RV.astype(jnp.float32)
  scores_RV = ruled(logits_RV, state.index, state.said_RV, config)
  if config.strategy == "sample":
    scores_RV = filter_logits(
      scores_RV,
      temperature=config.temperature,
      top_k=config.top_k,
      top_p=config.top_p,
    )
    token_R = draw(scores_RV, state.keys_R, state.index)
  else:
    token_R = jnp.argmax(scores_RV, axis=-1).astype(jnp.int32)
  picked_R = jnp.take_along_axis(logits_RV, token_R[:, None], axis=1)[:, 0]
  finite_R = state.finite_R & (jnp.isfinite(picked_R) | state.ended_R)
  token_R = jnp.where(state.ended_R, -1, token_R)
  log_probs_RT = state.log_probs_RT
  if log_probs_RT is not None:
    log_prob_R = picked_R - jax.nn.logsumexp(logits_RV, axis=-1)
    log_prob_R = jnp.where(state.ended_R, 0.0, log_prob_R)
    log_probs_RT = _put(log_probs_RT, log_prob_R, state.index)
  return State(
    index=state.index + 1,
    tokens_RT=_put(state.tokens_RT, token_R, state.index),
    log_probs_RT=log_probs_RT,
    ended_R=state.ended_R | is_end(token_R, config.end_ids),
    finite_R=finite_R,
    keys_R=state.keys_R,
    cache=state.cache,
    said_RV=said(state.said_RV, token_R),
  )


def ruled(
  logits_RV: Float[Array, "R V"],
  length_R: Int[Array, "*R"],
  said_RV: Bool[Array, "R V"] | None,
  config: DecodeConfig,
) -> Float[Array, "R V"]:
  """The logits after `config.rules`, see `rule_adapter.Rules.add`."""
  if config.rules is None:
    return logits_RV
  return config.rules.add(logits_RV, length_R, said_RV, config.end_ids)


def said(
  said_RV: Bool[Array, "R V"] | None, token_R: Int[Array, " R"]
) -> Bool[Array, "R V"] | None:
  """What was said, a further token of each row included."""
  if said_RV is None:
    return None
  return rule_adapter.say(said_RV, token_R[:, None])


def _put(x_RT, value_R, index):
  return jax.lax.dynamic_update_slice(x_RT, value_R[:, None], (0, index))


def is_end(
  tokens: Int[Array, "*b"], end_ids: tuple[int, ...]
) -> Bool[Array, "*b"]:
  """Where a token is one of `end_ids`."""
  ended = jnp.zeros(tokens.shape, bool)
  for end_id in end_ids:
    ended |= tokens == end_id
  return ended


def filter_logits(
  logits_RV: Float[Array, "R V"],
  *,
  temperature: float | None = None,
  top_k: int | None = None,
  top_p: float | None = None,
) -> Float[Array, "R V"]:
  """Logits of the distribution that is drawn from; -inf at what is left out.

  Temperature comes first, then `top_k`, then `top_p` of what that leaves, as
  in `transformers`. Tokens of equal logit stay or go together.

  >>> logits_1V = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
  >>> jnp.isfinite(filter_logits(logits_1V, top_p=0.7)).tolist()
  [[True, True, False, False]]
  >>> jnp.isfinite(filter_logits(logits_1V, top_k=3, top_p=0.9)).tolist()
  [[True, True, True, False]]

  Args:
    logits_RV: float32.
    temperature, top_k, top_p: see `DecodeConfig`.
  """
  if temperature is not None:
    logits_RV = logits_RV / temperature
  if top_k is not None:
    least_R1 = jax.lax.top_k(logits_RV, top_k)[0][:, -1:]
    logits_RV = jnp.where(logits_RV >= least_R1, logits_RV, -jnp.inf)
  if top_p is not None:
    prob_RV = jax.nn.softmax(logits_RV)
    least_R1 = _nucleus(prob_RV, top_p)
    logits_RV = jnp.where(prob_RV >= least_R1, logits_RV, -jnp.inf)
  return logits_RV


def _nucleus(prob_RV, top_p: float):
  """[R, 1]: the highest p such that the tokens of at least p hold `top_p`.

  Halves the range of float32 until two neighbours are left, 31 sums over V: a
  sort of a large vocabulary takes many times as long. The bits of floats above
  0 order as the floats do.
  """

  def halve(_, bounds):
    low_R1, high_R1 = bounds
    middle_R1 = low_R1 + (high_R1 - low_R1) // 2
    least_R1 = jax.lax.bitcast_convert_type(middle_R1, jnp.float32)
    mass_R1 = jnp.sum(
      prob_RV, axis=-1, keepdims=True, where=prob_RV >= least_R1
    )
    enough_R1 = mass_R1 >= top_p
    return (
      jnp.where(enough_R1, middle_R1, low_R1),
      jnp.where(enough_R1, high_R1, middle_R1),
    )

  # All tokens hold enough; those over the likeliest hold nothing.
  most_R1 = jnp.max(prob_RV, axis=-1, keepdims=True)
  high_R1 = jax.lax.bitcast_convert_type(most_R1, jnp.int32) + 1
  low_R1, _ = jax.lax.fori_loop(
    0, 31, halve, (jnp.zeros_like(high_R1), high_R1)
  )
  return jax.lax.bitcast_convert_type(low_R1, jnp.float32)


def draw(
  logits_RV: Float[Array, "R V"],
  keys_R: Key[Array, " R"],
  index: Int[Array, ""],
) -> Int[Array, " R"]:
  """One token per row from its own key, the same in whatever batch it is.

  Args:
    logits_RV: of the distribution, -inf at what is never drawn.
    keys_R: one per answer.
    index: of the token in the answer.
  """

  def one(logits_V, key):
    key = jax.random.fold_in(key, index)
    return jax.random.categorical(key, logits_V).astype(jnp.int32)

  return jax.vmap(one)(logits_RV, keys_R)
