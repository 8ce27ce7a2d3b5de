"""A yes-or-no question and a passage that settles it (BoolQ; Clark et al., 2019)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """A question mark after the question, and the answer as an index.

  >>> prepare({"question": "is the sun a star", "answer": True, ...})  # doctest: +SKIP
  {"question": "is the sun a star?", "answer": True, "right": 1, ...}
  """
  return {
    **ops.clean(row, "question", replace=ops.ASKED),
    "right": tf.cast(row["answer"], tf.int64),
  }


TASK = Task(
  name="bool_q",
  paper_name="BoolQ",
  source=tfds("bool_q:1.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"title": "title", "text": "passage", "question": "question"},
  choices=("no", "yes"),
  label="right",
  templates=(
    ("{text}\n\n{question}\n\n{options}", "{answer}"),
    ("Read the article \"{title}\" and say whether the answer to the question is yes or no.\n\n{text}\n\nQuestion: {question}", "{answer}"),
    ("Passage: {text}\nQuestion: {question}\nYes or no:", "{answer}"),
    ("Someone typed a question into a search engine, and this paragraph about {title} came up.\n\nTyped: {question}\nFound: {text}\n\nWhat should the person be told?\n\n{options}", "{answer}"),
    ("{question}\n\nThe passage below settles this. Go by the passage even where it contradicts what you have heard elsewhere.\n\n{text}\n\n{options}", "{answer}"),
    ("We have been arguing about this over dinner: {question} Then my cousin read us the following.\n\n{text}\n\nSo which is it, yes or no?", "{answer}"),
    ("{options}\n\nAnswer with one of these, from the text.\n\nTitle: {title}\nText: {text}\nQuestion: {question}", "{answer}"),
    ("An encyclopedia writes under \"{title}\":\n\n{text}\n\nThe word that answers the question \"{question}\" with yes or no is", "{answer}"),
    ("{text}\n\nAsk a question about this text that can only be answered with yes or no. The right answer must be: {answer}", "{question}"),
    ("Write a short encyclopedia paragraph with the title \"{title}\" from which one can see that the answer to the question below is {answer}.\n\n{question}", "{text}"),
  ),
  metrics=("accuracy",),
  notes=("Two templates are turned around; the published ten have none.",),
)
