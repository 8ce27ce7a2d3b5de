"""Elementary science, applied (OpenBookQA; Mihaylov et al., 2018), without the book."""

from flan_jax.data.spec import Splits, Task, first, from_features, tfds

TASK = Task(
  name="openbookqa",
  paper_name="OBQA",
  source=tfds("openbookqa:0.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"stem": "question/stem"},
  choices=from_features(
    "question/choice_A",
    "question/choice_B",
    "question/choice_C",
    "question/choice_D",
  ),
  label="answerKey",
  templates=(
    ("{stem}\n\n{options}", "{answer}"),
    ("Some of the lines in this quiz are questions and others are sentences to be finished. Do what the next line needs.\n\n{stem}\n\n{options}", "{answer}"),
    ("{stem}", "{answer}"),
    ("Science quiz\n{stem}\n{options}\nSolution:", "{answer}"),
    ("Young children are learning how nature and everyday things work. Which choice would their teacher be pleased with?\n\n{options}\n\nThe teacher's line: {stem}", "{answer}"),
    ("The following takes one fact from an elementary science book and a bit of common sense. Find the choice that answers or completes it.\n\n{stem}\n\n{options}", "{answer}"),
    ("Help me with my homework, please. It only says this:\n\n{stem}\n\nWhat would you put?\n\n{options}", "{answer}"),
    ("Which ending or answer goes with the line at the bottom?\n\n{options}\n\n{stem}", "{answer}"),
    ("\"{answer}\" is what a science quiz gives as the solution to one of its items. Write the item, either as a question or as the beginning of a sentence.", "{stem}"),
    ("Four choices and the one that is right are left of an item in a science quiz. Restore its first line.\n\n{options}\n\nRight: {answer}", "{stem}"),
  ),
  metrics=("accuracy",),
  notes=(
    "The fact that the question was made from is not shown; seven of the ten published templates show it.",
    "Training has the whole train split; the 200 rows for development are the first of the published validation split.",
  ),
)
