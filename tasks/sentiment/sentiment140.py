"""Sentiment140: is a tweet positive or negative (Go et al., 2009)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """Polarity 0 to 4 becomes label 0 (negative) or 1 (positive).

  >>> prepare({"text": "so happy today! ", "polarity": 4})
  {'text': 'so happy today!', 'polarity': 4, 'label': 1}  # as tensors
  """
  label = tf.cast(row["polarity"] > 2, tf.int32)
  return {**ops.clean(row, "text"), "label": label}


def keep(row):
  """Neutral tweets (polarity 2, only in the test split) have no label."""
  return tf.not_equal(row["polarity"], 2)


TASK = Task(
  name="sentiment140",
  paper_name="Sent140",
  source=tfds("sentiment140:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"text": "text"},
  choices=("negative", "positive"),
  label="label",
  prepare=prepare,
  keep=keep,
  metrics=("accuracy",),
  notes=(
    "Neutral tweets of the test split are dropped; the published form scores them as negative.",
  ),
  templates=(
    ("{text}\n\nIs the mood of this tweet negative or positive?\n\n{options}", "{answer}"),
    ("Tweet: {text}\nSentiment:\n{options}", "{answer}"),
    ("Decide whether the person posting the following sounds positive or negative.\n\n{text}", "{answer}"),
    ("A radio show reads out cheerful messages and leaves gloomy ones aside. This one has just come in:\n\n{text}\n\nHow should it be tagged for the host?\n\n{options}", "{answer}"),
    ("Which word fits the feeling of the post below?\n{options}\n\nPost: {text}", "{answer}"),
    ("{text}\n\nOn the whole, the feeling expressed above is (positive / negative)", "{answer}"),
    ("Short messages are full of slang, abbreviations and emoticons, but most of them still lean one way or the other. Say which way this one leans, negative or positive.\n\n{text}", "{answer}"),
    ("My cousin just tweeted this and I can't tell how she feels:\n\n{text}\n\nWhat would you say?\n\n{options}", "{answer}"),
    ("Write a tweet with a {answer} mood.", "{text}"),
    ("Today was a day that left you with {answer} feelings. Share them online in a message of a sentence or two.", "{text}"),
  ),
)
