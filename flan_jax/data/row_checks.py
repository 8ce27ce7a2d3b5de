"""Checks of a batch of rows in the graph, and what they say to the user.

TensorFlow wraps a failed check in its own lines; `user_errors` gives the one
sentence alone, as a `DataError` that names the task and the row.
"""

import codecs
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from flan_jax.data import spec
from flan_jax.errors import UserError

# The number of a row in its split.
INDEX = "example_index"

# What the graph raises is wrapped by TensorFlow in its own lines; the marks
# let `user_errors` find the one sentence that is meant for the user.
_BEGIN, _END = "<data error> ", " </data error>"


# A name of its own: a generator closed at exit finds no module `tf`.
_GRAPH_ERROR = tf.errors.InvalidArgumentError


class DataError(UserError):
  """A row that a task's templates cannot be applied to; names both."""


def check_labels(task: spec.Task, batch, label_B, size_B):
  """That every label is an index of its row's choices: an op."""
  bad_B = (label_B < 0) | (label_B >= size_B)
  return fail_if(
    bad_B,
    batch,
    f"task {task.name!r}: label {{}} is outside its choices (counted from 0)"
    f" in row {{}}. Drop such rows with keep=, or correct {task.label!r}.",
    label_B,
  )


# What Python decodes: RE2 reads bytes that are no UTF-8 as no character.
_UTF8 = r"[\x{0}-\x{D7FF}\x{E000}-\x{10FFFF}]*"


def check_utf8(task: spec.Task, batch, choices_BC=None):
  """That the texts which templates show are UTF-8: an op.

  `choices_BC` is ragged, of rows that have their own.
  """
  names = [*task.inputs]
  if task.choices is None:
    names.append(spec.TARGET)
  text_BF = tf.stack([batch[name] for name in names], axis=1)
  good_BF = tf.strings.regex_full_match(text_BF, _UTF8)
  if choices_BC is not None:
    names.append("choices")
    good = tf.strings.regex_full_match(choices_BC.flat_values, _UTF8)
    good_B = tf.reduce_all(choices_BC.with_flat_values(good), axis=1)
    good_BF = tf.concat([good_BF, good_B[:, None]], axis=1)
  first_B = tf.argmin(tf.cast(good_BF, tf.int32), axis=1)
  return fail_if(
    ~tf.reduce_all(good_BF, axis=1),
    batch,
    f"task {task.name!r}: field {{}} of row {{}} is not UTF-8 text. Write the"
    " data in UTF-8, or drop such rows with keep=.",
    tf.gather(names, first_B),
  )


def check_choices(task: spec.Task, batch, choices_BC):
  """That choices can be told apart: an op."""
  text = choices_BC.flat_values
  row = tf.strings.as_string(choices_BC.value_rowids())
  position = tf.range(tf.size(text))
  # A choice is repeated if an earlier position has the same (row, text).
  _, group = tf.unique(tf.strings.join([row, text], separator=":"))
  first = tf.math.unsorted_segment_min(position, group, tf.size(text))
  wrong = (tf.gather(first, group) < position) | (tf.strings.strip(text) == "")
  wrong_B = tf.reduce_any(choices_BC.with_flat_values(wrong), axis=1)
  return fail_if(
    wrong_B | (choices_BC.row_lengths() < 2),
    batch,
    f"task {task.name!r}: the {{}} choices in row {{}} are not at least two,"
    " all different and none empty. Drop such rows with keep=.",
    choices_BC.row_lengths(),
  )


def fail_if(bad_B, batch: Mapping[str, Any], message: str, *values_B):
  """An op that raises a `DataError` for the first bad row.

  `message` has one `{}` for each of `values_B` (numbers of the rows, or one
  text) and a last one for the row's number in its split.
  """
  first = tf.where(bad_B)[:1, 0]  # [1], or [0] where all is well
  said = [
    tf.fill(tf.shape(first), v)
    if v.shape.rank == 0
    else tf.strings.as_string(tf.gather(v, first))
    for v in (*values_B, batch[INDEX])
  ]
  pieces = [None] * (2 * len(said) + 1)
  pieces[0::2] = message.split("{}")
  pieces[1::2] = said
  text = tf.strings.reduce_join(tf.strings.join([_BEGIN, *pieces, _END]))
  return tf.debugging.Assert(tf.size(first) == 0, [text])


def for_graph(error: UserError) -> ValueError:
  """What Python code inside a graph raises so that `user_errors` finds it.

  TensorFlow passes the text of a ValueError on, and it is read as TensorFlow
  writes its own checks, with escapes.
  """
  said = str(error).replace("\\", "\\\\")
  return ValueError(f"{_BEGIN}{said}{_END}")


def user_errors(rows):
  """Iterates over `rows`; what the graph says about data becomes one line.

  Raises:
    DataError: what a check of this module, or of `trimming`, says.
  """
  try:
    yield from rows
  except _GRAPH_ERROR as e:
    found = re.search(
      re.escape(_BEGIN) + "(.*?)" + re.escape(_END), str(e), re.DOTALL
    )
    if not found:
      raise
    # TensorFlow escapes what it quotes.
    text = codecs.escape_decode(found.group(1))[0].decode("utf-8", "replace")
    raise DataError(text) from None
