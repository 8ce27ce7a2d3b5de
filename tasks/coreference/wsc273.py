"""What does a pronoun stand for? 273 sentences, for evaluation alone (WSC273; Levesque et al., 2012)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, tfds


def prepare(row):
  """The text up to its pronoun, and both readings of the rest.

  >>> prepare({"text": "Owls eat voles, as they hunt.", "pronoun_start": 20,
  ...          "pronoun_end": 24, "option1_normalized": "the owls",
  ...          "option2_normalized": "the voles", ...})  # doctest: +SKIP
  {"text": ..., "pronoun": "they", "opening": "Owls eat voles, as",
   "readings": ["the owls hunt.", "the voles hunt."],
   "first": "the owls", "second": "the voles", ...}
  """
  text, start, end = row["text"], row["pronoun_start"], row["pronoun_end"]

  def part(begin, stop):
    return tf.strings.substr(text, begin, stop - begin, unit="UTF8_CHAR")

  size = tf.strings.length(text, unit="UTF8_CHAR")
  names = tf.stack([row["option1_normalized"], row["option2_normalized"]])
  return {
    "text": text,
    "pronoun": row["pronoun_text"],
    "opening": tf.strings.strip(part(0, start)),
    "first": names[0],
    "second": names[1],
    "readings": tf.strings.strip(tf.strings.join([names, part(end, size)])),
    "label": row["label"],
  }


TASK = Task(
  name="wsc273",
  paper_name="WSC273",
  source=tfds("wsc273:1.0.0"),
  splits=Splits(train=None, validation=None, test="test"),
  prepare=prepare,
  inputs={
    "text": "text",
    "pronoun": "pronoun",
    "opening": "opening",
    "first": "first",
    "second": "second",
  },
  plain=("opening",),
  choices=from_features("readings"),
  label="label",
  templates=(
    ("{opening} ...\n\nContinue in the way that fits.\n\n{options}", "{answer}"),
    ("{text}\n\nSay the end of this sentence again with a name or noun in place of \"{pronoun}\".\n\n{options}", "{answer}"),
    ("{opening} ({first}? {second}?) ...\nSpelled out:", "{answer}"),
    ("An editor dislikes unclear pronouns and has cut the sentence \"{text}\" short, after:\n\n{opening}\n\nWhich of the two should be printed next?\n\n{options}", "{answer}"),
    ("In the text that follows, \"{pronoun}\" could be understood in two ways, and just one of them is sensible. Choose the sensible reading of the part that begins there.\n\n{text}\n\n{options}", "{answer}"),
    ("Somebody wrote \"{text}\" and I am not sure what \"{pronoun}\" is. If you had to begin again from there with \"{first}\" or with \"{second}\", what would you write?", "{answer}"),
    ("Which reading is meant?\n\n{options}\n\nText: {text}\nUp to the pronoun: {opening}", "{answer}"),
    ("{opening} ___\n\nThe gap opens with {first} or {second}. Fill it.", "{answer}"),
    ("Which of these is implied by the text?\n\n{text}\n\n{options}", "{answer}"),
    ("Rewrite without the pronoun \"{pronoun}\", from the place where it stands.\n\nText: {text}\n{options}\nRewritten:", "{answer}"),
  ),
  metrics=("accuracy",),
  notes=(
    "No training rows: no split trains on it, and it is in no few-shot form (the published few-shot variants cannot run).",
    "Places of pronouns are counted in characters.",
  ),
)
