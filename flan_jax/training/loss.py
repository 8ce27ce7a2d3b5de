"""The loss: what is summed, token weights, and what the sum is divided by.

B batch, T target. The sums are made in `vocabulary_loss.py`. Nothing averages:
a mean over a micro-batch or over one host's rows would weigh tokens unequally,
so the one division is `step.py`'s, by the weight of the whole batch.

Sources: Raffel et al., 2020 (arXiv 1910.10683), section 3.1.2 for the
objective; Shazeer et al., 2018 (arXiv 1811.02084) for the z-loss; Szegedy et
al., 2016 (arXiv 1512.00567), section 7, for label smoothing.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flan_jax.errors import UserError

# T5X's names for what the summed loss is divided by.
REAL_TOKENS = "NUM_REAL_TARGET_TOKENS"
ALL_TOKENS = "NUM_TOTAL_TARGET_TOKENS"
PER_SEQUENCE = "AVERAGE_PER_SEQUENCE"
NORMALISERS = (REAL_TOKENS, ALL_TOKENS, PER_SEQUENCE)


class LossSums(NamedTuple):
  """Sums over tokens, each already multiplied by its token's weight.

  `loss` is `cross_entropy + z_loss`, and the one to differentiate (the two
  parts are for the log: their own gradients are not theirs); `weight` is the
  sum of the weights (tokens, if all are 0 or 1); `correct` the weight of the
  tokens whose logit is the largest.
  """

  loss: Float[Array, ""]
  cross_entropy: Float[Array, ""]
  z_loss: Float[Array, ""]
  weight: Float[Array, ""]
  correct: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Which loss is minimised, and what its sum is divided by.

  Attributes:
    z_loss: coefficient of log(Z)^2, which keeps the logits near
      log-probabilities. T5X: 1e-4.
    label_smoothing: probability shared evenly among the wrong tokens.
    normalizing_factor: T5X's LOSS_NORMALIZING_FACTOR.
      "NUM_REAL_TARGET_TOKENS" (default) divides by the sum of the loss
      weights; "NUM_TOTAL_TARGET_TOKENS" by batch x length, padding included;
      "AVERAGE_PER_SEQUENCE" gives every sequence (every segment of a packed
      row) the same weight, whatever its length; a number divides by that
      number; None does not divide, which is T5X's default.

  Raises:
    UserError: a value outside its range, or an unknown name.
  """

  z_loss: float = 1e-4
  label_smoothing: float = 0.0
  normalizing_factor: str | float | None = REAL_TOKENS

  def __post_init__(self):
    if self.z_loss < 0:
      raise UserError(f"Z_LOSS is {self.z_loss}: it must be 0 or more.")
    if not 0 <= self.label_smoothing < 1:
      raise UserError(
        f"LABEL_SMOOTHING is {self.label_smoothing}: it must be at least 0"
        " and less than 1."
      )
    factor = self.normalizing_factor
    if isinstance(factor, str) and factor not in NORMALISERS:
      near = difflib.get_close_matches(factor.upper(), NORMALISERS, 1, 0)
      raise UserError(
        f"LOSS_NORMALIZING_FACTOR is {factor!r}: did you mean {near[0]!r}?"
        f" It is one of {', '.join(NORMALISERS)}, a number, or None."
      )
    if isinstance(factor, int | float) and not factor > 0:
      raise UserError(
        f"LOSS_NORMALIZING_FACTOR is {factor}: a number must be more than 0."
      )


def token_weights(
  batch: Mapping[str, Array], factor: str | float | None
) -> tuple[Float[Array, "B T"], Float[Array, ""]]:
  """Token weights of a batch and the number its summed loss is divided by.

  Call it on the whole batch, before it is split into micro-batches.

  >>> batch = {"decoder_target_tokens": jnp.array([[5, 6, 7, 1], [8, 1, 0, 0]])}
  >>> token_weights(batch, "NUM_REAL_TARGET_TOKENS")[1]
  Array(6., dtype=float32)
  >>> weights_BT, sequences = token_weights(batch, "AVERAGE_PER_SEQUENCE")
  >>> print(weights_BT, sequences)
  [[0.25 0.25 0.25 0.25]
   [0.5  0.5  0.   0.  ]] 2.0

  Args:
    batch: `decoder_target_tokens`; `decoder_loss_weights` if not every
      non-padding (id > 0) target counts, and always for a decoder-only model;
      `decoder_segment_ids` if packed.
    factor: `LossConfig.normalizing_factor`.

  Raises:
    UserError: a batch without inputs of its own says not what is predicted.
  """
  targets_BT = batch["decoder_target_tokens"]
  weights_BT = batch.get("decoder_loss_weights")
  if weights_BT is None:
    if "decoder_causal_attention" in batch:
      raise UserError(
        "the batch of a decoder-only model has no 'decoder_loss_weights': its"
        " rows hold inputs and targets, and id 0 may be a token, so ids do not"
        " say what is predicted. Make it with features.decoder_only_batches."
      )
    weights_BT = targets_BT > 0
  weights_BT = jnp.asarray(weights_BT, jnp.float32)
  if factor is None:
    return weights_BT, jnp.float32(1.0)
  if factor == REAL_TOKENS:
    return weights_BT, jnp.sum(weights_BT)
  if factor == ALL_TOKENS:
    return weights_BT, jnp.float32(math.prod(targets_BT.shape))
  if factor == PER_SEQUENCE:
    weights_BT = _sequence_weights(weights_BT, batch.get("decoder_segment_ids"))
    return weights_BT, jnp.sum(weights_BT)
  return weights_BT, jnp.float32(factor)


def _sequence_weights(weights_BT, segment_ids_BT):
  """Weights that sum to 1 over every sequence that has any weight."""
  if segment_ids_BT is None:
    total_BT = jnp.sum(weights_BT, axis=-1, keepdims=True)
  else:
    # Ids in a row of length T are at most T.
    number = weights_BT.shape[1] + 1

    def totals(weights_T, ids_T):
      return jax.ops.segment_sum(weights_T, ids_T, num_segments=number)[ids_T]

    total_BT = jax.vmap(totals)(weights_BT, segment_ids_BT)
  positive_BT = jnp.where(total_BT > 0, total_BT, 1.0)
  return jnp.where(total_BT > 0, weights_BT / positive_BT, 0.0)
