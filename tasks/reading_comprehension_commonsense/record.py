"""Which name fills the gap in a statement about a news story? (ReCoRD; Zhang et al., 2018)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, from_features, last, tfds

MARKS = ((r"\s*@highlight\s*", "\n- "), (r"@placeholder", "___"))


def prepare(row):
  r"""Marks as text, and the first name of the list that is accepted.

  >>> prepare({"passage": "Ida won.\n@highlight\nA surprise",
  ...          "query": "The victory of @placeholder", "answers": ["Ida"],
  ...          "entities": ["Bo", "Ida"], ...})  # doctest: +SKIP
  {"passage": "Ida won.\n- A surprise", "query": "The victory of ___",
   "answers": ["Ida"], "entities": ["Bo", "Ida"], "right": 1, ...}
  """
  names, answers = row["entities"], row["answers"]
  right_N = tf.reduce_any(tf.equal(names[:, None], answers[None, :]), axis=1)
  first = tf.where(
    tf.reduce_any(right_N), tf.argmax(tf.cast(right_N, tf.int32)), -1
  )
  return {
    **ops.clean(row, "passage", "query", replace=MARKS),
    "right": first,
  }


def keep(row):
  """A row whose answer is hidden, or no name of the list, has no choice."""
  return row["right"] >= 0


TASK = Task(
  name="record",
  paper_name="ReCoRD",
  source=tfds("super_glue/record:1.0.2"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  keep=keep,
  inputs={"passage": "passage", "query": "query"},
  choices=from_features("entities"),
  label="right",
  references="answers",
  templates=(
    ("{passage}\n\n{query}\n\nWhat fills the gap?\n\n{options}", "{answer}"),
    ("Read the story and name whoever or whatever is missing in the statement about it.\n\nStory: {passage}\n\nStatement: {query}\n\n{options}", "{answer}"),
    ("News: {passage}\nSentence: {query}\nThe gap (___) stands for:", "{answer}"),
    ("The last line of this article came off the press with a blot of ink in it. Restore the name under the blot.\n\n{passage}\n\nLast line: {query}\n\n{options}", "{answer}"),
    ("A name from the article has been blanked out in the statement below. The statement says something that the article does not spell out, so put the names in, one at a time, and choose the one with which it is plausible.\n\n{options}\n\n{passage}\n\nStatement: {query}", "{answer}"),
    ("I cut this out for you:\n\n{passage}\n\nThere was one more sentence, but a corner is missing:\n\n{query}\n\nWho or what do you think it was about?", "{answer}"),
    ("Gap: {query}\n{options}\n\nThe report that goes with it:\n{passage}", "{answer}"),
    ("{passage}\n\nComplete with a name from the text: {query}", "{answer}"),
    ("{query}\n\nThese are the names in the report at the end. Which of them should stand in place of the underscores?\n\n{options}\n\n{passage}", "{answer}"),
    ("{passage}\n\nAdd a sentence that somebody who has read this report would believe. It should be about \"{answer}\", with ___ in place of that name.", "{query}"),
  ),
  metrics=("record",),
  notes=(
    "A choice is a name; in the published form it is a name and all that follows the gap, in the options as well, and F1 counts those words too.",
    "Every accepted name is right in evaluation; the target is the first of the list, which TFDS sorts.",
    "The highlights stay in the passage, as list items; the published form cuts them off.",
    "One template is turned around; the published ten have none.",
  ),
)
