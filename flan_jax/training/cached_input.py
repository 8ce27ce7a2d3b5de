"""A run's cached input: where it is, whether it is the run's, and its steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.data import (
  cached,
  cached_batches,
  features,
  mixtures,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CachedInput:
  """CACHE_DIR and CACHE_WORKERS of gin/jobs/train.gin.

  >>> CachedInput().folder is None
  True

  Attributes:
    folder: what gin/cache.gin wrote; None: prompts are rendered and tokenised
      as they are needed.
    workers: processes that read it; 0: threads of the one that trains.

  Raises:
    UserError: workers that are no number, or without a folder.
  """

  folder: str | None = None
  workers: int = 0

  def __post_init__(self):
    if not isinstance(self.workers, int) or self.workers < 0:
      raise UserError(
        f"CACHE_WORKERS is {self.workers!r}; give 0 or more processes."
      )
    if self.workers and self.folder is None:
      raise UserError(
        f"CACHE_WORKERS is {self.workers}, which has no effect without"
        " CACHE_DIR: write a cache with gin/cache.gin, or leave it 0."
      )

  def steps(
    self,
    training: mixtures.Resolved,
    *,
    kind: str,
    vocabulary: Any,
    lengths: Mapping[str, int],
    wrapper: template.Wrapper,
    pack: bool,
    batch_size: int,
    seed: int,
    rows: Sequence[int],
    rebuild: str,
  ) -> cached_batches.Steps | None:
    """The run's batches by number; None without a folder.

    Packing the first of them begins at once, in a thread.

    Args:
      training: the mixture that is trained on.
      kind: of the model.
      vocabulary, lengths, wrapper, pack, batch_size, seed: of the run.
      rows: of a batch that this process's devices hold.
      rebuild: the command that writes the cache.

    Raises:
      UserError: the cache is not of this run.
    """
    if self.folder is None:
      return None
    found = cached.find(
      self.folder, training, lengths=lengths, wrapper=wrapper, rebuild=rebuild
    )
    begin_id = vocabulary_lib.begin_id(vocabulary)
    layout = features.layout_for(kind, lengths, begin_id, pack)
    steps = cached_batches.Steps(
      found, layout, batch_size=batch_size, seed=seed, rows=rows
    )
    if not self.workers:
      steps.prepare()
    return steps


NONE = CachedInput()
