r"""Tokenise, and trim what does not fit: an input field, never the rest.

The instruction, the options, the answer cue and the wrapper around them are
never cut; if they alone do not fit, `check_fits` says so before anything runs.
The longest input field of the row's template gives way first, from its end and
at a word boundary, until it is no longer the longest; then the longest fields
give way together. Targets that are too long lose their end; EOS stays. Rows
that fit are untouched.

Everything here is one `tf.function` per (vocabulary, lengths), traced once and
shared by all tasks: a task passes its tables as tensors, so that a mixture of
sixty tasks builds this graph once, not sixty times.

The code released with Wei et al., 2022 (google-research/FLAN) cuts the end of
the prompt, where instruction, options and cue stand.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import seqio
import tensorflow as tf

from flan_jax.data import spec, template
from flan_jax.errors import UserError

NO_LIMIT = 2**30

# Put between words so that a split keeps every character of the text.
_MARK = "\x1e"


class Encoded(NamedTuple):
  """What the graph makes of a batch.

  Attributes:
    inputs_BS, targets_BT: token ids with EOS, ragged int32.
    inputs_text_B, targets_text_B: the texts they were made from.
    trimmed_B: tokens that trimming removed from both, int32.
    over_B: tokens by which the inputs are too long even without any of their
      fields, int32; 0 for all others.
  """

  inputs_BS: Any
  targets_BT: Any
  inputs_text_B: Any
  targets_text_B: Any
  trimmed_B: Any
  over_B: Any


def encode_batch(vocabulary: seqio.Vocabulary, text_B):
  """Token ids of each text, without EOS: ragged int32 [B, (S)].

  seqio promises `encode_tf` for one text; some vocabularies take a batch.
  """
  if isinstance(vocabulary, seqio.ByteVocabulary):
    bytes_BS = tf.strings.bytes_split(text_B)
    ids = tf.reshape(tf.io.decode_raw(bytes_BS.flat_values, tf.uint8), [-1])
    return bytes_BS.with_flat_values(tf.cast(ids, tf.int32) + 3)
  ids_BS = vocabulary.encode_tf(text_B)
  if isinstance(ids_BS, tf.RaggedTensor):
    return ids_BS
  return tf.map_fn(
    vocabulary.encode_tf,
    text_B,
    fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
  """Vocabulary and lengths that rows are tokenised and trimmed with.

  Attributes:
    vocabulary: of inputs and targets.
    inputs_length, targets_length: in tokens, EOS included.
    inputs_eos, targets_eos: whether EOS is appended.
  """

  vocabulary: seqio.Vocabulary
  inputs_length: int = NO_LIMIT
  targets_length: int = NO_LIMIT
  inputs_eos: bool = True
  targets_eos: bool = True

  @functools.cached_property
  def encode(self):
    """`encode(tables, fields_BF, row_template_B) -> Encoded`."""
    text, ints = tf.string, tf.int32
    matrix = (None, None)
    tables = template.Tables(
      tf.TensorSpec((), text),
      tf.TensorSpec((None,), ints),
      *(tf.TensorSpec(matrix, d) for d in (text, ints, text, ints, ints)),
    )
    return tf.function(
      self._encode,
      input_signature=[
        tables,
        tf.TensorSpec(matrix, text),
        tf.TensorSpec((None,), ints),
      ],
      autograph=False,
      # Called, not copied into every task's graph.
      experimental_attributes={"_noinline": True},
    )

  def _encode(self, tables, fields_BF, row_template_B) -> Encoded:
    render = functools.partial(
      template.join, tables.input_text_TP, tables.input_slot_TP
    )
    text_B = render(fields_BF, row_template_B)
    tokens_BS = self._tokens(text_B)
    before_B = tokens_BS.row_lengths()
    over_B = tf.zeros_like(before_B)
    if self.inputs_length < NO_LIMIT:
      limit = self.inputs_length - self.inputs_eos
      long_O1 = tf.where(before_B > limit)
      template_O = tf.gather_nd(row_template_B, long_O1)
      text_O, tokens_OS, over_O = self._shorten(
        render,
        tf.gather_nd(fields_BF, long_O1),
        template_O,
        tf.cast(tf.gather(tables.uses_TF, template_O), tf.int64),
        limit,
      )
      text_B = tf.tensor_scatter_nd_update(text_B, long_O1, text_O)
      over_B = tf.tensor_scatter_nd_update(over_B, long_O1, over_O)
      # The shortened rows stand behind the batch; each row takes its own.
      size, long = tf.size(text_B, tf.int64), tf.size(text_O, tf.int64)
      place_B = tf.tensor_scatter_nd_update(
        tf.range(size), long_O1, size + tf.range(long)
      )
      tokens_BS = tf.gather(tf.concat([tokens_BS, tokens_OS], 0), place_B)
    target_B = template.join(
      tables.target_text_TP, tables.target_slot_TP, fields_BF, row_template_B
    )
    full_BT = self._tokens(target_B)
    target_BT = self._cut_targets(full_BT)
    trimmed_B = (before_B - tokens_BS.row_lengths()) + (
      full_BT.row_lengths() - target_BT.row_lengths()
    )
    return Encoded(
      self._eos(tokens_BS, self.inputs_eos),
      self._eos(target_BT, self.targets_eos),
      text_B,
      target_B,
      tf.cast(trimmed_B, tf.int32),
      tf.cast(over_B, tf.int32),
    )

  def choices(self, text_B):
    """Tokens of each text with EOS, whole: [B, (T)].

    Choices are compared with each other: two that differ after the length
    limit would be the same if they were cut.
    """
    return self._eos(self._tokens(text_B), self.targets_eos)

  def _cut_targets(self, tokens_BT):
    if self.targets_length == NO_LIMIT:
      return tokens_BT
    return tokens_BT[:, : self.targets_length - self.targets_eos]

  def _tokens(self, text_B):
    return encode_batch(self.vocabulary, text_B).with_row_splits_dtype(tf.int64)

  def _eos(self, tokens_BS, wanted: bool):
    if not wanted:
      return tokens_BS
    eos_B1 = tf.fill([tokens_BS.nrows(), 1], self.vocabulary.eos_id)
    return tf.concat([tokens_BS, tf.cast(eos_B1, tf.int32)], axis=1)

  def _shorten(self, render, fields_OF, template_O, uses_OF, limit: int):
    """Texts and tokens of long rows, shortened, and what they are still over.

    A row is over `limit` in the end only if its prompt is without any field.
    """

    def encode(fields_OF):
      text_O = render(fields_OF, template_O)
      tokens_OS = self._tokens(text_O)
      return text_O, tokens_OS, tf.maximum(tokens_OS.row_lengths() - limit, 0)

    def unfinished(fields_OF, over_O):
      spare_O = tf.reduce_any((uses_OF > 0) & (fields_OF != ""), axis=1)
      return tf.reduce_any((over_O > 0) & spare_O)

    def cut(fields_OF, over_O):
      fields_OF = self._cut(fields_OF, uses_OF, over_O)
      return fields_OF, encode(fields_OF)[2]

    fields_OF, _ = tf.while_loop(
      unfinished,
      cut,
      (fields_OF, encode(fields_OF)[2]),
      shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([None])),
    )
    return encode(fields_OF)

  def _cut(self, fields_OF, uses_OF, over_O):
    """Fields cut to one level, the highest that removes `over_O` tokens.

    With the fields of a template sorted by length l_1 ≥ l_2 ≥ …, each used
    u_i times, cutting all to level L removes Σ u_i max(l_i - L, 0); that is
    at least the excess e for L = max_j (Σ_{i≤j} u_i l_i - e) / Σ_{i≤j} u_i.
    """
    pieces = self._pieces(fields_OF)
    length_OF = tf.reshape(
      tf.reduce_sum(pieces.tokens, axis=1), tf.shape(fields_OF)
    )
    # White space alone may be no token; it still has to go in the end.
    length_OF = tf.maximum(length_OF, tf.cast(fields_OF != "", tf.int64))
    length_OF = tf.where(uses_OF > 0, length_OF, 0)
    order_OF = tf.argsort(length_OF, axis=1, direction="DESCENDING")
    u_OF = tf.gather(uses_OF, order_OF, batch_dims=1)
    l_OF = tf.gather(length_OF, order_OF, batch_dims=1)
    u_sum_OF = tf.cumsum(u_OF, axis=1)
    left_OF = tf.cumsum(u_OF * l_OF, axis=1) - over_O[:, None]
    level_OF = tf.where(u_sum_OF > 0, left_OF // tf.maximum(u_sum_OF, 1), 0)
    level_O = tf.maximum(tf.reduce_max(level_OF, axis=1), 0)
    too_long_OF = (
      (over_O[:, None] > 0) & (uses_OF > 0) & (length_OF > level_O[:, None])
    )
    level_N = tf.reshape(
      tf.broadcast_to(level_O[:, None], tf.shape(fields_OF)), [-1]
    )
    cut_OF = tf.reshape(pieces.keep(level_N), tf.shape(fields_OF))
    return tf.where(too_long_OF, cut_OF, fields_OF)

  def _pieces(self, fields_OF) -> "Pieces":
    """Every field split before its white space: "a b" is "a", " b"."""
    marked = tf.strings.regex_replace(
      tf.reshape(fields_OF, [-1]), r"(\S)(\s)", r"\1" + _MARK + r"\2"
    )
    text = tf.strings.split(marked, _MARK)
    tokens = encode_batch(self.vocabulary, text.flat_values).row_lengths()
    return Pieces(text, text.with_flat_values(tf.cast(tokens, tf.int64)))


class Pieces(NamedTuple):
  """Words of N fields with the white space before them, and their tokens."""

  text: Any
  tokens: Any

  def keep(self, level_N):
    """Each field's first words that are together `level_N` tokens at most.

    A first word that alone is longer is cut within (scripts without spaces,
    long links); the estimate of its characters is corrected by the loop.
    """
    total = tf.cumsum(self.tokens.flat_values)
    # Sum up to and including a word, within its own field.
    base = tf.concat([tf.zeros([1], tf.int64), total], 0)
    start_N = tf.gather(base, self.tokens.row_starts())
    row = self.tokens.value_rowids()
    fits = total - tf.gather(start_N, row) <= tf.gather(level_N, row)
    kept = tf.ragged.boolean_mask(self.text, self.text.with_flat_values(fits))
    text_N = tf.strings.reduce_join(kept, axis=1)
    first_N = tf.strings.reduce_join(self.text[:, :1], axis=1)
    tokens_N = tf.reduce_sum(self.tokens[:, :1], axis=1)
    letters_N = tf.cast(tf.strings.length(first_N, "UTF8_CHAR"), tf.int64)
    share_N = letters_N * level_N // tf.maximum(tokens_N, 1)
    part_N = tf.strings.substr(
      first_N,
      tf.zeros_like(share_N),
      tf.minimum(share_N, letters_N),
      "UTF8_CHAR",
    )
    text_N = tf.where(tokens_N > level_N, part_N, text_N)
    return tf.where(level_N > 0, text_N, "")


_ENCODERS: dict[tuple, Encoder] = {}


def encoder(
  features: Mapping[str, seqio.Feature], lengths: Mapping[str, int] | None
) -> Encoder:
  """The encoder of seqio's output features and lengths, made once for each.

  Raises:
    UserError: inputs and targets have different vocabularies, or a length
      leaves no room for one token and EOS.
  """
  inputs, targets = features["inputs"], features["targets"]
  if inputs.vocabulary != targets.vocabulary:
    raise UserError(
      "inputs and targets have different vocabularies,"
      f" {inputs.vocabulary} and {targets.vocabulary}; give both the same."
    )
  limits = []
  for name in ("inputs", "targets"):
    length = (lengths or {}).get(name)
    if length is not None and length < 2:
      raise UserError(
        f"TASK_FEATURE_LENGTHS[{name!r}] is {length}; at least 2 are needed,"
        " for one token and EOS."
      )
    limits.append(NO_LIMIT if length is None else int(length))
  return _kept(
    Encoder(inputs.vocabulary, *limits, inputs.add_eos, targets.add_eos)
  )


def within(encoder: Encoder, tokens: int) -> Encoder:
  """The same with inputs of `tokens` at most, EOS not counted."""
  length = tokens + encoder.inputs_eos
  return _kept(dataclasses.replace(encoder, inputs_length=length))


def _kept(made: Encoder) -> Encoder:
  """The encoder that was made first with the same attributes: a graph each."""
  key = (
    id(made.vocabulary),
    made.inputs_length,
    made.targets_length,
    made.inputs_eos,
    made.targets_eos,
  )
  return _ENCODERS.setdefault(key, made)


def check_fits(
  task: spec.Task,
  table: template.Tables,
  encoder: Encoder,
  limit: str = "TASK_FEATURE_LENGTHS['inputs']",
):
  """Raises for a template whose own words are longer than the inputs.

  Args:
    task: for its choices; those that differ from row to row count as empty.
    table: of the templates, with their wrapper.
    encoder: vocabulary and lengths.
    limit: the name of what bounds the inputs, for the message.

  Raises:
    UserError: names task, template, both lengths and the way out; or a choice
      of the task that is longer than the targets.
  """
  if isinstance(task.choices, tuple) and encoder.targets_length != NO_LIMIT:
    with tf.init_scope():
      tokens = encoder.choices(tf.constant(task.choices)).row_lengths().numpy()
    longest = int(tokens.argmax())
    if tokens[longest] > encoder.targets_length:
      raise UserError(
        f"task {task.name!r}: its choice {task.choices[longest]!r} is"
        f" {tokens[longest]} tokens long, but targets are cut to"
        f" {encoder.targets_length}. Raise TASK_FEATURE_LENGTHS['targets']."
      )
  if encoder.inputs_length == NO_LIMIT:
    return
  answers, options = [""], ""
  if isinstance(task.choices, tuple):
    answers, options = task.choices, template.options(task.choices)
  empty = [""] * len(task.inputs)
  rows = [[*empty, ""]]
  if task.choices is not None:
    rows = [[*empty, answer, options] for answer in answers]
  # The empty field, and before it that of exemplars where they are shown.
  rows = [row + [""] * (len(table.uses_TF[0]) - len(row)) for row in rows]
  numbers = range(len(table.template_T))
  with tf.init_scope():
    over = encoder.encode(
      template.tensors(table),
      tf.constant([row for row in rows for _ in numbers]),
      tf.constant([n for _ in rows for n in numbers]),
    ).over_B.numpy()
  worst = int(over.argmax())
  if over[worst] > 0:
    number = table.template_T[worst % len(numbers)]
    raise UserError(
      f"task {task.name!r}, template {number}: without any of its fields the"
      f" prompt is {encoder.inputs_length + over[worst]} tokens long, but"
      f" inputs are cut to {encoder.inputs_length}. Raise {limit}."
    )
