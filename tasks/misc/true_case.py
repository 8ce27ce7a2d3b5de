"""Capital letters put back into sentences of web pages (made from ParaCrawl EN/DA)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, first, last, tfds


def prepare(row):
  """The English sentence in lower case.

  >>> prepare({"en": "Élodie lives in Aarhus.", ...})  # doctest: +SKIP
  {"lower": "élodie lives in aarhus.", ...}
  """
  return {**row, "lower": tf.strings.lower(row["en"], encoding="utf-8")}


def keep(row):
  """Drops a sentence that has no capital letter."""
  return row["lower"] != row["en"]


TASK = Task(
  name="true_case",
  paper_name="True Case",
  source=tfds("para_crawl/enda:1.2.0"),
  splits=Splits(
    train=first("train", 30_000),
    validation=first("train", 200, 30_000),
    test=last("train", 3000),
  ),
  prepare=prepare,
  keep=keep,
  inputs={"text": "lower"},
  target="en",
  templates=(
    ("{text}\n\nEverything is in small letters here. How should it be written?", "{target}"),
    ("Correct the use of capital letters in the line below.\n\n{text}", "{target}"),
    ("lower case: {text}\nProper case:", "{target}"),
    ("An archive has saved all its texts in small letters. This one is to be printed now.\n\n{text}\n\nWhat will the printed line be?", "{target}"),
    ("Write the text again and change nothing but the case of its letters. Sentences begin with a capital, and so do names, days and months; some abbreviations consist of capitals only.\n\n{text}", "{target}"),
    ("my shift key is broken, could you fix this for me?\n\n{text}", "{target}"),
    ("as it was typed: {text}\n\nAs it was published, capitals and all: ___", "{target}"),
    ("Capitalise as needed.\n\n{text}", "{target}"),
    ("Somebody reading this aloud could not tell which words are names.\n\n{text}\n\nMake the names, and the beginnings of sentences, visible.", "{target}"),
    ("Turn all capital letters of this text into small ones.\n\n{target}", "{text}"),
  ),
  metrics=("edit_distance",),
  notes=("An extra: in the released code, and not among the paper's 62 datasets.",),
)
