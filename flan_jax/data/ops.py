r"""Graph ops on one row that several dataset files share.

A row is a dict of tensors. Each function returns a new row and leaves every
other feature as it was, so that `prepare` is a chain of them.
"""

import tensorflow as tf

Row = dict[str, tf.Tensor]


def replace(row: Row, field: str, pattern: str, to: str) -> Row:
  r"""The row with every match of `pattern` (RE2) in `field` replaced.

  >>> row = replace({"text": tf.constant("a<br />b")}, "text", r"<br\s*/>", " ")
  >>> row["text"].numpy()
  b'a b'
  """
  return {**row, field: tf.strings.regex_replace(row[field], pattern, to)}


def strip(row: Row, *fields: str) -> Row:
  """The row with white space removed from both ends of `fields`.

  >>> strip({"text": tf.constant("  so  ")}, "text")["text"].numpy()
  b'so'
  """
  return {**row, **{field: tf.strings.strip(row[field]) for field in fields}}


def join(row: Row, field: str, separator: str = ", ") -> Row:
  """The row with `field`, a sequence of texts, joined to one text.

  >>> join({"concepts": tf.constant(["dog", "run"])}, "concepts")[
  ...   "concepts"].numpy()
  b'dog, run'
  """
  joined = tf.strings.reduce_join(row[field], separator=separator)
  return {**row, field: joined}


def distinct(row: Row, *fields: str) -> tf.Tensor:
  """Whether the texts of `fields` differ from one another; for `keep`.

  One field is a sequence of texts, several are one text each.

  >>> bool(distinct({"a": tf.constant("x"), "b": tf.constant("x")}, "a", "b"))
  False
  """
  texts = [row[field] for field in fields]
  choices = texts[0] if len(texts) == 1 else tf.stack(texts)
  return tf.size(tf.unique(choices)[0]) == tf.size(choices)
