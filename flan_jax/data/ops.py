r"""Graph ops on one row that several dataset files share.

A row is a dict of tensors. Each function returns a new row and leaves every
other feature as it was, so that `prepare` is a chain of them.
"""

from collections.abc import Iterable

import tensorflow as tf

Row = dict[str, tf.Tensor]

# For `clean`: one question mark at the end, however many there were.
ASKED = ((r"[\s?]*$", "?"),)


def clean(
  row: Row, *fields: str, replace: Iterable[tuple[str, str]] = ()
) -> Row:
  r"""The row with patterns of `fields` replaced and both ends stripped.

  >>> row = {"text": tf.constant(" Dull.<br />Skip it. ")}
  >>> clean(row, "text", replace=[(r"<br\s*/?>", "\n")])["text"].numpy()
  b'Dull.\nSkip it.'

  Args:
    row: a row.
    fields: of one text or a sequence of texts each.
    replace: pairs (RE2 pattern, text), applied in order.
  """
  out = dict(row)
  for field in fields:
    text = row[field]
    for pattern, to in replace:
      text = tf.strings.regex_replace(text, pattern, to)
    out[field] = tf.strings.strip(text)
  return out


def listed(row: Row, texts: tf.Tensor, inline: str, lines: str, by="; ") -> Row:
  r"""The row with a sequence of texts as one text, in a line and in lines.

  >>> row = listed({}, tf.constant(["dog", "run"]), "words", "list", by=", ")
  >>> row["words"].numpy(), row["list"].numpy()
  (b'dog, run', b'dog\nrun')
  """
  return {
    **row,
    inline: tf.strings.reduce_join(texts, separator=by),
    lines: tf.strings.reduce_join(texts, separator="\n"),
  }


def numbered(row: Row, texts: tf.Tensor, field: str, most: int = 10) -> Row:
  r"""The row with the first `most` texts of a sequence as a numbered list.

  >>> row = numbered({}, tf.constant(["Dull.", "Loud."]), "reviews")
  >>> row["reviews"].numpy()
  b'1. Dull.\n2. Loud.'

  No texts make an empty field, and such a row is left out.
  """
  texts = texts[:most]
  number = tf.strings.as_string(1 + tf.range(tf.size(texts)))
  lines = tf.strings.join([number, texts], separator=". ")
  return {**row, field: tf.strings.reduce_join(lines, separator="\n")}


def accepted(row: Row) -> Row:
  """The row with `answers`: its target and its references, each once.

  >>> row = {"target": tf.constant("a"), "references": tf.constant(["b", "a"])}
  >>> accepted(row)["answers"].numpy().tolist()
  [b'a', b'b']
  """
  texts = tf.concat([[row["target"]], row["references"]], axis=0)
  return {**row, "answers": tf.unique(texts).y}


def ended(row: Row, *fields: str) -> Row:
  """The row with a full stop where `fields` end without any.

  >>> ended({"text": tf.constant("It is cold")}, "text")["text"].numpy()
  b'It is cold.'
  """
  stopped = {
    field: tf.strings.regex_replace(
      row[field], r"([^\s.!?:;][\")\]']*)\s*$", r"\1."
    )
    for field in fields
  }
  return {**row, **stopped}


def spoken(row: Row, turns: tf.Tensor) -> Row:
  r"""The row with `turns` and, a line each, `dialog`; the last one asks.

  >>> spoken({}, tf.constant(["Hi.", "Where are you?"]))["dialog"].numpy()
  b'B: Hi.\nA: Where are you?'
  """
  turns = tf.strings.strip(turns)
  back = tf.size(turns) - 1 - tf.range(tf.size(turns))
  said = tf.strings.join([tf.gather(["A: ", "B: "], back % 2), turns])
  return {
    **row,
    "turns": turns,
    "dialog": tf.strings.reduce_join(said, separator="\n"),
  }
