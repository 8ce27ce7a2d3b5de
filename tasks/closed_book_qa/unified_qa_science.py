"""Science questions of middle schools with options (AI2 Science; in UnifiedQA, Khashabi et al., 2020)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, last, tfds

# A backslash and an n, two characters, part question and options in the
# source; a line break would be read in the same way.
_PARTS = r"(?s)^\s*(.*?)\s*(?:\\n|\n)\s*\([Aa]\)\s*(.*?)\s*$"
_NEXT = r"\s*\([B-Hb-h]\)\s*"
_BETWEEN = "\x1f"


def prepare(row):
  r"""Question, options and the index of the right one, -1 if there is none.

  >>> prepare({"input": "Which is a gas? \\n (A) iron (B) neon",
  ...          "output": "neon"})  # doctest: +SKIP
  {"question": "Which is a gas?", "options": ["iron", "neon"], "label": 1, ...}
  """
  text = row["input"]
  listed = tf.strings.regex_replace(text, _PARTS, r"\2")
  listed = tf.strings.regex_replace(listed, _NEXT, _BETWEEN)
  options = tf.strings.split(listed, _BETWEEN)
  right = tf.strings.lower(options) == tf.strings.lower(
    tf.strings.strip(row["output"])
  )
  label = tf.where(
    tf.reduce_any(right), tf.argmax(right, output_type=tf.int32), -1
  )
  return {
    **row,
    "question": tf.strings.regex_replace(text, _PARTS, r"\1"),
    "options": options,
    "label": label,
  }


def keep(row):
  """Drops a row without options, with one twice, or without a right one."""
  options = row["options"]
  return (
    tf.strings.regex_full_match(row["input"], _PARTS)
    & (row["label"] >= 0)
    & (tf.size(options) > 1)
    & (tf.size(tf.unique(options).y) == tf.size(options))
    & tf.reduce_all(options != "")
  )


TASK = Task(
  name="unified_qa_science",
  paper_name="UnifiedQA science (middle school)",
  source=tfds("unified_qa/ai2_science_middle:1.0.0"),
  splits=Splits(validation=last("validation", 200), test="test"),
  prepare=prepare,
  keep=keep,
  inputs={"question": "question"},
  choices=from_features("options"),
  label="label",
  templates=(
    ("{question}\n\n{options}", "{answer}"),
    ("Give a short answer, as one would in a science lesson.\n\n{question}", "{answer}"),
    ("Science question: {question}\nAnswer:", "{answer}"),
    ("In a science test at a middle school, one of the answers below earned the mark.\n\n{question}\n\n{options}\n\nWhich one?", "{answer}"),
    ("The following is about nature or technology, at a level for pupils of eleven to fourteen. Choose the answer that is right; another may be true in itself and still not answer the question.\n\n{question}\n\n{options}", "{answer}"),
    ("My daughter has this for homework and I've forgotten all my science:\n\n{question}\n\nWhat should I tell her?", "{answer}"),
    ("Complete the statement or answer the question with one of these.\n{options}\n\n{question} ___", "{answer}"),
    ("Pick the right option.\n{options}\n\n{question}", "{answer}"),
    ('Write a question for a science test whose answer is "{answer}".', "{question}"),
    ('Here are the options of a multiple-choice question in science, of which "{answer}" is the right one. Write the question.\n\n{options}', "{question}"),
  ),
  metrics=("accuracy",),
  notes=("An extra: in the FLAN 2022 collection, and not among the paper's 62 datasets.",),
)
