"""The steps of a prompt's seqio pipeline: rows to texts to tokens.

  rows (TFDS or JSON) → adapter → prompt → inputs, targets → tokens

Rows pass through tensors in batches; a prompt's program runs in Python on one
batch at a time.

Lengths are kept as T0 keeps them: what is too long loses its end. A target's
EOS stays, and so does the text that a mixture puts behind every prompt.
"""

import functools
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import p3_sources, row_checks, template
from flan_jax.data.p3_jinja import RowError
from flan_jax.data.trimming import encode_batch
from flan_jax.errors import UserError

# Rows of one call of a program. A mixture renders this many of each of its
# hundreds of prompts before its first example.
BATCH = 64


def render_rows(prompts, number: int, wrapper: template.Wrapper):
  """Preprocessor of seqio's: rows to tokenised examples under one prompt.

  Args:
    prompts: a `p3_tasks.PromptSet`.
    number: which of its prompts.
    wrapper: what surrounds it.
  """

  def render(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
  ) -> tf.data.Dataset:
    batches = dataset.ragged_batch(BATCH)
    paths = [path for path, _ in p3_sources.leaves(batches.element_spec)]
    encode = encoder(
      output_features["targets"].vocabulary, wrapper, sequence_length or {}
    )

    def in_python(sizes, seed, *arrays):
      arrays, columns = iter(arrays), []
      for size in sizes.tolist():
        columns.append([next(arrays) for _ in range(size)])
      return _rendered(prompts, number, paths, columns, seed.tolist())

    @tf.autograph.experimental.do_not_convert
    def batch(rows, seed):
      parts = p3_sources.components(rows)
      inputs, targets, index = tf.numpy_function(
        in_python,
        [
          tf.constant([len(p) for p in parts], tf.int32),
          seed,
          *itertools.chain(*parts),
        ],
        [tf.string, tf.string, tf.int64],
      )
      for value in (inputs, targets, index):
        value.set_shape([None])
      return {
        **encode(inputs, targets),
        "targets_pretokenized": targets,
        "template": tf.fill(tf.shape(index), number),
        template.INDEX: index,
      }

    return seqio.map_over_dataset(batch, num_seeds=1)(batches).unbatch()

  return render


def _rendered(prompts, number, paths, columns, seed):
  """Texts of the rows that the prompt applies to, and their numbers."""
  inputs, targets, indices = [], [], []
  try:
    program = prompts.compiled(number)
    rows = p3_sources.rows_of(paths, columns)
    for index, row in p3_sources.parsed(
      rows, prompts.dataset, prompts.on_bad_row
    ):
      if row is None:
        continue
      try:
        found = program.render(row, (*seed, number, index))
      except RowError:
        continue  # counted by `PromptSet.count`
      inputs.append(found.inputs.encode())
      targets.append(found.targets.encode())
      indices.append(index)
  except UserError as e:
    raise row_checks.for_graph(e) from None
  as_texts = functools.partial(np.array, dtype=object)
  return as_texts(inputs), as_texts(targets), np.array(indices, np.int64)


# One function for each vocabulary, wrapper and lengths: traced once, shared by
# all prompts, called and not copied into every task's graph.
_ENCODERS: dict[tuple, Callable] = {}


def encoder(
  vocabulary: seqio.Vocabulary,
  wrapper: template.Wrapper,
  lengths: Mapping[str, int],
):
  """`encode(inputs_B, targets_B)`: tokens, text and tokens lost of a batch.

  Args:
    vocabulary: of inputs and targets.
    wrapper: what surrounds every prompt.
    lengths: of inputs and targets, in tokens; what has none is not cut.
  """
  limits = lengths.get("inputs"), lengths.get("targets")
  key = (id(vocabulary), wrapper, *limits)

  def encode(text_B, target_B):
    inputs_BS, lost_B = _inputs(vocabulary, text_B, wrapper, limits[0])
    whole_BT = kept_BT = _tokens(vocabulary, target_B)
    if limits[1] is not None:
      kept_BT = whole_BT[:, : limits[1] - 1]
    lost_B += whole_BT.row_lengths() - kept_BT.row_lengths()
    return {
      "inputs": inputs_BS,
      "targets": _with_eos(vocabulary, kept_BT),
      "inputs_pretokenized": tf.strings.join(
        [wrapper.prefix, text_B, wrapper.suffix]
      ),
      "trimmed": tf.cast(lost_B, tf.int32),
    }

  if key not in _ENCODERS:
    text = tf.TensorSpec((None,), tf.string)
    _ENCODERS[key] = tf.function(
      encode,
      input_signature=[text, text],
      autograph=False,
      experimental_attributes={"_noinline": True},
    )
  return _ENCODERS[key]


def _tokens(vocabulary, text_B):
  return encode_batch(vocabulary, text_B).with_row_splits_dtype(tf.int64)


def _with_eos(vocabulary, tokens_BS):
  eos_B1 = tf.fill([tokens_BS.nrows(), 1], vocabulary.eos_id)
  return tf.concat([tokens_BS, tf.cast(eos_B1, tf.int32)], axis=1)


def _inputs(vocabulary, text_B, wrapper, length: int | None):
  """Tokens of prompts in their wrapper, cut at their end; tokens lost."""
  start_B = tf.strings.join([wrapper.prefix, text_B])
  whole_BS = _tokens(vocabulary, tf.strings.join([start_B, wrapper.suffix]))
  kept_BS = whole_BS
  if length is not None:
    limit = length - wrapper.eos
    kept_BS = whole_BS[:, :limit]
    if wrapper.suffix:
      size = tf.size(text_B, tf.int64)
      tail_BS = _tokens(vocabulary, tf.fill([size], wrapper.suffix))
      room = limit - tf.reduce_max(tf.concat([tail_BS.row_lengths(), [0]], 0))
      cut_BS = _tokens(vocabulary, start_B)[:, : tf.maximum(room, 0)]
      both = tf.concat([whole_BS, tf.concat([cut_BS, tail_BS], 1)], 0)
      long_B = whole_BS.row_lengths() > limit
      at_B = tf.range(size) + tf.where(long_B, size, tf.zeros_like(size))
      kept_BS = tf.gather(both, at_B)
  lost_B = whole_BS.row_lengths() - kept_BS.row_lengths()
  if wrapper.eos:
    kept_BS = _with_eos(vocabulary, kept_BS)
  return kept_BS, lost_B
