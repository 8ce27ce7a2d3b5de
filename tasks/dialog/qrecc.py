"""Questions in a conversation, answered from the web (QReCC; Anantha et al., 2021)."""

import tensorflow as tf
from flan_jax.tasks.dialog.inversions import INVERSIONS

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds

# A row's turn has to be later than this one, so that there is a conversation.
EARLIEST = 6


def prepare(row):
  r"""The question at the end of what was said before it, and its answer.

  >>> prepare({"context": ["Who was Ada?", "A mathematician."],
  ...          "question": "When was she born?", "answer": "1815",
  ...          "turn_id": 7,
  ...          "conversation_id": 3, ...})  # doctest: +SKIP
  {"dialog": "A: Who was Ada?\nB: A mathematician.\nA: When was she born?",
   "response": "1815", "turn": 7, "conversation": "3", ...}
  """
  turns = tf.concat([row["context"], [row["question"]]], axis=0)
  return ops.spoken(
    {
      "response": tf.strings.strip(row["answer"]),
      "turn": row["turn_id"],
      "conversation": tf.strings.as_string(row["conversation_id"]),
    },
    turns,
  )


def keep(row):
  """Drops the turns at the beginning of a conversation."""
  return row["turn"] > EARLIEST


TASK = Task(
  name="qrecc",
  paper_name="QReCC",
  source=tfds("q_re_cc:1.0.0"),
  splits=Splits(
    validation=last("train", 200), test="test", max_train_examples=1_000_000
  ),
  prepare=prepare,
  keep=keep,
  inputs={"dialog": "dialog", "response": "response"},
  target="response",
  # A turn of the same conversation is no exemplar: it may hold the answer.
  group="conversation",
  turns="turns",
  templates=(
    ("{dialog}\n\nAnswer the last question.", "{target}"),
    ("The conversation below ends in a question. Look up what it takes to answer it, and answer.\n\n{dialog}", "{target}"),
    ("{dialog}\nAnswer:", "{target}"),
    ("In what follows, one person asks and another looks things up. Words such as \"it\" and \"there\" refer to earlier turns. Write the next reply.\n\n{dialog}", "{target}"),
    ("A search assistant has been asked the following, one question after the other.\n\n{dialog}\n\nWhat should it say now?", "{target}"),
    ("Keep this conversation going with a reply that is true and to the point.\n\n{dialog}", "{target}"),
    ("I keep asking and you keep answering; here is the log:\n\n{dialog}\n\nNow you.", "{target}"),
    ("Reply to the one who spoke last.\n{dialog}", "{target}"),
    ("What is the answer to the question that was put last? Use the turns before it to see what it is about.\n\n{dialog}", "{target}"),
    ("Complete the dialog.\n\n{dialog}\n___", "{target}"),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "As released, only turns after the sixth, of which the training split's last 200 rows are for validation.",
  ),
)
