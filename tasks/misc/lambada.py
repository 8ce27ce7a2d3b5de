"""The last word of a passage from a novel (LAMBADA; Paperno et al., 2016)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds

_LAST = r"(?s)^\s*(.*\S)\s+(\S+)\s*$"


def prepare(row):
  """A passage as its context and its last word.

  >>> prepare({"passage": "she opened the door"})  # doctest: +SKIP
  {"context": "she opened the", "word": "door", ...}
  """
  text = row["passage"]
  return {
    **row,
    "context": tf.strings.regex_replace(text, _LAST, r"\1"),
    "word": tf.strings.regex_replace(text, _LAST, r"\2"),
  }


def keep(row):
  """Drops a passage of one word, which has no context."""
  return tf.strings.regex_full_match(row["passage"], _LAST)


TASK = Task(
  name="lambada",
  paper_name="LAMBADA",
  source=tfds("lambada:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  prepare=prepare,
  keep=keep,
  inputs={"context": "context"},
  target="word",
  templates=(
    ("{context}", "{target}"),
    ("{context}\n\nWhich word comes next?", "{target}"),
    ("Passage: {context}\nNext word:", "{target}"),
    ("The corner of a page is torn off, and with it the last word of a paragraph. Read what is left, and say which word it was.\n\n{context}", "{target}"),
    ("A passage from a story breaks off before its final word. Its last sentence is not enough to guess the word, but the passage as a whole is. Write the word and nothing else.\n\n{context}", "{target}"),
    ("I've spilled coffee on my book, right at the end of this bit:\n\n{context}\n\nWhat's under the stain? It can only be one word.", "{target}"),
    ("Fill in the blank.\n\n{context} ___", "{target}"),
    ("Finish this with a single word.\n\n{context}", "{target}"),
    ('Write a short passage from a novel that leads up to the word "{target}", and stop just before it.', "{context}"),
    ("Final word: {target}\nWhat went before it in the story:", "{context}"),
  ),
  metrics=("exact_match",),
  postprocess="first_word",
  notes=(
    "An extra: in the FLAN 2022 collection, and not among the paper's 62 datasets.",
    "TFDS calls the development passages train; the novels themselves are not used.",
  ),
)
