"""Log-probabilities of continuations, and whether greedy decoding writes them.

For each (context, continuation): log p(continuation | context), in nats, and
whether each of its tokens is the likeliest one at its place. A context of a
decoder-only model stands before its continuation in one row; that of an
encoder-decoder model is what the encoder reads.

Dimension key: B batch, S source, T target, D model.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flan_jax.errors import UserError
from flan_jax.eval import buckets

TARGET_SIZES = functools.partial(buckets.sizes, smallest=8)
# Logits at a time: 128 MiB.
CHUNK = 2**25


@dataclasses.dataclass(frozen=True)
class Continuation:
  """Tokens after a context, both with at least one."""

  context: tuple[int, ...]
  tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Score:
  """Of one continuation.

  Attributes:
    log_prob: in nats.
    greedy: whether greedy decoding would write it.
  """

  log_prob: float
  greedy: bool


@functools.partial(jax.jit, static_argnames="model")
def token_scores(
  model: Any,
  params: Any,
  batch: dict[str, Int[Array, "B S"]],
  places_BT: Int[Array, "B T"],
  targets_BT: Int[Array, "B T"],
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
  """Log p of each target, and whether it is the likeliest token there.

  Args:
    model: of either kind.
    params: its parameters.
    batch: what `model.hidden` takes.
    places_BT: positions whose hidden state predicts the targets.
    targets_BT: ids; what stands at padding is computed and to be left out.
  """
  hidden_BSD = model.hidden(params, batch)
  hidden_BTD = jnp.take_along_axis(hidden_BSD, places_BT[..., None], axis=1)
  head = model.head(params)

  def at_one_place(hidden_and_target):
    hidden_BD, target_B = hidden_and_target
    logits_BV = head.logits(hidden_BD)
    picked_B = jnp.take_along_axis(logits_BV, target_B[:, None], axis=-1)[:, 0]
    log_prob_B = picked_B - jax.nn.logsumexp(logits_BV, axis=-1)
    return log_prob_B, logits_BV.argmax(-1) == target_B

  rows = hidden_BTD.shape[0]
  log_prob_TB, greedy_TB = jax.lax.map(
    at_one_place,
    (jnp.moveaxis(hidden_BTD, 1, 0), targets_BT.T),
    batch_size=max(1, CHUNK // (head.vocab_size * rows)),
  )
  return log_prob_TB.T, greedy_TB.T


def score(
  model: Any,
  params: Any,
  continuations: Sequence[Continuation],
  *,
  batch_size: int,
  max_length: int,
  progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
  """Scores of continuations, in the order given; equal ones are scored once.

      score(model, params, [Continuation((5, 9), (7, 1))], batch_size=8,
            max_length=512)[0].log_prob
      # -3.2

  Contexts over the limit lose their beginning: of a decoder-only model so that
  context and continuation without its last token fit, of an encoder-decoder
  model so that the context does.

  Args:
    model: of either kind.
    params: its parameters.
    continuations: any number.
    batch_size: rows at once.
    max_length: tokens of a row.
    progress: called with (rows done, rows in all).

  Raises:
    UserError: a continuation or context without a token, a continuation over
      `max_length`; a score that is not a number.
  """
  for number, c in enumerate(continuations):
    if not c.context or not c.tokens:
      raise UserError(
        f"continuation {number}: its {'text' if c.context else 'context'} has"
        " no token."
      )
    if len(c.tokens) > max_length:
      raise UserError(
        f"continuation {number} has {len(c.tokens)} tokens, over max_length"
        f" {max_length}; raise max_length."
      )
  distinct = list(dict.fromkeys(continuations))
  decoder_only = model.kind == "decoder_only"
  shaped = []
  for c in distinct:
    if decoder_only:
      # The last token is predicted and not read.
      row = (*c.context, *c.tokens)[-(max_length + 1) : -1]
    else:
      row = c.context[-max_length:]
    shape = (
      buckets.fit(len(row), buckets.INPUT_SIZES(max_length)),
      buckets.fit(len(c.tokens), TARGET_SIZES(max_length)),
    )
    shaped.append((shape, (c, row)))
  make = _decoder_batch if decoder_only else _encoder_decoder_batch
  scores: dict[Continuation, Score] = {}
  for shape, members in buckets.group(shaped, at_least=batch_size).items():
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      batch, places_BT, targets_BT = make(part, batch_size, *shape)
      log_probs_BT, greedy_BT = map(
        np.asarray,
        token_scores(
          model, params, batch, places_BT, np.maximum(targets_BT, 0)
        ),
      )
      kept_BT = targets_BT >= 0
      for row, (c, _) in enumerate(part):
        kept = kept_BT[row]
        total = float(log_probs_BT[row][kept].astype(np.float64).sum())
        if np.isnan(total):
          raise UserError(
            f"continuation {continuations.index(c)}: its score is not a number;"
            " the parameters are not finite. Use an earlier checkpoint."
          )
        scores[c] = Score(total, bool(greedy_BT[row][kept].all()))
      if progress:
        progress(len(scores), len(distinct))
  return [scores[c] for c in continuations]


def _decoder_batch(part, rows: int, S: int, T: int):
  names = ("decoder_input_tokens", "decoder_segment_ids", "decoder_positions")
  batch = {name: np.zeros((rows, S), np.int32) for name in names}
  inputs_BS = np.zeros((rows, S), np.int32)
  places_BT = np.zeros((rows, T), np.int32)
  targets_BT = np.full((rows, T), -1, np.int32)
  for i, (c, row) in enumerate(part):
    n, t = len(row), len(c.tokens)
    batch["decoder_input_tokens"][i, :n] = row
    batch["decoder_segment_ids"][i, :n] = 1
    batch["decoder_positions"][i, :n] = np.arange(n)
    # Only a prefix LM reads it: its inputs see each other.
    inputs_BS[i, : n - t + 1] = 1
    places_BT[i, :t] = np.arange(n - t, n)
    targets_BT[i, :t] = c.tokens
  batch["decoder_causal_attention"] = inputs_BS
  return batch, places_BT, targets_BT


def _encoder_decoder_batch(part, rows: int, S: int, T: int):
  batch = {
    "encoder_input_tokens": np.zeros((rows, S), np.int32),
    "decoder_input_tokens": np.zeros((rows, T), np.int32),
    "decoder_target_tokens": np.zeros((rows, T), np.int32),
  }
  places_BT = np.tile(np.arange(T, dtype=np.int32), (rows, 1))
  targets_BT = np.full((rows, T), -1, np.int32)
  for i, (c, row) in enumerate(part):
    t = len(c.tokens)
    batch["encoder_input_tokens"][i, : len(row)] = row
    batch["decoder_input_tokens"][i, 1:t] = c.tokens[:-1]
    batch["decoder_target_tokens"][i, :t] = c.tokens
    targets_BT[i, :t] = c.tokens
  return batch, places_BT, targets_BT
