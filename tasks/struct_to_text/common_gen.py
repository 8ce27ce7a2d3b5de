"""One everyday sentence from a few concepts (CommonGen; Lin et al., 2020)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""Concepts as text, and all accepted sentences, each once.

  >>> prepare({"concepts": ["dog", "run"], "target": "A dog runs.",
  ...          "references": ["A dog runs.", "The dogs are running."]})  # doctest: +SKIP
  {"concept_text": "dog, run", "concept_lines": "dog\nrun",
   "answers": ["A dog runs.", "The dogs are running."], ...}
  """
  row = ops.listed(
    row, row["concepts"], "concept_text", "concept_lines", by=", "
  )
  return ops.accepted(row)


TASK = Task(
  name="common_gen",
  paper_name="CommonGen",
  source=tfds("gem/common_gen:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"concepts": "concept_text", "concept_lines": "concept_lines"},
  plain=("concepts",),
  target="target",
  references="answers",
  templates=(
    ("Write one sentence about an everyday scene that uses all of these words: {concepts}", "{target}"),
    ("Concepts:\n{concept_lines}\n\nSentence:", "{target}"),
    ("Which single sentence could bring together the words {concepts}?", "{target}"),
    ("A language teacher reads out these words:\n\n{concept_lines}\n\nThe pupils must use every one of them in the same sentence. What might a good pupil write?", "{target}"),
    ("Below are the names of some things and actions. Join them in a sentence that describes something that could really happen; the words may be inflected and may come in any order.\n\n{concepts}", "{target}"),
    ("I have to caption a picture, and all I was told is that it has to do with the following: {concepts}. Could you write the caption for me?", "{target}"),
    ("Complete the exercise.\n\nGiven words: {concepts}\nA sentence with all of them: ___", "{target}"),
    ("{concept_lines}\n\nTurn this list into one short description of an ordinary situation.", "{target}"),
    ("{target}\n\nWhat are the main words of this sentence? Give their basic forms, separated by commas.", "{concepts}"),
    ("Strip the sentence below down to the concepts that it was built from, one to a line.\n\nSentence: {target}", "{concept_lines}"),
  ),
  metrics=("rouge",),
  notes=("Two templates are turned around; the published ten have four, one more than the paper says.",),
)
