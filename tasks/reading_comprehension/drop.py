"""Questions that take counting, sums or comparing in a passage (DROP; Dua et al., 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """All accepted answers, each once.

  >>> prepare({"answer": "13", "validated_answers": ["13", "13 yards"], ...})  # doctest: +SKIP
  {"target": "13", "answers": ["13", "13 yards"], ...}
  """
  out = {k: v for k, v in row.items() if k != "answer"}
  return ops.accepted(
    {**out, "target": row["answer"], "references": row["validated_answers"]}
  )


TASK = Task(
  name="drop",
  paper_name="DROP",
  source=tfds("drop:2.0.0"),
  splits=Splits(validation=last("train", 200), test="dev"),
  prepare=prepare,
  inputs={"passage": "passage", "question": "question"},
  target="target",
  references="answers",
  templates=(
    ("{passage}\n\n{question}", "{target}"),
    ("Answer the question from the report. You may have to count, add, subtract or compare.\n\nReport: {passage}\n\nQuestion: {question}", "{target}"),
    ("Text: {passage}\nQuestion: {question}\nAnswer (a number, a date or a few words):", "{target}"),
    ("A pupil has been given this text in a lesson that joins reading and arithmetic.\n\n{passage}\n\nThe task under it is: {question} What does the pupil write?", "{target}"),
    ("The figures and names in the passage below are all that is needed for the question after it. Work the answer out and give it without any steps or explanation.\n\n{passage}\n\n{question}", "{target}"),
    ("Can you look something up for me? {question} It should be possible to tell from this:\n\n{passage}", "{target}"),
    ("{question}\n\nFind out from the following text.\n\n{passage}", "{target}"),
    ("{passage}\n\nWith this text at hand, complete the note.\n\nQ: {question}\nA: ___", "{target}"),
    ("{passage}\n\nThink of a question on this text that needs some reckoning or comparing and to which the answer is \"{target}\".", "{question}"),
    ("Invent a short report, of a game or from history, so that the question \"{question}\" has the answer \"{target}\".", "{passage}"),
  ),
  metrics=("drop",),
  notes=(
    "All validated answers are accepted; the published form scores against the first alone.",
    "Scored by DROP's own rules; the published form takes SQuAD's.",
    "TFDS keeps one span of an answer of several, and leaves out rows whose answer is a month or a year alone; those are empty and dropped.",
  ),
)
