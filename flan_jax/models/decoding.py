"""Decoding with a cache of keys and values: greedy, sampling, beam search.

The same for both kinds of model. `decode` runs on the host; what it compiles,
once per shape of inputs, model and `DecodeConfig`, is one program that reads
the inputs and one that goes on until all rows have ended.

B batch, K answers per input, S source, T target, V vocabulary.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flan_jax.errors import UserError
from flan_jax.models import beam, placement, sampling, stop_strings
from flan_jax.models.decoding_config import DecodeConfig

# Tokens between two looks at the text, where there are stop strings.
LOOK_EVERY = 16

Decode = Callable[[list[int]], str]


@dataclasses.dataclass(frozen=True)
class Decoded:
  """Answers to a batch of inputs.

  Attributes:
    tokens_BKT: int32, end id included, -1 after an answer's end. With stop
      strings: up to the token that completes one.
    scores_BK: nats, see `DecodeConfig.return_scores`; None: not asked for.
    complete_BK: whether an answer ended by an end id or a stop string; one
      that did not is cut at `max_decode_len`.
  """

  tokens_BKT: Int[np.ndarray, "B K T"]
  scores_BK: Float[np.ndarray, "B K"] | None
  complete_BK: np.ndarray


def decode(
  model: Any,
  params: Any,
  inputs_BS: Int[Array, "B S"],
  config: DecodeConfig,
  *,
  seeds_B: Sequence[int] | None = None,
  text: Decode | None = None,
  name: Callable[[int], str] = "row {}".format,
) -> Decoded:
  """Decodes an answer, or several, to each input.

  >>> config = DecodeConfig("sample", max_decode_len=32, top_p=0.9,
  ...                       end_ids=(1,))
  >>> decode(model, params, inputs_BS, config).tokens_BKT.shape
  ... # doctest: +SKIP
  (8, 1, 32)

  What an input gets does not depend on the rows beside it or on its padding:
  draws come from the input's own seed.

  Args:
    model: hashable; has `start_decoding`, `decode_step`, `take_rows`
      (`models/t5.py`, `models/decoder.py`).
    params: the model's parameters.
    inputs_BS: ids, -1 after each row's end. A row of only -1 fills the batch:
      nothing waits for it.
    config: what to decode.
    seeds_B: for draws, one per input, from 0 to 2^32 - 1; default: a checksum
      of the input's tokens, so that equal inputs draw equal answers.
    text: tokens to text; needed with stop strings and read for them alone.
    name: what a message calls a row.

  Raises:
    UserError: options that do not fit the model or the call; logits that are
      not finite, naming the row.
  """
  inputs_BS = np.asarray(inputs_BS, np.int32)
  check(model, config, seeds_B, text)
  if config.strategy == "beam" and config.beam_size > 1:
    tokens_BKT, scores_BK, finite_B = _beams(model, params, inputs_BS, config)
    check_finite(finite_B, name)
    return _decoded(tokens_BKT, scores_BK, config)
  return _rows(model, params, inputs_BS, config, seeds_B, text, name)


def example_seeds(inputs_BS: Int[np.ndarray, "B S"]) -> list[int]:
  """A number per input that depends on its tokens alone, not its padding.

  >>> example_seeds(np.array([[5, 6, -1]])) == example_seeds(np.array([[5, 6]]))
  True
  """
  rows = np.ascontiguousarray(inputs_BS, "<i4")
  return [zlib.crc32(row[row >= 0].tobytes()) for row in rows]


# `placed` is what a program is compiled for. On a mesh rows are split while
# inputs are read, not after that; each device has all that the host reads.
@functools.partial(jax.jit, static_argnames=("model", "config", "placed"))
def _start_rows(model, params, inputs_BS, keys_B, config, placed):
  del placed
  return _whole(sampling.start(model, params, inputs_BS, keys_B, config))


# The state's buffers become those of the next one: no second cache.
@functools.partial(
  jax.jit,
  static_argnames=("model", "config", "placed"),
  donate_argnames="state",
)
def _advance_rows(model, params, state, until, config, placed):
  del placed
  with placement.decoding(rows=False):
    state = sampling.advance(model, params, state, until, config)
  return _whole(state)


@functools.partial(jax.jit, static_argnames=("model", "config", "placed"))
def _search(model, params, inputs_BS, config, placed):
  del placed
  state = beam.start(model, params, inputs_BS, config)
  with placement.decoding(rows=False):
    state = beam.advance(model, params, state, config.max_decode_len, config)
  found = *beam.best(state, config.num_samples), state.finite_B
  return jax.tree.map(placement.whole, found)


def _whole(state):
  read = ("tokens_RT", "log_probs_RT", "ended_R", "finite_R")
  whole = jax.tree.map(placement.whole, {n: getattr(state, n) for n in read})
  return state._replace(**whole)


@jax.jit
def _keys(seed, seeds_B):
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), seeds_B)


def _beams(model, params, inputs_BS, config):
  placed = placement.current()
  results = _search(model, params, inputs_BS, config.compiled, placed)
  return tuple(map(np.asarray, results))


def _rows(model, params, inputs_BS, config, seeds_B, text, name) -> Decoded:
  """Greedy and sampled answers, each row on its own."""
  keys_B, compiled = None, config.compiled
  if config.strategy == "beam":  # of one: it follows the likeliest token
    compiled = dataclasses.replace(
      compiled, strategy="greedy", beam_size=None, length_penalty=None
    )
  if config.strategy == "sample":
    seeds_B = example_seeds(inputs_BS) if seeds_B is None else seeds_B
    keys_B = _keys(np.uint32(config.seed or 0), np.asarray(seeds_B, np.uint32))
  T = config.max_decode_len
  placed = placement.current()
  state = _start_rows(model, params, inputs_BS, keys_B, compiled, placed)
  advance = functools.partial(
    _advance_rows, model, params, config=compiled, placed=placed
  )
  if config.stop_strings:
    state, lengths_R = _look_and_advance(state, advance, config, text)
  else:
    state = advance(state, until=jnp.int32(T))
    lengths_R = None
  check_finite(
    np.asarray(state.finite_R).reshape(len(inputs_BS), -1).all(1), name
  )
  shape = len(inputs_BS), config.num_samples
  tokens_RT = np.array(state.tokens_RT)
  kept_RT = tokens_RT >= 0
  if lengths_R is not None:
    kept_RT &= np.arange(T) < lengths_R[:, None]
    tokens_RT[~kept_RT] = -1
  scores_BK = None
  if config.return_scores:
    log_probs_RT = np.asarray(state.log_probs_RT)
    scores_BK = (log_probs_RT * kept_RT).sum(1).reshape(shape)
  decoded = _decoded(tokens_RT.reshape(*shape, T), scores_BK, config)
  if lengths_R is not None:
    stopped_BK = (lengths_R <= T).reshape(shape)
    decoded = dataclasses.replace(
      decoded, complete_BK=decoded.complete_BK | stopped_BK
    )
  if config.strategy == "beam" and config.return_scores:
    length_BK = (decoded.tokens_BKT >= 0).sum(-1)
    divisor_BK = np.where(
      decoded.complete_BK, beam.penalty(length_BK, config), 1.0
    )
    decoded = dataclasses.replace(
      decoded, scores_BK=(scores_BK / divisor_BK).astype(np.float32)
    )
  return decoded


def _look_and_advance(state, advance, config, text):
  """Decodes some tokens at a time and ends rows whose text has a stop string.

  Returns:
    The last state and how many tokens of each row count; T + 1: all.
  """
  T = config.max_decode_len
  lengths_R = np.full(state.ended_R.shape, T + 1)
  while True:
    index = int(state.index)
    tokens_RT, ended_R = np.asarray(state.tokens_RT), np.array(state.ended_R)
    for row, tokens_T in enumerate(tokens_RT):
      if lengths_R[row] <= T:
        continue
      said = [int(t) for t in tokens_T if t >= 0]
      if said and said[-1] in config.end_ids:
        said.pop()
      needed = stop_strings.tokens_needed(said, config.stop_strings, text)
      if needed is not None:
        lengths_R[row], ended_R[row] = needed, True
    if index >= T or ended_R.all():
      return state, lengths_R
    state = advance(
      state._replace(ended_R=jnp.asarray(ended_R)),
      until=jnp.int32(min(index + LOOK_EVERY, T)),
    )


def _decoded(tokens_BKT, scores_BK, config) -> Decoded:
  complete_BK = np.isin(tokens_BKT, config.end_ids).any(-1)
  if not config.return_scores:
    scores_BK = None
  return Decoded(tokens_BKT, scores_BK, complete_BK)


def check(
  model: Any,
  config: DecodeConfig,
  seeds_B: Sequence[int] | None,
  text: Decode | None,
) -> None:
  """Raises UserError for options that do not fit the model or the call."""
  config.check_vocabulary(model.config.vocab_size)
  if config.stop_strings and text is None:
    raise UserError(
      f"decode: stop_strings = {config.stop_strings!r} need text=, which turns"
      " tokens into text."
    )
  if seeds_B is not None and config.strategy != "sample":
    raise UserError(
      f"decode: seeds_B has no effect with strategy {config.strategy!r}; leave"
      " it out or use strategy 'sample'."
    )


def check_finite(
  finite_B: Bool[np.ndarray, " B"], name: Callable[[int], str]
) -> None:
  """Raises UserError naming the rows whose logits were not finite."""
  rows = np.flatnonzero(~finite_B)
  if len(rows):
    named = ", ".join(name(int(r)) for r in rows[:4])
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    raise UserError(
      f"{named}{more}: logits are not finite; the parameters or the input are"
      " not. Use an earlier checkpoint."
    )
