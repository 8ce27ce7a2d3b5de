"""Questions whose answers are words of a Wikipedia passage (SQuAD; Rajpurkar et al., 2016)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """A title without underscores, and the first of the accepted answers.

  >>> prepare({"title": "Lake_Varn", "answers": {"text": ["rock dust"], ...}, ...})  # doctest: +SKIP
  {"title": "Lake Varn", "accepted": ["rock dust"], "target": "rock dust", ...}
  """
  accepted = row["answers"]["text"]
  return {
    "title": tf.strings.regex_replace(row["title"], "_", " "),
    "context": row["context"],
    "question": tf.strings.strip(row["question"]),
    "accepted": accepted,
    "target": accepted[0],
  }


TASK = Task(
  name="squad_v1",
  paper_name="SQuAD",
  family="squad",
  source=tfds("squad/v1.1:3.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"title": "title", "context": "context", "question": "question"},
  target="target",
  references="accepted",
  templates=(
    ("{context}\n\n{question}", "{target}"),
    ("Answer from the text, and in its words.\n\nText: {context}\n\nQuestion: {question}", "{target}"),
    ("Article: {title}\nPassage: {context}\nQ: {question}\nA:", "{target}"),
    ("A visitor to a museum has read this panel about {title} and asks the guide something.\n\nPanel: {context}\n\nVisitor: {question}\n\nGuide:", "{target}"),
    ("Every question on this page is answered by some words of the passage on {title}. Copy the shortest stretch of it that answers the following one.\n\n{context}\n\n{question}", "{target}"),
    ("Hi, I only need to know one thing from this: {question}\n\n{context}", "{target}"),
    ("{question}\n\nLook for it here.\n\n{context}", "{target}"),
    ("{context}\n\nA note in the margin reads:\n{question} ___\n\nFill in the note.", "{target}"),
    ("{context}\n\nMake a question from this passage on {title} that is answered by the words \"{target}\".", "{question}"),
    ("Give this passage a title, as an encyclopedia would. One of its readers asks: {question} The passage tells them: {target}\n\n{context}", "{title}"),
  ),
  metrics=("squad",),
)
