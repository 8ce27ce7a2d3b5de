"""Which of two names belongs in the gap of a sentence? (Winogrande; Sakaguchi et al., 2020)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  """The sentence up to its gap, and both ways to go on to its end.

  >>> prepare({"sentence": "Pia thanked Ute, as _ had helped .",
  ...          "option1": "Pia", "option2": "Ute", "label": 1})  # doctest: +SKIP
  {"opening": "Pia thanked Ute, as", "option1": "Pia", "option2": "Ute",
   "endings": ["Pia had helped.", "Ute had helped."], "label": 1}
  """
  parts = tf.strings.split(row["sentence"], "_")
  after = tf.strings.regex_replace(parts[-1], r"\s+([.,;!?])", r"\1")
  names = tf.stack([row["option1"], row["option2"]])
  return {
    "opening": tf.strings.strip(parts[0]),
    "option1": row["option1"],
    "option2": row["option2"],
    "endings": tf.strings.strip(tf.strings.join([names, after])),
    "label": row["label"],
  }


def keep(row):
  """The published test split hides its labels as -1."""
  return row["label"] >= 0


TASK = Task(
  name="winogrande",
  paper_name="Winogrande",
  source=tfds("winogrande:1.2.0", paper_version="1.1.0"),
  splits=Splits(
    train="train_xl", validation=last("train_xl", 200), test="validation"
  ),
  prepare=prepare,
  keep=keep,
  inputs={"opening": "opening", "option1": "option1", "option2": "option2"},
  choices=from_features("endings"),
  label="label",
  templates=(
    ("{opening} ...\n\nHow does the sentence go on?\n\n{options}", "{answer}"),
    ("Two endings are offered for the sentence below. Pick the one that makes sense.\n\n{options}\n\n{opening}", "{answer}"),
    ("{opening} [{option1} / {option2}] ...\nThe rest, with the right one of the two:", "{answer}"),
    ("A page of a children's reader got torn, and this is left of its last sentence:\n\n{opening}\n\nWhich scrap of paper belongs to it?\n\n{options}", "{answer}"),
    ("Both continuations say the same, only of somebody or something else. Ask yourself of which it is likely to be true, and finish the sentence with that one.\n\n{opening}\n\n{options}", "{answer}"),
    ("My sister texted me this: {opening}\nThen the connection was lost. Was it about \"{option1}\" or about \"{option2}\" that she went on? Write how her message must have ended.", "{answer}"),
    ("Beginning: {opening}\n{options}\nEnd:", "{answer}"),
    ("Complete the text. The missing part starts with \"{option1}\" or with \"{option2}\".\n\n{opening} ___", "{answer}"),
    ("{opening}\n\nWould you carry on with \"{option1}\" or \"{option2}\"? Choose the whole continuation.\n\n{options}", "{answer}"),
    ("Decide what comes next, so that nothing in the sentence is at odds with the rest.\n\n{opening}\n\n{options}", "{answer}"),
  ),
  metrics=("accuracy",),
  notes=("Every template shows what there is to choose from; five published ones do not.",),
)
