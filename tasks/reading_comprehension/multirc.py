"""Is a proposed answer to a question about a paragraph right? (MultiRC; Khashabi et al., 2018)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """The row with the number of its question, which several rows share.

  >>> prepare({"idx": {"paragraph": 4, "question": 17, "answer": 80}, ...})  # doctest: +SKIP
  {"asked": "4:17", ...}
  """
  number = [row["idx"]["paragraph"], row["idx"]["question"]]
  asked = tf.strings.reduce_join(tf.strings.as_string(number), separator=":")
  return {**row, "asked": asked}


TASK = Task(
  name="multirc",
  paper_name="MultiRC",
  source=tfds("super_glue/multirc:1.0.2"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"paragraph": "paragraph", "question": "question", "response": "answer"},
  choices=("no", "yes"),
  label="label",
  group="asked",
  templates=(
    ("{paragraph}\n\n{question}\n\nIs \"{response}\" a right answer?\n\n{options}", "{answer}"),
    ("Judge an answer by the text it is about.\n\nText: {paragraph}\nQuestion: {question}\nAnswer: {response}\n\nIs it correct?\n\n{options}", "{answer}"),
    ("{paragraph}\nQuestion: {question}\nProposed: {response}\nCorrect (yes or no):", "{answer}"),
    ("You are marking a test. A question may have more than one right answer, and every answer gets a mark of its own.\n\nReading: {paragraph}\nQuestion: {question}\nA pupil wrote: {response}\n\nDo you accept it?\n\n{options}", "{answer}"),
    ("An answer counts as right if a reader who takes it together with the paragraph finds that it is true and that it replies to the question. Decide for the answer below, yes or no.\n\nParagraph: {paragraph}\nQuestion: {question}\nAnswer: {response}", "{answer}"),
    ("I was asked this: {question} And I said: {response}\n\nThis is what I had read:\n\n{paragraph}\n\nWas I right?\n\n{options}", "{answer}"),
    ("Reply: {response}\nQuestion: {question}\n\n{options}\n\nWhich of the two words says whether the reply holds, given this text?\n\n{paragraph}", "{answer}"),
    ("Keep to the passage, and write yes or no: does the reply answer the question rightly?\n\nPassage: {paragraph}\n\nQuestion: {question}\nReply: {response}", "{answer}"),
    ("{paragraph}\n\nSomebody asked about this text, and was told: {response}\nIs that a right answer to what was asked? {answer}\n\nWhat was asked?", "{question}"),
    ("{paragraph}\n\n{question}\n\nWrite one answer to this. Is it to be a right one? {answer}", "{response}"),
  ),
  metrics=("multirc",),
  notes=(
    "Every template that asks for a judgement shows the answer to be judged; the published baseline does not.",
    "Answers are grouped by the numbers of paragraph and question, of which the published form copies one wrongly.",
  ),
)
