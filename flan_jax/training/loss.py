"""The loss: sums and weights, divided once by the caller.

B batch, T target, V vocabulary. Nothing here averages: a mean over a
micro-batch or over one host's rows would weigh tokens unequally, so the one
division is `step.py`'s, by the weight of the whole batch.

Sources: Raffel et al., 2020 (arXiv 1910.10683), section 3.1.2 for the
objective; Shazeer et al., 2018 (arXiv 1811.02084) for the z-loss; Szegedy et
al., 2016 (arXiv 1512.00567), section 7, for label smoothing.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

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


def cross_entropy(
  logits_BTV: Float[Array, "B T V"],
  targets_BT: Int[Array, "B T"],
  weights_BT: Num[Array, "B T"],
  *,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
) -> LossSums:
  """Weighted sum of softmax cross-entropy and z-loss over a batch, in nats.

  Two tokens of four are padding (weight 0); equal logits over V=4 give
  log 4 = 1.386 nats each:

  >>> logits_BTV = jnp.zeros((1, 4, 4))
  >>> targets_BT = jnp.array([[2, 1, 0, 0]])
  >>> weights_BT = jnp.array([[1.0, 1.0, 0.0, 0.0]])
  >>> sums = cross_entropy(logits_BTV, targets_BT, weights_BT, z_loss=0.0)
  >>> round(float(sums.loss), 3), float(sums.weight)
  (2.773, 2.0)

  With label smoothing s the target distribution is 1 - s on the target and
  s / (V - 1) elsewhere; its entropy is subtracted, as in T5X, so that a
  perfect prediction costs 0.

  Args:
    logits_BTV: unnormalised log-probabilities; the softmax is in float32.
    targets_BT: token ids, 0 <= id < V. Ids at weight 0 do not matter.
    weights_BT: 0 excludes a token; a fraction is allowed.
    z_loss: coefficient of log(Z)^2.
    label_smoothing: s above.

  Returns:
    Float32 sums. Of equal largest logits the lowest id is the prediction,
    as in `argmax`.
  """
  weights_BT = weights_BT.astype(jnp.float32)
  loss_BT, log_z_BT = _token_loss(
    logits_BTV, targets_BT, float(z_loss), float(label_smoothing)
  )
  # A masked token may have non-finite logits (a fully masked row); 0 * inf is
  # not 0, so it is left out by selection.
  counts_BT = weights_BT != 0
  loss = jnp.sum(jnp.where(counts_BT, loss_BT * weights_BT, 0.0))
  z_BT = z_loss * jnp.square(log_z_BT)
  z = jnp.sum(jnp.where(counts_BT, z_BT * weights_BT, 0.0))
  correct_BT = _is_prediction(jax.lax.stop_gradient(logits_BTV), targets_BT)
  return LossSums(
    loss=loss,
    cross_entropy=loss - z,
    z_loss=z,
    weight=jnp.sum(weights_BT),
    correct=jnp.sum(jnp.where(correct_BT, weights_BT, 0.0)),
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
      non-padding (id > 0) target counts; `decoder_segment_ids` if packed.
    factor: `LossConfig.normalizing_factor`.
  """
  targets_BT = batch["decoder_target_tokens"]
  weights_BT = batch.get("decoder_loss_weights")
  if weights_BT is None:
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


def _is_prediction(logits_BTV, targets_BT):
  """Whether argmax is the target; half the time of XLA's argmax on a CPU."""
  target_BT1 = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  index_BTV = jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2)
  beaten_BTV = (logits_BTV > target_BT1) | (
    (logits_BTV == target_BT1) & (index_BTV < targets_BT[..., None])
  )
  return ~jnp.any(beaten_BTV, axis=-1)


# The derivative is written out because it is one pass over the logits,
#   (1 + 2 z log Z) softmax - target distribution,
# while reverse mode through logsumexp and the gather makes several, and keeps
# a second [B, T, V] array for them.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _token_loss(logits_BTV, targets_BT, z_loss, label_smoothing):
  """Cross-entropy + z-loss, and log Z (not differentiated), per token."""
  return _token_loss_fwd(logits_BTV, targets_BT, z_loss, label_smoothing)[0]


def _token_loss_fwd(logits_BTV, targets_BT, z_loss, label_smoothing):
  logits32_BTV = logits_BTV.astype(jnp.float32)
  top_BT = jnp.max(logits32_BTV, axis=-1)
  exp_BTV = jnp.exp(logits32_BTV - top_BT[..., None])
  log_z_BT = jnp.log(jnp.sum(exp_BTV, axis=-1)) + top_BT
  target_BT = jnp.take_along_axis(logits32_BTV, targets_BT[..., None], axis=-1)[
    ..., 0
  ]
  loss_BT = log_z_BT - target_BT
  if label_smoothing:
    vocabulary = logits_BTV.shape[-1]
    on, off = _smoothed(label_smoothing, vocabulary)
    others_BT = jnp.sum(logits32_BTV, axis=-1) - target_BT
    entropy = -(on * math.log(on) + (vocabulary - 1) * off * math.log(off))
    loss_BT = log_z_BT - on * target_BT - off * others_BT - entropy
  loss_BT = loss_BT + z_loss * jnp.square(log_z_BT)
  return (loss_BT, log_z_BT), (logits_BTV, targets_BT, log_z_BT)


def _token_loss_bwd(z_loss, label_smoothing, residuals, gradients):
  logits_BTV, targets_BT, log_z_BT = residuals
  gradient_BT, _ = gradients
  on, off = _smoothed(label_smoothing, logits_BTV.shape[-1])
  index_BTV = jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2)
  target_BTV = jnp.where(index_BTV == targets_BT[..., None], on, off)
  softmax_BTV = jnp.exp(logits_BTV.astype(jnp.float32) - log_z_BT[..., None])
  scale_BT = 1.0 + 2.0 * z_loss * log_z_BT
  derivative_BTV = scale_BT[..., None] * softmax_BTV - target_BTV
  # As in `cross_entropy`: no 0 * inf where a token is masked.
  masked_BT1 = (gradient_BT == 0)[..., None]
  product_BTV = gradient_BT[..., None] * derivative_BTV
  out_BTV = jnp.where(masked_BT1, 0.0, product_BTV)
  return out_BTV.astype(logits_BTV.dtype), None


_token_loss.defvjp(_token_loss_fwd, _token_loss_bwd)


def _smoothed(label_smoothing, vocabulary):
  """Probability of the target and of each other token."""
  if not label_smoothing:
    return 1.0, 0.0
  return 1.0 - label_smoothing, label_smoothing / (vocabulary - 1)
