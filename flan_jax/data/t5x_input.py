"""Mixtures for T5X itself: what `gin/t5x/*.gin` give its DatasetConfig.

T5X looks a mixture up by its name. It is registered here with the job's own
vocabulary and data folder, and of the datasets that are there, so that
`t5x.train` needs no module that registers anything.
"""

import logging
from typing import Any

import seqio

from flan_jax.data import collection, mixtures, template
from flan_jax.data import directory as directory_lib

_log = logging.getLogger(__name__)
# Ends the name of a mixture that some datasets are left out of.
PREPARED = "_prepared"


def mixture(
  name: str,
  vocabulary: seqio.Vocabulary,
  *,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  split: str = "train",
  wrapper: template.Wrapper = template.PLAIN,
  task_collection: Any = None,
) -> str:
  """Registers the mixture or task `name`, of the datasets that are prepared.

  Its tasks have one metric for T5X's evaluation, `exact_match`.

      from flan_jax.data import t5x_input
      train/utils.DatasetConfig.mixture_or_task_name = @t5x_input.mixture()
      t5x_input.mixture.name = 'flan_holdout_nli_train'

  Args:
    name: of ours, or of a task that is registered already.
    vocabulary: of inputs and targets, the model's.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    split: that must have rows.
    wrapper: what surrounds every prompt.
    task_collection: a `collection.Collection` to register besides.

  Returns:
    The name to give seqio: `name`, or where datasets are left out `name` with
    `PREPARED` after it.

  Raises:
    UserError: see `mixtures.resolve` and `directory.choose`.
  """
  collection.register(task_collection, vocabulary, wrapper=wrapper)
  data = directory_lib.choose(tfds_data_dir, task_collection)
  resolved = mixtures.resolve(name, missing_datasets, split=split)
  mixtures.check_vocabulary(resolved, vocabulary)
  _log.warning(
    "%s: %d datasets from %s.", name, len(resolved.present), data.label
  )
  for one in resolved.missing:
    _log.warning("%s is left out: %s", one.task, one.message)
  for task in seqio.get_subtasks(resolved.mixture):
    # seqio takes metrics when a task is made, and the catalogue's have none:
    # our own evaluation needs more of an answer than its text.
    task._metric_fn_constructor_args = [exact_match]
  if not resolved.missing:
    return name
  seqio.MixtureRegistry.remove(name + PREPARED)
  seqio.MixtureRegistry.add_provider(name + PREPARED, resolved.mixture)
  return name + PREPARED


def exact_match(targets: list[str], predictions: list[str]) -> dict[str, float]:
  """Percent of answers that are the target, but for white space around them.

  >>> exact_match(["yes", "no"], ["yes ", "maybe"])
  {'exact_match': 50.0}
  """
  right = [
    t.strip() == p.strip() for t, p in zip(targets, predictions, strict=True)
  ]
  return {"exact_match": 100.0 * sum(right) / max(len(right), 1)}
