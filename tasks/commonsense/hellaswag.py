"""HellaSwag: how does an activity go on (Zellers et al., 2019)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  r"""Layout tags go: to line breaks in the context, to spaces in endings.

  >>> prepare({"context": "[header] How to nap [title] Lie down. [step]",
  ...          "endings": ["Rest. [substeps] Breathe."] * 4, "label": 0})
  {'context': 'How to nap\nLie down.',
   'endings': ['Rest. Breathe.', ...], 'label': 0}  # as tensors
  """
  context = tf.strings.regex_replace(row["context"], r"\[header\]\s*", "")
  context = tf.strings.regex_replace(context, r"\s*\[[^\]]*\]\s*", "\n")
  endings = tf.strings.regex_replace(
    row["endings"], r"\s*\[[^\]]*\]\s*", " "
  )
  return {
    **row,
    "context": tf.strings.strip(context),
    "endings": tf.strings.strip(endings),
  }


def keep(row):
  """A label outside 0..3 (-1 where it is hidden) points at no ending."""
  return (row["label"] >= 0) & (row["label"] < 4)


TASK = Task(
  name="hellaswag",
  paper_name="HellaSwag",
  source=tfds("hellaswag:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"context": "context", "activity": "activity_label"},
  choices=from_features("endings"),
  label="label",
  prepare=prepare,
  keep=keep,
  metrics=("accuracy",),
  templates=(
    ("How does this continue?\n\n{context}\n\n{options}", "{answer}"),
    ("{context}", "{answer}"),
    ("Complete the passage in the way that makes the most sense.\n\n{context}\n\n{options}", "{answer}"),
    ("Topic: {activity}\nBeginning: {context}\n{options}\nEnding:", "{answer}"),
    ("The text below breaks off. Write down what comes next.\n\n{context}", "{answer}"),
    ("A subtitle writer has lost the last line of a script and found four scraps of paper. Only one of them fits what went before. Which one?\n\n{options}\n\nScript:\n{context}", "{answer}"),
    ("In the following text someone is busy with something or explains how it is done. Three of the endings would surprise anybody who has seen it in real life; choose the one that would not.\n\n{context}\n\n{options}", "{answer}"),
    ("{context}\n\nThat is all I could copy before the page closed. How do you think it went on?", "{answer}"),
    ("Pick an ending.\n\n{options}\n\n{context}", "{answer}"),
    ("A text on the topic \"{activity}\" ends with these words:\n\n{answer}\n\nWrite the part that comes before them.", "{context}"),
  ),
)
