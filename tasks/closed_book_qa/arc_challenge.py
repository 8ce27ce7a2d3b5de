"""Science questions for schools that word overlap does not answer (ARC; Clark et al., 2018)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  """The choices as texts, and the index of the one that the key names.

  >>> prepare({"choices": {"text": ["a hen", "a bat"], "label": [0, 1]},
  ...          "answerKey": 1, ...})  # doctest: +SKIP
  {"texts": ["a hen", "a bat"], "right": 1, ...}
  """
  named = tf.equal(row["choices"]["label"], row["answerKey"])
  found = tf.where(tf.reduce_any(named), tf.argmax(tf.cast(named, tf.int64)), -1)
  return {
    "question": row["question"],
    "texts": row["choices"]["text"],
    "right": found,
  }


TEMPLATES = (
  ("{question} Pick one.\n\n{options}", "{answer}"),
  ("Choose the right answer to this question from a science test.\n\nQuestion: {question}\n\n{options}", "{answer}"),
  ("Question: {question}\nAnswer:", "{answer}"),
  ("A class is preparing for its science exam, and this card is next on the pile.\n\n{question}\n{options}\n\nWhat is on the back of the card?", "{answer}"),
  ("{options}\n\nWhich of these answers the question below?\n\n{question}", "{answer}"),
  ("My daughter brought this home from school and I can't help her. Which one should she tick?\n\n{question}\n\n{options}", "{answer}"),
  ("The following question was written for pupils between eight and fourteen. Only one of its options is correct, though others may look likely at first; reply with the correct one, word for word.\n\n{question}\n\n{options}", "{answer}"),
  ("Write a question for a science lesson to which the right answer is \"{answer}\".", "{question}"),
  ("Right answer: {answer}\n{options}\n\nThe list shows what pupils could choose from. Which question were they asked?", "{question}"),
  ("A teacher has kept the key to an old test but not the test. For one of its questions the key says:\n\n{answer}\n\nMake up a question that would fit.", "{question}"),
)

TASK = Task(
  name="arc_challenge",
  paper_name="ARC-c",
  family="arc",
  source=tfds("ai2_arc/ARC-Challenge:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  prepare=prepare,
  inputs={"question": "question"},
  choices=from_features("texts"),
  label="right",
  templates=TEMPLATES,
  metrics=("accuracy",),
  notes=("Questions with three or five choices are kept, in evaluation too; the published form drops them.",),
)
