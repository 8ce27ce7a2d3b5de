"""Fine-tuning on subsets of rows, and the loss on rows that are held out.

The recipe is that of instruction tuning (`data/sft.py`): loss on answers alone,
conversations in a chat format. Every trial has the same steps, the same
held-out batches and, for the same seed, the same first parameters.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flan_jax.convert import load
from flan_jax.curation import rows as rows_lib
from flan_jax.data import features, mixtures, sft, sft_records
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.sft_records import ASSISTANT, USER, Turn
from flan_jax.training import checks, compiled, loss, sharding
from flan_jax.training import input as input_lib
from flan_jax.training import validation as validation_lib

# Held-out batches at most: all of them, but for very large sets.
_BATCHES = 512
_FORMAT = "alpaca"


@dataclasses.dataclass(frozen=True)
class Training:
  """How every trial is trained; the names are those of the training job.

  Attributes:
    model, optimizer, vocabulary: as in `train.train`.
    train_steps, batch_size: updates, and rows an update.
    task_feature_lengths: tokens a row.
    chat_format: of `data/chat_formats.py`.
    initial_checkpoint_path: what every trial begins from; None: random
      parameters, by the seed.
    pack: several conversations a row.
    z_loss: see `LossConfig`.
  """

  model: Any
  optimizer: Any
  vocabulary: Any
  train_steps: int
  batch_size: int
  task_feature_lengths: Mapping[str, int]
  chat_format: str = "alpaca"
  initial_checkpoint_path: str | None = None
  pack: bool = True
  z_loss: float = 0.0

  def __post_init__(self):
    checks.numbers(train_steps=self.train_steps, batch_size=self.batch_size)
    checks.lengths(self.task_feature_lengths)
    checks.vocabulary(self.vocabulary, self.model)


def fits(rows: Sequence[rows_lib.Row], training: Training) -> list[bool]:
  """Whether each row, in the chat format, is no longer than a row of a batch.

  Training leaves longer ones out; a choice of rows that are never trained on
  would be compared with nothing.
  """
  maker = (
    sft.SFT(chat_format=training.chat_format)
    .for_model(training.model.kind)
    .maker(training.vocabulary, training.task_feature_lengths)
  )
  records, places = [], []
  for place, row in enumerate(rows):
    if row["instruction"].strip() and row["output"].strip():
      asked = Turn(USER, row["instruction"], row["input"])
      answer = Turn(ASSISTANT, row["output"])
      records.append(sft_records.conversation([asked, answer]))
      places.append(place)
  out = [False] * len(rows)
  for place, made in zip(places, maker.examples(records), strict=True):
    out[place] = not isinstance(made, str)
  return out


class Trials:
  """Trains on files of rows and measures on one held-out file.

      trials = Trials(training, "held_out.jsonl")
      params, loss = trials.run("subset.jsonl", seed=0)

  Args:
    training: how.
    held_out: path of the held-out rows.

  Raises:
    UserError: what the training job refuses of models and checkpoints.
  """

  def __init__(self, training: Training, held_out: pathlib.Path):
    self._training = training
    self._held_out = held_out
    model, optimizer = training.model, training.optimizer
    self._partition = sharding.Partition.of(
      sharding.Layout(), config=model.config, batch_size=training.batch_size
    )
    self._shapes = self._partition.abstract_state(model, optimizer)
    self._convert = features.batches_for(
      model.kind, vocabulary_lib.begin_id(training.vocabulary)
    )
    self._loss_config = loss.LossConfig(training.z_loss, 0.0, loss.REAL_TOKENS)
    self._step = compiled.train_step(
      self._partition,
      self._shapes,
      model=model,
      optimiser=optimizer,
      loss_config=self._loss_config,
    )
    self._first: dict[int, Any] = {}
    self._before: dict[int, dict[str, float]] = {}
    self._validation = None

  def run(
    self, subset: pathlib.Path, seed: int
  ) -> tuple[Any, dict[str, float]]:
    """One trial.

    Args:
      subset: file of rows to train on.
      seed: of the first parameters where they are random, and of the order of
        the rows.

    Returns:
      the parameters, and `loss` (nats a held-out answer token), `accuracy` of
      these tokens (0 to 1) and `start_loss` before any step.

    Raises:
      UserError: no row of the subset fits into a row of the batch.
    """
    training = self._training
    resolved = self._resolve(subset)
    if self._validation is None:
      self._validation = validation_lib.Validation(
        resolved,
        model=training.model,
        loss_config=self._loss_config,
        convert=self._convert,
        lengths=training.task_feature_lengths,
        batch_size=training.batch_size,
        partition=self._partition,
        batches=_BATCHES,
        pack=training.pack,
      )
    state = self._begin(seed)
    key = self._key(seed)
    if key not in self._before:
      self._before[key] = self._validation(state.params)
    batches = input_lib.training_batches(
      resolved,
      convert=self._convert,
      lengths=training.task_feature_lengths,
      batch_size=training.batch_size,
      seed=seed,
      pack=training.pack,
    )
    for _ in range(training.train_steps):
      state, _ = self._step(state, self._partition.put(next(batches)))
    after = self._validation(state.params)
    return state.params, {
      "loss": after["validation/cross_entropy"],
      "accuracy": after["validation/accuracy"],
      "start_loss": self._before[key]["validation/cross_entropy"],
    }

  def _resolve(self, subset: pathlib.Path) -> mixtures.Resolved:
    collection = sft.SFT(
      files=str(subset),
      eval_files=str(self._held_out),
      held_out=0,
      format=_FORMAT,
      chat_format=self._training.chat_format,
    ).for_model(self._training.model.kind)
    collection.register(self._training.vocabulary)
    return mixtures.resolve(sft.TRAIN)

  def _key(self, seed: int) -> int:
    """One number for seeds that begin alike."""
    return seed if self._training.initial_checkpoint_path is None else 0

  def _begin(self, seed: int) -> Any:
    """The first state, a copy each time: a step overwrites it."""
    training = self._training
    key = self._key(seed)
    if key not in self._first:
      if training.initial_checkpoint_path is None:
        state = self._partition.fresh_state(
          training.model, training.optimizer, seed
        )
      else:
        params = load.load_params(
          training.initial_checkpoint_path,
          training.model,
          jax.tree.map(lambda x: x.sharding, self._shapes.params),
        )
        state = self._partition.state_of(params, training.optimizer)
      self._first[key] = jax.tree.map(np.asarray, jax.device_get(state))
    return jax.tree.map(
      lambda x, shape: jax.device_put(x, shape.sharding, may_alias=False),
      self._first[key],
      self._shapes,
    )
