"""Does a pronoun stand for a given noun? (SuperGLUE's WSC; Levesque et al., 2012; Wang et al., 2019)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """The text with the pronoun between asterisks, where its place is known.

  >>> prepare({"text": "Owls eat voles, as they hunt.", "span2_text": "they",
  ...          "span2_index": 4, ...})  # doctest: +SKIP
  {"marked": "Owls eat voles, as *they* hunt.", ...}

  A few published places are wrong, and then the text stays as it is.
  """
  pronoun = row["span2_text"]
  words = tf.strings.split(row["text"])
  start = row["span2_index"]
  stop = start + tf.size(tf.strings.split(pronoun))
  span = tf.strings.reduce_join(words[start:stop], separator=" ")
  size = tf.strings.length(pronoun)
  found = tf.equal(tf.strings.substr(span, 0, size), pronoun)
  rest = tf.strings.substr(span, tf.minimum(size, tf.strings.length(span)), -1)
  marked = tf.concat(
    [words[:start], [tf.strings.join(["*", pronoun, "*", rest])], words[stop:]],
    axis=0,
  )
  joined = tf.strings.reduce_join(marked, separator=" ")
  return {**row, "marked": tf.where(found, joined, row["text"])}


TASK = Task(
  name="wsc",
  paper_name="WSC",
  source=tfds("super_glue/wsc:1.0.2"),
  splits=Splits(validation=last("train", 50), test="validation"),
  prepare=prepare,
  inputs={
    "text": "marked",
    "noun": "span1_text",
    "pronoun": "span2_text",
    "plain": "text",  # what the turned-around template asks for
  },
  choices=("no", "yes"),
  label="label",
  templates=(
    ("{text}\n\nDoes \"{pronoun}\" stand for \"{noun}\" here?\n\n{options}", "{answer}"),
    ("Check whether the pronoun and the noun are one and the same.\n\nText: {text}\nPronoun: {pronoun}\nNoun: {noun}\n\n{options}", "{answer}"),
    ("{text}\nIs {pronoun} = {noun}? Yes or no:", "{answer}"),
    ("Somebody reading this aloud is about to say \"{noun}\" in place of \"{pronoun}\" to make it clearer.\n\n{text}\n\nDoes the meaning remain?\n\n{options}", "{answer}"),
    ("One pronoun in the text is of interest, and it is between asterisks if its place is known. Write yes if it refers to the noun below it, and no if it refers to anything else.\n\n{text}\n\n{noun}", "{answer}"),
    ("Quick check, so that I don't get this wrong: {text} That \"{pronoun}\" is {noun}, right?\n\n{options}", "{answer}"),
    ("{options}\n\nGive one of these as the reply.\n\n{text}\n\nWhen it says \"{pronoun}\", is \"{noun}\" meant?", "{answer}"),
    ("Text: {text}\nClaim: \"{pronoun}\" means \"{noun}\".\nIs the claim right, yes or no?", "{answer}"),
    ("A pupil was asked to draw an arrow from \"{pronoun}\" to the word that it replaces, and drew it to \"{noun}\". Is that as it should be?\n\n{text}\n\n{options}", "{answer}"),
    ("Write a sentence or two in which the pronoun \"{pronoun}\" occurs and \"{noun}\" does too. Is the noun what the pronoun refers to? {answer}", "{plain}"),
  ),
  metrics=("accuracy",),
  notes=(
    "An extra: the released code trains on it, where the paper lists WSC273.",
    "The pronoun is marked; the published form leaves open which one is meant where a text has several.",
  ),
)
