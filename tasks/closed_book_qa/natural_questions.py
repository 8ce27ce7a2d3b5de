"""Questions that people typed into a search engine (NQ; Kwiatkowski et al., 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """One question mark at the end of the question, and the first answer.

  >>> prepare({"question": "who wrote faust", "answer": ["Goethe", "J. W. Goethe"]})  # doctest: +SKIP
  {"question": "who wrote faust?", "target": "Goethe", ...}
  """
  return {
    **ops.clean(row, "question", replace=ops.ASKED),
    "target": row["answer"][0],
  }


TASK = Task(
  name="natural_questions",
  paper_name="NQ",
  source=tfds("natural_questions_open:1.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"question": "question"},
  target="target",
  references="answer",
  templates=(
    ("{question}", "{target}"),
    ("Answer the following question in a few words.\n\n{question}", "{target}"),
    ("Search: {question}\nShort answer:", "{target}"),
    ("Somebody typed this into a search engine:\n\n{question}\n\nWhat should stand in the box above the results?", "{target}"),
    ("The question below has been answered from an encyclopedia, with a name, a date, a number or a short phrase. Give that answer and nothing else.\n\n{question}", "{target}"),
    ("Hey, quick one before I forget. {question}", "{target}"),
    ("You are on the telephone with a friend who is in a quiz and has thirty seconds left. The friend reads out:\n\n{question}\n\nSay the answer.", "{target}"),
    ("Fill in the blank.\n\n{question} ___", "{target}"),
    ("Write a question, as people type them into a search engine, to which \"{target}\" is the answer.", "{question}"),
    ("Answer: {target}\nThe question that was asked, in lower case:", "{question}"),
  ),
  metrics=("trivia_qa",),
  notes=("Every question ends in one question mark; five published templates add a second one.",),
)
