"""Which of two nouns does a pronoun stand for? (DPR; Rahman and Ng, 2012)."""

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  """The row with its two candidates by name.

  >>> prepare({"candidates": ["Owls", "voles"], ...})  # doctest: +SKIP
  {"first": "Owls", "second": "voles", "candidates": ["Owls", "voles"], ...}
  """
  candidates = row["candidates"]
  return {**row, "first": candidates[0], "second": candidates[1]}


TASK = Task(
  name="definite_pronoun_resolution",
  paper_name="DPR",
  source=tfds("definite_pronoun_resolution:1.1.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  prepare=prepare,
  inputs={
    "sentence": "sentence",
    "pronoun": "pronoun",
    "first": "first",
    "second": "second",
  },
  choices=from_features("candidates"),
  label="label",
  templates=(
    ("{sentence}\n\nWhat does \"{pronoun}\" refer to?\n\n{options}", "{answer}"),
    ("Say whom or what the pronoun stands for.\n\nSentence: {sentence}\nPronoun: {pronoun}\n\n{options}", "{answer}"),
    ("{sentence}\nIn this sentence, \"{pronoun}\" means either \"{first}\" or \"{second}\". It means", "{answer}"),
    ("A translator needs to know who is meant by \"{pronoun}\" before this line can be put into a language that has several words for it.\n\n{sentence}\n\n{options}", "{answer}"),
    ("Grammar alone does not settle what the word \"{pronoun}\" points back to in the sentence below; knowing how the world goes does. Choose what it points back to.\n\n{options}\n\n{sentence}", "{answer}"),
    ("I had to read this twice: {sentence} Who or what is \"{pronoun}\" here? Is it {first} or {second}?", "{answer}"),
    ("Replace the word \"{pronoun}\" so that the sentence is clear to everybody. What do you put in its place?\n\n{sentence}\n\n{options}", "{answer}"),
    ("Pronoun: {pronoun}\nSentence: {sentence}\n{options}\nPoints to:", "{answer}"),
    ("{sentence}\n\nOne child asks: \"What is meant by {pronoun}?\" Another gives the right answer. Is the answer \"{first}\" or \"{second}\"?", "{answer}"),
    ("Link the pronoun to its noun.\n\n{sentence}\n\n{pronoun} = ?\n\n{options}", "{answer}"),
  ),
  metrics=("accuracy",),
)
