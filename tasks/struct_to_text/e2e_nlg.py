"""A venue described from its attributes (E2E; Dusek et al., 2019)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""Attributes as `name: value`, and all accepted texts, each once.

  >>> prepare({"meaning_representation": "name[The Drover], eatType[pub]", ...})  # doctest: +SKIP
  {"attributes": "name: The Drover, type: pub",
   "attribute_lines": "name: The Drover\ntype: pub", ...}
  """
  text = tf.strings.strip(row["meaning_representation"])
  for pattern, to in (
    (r"\beatType\[", "type["),
    (r"\bpriceRange\[", "price range["),
    (r"\bfamilyFriendly\[", "family friendly["),
    (r"\s*\[", ": "),
  ):
    text = tf.strings.regex_replace(text, pattern, to)
  inline = tf.strings.regex_replace(text, r"\],\s*", ", ")
  lines = tf.strings.regex_replace(text, r"\],\s*", "\n")
  return {
    **ops.accepted(row),
    "attributes": tf.strings.regex_replace(inline, r"\]", ""),
    "attribute_lines": tf.strings.regex_replace(lines, r"\]", ""),
  }


TASK = Task(
  name="e2e_nlg",
  paper_name="E2ENLG",
  source=tfds("gem/e2e_nlg:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"attributes": "attributes", "attribute_lines": "attribute_lines"},
  plain=("attributes",),
  target="target",
  references="answers",
  templates=(
    ("Describe a place to eat or drink with these attributes: {attributes}", "{target}"),
    ("{attribute_lines}\n\nDescription:", "{target}"),
    ("What would you say about a venue of which you know the following?\n\n{attribute_lines}", "{target}"),
    ("A travel writer has these notes on an establishment.\n\n{attribute_lines}\n\nWrite the entry for the guide book.", "{target}"),
    ("The record below comes from a directory of restaurants, pubs and coffee shops. Rewrite it as one or two sentences of running text that leave nothing out.\n\n{attributes}", "{target}"),
    ("We are looking for somewhere to go tonight, and the app shows nothing but this.\n\n{attributes}\n\nCan you put it into plain English?", "{target}"),
    ("Notes on a restaurant\n{attributes}\n\nThe same as a sentence: ___", "{target}"),
    ("Make an advertisement of a line or two out of this data.\n\n{attribute_lines}", "{target}"),
    ("{target}\n\nWhich attributes of the venue can be read from this text? Write one to a line, in the form \"attribute: value\".", "{attribute_lines}"),
    ("Fill a directory record from the description, as \"attribute: value\" separated by commas.\n\nDescription: {target}\nRecord:", "{attributes}"),
  ),
  metrics=("rouge",),
  notes=(
    "Two templates are turned around; of the published ten, one is only worded so.",
    "Attribute names are spelled out (eatType is \"type\").",
  ),
)
