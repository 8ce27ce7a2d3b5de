"""SQuAD with questions that the passage does not answer (SQuAD 2.0; Rajpurkar et al., 2018)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds

NONE = "unanswerable"


def prepare(row):
  """As in SQuAD; where there is no answer, that is the answer.

  >>> prepare({"title": "Lake_Varn", "is_impossible": True,
  ...          "answers": {"text": [], ...}, ...})  # doctest: +SKIP
  {"title": "Lake Varn", "accepted": ["unanswerable"], "target": "unanswerable", ...}
  """
  accepted = tf.cond(
    row["is_impossible"],
    lambda: tf.constant([NONE]),
    lambda: row["answers"]["text"],
  )
  return {
    "title": tf.strings.regex_replace(row["title"], "_", " "),
    "context": row["context"],
    "question": tf.strings.strip(row["question"]),
    "accepted": accepted,
    "target": accepted[0],
  }


TASK = Task(
  name="squad_v2",
  paper_name="SQuAD 2.0",
  family="squad",
  source=tfds("squad/v2.0:3.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"title": "title", "context": "context", "question": "question"},
  target="target",
  references="accepted",
  templates=(
    ("{context}\n\n{question}\n\nIf the text does not say, answer \"unanswerable\".", "{target}"),
    ("Take the answer from the passage. Where it holds none, write unanswerable.\n\nPassage: {context}\n\nQuestion: {question}", "{target}"),
    ("Topic: {title}\nText: {context}\nQuestion: {question}\nAnswer (or unanswerable):", "{target}"),
    ("Fact checkers may use nothing but the source in front of them, and mark a question as unanswerable when the source is silent on it.\n\nSource ({title}): {context}\n\nQuestion: {question}\n\nWhat do they enter?", "{target}"),
    ("Some questions about this article look as if it answered them, and it does not. Reply to the one below in words of the article, or, if it is of that sort, with the single word unanswerable.\n\n{context}\n\n{question}", "{target}"),
    ("I'm reading about {title} and have lost the thread. {question} Just say unanswerable if I am asking for something that isn't there.\n\n{context}", "{target}"),
    ("{question}\n\nDecide by the text that follows whether this can be answered. If so, answer it; if not, say unanswerable.\n\n{context}", "{target}"),
    ("Text on {title}\n{context}\n\nReader's question\n{question}\n\nReply, with \"unanswerable\" for questions beyond the text\n___", "{target}"),
    ("Does the passage at the end answer this? Quote the answer, or write unanswerable.\n\n{question}\n\n{context}", "{target}"),
    ("{context}\n\nComplete the record of a search in this passage. The result is a phrase of the passage, or unanswerable.\nSearched for: {question}\nResult:", "{target}"),
  ),
  metrics=("squad",),
  notes=("Every template tells what to write when there is no answer.",),
)
