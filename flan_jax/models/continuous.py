"""Continuous decoding: a row that has ended makes room for the next input.

A batch of fixed size is kept busy: as soon as some of its rows have ended, new
inputs are read into their places while the other rows go on, so that no row
waits for the longest answer of its batch (Yu et al., 2022, Orca, OSDI, section
3). Every row therefore has its own place in its answer; the model's own
`decode_step` is mapped over rows.

Which tokens a row gets are those of `decoding.decode`: they depend on its own
input, key and the parameters alone. For greedy decoding and one sampled answer
per input; beams and several samples go through `decoding.decode`.

P inputs read at once, R rows, S source, T target, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt32

from flan_jax.models import decoding, placement, sampling, stop_strings
from flan_jax.models.decoding_config import DecodeConfig

# Rows that are read into a batch at once, as a part of it.
READ_AT_ONCE = 4
# What a mesh may split of a cache, by the letter of the axis.
_AXES = {"B": "batch", "H": "heads", "G": "heads"}


class Rows(NamedTuple):
  """Where each row of the batch stands.

  Attributes:
    index_R: tokens that a row has.
    tokens_RT: -1 where there is none (yet).
    log_probs_RT: of the tokens, as the model gives them; None: not asked for.
    ended_R: rows that need no more tokens, or hold no input.
    finite_R: whether the logits of all of a row's tokens were finite.
    seeds_R: of the rows' draws.
    cache: of the model, with every token but each row's last one.
    said_RV: as in `sampling.State`.
  """

  index_R: Int[Array, " R"]
  tokens_RT: Int[Array, "R T"]
  log_probs_RT: Float[Array, "R T"] | None
  ended_R: Bool[Array, " R"]
  finite_R: Bool[Array, " R"]
  seeds_R: UInt32[Array, " R"]
  cache: Any
  said_RV: Bool[Array, "R V"] | None = None


class New(NamedTuple):
  """Inputs to be read, and rows to be given up.

  Attributes:
    inputs_PS: ids, -1 after each one's end.
    seeds_P: of their draws.
    slots_P: the rows that they take; R for an input of only padding.
    stopped_R: rows whose answer ended by a stop string.
  """

  inputs_PS: Int[np.ndarray, "P S"]
  seeds_P: UInt32[np.ndarray, " P"]
  slots_P: Int[np.ndarray, " P"]
  stopped_R: Bool[np.ndarray, " R"]


class Ended(NamedTuple):
  """One answer.

  Attributes:
    number: of the input, as it was given.
    tokens: end id included; up to the token that completes a stop string.
    log_prob: of all tokens, in nats; None: not asked for.
    complete: False where the answer is cut at `max_decode_len`.
  """

  number: int
  tokens: tuple[int, ...]
  log_prob: float | None
  complete: bool


def suits(config: DecodeConfig) -> bool:
  """Whether answers under `config` can be decoded continuously.

  >>> suits(DecodeConfig()), suits(DecodeConfig("sample", num_samples=2))
  (True, False)
  """
  return config.strategy != "beam" and config.num_samples == 1


def answers(
  model: Any,
  params: Any,
  inputs: Sequence[Int[np.ndarray, " S"]],
  *,
  rows: int,
  length: int,
  config: DecodeConfig,
  text: decoding.Decode | None = None,
  name: Callable[[int], str] = "input {}".format,
) -> Iterator[Ended]:
  """Answers to inputs, each as soon as it has ended, in no fixed order.

  >>> config = DecodeConfig(max_decode_len=64, end_ids=(1,))
  >>> for ended in answers(model, params, inputs, rows=32, length=512,
  ...                      config=config):
  ...   print(ended.number, ended.tokens)                   # doctest: +SKIP

  One program is compiled for each (model, rows, length, config). Within
  `placement.placed_by` rows are split over `data`.

  Args:
    model: see `decoding.decode`.
    params: the model's parameters.
    inputs: ids of each, from 1 to `length`.
    rows: inputs that are answered at a time.
    length: that inputs are padded to.
    config: what to decode; see `suits`.
    text: tokens to text; needed with stop strings and read for them alone.
    name: what a message calls an input, by its number.

  Raises:
    UserError: options that do not fit the model or the call; logits that are
      not finite, naming the input.
  """
  decoding.check(model, config, None, text)
  if not suits(config):
    raise ValueError(f"{config} is decoded by decoding.decode")
  compiled, T = config.compiled, config.max_decode_len
  state = _empty(model, params, rows, length, compiled)
  group = _group(rows)
  most = decoding.LOOK_EVERY if config.stop_strings else T
  waiting = iter(range(len(inputs)))
  numbers: list[int | None] = [None] * rows  # the input in each row
  stopped_R = np.zeros(rows, bool)
  left = len(inputs)
  while left:
    new = _next(inputs, waiting, numbers, group, length, stopped_R)
    busy = sum(n is not None for n in numbers)
    # Only reads, as long as rows are free for inputs that wait.
    full = busy in (rows, left)
    wanted = rows - busy + min(group, busy) if full else 0
    state = _go_on(
      model,
      params,
      state,
      new,
      np.uint32(config.seed or 0),
      np.int32(wanted),
      np.int32(most),
      compiled,
      placement.current(),
    )
    stopped_R = np.zeros(rows, bool)
    if not full:
      continue
    for row, ended in _ended(state, numbers, config, text, name):
      stopped_R[row] = True
      numbers[row] = None
      left -= 1
      yield ended


def _group(rows: int) -> int:
  """Rows that are read at once: of a mesh each part of the batch has some."""
  group = max(1, rows // READ_AT_ONCE)
  return min(rows, placement.round_up(group))


def _next(inputs, waiting, numbers, group, length, stopped_R):
  """Inputs for free rows, at most `group`; `numbers` gets theirs."""
  inputs_PS = np.full((group, length), -1, np.int32)
  slots_P = np.full(group, len(numbers), np.int32)
  free = [row for row, number in enumerate(numbers) if number is None]
  for place, row in zip(range(group), free, strict=False):
    number = next(waiting, None)
    if number is None:
      break
    inputs_PS[place, : len(inputs[number])] = inputs[number]
    slots_P[place], numbers[row] = row, number
  seeds_P = np.array(decoding.example_seeds(inputs_PS), np.uint32)
  return New(inputs_PS, seeds_P, slots_P, stopped_R)


def _ended(state: Rows, numbers, config, text, name):
  """(row, answer) of the rows that have ended since the last call."""
  ended_R, finite_R, tokens_RT, log_probs_RT = jax.device_get(
    (state.ended_R, state.finite_R, state.tokens_RT, state.log_probs_RT)
  )
  busy = [row for row, number in enumerate(numbers) if number is not None]
  bad = [row for row in busy if not finite_R[row]]
  decoding.check_finite(
    np.isin(np.arange(len(numbers)), bad, invert=True),
    lambda row: name(numbers[row]),
  )
  for row in busy:
    if not (ended_R[row] or config.stop_strings):
      continue
    tokens = tuple(int(t) for t in tokens_RT[row] if t >= 0)
    complete = tokens[-1] in config.end_ids
    if config.stop_strings:
      said = tokens[:-1] if complete else tokens
      needed = stop_strings.tokens_needed(said, config.stop_strings, text)
      if needed is not None:
        tokens, complete = tokens[:needed], True
      elif not ended_R[row]:
        continue
    log_prob = None
    if log_probs_RT is not None:
      log_prob = float(log_probs_RT[row, : len(tokens)].sum(dtype=np.float64))
    yield row, Ended(numbers[row], tokens, log_prob, complete)


def _empty(model, params, rows: int, length: int, config) -> Rows:
  """A batch without an input, where `_go_on` leaves it.

  A state that lay elsewhere at the first call would compile a second program.
  """
  cache = jax.eval_shape(
    lambda params: model.start_decoding(
      params,
      jnp.zeros((rows, length), jnp.int32),
      config.max_decode_len,
    )[1],
    params,
  )
  shape = rows, config.max_decode_len
  remembers = config.rules is not None and config.rules.remembers
  state = Rows(
    index_R=np.zeros(rows, np.int32),
    tokens_RT=np.full(shape, -1, np.int32),
    log_probs_RT=np.zeros(shape, np.float32) if config.return_scores else None,
    ended_R=np.ones(rows, bool),
    finite_R=np.ones(rows, bool),
    seeds_R=np.zeros(rows, np.uint32),
    cache=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), cache),
    said_RV=(
      np.zeros((rows, model.config.vocab_size), bool) if remembers else None
    ),
  )
  if placement.current() is not None:
    return _placed(placement.put, state)
  where = getattr(jax.tree.leaves(params)[0], "sharding", None)
  if not isinstance(where, NamedSharding):
    return state
  return jax.device_put(state, NamedSharding(where.mesh, PartitionSpec()))


def _placed(place: Callable, state: Rows) -> Rows:
  """Rows of the cache split as the batch, its heads as heads, the rest whole.

  Args:
    place: `placement.put` or `constrain`.
    state: a batch.
  """

  def of_cache(path, x):
    # The last letters of a field's name are its axes.
    letters = getattr(path[-1], "name", "").rpartition("_")[2]
    names = [_AXES.get(letter) for letter in letters[-x.ndim :]]
    return place(x, *[None] * (x.ndim - len(names)), *names)

  whole = jax.tree.map(
    lambda x: place(x, *[None] * x.ndim), state._replace(cache=None)
  )
  with placement.decoding():
    cache = jax.tree_util.tree_map_with_path(of_cache, state.cache)
  return whole._replace(cache=cache)


# The state's buffers become those of the next one: no second cache.
@functools.partial(
  jax.jit,
  static_argnames=("model", "config", "placed"),
  donate_argnames="state",
)
def _go_on(model, params, state, new, seed, wanted, most, config, placed):
  """Gives up rows, reads inputs, and decodes until `wanted` rows have ended.

  Args:
    wanted: rows, with those that hold no input.
    most: tokens per row at most.
    placed: `placement.current()`.
  """
  del placed  # A program is of one placement.
  rows = len(state.ended_R)
  axes = _row_axes(model, state.cache, rows)
  state = state._replace(ended_R=state.ended_R | new.stopped_R)
  state = jax.lax.cond(
    jnp.any(new.slots_P < rows),
    lambda state: _read(model, params, state, new, seed, config, axes),
    lambda state: state,
    state,
  )

  def unfinished(carry):
    count, state = carry
    return (jnp.sum(state.ended_R) < wanted) & (count < most)

  def step(carry):
    count, state = carry
    return count + 1, _step(model, params, state, seed, config, axes)

  _, state = jax.lax.while_loop(unfinished, step, (jnp.int32(0), state))
  return _placed(placement.constrain, state)


def _row_axes(model, cache, rows: int):
  """For each array of a cache the axis of its rows."""
  more = jax.eval_shape(
    lambda cache: model.take_rows(cache, jnp.zeros(rows + 1, jnp.int32)), cache
  )
  return jax.tree.map(
    lambda a, b: [m == n for m, n in zip(a.shape, b.shape, strict=True)].index(
      False
    ),
    cache,
    more,
  )


def _read(model, params, state: Rows, new: New, seed, config, axes) -> Rows:
  """The state with new inputs in their rows, and the first token of each."""
  inputs_PS = placement.constrain(new.inputs_PS, "batch", None)
  logits_PV, fresh = model.start_decoding(
    params, inputs_PS, config.max_decode_len
  )

  def put(old, value, axis=0):
    place = (slice(None),) * axis + (new.slots_P,)
    return old.at[place].set(value, mode="drop")

  first_P = jnp.zeros(len(new.slots_P), jnp.int32)
  said_PV = said_RV = None
  if state.said_RV is not None:
    said_PV = config.rules.start(new.inputs_PS, logits_PV.shape[-1])
  token_P, log_prob_P, finite_P = _pick(
    logits_PV, seed, new.seeds_P, first_P, said_PV, config
  )
  if said_PV is not None:
    said_RV = put(state.said_RV, sampling.said(said_PV, token_P))
  T = config.max_decode_len
  tokens_PT = jnp.full((len(first_P), T), -1).at[:, 0].set(token_P)
  log_probs_RT = state.log_probs_RT
  if log_probs_RT is not None:
    log_probs_PT = jnp.zeros((len(first_P), T)).at[:, 0].set(log_prob_P)
    log_probs_RT = put(log_probs_RT, log_probs_PT)
  return Rows(
    index_R=put(state.index_R, 1),
    tokens_RT=put(state.tokens_RT, tokens_PT),
    log_probs_RT=log_probs_RT,
    ended_R=put(state.ended_R, _last(token_P, first_P, config)),
    finite_R=put(state.finite_R, finite_P),
    seeds_R=put(state.seeds_R, new.seeds_P),
    cache=jax.tree.map(put, state.cache, fresh, axes),
    said_RV=said_RV,
  )


def _step(model, params, state: Rows, seed, config, axes) -> Rows:
  """The state with a token more in every row that has not ended."""
  rows_R = jnp.arange(len(state.ended_R))
  # A row without an input reads some token, and nothing reads that row.
  before_R = jnp.maximum(state.index_R - 1, 0)
  token_R = jnp.maximum(state.tokens_RT[rows_R, before_R], 0)

  def one(token, cache, index):
    cache = jax.tree.map(jnp.expand_dims, cache, axes)
    logits_1V, cache = model.decode_step(params, token[None], cache, index)
    return logits_1V[0], jax.tree.map(jnp.squeeze, cache, axes)

  with placement.decoding():
    ones = placement.over_rows(one, len(rows_R), (0, axes, 0), (0, axes))
    logits_RV, cache = ones(token_R, state.cache, before_R)
  token_R, log_prob_R, finite_R = _pick(
    logits_RV, seed, state.seeds_R, state.index_R, state.said_RV, config
  )
  # What ended rows are given goes nowhere.
  T = config.max_decode_len
  place = rows_R, jnp.where(state.ended_R, T, state.index_R)
  log_probs_RT = state.log_probs_RT
  if log_probs_RT is not None:
    log_probs_RT = log_probs_RT.at[place].set(log_prob_R, mode="drop")
  return Rows(
    index_R=state.index_R + ~state.ended_R,
    tokens_RT=state.tokens_RT.at[place].set(token_R, mode="drop"),
    log_probs_RT=log_probs_RT,
    ended_R=state.ended_R | _last(token_R, state.index_R, config),
    finite_R=state.finite_R & (finite_R | state.ended_R),
    seeds_R=state.seeds_R,
    cache=cache,
    said_RV=sampling.said(state.said_RV, token_R),
  )


def _pick(logits_RV, seed, seeds_R, index_R, said_RV, config):
  """A token of each row, its log p and whether that is finite."""
  logits_RV = logits_RV.astype(jnp.float32)
  scores_RV = sampling.ruled(logits_RV, index_R, said_RV, config)
  if config.strategy == "sample":
    scores_RV = sampling.filter_logits(
      scores_RV,
      temperature=config.temperature,
      top_k=config.top_k,
      top_p=config.top_p,
    )
    token_R = jax.vmap(_draw, (0, None, 0, 0))(
      scores_RV, seed, seeds_R, index_R
    )
  else:
    token_R = jnp.argmax(scores_RV, axis=-1).astype(jnp.int32)
  picked_R = jnp.take_along_axis(logits_RV, token_R[:, None], axis=1)[:, 0]
  log_prob_R = picked_R - jax.nn.logsumexp(logits_RV, axis=-1)
  return token_R, log_prob_R, jnp.isfinite(picked_R)


def _draw(logits_V, seed, own, index):
  """As `decoding.decode` draws the first of an input's samples."""
  key = jax.random.fold_in(jax.random.key(seed), own)
  key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
  return jax.random.categorical(key, logits_V).astype(jnp.int32)


def _last(token_R, index_R, config):
  """Whether a token is the last one of its row."""
  return sampling.is_end(token_R, config.end_ids) | (
    index_R + 1 >= config.max_decode_len
  )
