"""Punctuation put back into sentences of web pages (made from ParaCrawl EN/DA)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, first, last, tfds


def prepare(row):
  r"""The English sentence without punctuation marks and signs.

  >>> prepare({"en": "It's late - let's go!", ...})  # doctest: +SKIP
  {"plain": "Its late lets go", ...}
  """
  bare = tf.strings.regex_replace(row["en"], r"[\pP\pS]", "")
  # A dash between spaces would show as two of them.
  bare = tf.strings.regex_replace(bare, r"\s+", " ")
  return {**row, "plain": tf.strings.strip(bare)}


def keep(row):
  """Drops a sentence that has no punctuation."""
  return row["plain"] != row["en"]


TASK = Task(
  name="fix_punct",
  paper_name="Fix Punctuation",
  source=tfds("para_crawl/enda:1.2.0"),
  splits=Splits(
    train=first("train", 30_000, 30_200),
    validation=first("train", 200, 60_200),
    test=last("train", 3000),
  ),
  prepare=prepare,
  keep=keep,
  inputs={"text": "plain"},
  target="en",
  templates=(
    ("{text}\n\nThe punctuation is missing here. What does the line look like with it?", "{target}"),
    ("Add punctuation marks where they belong.\n\n{text}", "{target}"),
    ("Without punctuation: {text}\nWith punctuation:", "{target}"),
    ("A machine writes down what people dictate, but no commas, stops or apostrophes. Correct this line of its work.\n\n{text}", "{target}"),
    ("Copy the text below and put in what was taken out of it: stops, commas, quotation marks, apostrophes, hyphens, brackets and other signs. Do not change, add or drop a word, and leave capitals as they are.\n\n{text}", "{target}"),
    ("Only the letters and numbers of my keyboard still work. Can you make this presentable?\n\n{text}", "{target}"),
    ("First draft: {text}\n\nAfter the punctuation was proofread: ___", "{target}"),
    ("Punctuate.\n\n{text}", "{target}"),
    ("Every mark and sign was stripped from a sentence on a web page, and this is what was left of it:\n\n{text}\n\nRestore the sentence.", "{target}"),
    ("Somebody typed this in a hurry:\n{text}\n\nWith a little more time, they would have typed:", "{target}"),
  ),
  metrics=("edit_distance",),
  notes=(
    "Letters with accents stay; the published form lost them along with the punctuation.",
    "Underscores and signs such as + and € are removed too, and runs of spaces become one.",
  ),
)
