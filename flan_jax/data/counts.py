"""Counts: which rows of a mixture's tasks are used, and why the others not."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import seqio

from flan_jax.data import (
  catalogue,
  collection,
  mixtures,
  preprocessors,
  sources,
  spec,
  template,
  trimming,
)


@dataclasses.dataclass(frozen=True)
class Counts:
  """What becomes of the rows of one split.

  Attributes:
    read: rows of the split.
    not_kept: of them dropped by the task's `keep`.
    incomplete: of the rest dropped, a field or the target being empty.
    too_long: of used rows times templates, those that are left out because
      the row's own options are longer than the inputs, or the row is.
    turns: turns that conversations lost, being too long.
  """

  read: int
  not_kept: int
  incomplete: int
  too_long: int = 0
  turns: int = 0

  @property
  def used(self) -> int:
    return self.read - self.not_kept - self.incomplete


def count(
  resolved: mixtures.Resolved,
  split: str = "train",
  lengths: Mapping[str, int] | None = None,
  most: int | None = None,
) -> dict[str, Counts]:
  """What happens to each row of our tasks, from one pass over the data.

  >>> count(mixtures.resolve("flan_snli"))  # doctest: +SKIP
  {'flan_snli': Counts(read=4915, not_kept=12, incomplete=0, too_long=0)}

  Args:
    resolved: from `mixtures.resolve`.
    split: ours.
    lengths: of inputs and targets in tokens; `too_long` is 0 without.
    most: rows read of each task, the first ones; None: all.
  """
  out = {}
  for task in seqio.get_subtasks(resolved.mixture):
    ours = catalogue.of_seqio(task)
    if ours is None or not isinstance(task.source, sources.Source):
      continue
    if isinstance(ours, collection.CollectionTask):
      out[task.name] = Counts(*ours.count(task, split, lengths))
      continue
    rows = task.source.get_dataset(split)
    encoder = trimming.encoder(task.output_features, lengths)
    sums = [0, 0, 0, 0]
    for batch, kept_B, complete_B in template.user_errors(
      preprocessors.examine(ours, rows if most is None else rows.take(most))
    ):
      used_B = kept_B & complete_B
      sums[0] += len(kept_B)
      sums[1] += int(np.sum(~kept_B))
      sums[2] += int(np.sum(kept_B & ~complete_B))
      if lengths and isinstance(ours.choices, spec.Features):
        used = preprocessors.gather(batch, used_B)
        chosen = catalogue.form_of(task).of(ours)
        sums[3] += preprocessors.too_long(ours, encoder, used, chosen)
    out[task.name] = Counts(*sums)
  return out
