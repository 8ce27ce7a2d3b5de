"""Teacher-forced loss on validation rows of the training mixture."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from flan_jax.data import mixtures
from flan_jax.training import input as input_lib
from flan_jax.training import loss, sharding, step

# Batches for the teacher-forced loss: enough for a curve.
BATCHES = 8


class Validation:
  """The same packed batches at every call, so that the curve is comparable.

  They are a handful of token arrays; `start` makes them in a thread, so that
  building this second pipeline does not delay the first training step.
  """

  def __init__(
    self,
    resolved: mixtures.Resolved,
    *,
    model: Any,
    loss_config: loss.LossConfig,
    convert: Callable[..., input_lib.Batches],
    lengths: Mapping[str, int],
    batch_size: int,
    partition: sharding.Partition,
    batches: int = BATCHES,
    accumulate: int = 1,
    pack: bool = True,
  ):
    """Args:
    resolved: mixture or task with a `validation` split.
    model: as for `step.eval_step`.
    loss_config: as for `step.eval_step`.
    convert: examples -> batches.
    lengths: tokens a row.
    batch_size: rows a batch.
    partition: where everything lies.
    batches: how many batches at most.
    accumulate: micro-batches, as in the training step.
    pack: whether rows hold several examples, as in training.
    """
    self._making = input_lib.InThread(
      functools.partial(
        _batches, resolved, convert, lengths, batch_size, batches, pack
      )
    )
    self._partition = partition
    self._kept = None
    self._sums = partition.jit(
      functools.partial(
        step.eval_step,
        model=model,
        loss_config=loss_config,
        accumulate=accumulate,
      )
    )

  def start(self):
    """Begins to make the batches; the first call waits for them."""
    self._making.start()

  def __call__(self, params: Any) -> dict[str, float]:
    """`validation/loss`, `validation/accuracy` (of target tokens, 0 to 1)."""
    if self._kept is None:
      made = self._making.result()
      self._kept = [self._partition.put(b) for b in made]
    sums = [self._sums(params, batch) for batch in self._kept]
    means = step.summary(jax.device_get(sums))
    return {
      f"validation/{name}": means[name]
      for name in ("loss", "cross_entropy", "accuracy")
    }


def _batches(resolved, convert, lengths, batch_size, count, pack):
  examples = mixtures.examples(
    resolved,
    lengths,
    split="validation",
    seed=0,
    shuffle=False,
    num_epochs=1,
    passthrough=(),
  )
  made = convert(examples, lengths=lengths, batch_size=batch_size, pack=pack)
  return list(itertools.islice(made, count))
