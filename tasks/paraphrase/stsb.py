"""How similar are two sentences, 0 to 5? (STS-B; Cer et al., 2017)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """The mean rating, rounded to the nearest integer (halves to even).

  >>> prepare({"label": 3.8, ...})  # doctest: +SKIP
  {"label": 3.8, "score": 4, ...}
  """
  return {**row, "score": tf.cast(tf.round(row["label"]), tf.int32)}


TASK = Task(
  name="stsb",
  paper_name="STS-B",
  source=tfds("glue/stsb:2.0.0"),
  splits=Splits(validation=last("train", 100), test="validation"),
  prepare=prepare,
  inputs={"sentence1": "sentence1", "sentence2": "sentence2"},
  choices=("0", "1", "2", "3", "4", "5"),
  label="score",
  templates=(
    ("{sentence1}\n{sentence2}\n\nHow similar in meaning are these sentences, if 0 stands for unrelated and 5 for identical?\n\n{options}", "{answer}"),
    ("Rate how close the following two texts are in meaning.\n\nText 1: {sentence1}\nText 2: {sentence2}\n\n{options}", "{answer}"),
    ("A teacher gives marks from 0 to 5 for how well a pupil's sentence keeps the meaning of the model sentence.\n\nModel: {sentence1}\nPupil: {sentence2}\n\nWhich whole mark is fair?", "{answer}"),
    ("Sentence A: {sentence1}\nSentence B: {sentence2}\nSimilarity (0, 1, 2, 3, 4 or 5):", "{answer}"),
    ("Which number best describes the likeness in meaning between the sentences below? A higher number means more alike.\n\n{options}\n\n{sentence1}\n\n{sentence2}", "{answer}"),
    ("Somebody told me:\n{sentence1}\nSomebody else put it like this:\n{sentence2}\nHow much do the two agree in what they say? Give me a number, where 5 is completely and 0 is not at all.\n\n{options}", "{answer}"),
    ("People were asked to judge pairs of sentences on a scale. They gave 5 when the meaning was the same, 4 when only unimportant details differed, 3 when something important differed, 2 when some details were shared, 1 when merely the topic was, and 0 when nothing was.\n\n{sentence1}\n{sentence2}\n\nWhat did most people give?\n\n{options}", "{answer}"),
    ("Score the overlap in meaning as a whole number from 0 to 5.\n\n{sentence1}\n{sentence2}", "{answer}"),
    ("Here is a sentence:\n\n{sentence1}\n\nWrite another one. On a scale from 0 (unrelated) to 5 (the same), its likeness in meaning to the first should be {answer}.", "{sentence2}"),
    ("Make up two sentences. On a scale of similarity from 0 (different topics) to 5 (the same meaning) they should reach {answer}.", "{sentence1}\n{sentence2}"),
  ),
  metrics=("pearson", "spearman"),
  notes=("Scored on the rounded integer; the published scoring compared texts with floats and failed.",),
)
