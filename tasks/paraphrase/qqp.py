"""Do two forum questions ask the same? (QQP; Iyer et al., 2017)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """Doubled quotes, left over from the source's CSV, become single quotes.

  >>> prepare({"question1": 'What does ""inter alia"" mean?', ...})  # doctest: +SKIP
  {"question1": "What does 'inter alia' mean?", ...}
  """
  fixed = {
    field: tf.strings.regex_replace(row[field], '""', "'")
    for field in ("question1", "question2")
  }
  return {**row, **fixed}


def keep(row):
  """Drops a pair in which a question is empty (the source has a few)."""
  blank = r"\s*"
  return ~(
    tf.strings.regex_full_match(row["question1"], blank)
    | tf.strings.regex_full_match(row["question2"], blank)
  )


TASK = Task(
  name="qqp",
  paper_name="QQP",
  source=tfds("glue/qqp:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  keep=keep,
  inputs={"question1": "question1", "question2": "question2"},
  choices=("no", "yes"),
  label="label",
  templates=(
    ("{question1}\n{question2}\n\nWould one answer serve both questions?\n\n{options}", "{answer}"),
    ("Question 1: {question1}\nQuestion 2: {question2}\n\nTell me whether the two are duplicates.\n\n{options}", "{answer}"),
    ("A forum closes a new question when it has been asked before.\n\nAsked before: {question1}\nNew: {question2}\n\nShould the new question be closed? Answer no or yes.", "{answer}"),
    ("First question: {question1}\nSecond question: {question2}\nDuplicate (yes or no):", "{answer}"),
    ("Do the two questions below come to the same thing?\n\n{options}\n\n- {question1}\n- {question2}", "{answer}"),
    ("I was about to post this:\n{question1}\nThen the site showed me this:\n{question2}\nHas somebody already asked what I want to know?\n\n{options}", "{answer}"),
    ("Two questions count as the same if whoever asks the one would be content with a good answer to the other. Sharing a topic, or most of the words, is not enough.\n\n{question1}\n{question2}\n\nAre they the same?\n\n{options}", "{answer}"),
    ("Same question or not? Say yes or no.\n\n{question1}\n{question2}", "{answer}"),
    ("Read these questions.\n\n{question1}\n{question2}\n\nComplete the remark with the right option: \"Do they have the same intent? I would say ___.\"\n\n{options}", "{answer}"),
    ("Write a question that somebody might post on a question-and-answer site next to the one below. Should it have the same meaning? {answer}\n\n{question1}", "{question2}"),
  ),
  metrics=("f1_binary", "accuracy"),
  notes=(
    "One template is turned around; the published ten have none.",
    "Pairs with an empty question are dropped, from evaluation too.",
  ),
)
