"""From numbers of instances to tokenised examples, a batch at a time.

Rows are shuffled as numbers in the graph; Python looks a batch of them up,
draws an encoding and a reference for each from the run's seed, and takes the
examples that fit. Instances that do not fit without any are left out
(`TaskSet.count` counts them).

Source: Wang et al., 2022 (arXiv 2204.07705), section 5.
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  pipeline,
  row_checks,
  spec,
  super_ni_prompts,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError

BATCH = 64
# Rows held for shuffling: all of the published training sample.
SHUFFLE_ROWS = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class Writer:
  """Texts and tokens of prompts in their wrapper, within lengths."""

  vocabulary: seqio.Vocabulary
  wrapper: template.Wrapper
  lengths: Mapping[str, int]

  @property
  def limit(self) -> int | None:
    return self.lengths.get("inputs")

  def around(self, text: str) -> str:
    return f"{self.wrapper.prefix}{text}{self.wrapper.suffix}"

  def texts(self, parts) -> list[str | None]:
    """See `super_ni_prompts.fitted`."""
    return super_ni_prompts.fitted(parts, self._sizes, self.limit)

  def _sizes(self, texts: list[str]) -> list[int]:
    encoded = self._encode([self.around(text) for text in texts])
    return [len(ids) + self.wrapper.eos for ids in encoded]

  def _encode(self, texts):
    return vocabulary_lib.encode_batch(self.vocabulary, texts)

  def tokens(self, texts: Sequence[str], targets: Sequence[str]):
    """Tokens of prompts and of targets, and how many a target lost."""
    eos = [self.vocabulary.eos_id]
    inputs = self._encode([self.around(text) for text in texts])
    inputs = [[*ids, *eos] if self.wrapper.eos else ids for ids in inputs]
    whole = self._encode(list(targets))
    most = self.lengths.get("targets")
    room = None if most is None else most - 1
    kept = [[*ids[:room], *eos] for ids in whole]
    lost = [len(ids) + 1 - len(k) for ids, k in zip(whole, kept, strict=True)]
    return inputs, kept, lost


class SuperNiTask(pipeline.RowTask):
  """A `RowTask` that shuffles more rows, since its rows are numbers."""

  def get_dataset(self, *args, shuffle_buffer_size=None, **kwargs):
    return super().get_dataset(
      *args, shuffle_buffer_size=shuffle_buffer_size or SHUFFLE_ROWS, **kwargs
    )


def render_rows(tasks, wrapper: template.Wrapper):
  """Preprocessor of seqio's: numbers of rows to tokenised examples.

  Args:
    tasks: a `super_ni_tasks.TaskSet`.
    wrapper: what surrounds every prompt.
  """

  def render(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
  ) -> tf.data.Dataset:
    vocabulary = output_features["targets"].vocabulary
    writer = Writer(vocabulary, wrapper, sequence_length or {})

    def in_python(training, numbers, indices, seed):
      split = "test"
      if not tasks.testing:
        split = "train" if training[0] else "validation"
      try:
        return _rendered(tasks, writer, split, numbers, indices, seed.tolist())
      except UserError as e:
        raise row_checks.for_graph(e) from None

    @tf.autograph.experimental.do_not_convert
    def batch(rows, seed):
      kinds = [tf.int32] * 2 + [tf.int64] * 2 + [tf.string] * 2
      kinds += [tf.int64, tf.int32, tf.int32]
      found = tf.numpy_function(
        in_python,
        [rows[spec.TRAINING], rows["row"], rows[template.INDEX], seed],
        kinds,
      )
      for value in found:
        value.set_shape([None])
      ids, target_ids, sizes, target_sizes, text, target, *marks = found
      ragged = tf.RaggedTensor.from_row_lengths
      return {
        "inputs": ragged(ids, sizes),
        "targets": ragged(target_ids, target_sizes),
        "inputs_pretokenized": text,
        "targets_pretokenized": target,
        **dict(
          zip((template.INDEX, "template", "trimmed"), marks, strict=True)
        ),
      }

    batches = dataset.batch(BATCH)
    return seqio.map_over_dataset(batch, num_seeds=1)(batches).unbatch()

  return render


def _rendered(tasks, writer, split, numbers, indices, seed):
  """Columns of a batch of examples; those that do not fit are left out."""
  drawn = []
  for number, index in zip(numbers.tolist(), indices.tolist(), strict=True):
    row = tasks.row(split, number)
    chance = random.Random(f"{seed}/{number}")
    how = chance.randrange(len(tasks.templates))
    parts = super_ni_prompts.parts(row.task, row.input, tasks.templates[how])
    drawn.append((parts, chance.choice(row.outputs), index, how))
  texts = writer.texts([parts for parts, *_ in drawn])
  kept = [
    (text, *rest)
    for text, (_, *rest) in zip(texts, drawn, strict=True)
    if text is not None
  ]
  texts, targets, indices, hows = zip(*kept, strict=True) if kept else [()] * 4
  inputs, wanted, lost = writer.tokens(texts, targets)

  def flat(lists):
    return np.array(list(itertools.chain(*lists)), np.int32)

  def as_texts(values):
    return np.array([v.encode() for v in values], dtype=object)

  return (
    flat(inputs),
    flat(wanted),
    np.array([len(ids) for ids in inputs], np.int64),
    np.array([len(ids) for ids in wanted], np.int64),
    as_texts(map(writer.around, texts)),
    as_texts(targets),
    np.array(indices, np.int64),
    np.array(hows, np.int32),
    np.array(lost, np.int32),
  )
