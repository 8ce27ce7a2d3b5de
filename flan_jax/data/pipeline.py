"""A seqio task that shuffles rows before it renders them.

seqio shuffles what its preprocessors made. For a mixture of seventy tasks that
is seventy buffers of a thousand tokenised examples, all rendered before the
first batch. Rows are smaller and cost nothing yet, and a buffer as large as a
small dataset makes every epoch a true permutation.
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

# Rows held for shuffling, per task. TFDS wrote its files in hashed order, so
# this only decides how epochs differ.
SHUFFLE_ROWS = 2048
# Splits of at most this many rows are kept in memory after the first epoch,
# as seqio does with its own tasks.
MEMORY_ROWS = 10_000


class RowTask(seqio.Task):
  """`seqio.Task` with source → prepare → shuffle → repeat → render.

  The contract is seqio's: same arguments, same features, and with a seed the
  same examples in the same order. Templates are drawn after the repeat, so
  every epoch draws anew.
  """

  def get_dataset(
    self,
    sequence_length: Mapping[str, int] | None = None,
    split: str = "train",
    use_cached: bool = False,
    shuffle: bool = True,
    shuffle_buffer_size: int | None = None,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    num_epochs: int | None = 1,
    trim_output_features: bool = True,
    try_in_mem_cache: bool = True,
  ) -> tf.data.Dataset:
    """See `seqio.Task.get_dataset`; cached tasks are read by seqio itself."""
    if use_cached and self.supports_caching:
      return super().get_dataset(
        sequence_length=sequence_length,
        split=split,
        use_cached=True,
        shuffle=shuffle,
        shuffle_buffer_size=shuffle_buffer_size,
        seed=seed,
        shard_info=shard_info,
        num_epochs=num_epochs,
        trim_output_features=trim_output_features,
        try_in_mem_cache=try_in_mem_cache,
      )
    count = self.source.num_input_examples(split)
    rows = self.source.get_dataset(
      split=split, shuffle=shuffle, seed=seed, shard_info=shard_info
    )
    rows = self.preprocess_precache(rows, seed=seed)
    # One epoch reads every row once: keeping them would only cost memory.
    if try_in_mem_cache and num_epochs != 1 and count <= MEMORY_ROWS:
      rows = rows.cache()
    if shuffle:
      size = shuffle_buffer_size or SHUFFLE_ROWS
      rows = rows.shuffle(min(size, max(count, 1)), seed=seed)
    if num_epochs != 1:
      rows = rows.repeat(num_epochs)
    examples = self.preprocess_postcache(
      rows, sequence_length=sequence_length, seed=seed
    )
    examples = self._validate_preprocessing(examples)
    if trim_output_features:
      examples = self._trim_output_features(
        examples, sequence_length=sequence_length
      )
    return examples.prefetch(tf.data.AUTOTUNE)
