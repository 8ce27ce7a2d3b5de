"""COPA: the likelier cause or effect of an event (Roemmele et al., 2011)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  """The word cause or effect also becomes a question and a conjunction.

  >>> prepare({"premise": "The ice melted.", "question": "cause", ...})
  {'question': 'cause', 'asked': 'Why did this happen?',
   'opening': 'The ice melted because', ...}  # as tensors
  """
  is_cause = tf.equal(row["question"], "cause")
  bare = tf.strings.regex_replace(row["premise"], r"[.\s]+$", "")
  return {
    **row,
    "asked": tf.where(
      is_cause, "Why did this happen?", "What happened as a result?"
    ),
    "opening": bare + tf.where(is_cause, " because", ", so"),
  }


TASK = Task(
  name="copa",
  paper_name="CoPA",
  source=tfds("super_glue/copa:1.0.2"),
  splits=Splits(validation=last("train", 50), test="validation"),
  inputs={
    "premise": "premise",
    "question": "question",
    "asked": "asked",
    "opening": "opening",
  },
  plain=("premise", "question"),
  choices=from_features("choice1", "choice2"),
  label="label",
  prepare=prepare,
  metrics=("accuracy",),
  templates=(
    ("{premise} {asked}\n\n{options}", "{answer}"),
    ("Choose the more plausible {question} of the event.\n\nEvent: {premise}\n\n{options}", "{answer}"),
    ("Which sentence belongs at the end of this one?\n\n{opening} ...\n\n{options}", "{answer}"),
    ("Premise: {premise}\nAsked for: {question}\n{options}\nChoice:", "{answer}"),
    ("Events have causes, and they have effects. Read what happened and name a likely {question} of it.\n\n{premise}", "{answer}"),
    ("Think like a detective who reconstructs an afternoon. One thing is certain: {premise} {asked}", "{answer}"),
    ("{options}\n\nOne of these is the {question} of what is told here, the other is not. Which one is it?\n\n{premise}", "{answer}"),
    ('My little brother told me: "{premise}" I want to know the {question}. What is your best guess?\n\n{options}', "{answer}"),
    ("The sentence below is the {question} of some event. Write a sentence that tells the event.\n\n{answer}", "{premise}"),
    ('Something took place, and the {question} of it can be put like this: "{answer}" What was it that took place?', "{premise}"),
  ),
)
