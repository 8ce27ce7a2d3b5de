"""The claim that arguments in a debate support (iDebate; Wang and Ling, 2016)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""The first ten arguments as a list.

  >>> prepare({"_argument_sentences": {"value": ["Pain is pain.", "Laws help."],
  ...                                  ...}, ...})  # doctest: +SKIP
  {"arguments": "1. Pain is pain.\n2. Laws help.", ...}
  """
  row = ops.clean(row, "_debate_name", replace=[("_", " ")])
  return ops.numbered(row, row["_argument_sentences"]["value"], "arguments")


TASK = Task(
  name="opinion_abstracts_idebate",
  paper_name="Opin-Abs (iDebate)",
  source=tfds("opinion_abstracts/idebate:1.0.0"),
  splits=Splits(validation=last("train", 100, 500), test=last("train", 500)),
  prepare=prepare,
  inputs={"debate": "_debate_name", "arguments": "arguments"},
  target="_claim",
  templates=(
    ("{arguments}\n\nWhat claim do these sentences argue for?", "{target}"),
    ("State in one sentence the point that the arguments below support.\n\n{arguments}", "{target}"),
    ("Debate: {debate}\nArguments:\n{arguments}\nClaim:", "{target}"),
    ('A speaker in the debate "{debate}" has these notes. Before reading them out, the speaker says what they will show. What is that?\n\n{arguments}', "{target}"),
    ("The numbered sentences are from one contribution to a debate, and they all serve the same claim, which may be for the motion or against it. Write that claim as a sentence.\n\nMotion: {debate}\n\n{arguments}", "{target}"),
    ("The heading has gone missing from my notes of the debate:\n\n{arguments}\n\nWhat was their point?", "{target}"),
    ("{arguments}\n\nAll of this goes to show: ___", "{target}"),
    ("Summarise the argument in a sentence.\n\n{arguments}", "{target}"),
    ("Motion: {debate}\nClaim: {target}\n\nBack up the claim with a numbered list of arguments.", "{arguments}"),
    ("{target}\n\nIn a debate on which motion might one hear this?", "{debate}"),
  ),
  metrics=("rouge",),
  notes=("Two templates are turned around; four of the published ten are.",),
)
