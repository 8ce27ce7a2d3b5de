"""PIQA: which way of reaching a physical goal works (Bisk et al., 2020)."""

from flan_jax.data.spec import Splits, Task, from_features, last, tfds

TASK = Task(
  name="piqa",
  paper_name="PiQA",
  source=tfds("piqa:1.0.0"),
  splits=Splits(validation=last("train", 100), test="validation"),
  inputs={"goal": "goal"},
  choices=from_features("sol1", "sol2"),
  label="label",
  metrics=("accuracy",),
  templates=(
    ("{goal}\n\nWhich of these works?\n\n{options}", "{answer}"),
    ("Goal: {goal}\n{options}\nSolution:", "{answer}"),
    ("Give practical advice for the following.\n\n{goal}", "{answer}"),
    ("Someone with no experience asks about this:\n\n{goal}\n\nTell them the way that will succeed.\n\n{options}", "{answer}"),
    ("You look after the letter box of a household help line. This is on today's card:\n\n{goal}\n\nYour advice:", "{answer}"),
    ("There are two suggestions below for one everyday aim. One of them is sound, and the other would fail, make a mess or be much harder than it needs to be; copy out the sound one.\n\nAim: {goal}\n\n{options}", "{answer}"),
    ("{options}\n\nTake the better of the two as an answer to this:\n\n{goal}", "{answer}"),
    ("I could use a hand with this:\n\n{goal}\n\nWhat should I do?", "{answer}"),
    ("Here is an instruction from a book of household tips:\n\n{answer}\n\nWhat is it meant to achieve?", "{goal}"),
    ("Tip: {answer}\nGoal that the tip serves:", "{goal}"),
  ),
)
