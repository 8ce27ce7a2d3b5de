"""Conversations made from passages of Wikipedia (WikiDialog; Dai et al., 2022)."""

import tensorflow as tf
from flan_jax.tasks.dialog.inversions import INVERSIONS

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""The dialog up to one of the answers, and that answer.

  Its sentences are the answers: after the first utterance, which greets, a
  question and an answer take turns. Which answer a row has depends on its
  text alone, so that all are asked for.

  >>> prepare({"title": "Lake Baikal",
  ...          "utterances": ["Hello, ask me about Lake Baikal.",
  ...                         "How deep is it?", "1,642 metres."],
  ...          ...})  # doctest: +SKIP
  {"title": "Lake Baikal", "response": "1,642 metres.",
   "dialog": "B: Hello, ask me about Lake Baikal.\nA: How deep is it?", ...}
  """
  said = row["utterances"]
  answers = tf.cast((tf.size(said) - 1) // 2, tf.int64)
  text = tf.strings.reduce_join(said)
  # 1 to `answers`; 0 where there is none, and `keep` drops the row.
  drawn = 1 + tf.strings.to_hash_bucket_fast(text, 2**31) % tf.maximum(
    answers, 1
  )
  at = 2 * tf.cast(tf.minimum(drawn, answers), tf.int32)
  said = tf.concat([said, [""]], axis=0)
  return ops.spoken(
    {"title": row["title"], "response": tf.strings.strip(said[at])}, said[:at]
  )


def keep(row):
  """Drops a dialog without a question that is answered."""
  return tf.size(row["turns"]) > 1


TASK = Task(
  name="wiki_dialog",
  paper_name="WikiDialog",
  source=tfds("wiki_dialog/OQ:1.0.0"),
  splits=Splits(
    validation=last("train", 200),
    test="validation",
    max_train_examples=100_000_000,
  ),
  prepare=prepare,
  keep=keep,
  inputs={"dialog": "dialog", "title": "title", "response": "response"},
  target="response",
  turns="turns",
  templates=(
    ("{dialog}\n\nWrite the reply.", "{target}"),
    ("Continue the conversation about {title} with the next answer.\n\n{dialog}", "{target}"),
    ("An assistant that knows the encyclopedia's article on {title} is asked about it.\n\n{dialog}\n\nWhat does it answer?", "{target}"),
    ("Subject: {title}\n{dialog}\nNext turn:", "{target}"),
    ("Two people talk about {title}; one of them asks and the other one knows. Write what the second says next.\n\n{dialog}", "{target}"),
    ("{dialog}\n\nIt is your turn. Answer the last question in one sentence.", "{target}"),
    ("Below is a chat with a help desk. Give its next message, which replies to what was just asked and takes account of all that was said before.\n\n{dialog}", "{target}"),
    ("I was reading up on {title} with a friend who had written about it. So far we said:\n\n{dialog}\n\nHow did my friend reply?", "{target}"),
    ("Reply to the last line of this conversation.\n{dialog}\nReply:", "{target}"),
    ("What comes next?\n\n{dialog}\n___", "{target}"),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "Every answer of a dialog may be the one that is asked for; which one is fixed for a row.",
    "The last 200 training rows are for validation, the published validation split is the test split.",
  ),
)
