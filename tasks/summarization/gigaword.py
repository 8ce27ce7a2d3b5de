"""A headline for the first sentence of a story (Gigaword; Rush et al., 2015)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, first, tfds


def prepare(row):
  """Bracket and quote tokens as the characters they stand for.

  >>> prepare({"document": "the council -lrb- of ten -rrb- `` agrees ''", ...})  # doctest: +SKIP
  {"document": 'the council ( of ten ) " agrees "', ...}
  """
  tokens = (("-lrb-", "("), ("-rrb-", ")"), ("``|''", '"'))
  return ops.clean(row, "document", "summary", replace=tokens)


def keep(row):
  """Drops training pairs in which a word (UNK) or a digit (#) was masked."""
  pair = tf.strings.join([row["document"], row["summary"]], separator=" ")
  masked = tf.strings.regex_full_match(pair, r"(?is).*(#|\bunk\b).*")
  return ~(row["is_training_row"] & masked)


TASK = Task(
  name="gigaword",
  paper_name="Gigaword",
  source=tfds("gigaword:1.2.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  prepare=prepare,
  keep=keep,
  inputs={"document": "document"},
  target="summary",
  templates=(
    ("{document}\n\nWhat headline would suit this piece of news?", "{target}"),
    ("Write a short headline in lower case for the following sentence.\n\n{document}", "{target}"),
    ("Story: {document}\nHeadline:", "{target}"),
    ("A sub-editor has room for some eight words above a story that begins as follows.\n\n{document}\n\nWhat goes there?", "{target}"),
    ("This is the opening sentence of an agency report, with punctuation set apart by spaces. Reduce it to the one thing that readers must know, in the clipped style of a headline.\n\n{document}", "{target}"),
    ("I have just read this on the wire:\n{document}\nHow would you put that in a few words?", "{target}"),
    ("Shorten to a headline.\n\n{document}", "{target}"),
    ("Fill in the missing title.\n\nTitle: ___\nText: {document}", "{target}"),
    ("Write the sentence that might open a news story under this headline.\n\n{target}", "{document}"),
    ("Headline: {target}\n\nAnd the report itself begins:", "{document}"),
  ),
  metrics=("rouge",),
  notes=("Pairs with masked words or digits are dropped from training alone; the published form evaluates without them too.",),
)
