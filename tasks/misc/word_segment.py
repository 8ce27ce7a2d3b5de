"""Spaces put back into sentences of web pages (made from ParaCrawl EN/DA)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, first, last, tfds


def prepare(row):
  """The English sentence without spaces.

  >>> prepare({"en": "It is late.", ...})  # doctest: +SKIP
  {"joined": "Itislate.", ...}
  """
  return {**row, "joined": tf.strings.regex_replace(row["en"], " ", "")}


def keep(row):
  """Drops a sentence of one word."""
  return row["joined"] != row["en"]


TASK = Task(
  name="word_segment",
  paper_name="Word Segmentation",
  source=tfds("para_crawl/enda:1.2.0"),
  splits=Splits(
    train=first("train", 30_000, 60_400),
    validation=first("train", 200, 90_400),
    test=last("train", 3000),
  ),
  prepare=prepare,
  keep=keep,
  inputs={"text": "joined"},
  target="en",
  templates=(
    ("{text}\n\nThere are no spaces in this. What does it say?", "{target}"),
    ("Separate the words from each other.\n\n{text}", "{target}"),
    ("Without spaces: {text}\nWith spaces:", "{target}"),
    ("A scanner has read a page, but it runs all the words together. Restore this line of the page.\n\n{text}", "{target}"),
    ("All spaces were deleted from a text, and nothing else was touched. Find out where one word ends and the next one begins, and write the text with its spaces; every letter and mark stays as it is.\n\n{text}", "{target}"),
    ("The space bar of my laptop has stopped working:\n\n{text}\n\nHow would that look if it worked?", "{target}"),
    ("Run together: {text}\n\nWord by word: ___", "{target}"),
    ("Insert spaces.\n\n{text}", "{target}"),
    ("Write this without any spaces.\n\n{target}", "{text}"),
    ("Two people agree to leave out the spaces in their messages. How does one of them send the following?\n\n{target}", "{text}"),
  ),
  metrics=("edit_distance",),
  notes=(
    "An extra: in the released code, and not among the paper's 62 datasets.",
    "Sentences of one word, which have no space to find, are dropped.",
  ),
)
