r"""Formats: how a prompt lists its options, or the turns of a dialog.

FLAN 2022 draws one anew for every example: a line before the list, a mark
before each item, what follows it. Where the marks differ from item to item,
the answer is the mark:

  Choose one of these:
  (A) iron;
  (B) neon;            →   (B)

Otherwise, and in the plain form of `template.options`, it is the item itself.

Source: Longpre et al., 2023 (arXiv 2301.13688), and the code released with it
(16 lines before options, 87 marks, 3 ends; 13 and 50 and 3 for dialogs). What
varies is the same here; the wording is ours.

Dimensions: B rows, C options or turns, M marks.
"""

import string
from collections.abc import Callable, Sequence

import tensorflow as tf

# Options with marks that differ, at most; a row with more has bullets.
MOST = 26

OPTION_HEADS = (
  "OPTIONS:",
  "Options:",
  "The options are:",
  "Choices:",
  "Your choices:",
  "Choose one of these:",
  "Choose from:",
  "Possible answers:",
  "Possible replies:",
  "Answers to choose from:",
  "The answer is one of these:",
  "One of these is right:",
  "Pick from this list:",
  "Select one:",
  "Candidates:",
  "",
)
OPTION_ENDS = ("", ";", ".")


def _roman(number: int) -> str:
  out = ""
  for value, letters in ((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")):
    out += letters * (number // value)
    number %= value
  return out


_SYMBOLS = (
  tuple(string.ascii_uppercase),
  tuple(string.ascii_lowercase),
  tuple(str(n) for n in range(1, MOST + 1)),
  tuple(_roman(n) for n in range(1, MOST + 1)),
  tuple(_roman(n).upper() for n in range(1, MOST + 1)),
)
# Around a symbol, and what an answer says with it.
_AROUND = (
  ("({}) ", "({})"),
  ("{}) ", "{})"),
  ("{}. ", "{}."),
  ("[{}] ", "[{}]"),
  ("{}: ", "{}"),
  ("{} - ", "{}"),
)
BULLETS = ("- ", "* ", "+ ", "-- ", "# ", "o ")

# Mark before each item, and the answer that means it; "" for bullets, whose
# answer is the item. The bullets come first.
OPTION_MARKS: tuple[tuple[tuple[str, str], ...], ...] = (
  *(((bullet, ""),) * MOST for bullet in BULLETS),
  *(
    tuple((mark.format(s), answer.format(s)) for s in symbols)
    for symbols in _SYMBOLS
    for mark, answer in _AROUND
  ),
)

DIALOG_HEADS = (
  "DIALOG:",
  "Dialog:",
  "The dialog so far:",
  "Conversation:",
  "CONVERSATION:",
  "A conversation:",
  "This was said:",
  "Transcript:",
  "Two people talk.",
  "Chat:",
  "The exchange up to now:",
  "They said:",
  "",
)
# Marks of the one who asks and the one who replies.
DIALOG_MARKS = (
  ("A: ", "B: "),
  ("1: ", "2: "),
  ("Q: ", "A: "),
  ("X: ", "Y: "),
  ("Person 1: ", "Person 2: "),
  ("Person A: ", "Person B: "),
  ("Speaker 1: ", "Speaker 2: "),
  ("Speaker A: ", "Speaker B: "),
  ("[1] ", "[2] "),
  ("[A] ", "[B] "),
  ("(A) ", "(B) "),
  ("User: ", "Assistant: "),
  ("User - ", "System - "),
  ("Reader: ", "Writer: "),
  ("Student: ", "Teacher: "),
  ("Visitor: ", "Guide: "),
  ("Caller: ", "Operator: "),
  ("Guest: ", "Host: "),
  ("Friend: ", "Me: "),
  ("Asked: ", "Answered: "),
  ("- ", "- "),
  ("-- ", "-- "),
  ("* ", "* "),
  ("", ""),
)
# Between turns: a line break alone, or an empty line.
DIALOG_ENDS = ("", "\n")


def options(choices_BC, label_B, seed):
  """Options in drawn formats, and the answer that each format asks for.

  Args:
    choices_BC: ragged texts.
    label_B: which of them is right.
    seed: a pair of integers.

  Returns:
    The list [B], and the mark of the right choice [B]; "" for bullets.
  """
  size_B = tf.cast(choices_BC.row_lengths(), tf.int32)
  count = tf.size(size_B)
  head_B, mark_B, end_B = _draws(
    seed, count, len(OPTION_HEADS), len(OPTION_MARKS), len(OPTION_ENDS)
  )
  mark_B = tf.where(size_B > MOST, mark_B % len(BULLETS), mark_B)
  shown_MC = tf.constant([[m for m, _ in marks] for marks in OPTION_MARKS])
  answer_MC = tf.constant([[a for _, a in marks] for marks in OPTION_MARKS])

  def mark(row_N, position_N):
    at_N = tf.minimum(position_N, MOST - 1)
    return tf.gather_nd(
      shown_MC, tf.stack([tf.gather(mark_B, row_N), at_N], axis=1)
    )

  # What ends in a stop has no other after it.
  stopped_N = tf.strings.regex_full_match(
    choices_BC.flat_values, r"(?s).*[.!?;:,]\s*"
  )
  end_N = tf.gather(OPTION_ENDS, tf.gather(end_B, choices_BC.value_rowids()))
  text_B = _listed(
    choices_BC,
    tf.gather(OPTION_HEADS, head_B),
    mark,
    tf.where(stopped_N, "", end_N),
  )
  at_B = tf.clip_by_value(tf.cast(label_B, tf.int32), 0, MOST - 1)
  return text_B, tf.gather_nd(answer_MC, tf.stack([mark_B, at_B], axis=1))


def dialog(turns_BC, seed):
  """Turns in drawn formats [B]; the last turn asks, the one before replies."""
  size_B = tf.cast(turns_BC.row_lengths(), tf.int32)
  head_B, mark_B, end_B = _draws(
    seed,
    tf.size(size_B),
    len(DIALOG_HEADS),
    len(DIALOG_MARKS),
    len(DIALOG_ENDS),
  )
  marks_M2 = tf.constant(DIALOG_MARKS)

  def mark(row_N, position_N):
    back_N = tf.gather(size_B, row_N) - 1 - position_N
    return tf.gather_nd(
      marks_M2, tf.stack([tf.gather(mark_B, row_N), back_N % 2], axis=1)
    )

  row_N = turns_BC.value_rowids()
  last_N = tf.equal(_positions(turns_BC), tf.gather(size_B, row_N) - 1)
  end_N = tf.gather(DIALOG_ENDS, tf.gather(end_B, row_N))
  return _listed(
    turns_BC,
    tf.gather(DIALOG_HEADS, head_B),
    mark,
    tf.where(last_N, "", end_N),
  )


def _draws(seed, count, *sizes: int) -> Sequence:
  """One index per row below each of `sizes`: int32 [B] each."""
  seeds = tf.random.experimental.stateless_split(tf.stack(seed), len(sizes))
  return [
    tf.random.stateless_uniform(
      tf.reshape(count, [1]), seeds[i], 0, size, tf.int32
    )
    for i, size in enumerate(sizes)
  ]


def _positions(items_BC):
  row_N = items_BC.value_rowids()
  index_N = tf.range(tf.size(row_N, row_N.dtype), dtype=row_N.dtype)
  return tf.cast(index_N - tf.gather(items_BC.row_starts(), row_N), tf.int32)


def _listed(items_BC, head_B, mark: Callable, end_N):
  """The head and an item a line: string [B]."""
  mark_N = mark(items_BC.value_rowids(), _positions(items_BC))
  lines_BC = items_BC.with_flat_values(
    tf.strings.join([mark_N, items_BC.flat_values, end_N])
  )
  body_B = tf.strings.reduce_join(lines_BC, axis=1, separator="\n")
  head_B = tf.where(head_B == "", "", tf.strings.join([head_B, "\n"]))
  return tf.strings.join([head_B, body_B])
