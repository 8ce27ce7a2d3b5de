"""The training step: one pure function, from state and batch to state.

The trainer compiles it as it is:

    step = jax.jit(
      functools.partial(train_step, model=model, optimiser=optimiser,
                        loss_config=LossConfig(), dropout_seed=0),
      donate_argnums=0)
    state, metrics = step(state, batch)

Sums of weighted losses and their gradients are added over micro-batches and
divided once, by the weight of the whole batch, so that 1 x 8 and 8 x 1 rows
give the same update however ragged the rows are.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flan_jax.errors import UserError
from flan_jax.models import placement
from flan_jax.models.head import Head
from flan_jax.training import loss, vocabulary_loss
from flan_jax.training.loss import LossConfig, LossSums
from flan_jax.training.optimiser import Optimiser
from flan_jax.training.state import TrainState

Batch = Mapping[str, Array]
Metrics = dict[str, Float[Array, ""]]

_WEIGHTS = "decoder_loss_weights"


class Model(Protocol):
  """What a step needs of a model: both kinds in `models` have it."""

  def hidden(
    self, params: Any, batch: Batch, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T D"]:
    """What the head multiplies; dropout iff a key is given."""

  def head(self, params: Any) -> Head:
    """The matrix to the vocabulary."""


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  model: Model,
  optimiser: Optimiser,
  loss_config: LossConfig,
  accumulate: int = 1,
  dropout_seed: int | None = None,
) -> tuple[TrainState, Metrics]:
  """One update from one batch of `decoder_target_tokens` [B, T] and inputs.

  A step whose loss or gradient is not finite, or whose batch has no target
  token, leaves parameters and optimiser bit-equal; it counts in `step` and in
  `skipped`.

  Args:
    state: may be donated.
    batch: the whole batch, all micro-batches; any array it has is split along
      its first axis.
    model: `.hidden(params, batch, dropout_rng=)` and `.head(params)`.
    optimiser: of `optimiser.py`.
    loss_config: z-loss, label smoothing, and what the sum is divided by.
    accumulate: number of micro-batches; divides B. Memory for activations
      falls by it; the result changes by rounding only (dropout, if on, draws
      one key per micro-batch).
    dropout_seed: None switches dropout off. The key of a step depends on the
      seed and the step alone, so that a resumed run draws the same masks.

  Returns:
    The new state, and float32 scalars:
      loss: what was minimised (cross-entropy + z-loss, in nats) after the
        division; z_loss: its z-loss part.
      cross_entropy: nats per unit of target weight, whatever the division.
      accuracy: weighted share of target tokens that are the argmax.
      grad_norm: of the divided gradient, before any clipping.
      param_norm: of the parameters after the update.
      learning_rate: of this update.
      target_tokens, input_tokens: tokens with loss; non-padding input tokens.
      nonfinite: 1 if the loss or the gradient was not finite.
      skipped: 1 if no update was made.

  Raises:
    UserError: `accumulate` does not divide the batch.
  """
  weights_BT, divisor = loss.token_weights(
    batch, loss_config.normalizing_factor
  )
  rng = None
  if dropout_seed is not None:
    rng = jax.random.fold_in(jax.random.key(dropout_seed), state.step)

  def summed_loss(params, micro_batch, micro_rng):
    sums = _sums(model, params, micro_batch, loss_config, micro_rng)
    return sums.loss, sums

  def gradients_of(params, micro_batch, micro_rng):
    grads, sums = jax.grad(summed_loss, has_aux=True)(
      params, micro_batch, micro_rng
    )
    return placement.gradients(grads), sums

  gradients, sums = _accumulated(
    gradients_of,
    state.params,
    {**batch, _WEIGHTS: weights_BT},
    rng,
    accumulate,
  )
  divisor = jnp.where(divisor > 0, divisor, 1.0)
  gradients = jax.tree.map(lambda g: g / divisor.astype(g.dtype), gradients)
  grad_norm = optax.tree.norm(gradients)
  finite = jnp.isfinite(sums.loss) & jnp.isfinite(grad_norm)
  useful = finite & (sums.weight > 0)

  updates, opt_state = optimiser.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  params = _select(useful, params, state.params)
  new_state = TrainState(
    step=state.step + 1,
    params=params,
    opt_state=_select(useful, opt_state, state.opt_state),
    skipped=state.skipped + jnp.where(useful, 0, 1),
  )
  metrics = {
    "loss": sums.loss / divisor,
    "z_loss": sums.z_loss / divisor,
    "cross_entropy": sums.cross_entropy / jnp.maximum(sums.weight, 1e-9),
    "accuracy": sums.correct / jnp.maximum(sums.weight, 1e-9),
    "grad_norm": grad_norm,
    "param_norm": optax.tree.norm(params),
    "learning_rate": optimiser.learning_rate(state.step - state.skipped),
    "target_tokens": jnp.sum(weights_BT != 0),
    "input_tokens": _input_tokens(batch, weights_BT),
    "nonfinite": ~finite,
    "skipped": ~useful,
  }
  return new_state, {
    name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()
  }


def eval_step(
  params: Any,
  batch: Batch,
  *,
  model: Model,
  loss_config: LossConfig,
  accumulate: int = 1,
) -> LossSums:
  """Teacher-forced sums over one batch, without dropout.

  Add them over batches and divide once: `summary`. Padding rows (weight 0)
  count for nothing, so a short last batch may be filled up.

  Args:
    params: of the model.
    batch: as for `train_step`.
    model: as for `train_step`.
    loss_config: its `normalizing_factor` matters only as the weights of
      "AVERAGE_PER_SEQUENCE".
    accumulate: micro-batches, so that evaluation needs no more memory than
      the training step.
  """
  weights_BT, _ = loss.token_weights(batch, loss_config.normalizing_factor)

  def sums_of(params, micro_batch, _):
    return None, _sums(model, params, micro_batch, loss_config)

  _, sums = _accumulated(
    sums_of, params, {**batch, _WEIGHTS: weights_BT}, None, accumulate
  )
  return sums


def summary(sums: Iterable[LossSums]) -> dict[str, float]:
  """Weighted means over the batches of an evaluation.

  A batch with 2 target tokens at 3 nats and one with 6 at 1 nat:

  >>> summary([LossSums(6.0, 6.0, 0.0, 2.0, 1.0),
  ...          LossSums(6.0, 6.0, 0.0, 6.0, 5.0)])
  {'loss': 1.5, 'cross_entropy': 1.5, 'z_loss': 0.0, 'accuracy': 0.75, \
'weight': 8.0}

  Raises:
    UserError: no batch, or no target token in any of them.
  """
  total = LossSums(0.0, 0.0, 0.0, 0.0, 0.0)
  for one in sums:
    added = (a + float(b) for a, b in zip(total, one, strict=True))
    total = LossSums(*added)
  if not total.weight > 0:
    raise UserError(
      "the evaluation data hold no target token: check the split's name and"
      " the feature lengths."
    )
  return {
    "loss": total.loss / total.weight,
    "cross_entropy": total.cross_entropy / total.weight,
    "z_loss": total.z_loss / total.weight,
    "accuracy": total.correct / total.weight,
    "weight": total.weight,
  }


def _sums(model, params, batch, loss_config, rng=None):
  return vocabulary_loss.cross_entropy(
    model.hidden(params, batch, dropout_rng=rng),
    model.head(params),
    batch["decoder_target_tokens"],
    batch[_WEIGHTS],
    z_loss=loss_config.z_loss,
    label_smoothing=loss_config.label_smoothing,
  )


def _accumulated(function, params, batch, rng, accumulate):
  """The sum of `function(params, rows, rng)` over micro-batches of rows."""
  if accumulate == 1:
    return function(params, batch, rng)

  def one(index, micro_batch):
    micro_rng = None if rng is None else jax.random.fold_in(rng, index)
    return function(params, micro_batch, micro_rng)

  def add(total, indexed):
    return jax.tree.map(jnp.add, total, one(*indexed)), None

  indexed = jnp.arange(accumulate), _split(batch, accumulate)
  shapes = jax.eval_shape(one, *jax.tree.map(lambda x: x[0], indexed))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(add, zeros, indexed)[0]


def _split(batch, accumulate):
  """[B, ...] -> [accumulate, B / accumulate, ...], rows dealt like cards.

  Row r goes to micro-batch r mod accumulate: where B is sharded over devices
  every micro-batch then has rows on all of them.
  """
  rows = batch["decoder_target_tokens"].shape[0]
  if accumulate < 1 or rows % accumulate:
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    near = min(divisors, key=lambda n: abs(n - accumulate))
    raise UserError(
      f"{rows} rows cannot be split into {accumulate} micro-batches of equal"
      f" size: the nearest number that divides {rows} is {near}."
    )

  def deal(x):
    dealt = x.reshape(rows // accumulate, accumulate, *x.shape[1:])
    return jnp.swapaxes(dealt, 0, 1)

  return {name: deal(jnp.asarray(x)) for name, x in batch.items()}


def _select(condition, new, old):
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _input_tokens(batch, weights_BT):
  """What is read and not predicted: of a decoder, the rest of its segments."""
  inputs = batch.get("encoder_input_tokens")
  if inputs is not None:
    return jnp.sum(jnp.asarray(inputs) != 0)
  segments = batch.get("decoder_segment_ids")
  if segments is None:
    return 0
  return jnp.sum((jnp.asarray(segments) > 0) & (weights_BT == 0))
