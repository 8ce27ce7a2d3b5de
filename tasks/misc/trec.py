"""TREC: what kind of answer a question asks for (Li and Roth, 2002)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="trec",
  paper_name="TREC",
  source=tfds("trec:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"text": "text"},
  choices=(
    "description",
    "entity",
    "abbreviation",
    "human",
    "numeric",
    "location",
  ),
  label="label-coarse",
  metrics=("accuracy",),
  templates=(
    ("{text}\n\nWhat kind of thing would answer this question?\n\n{options}", "{answer}"),
    ("Sort the question by the type of its answer.\n\nQuestion: {text}\n\n{options}", "{answer}"),
    ("Question: {text}\nAnswer type (description, entity, abbreviation, human, numeric or location):", "{answer}"),
    ("You prepare a radio quiz and sort the questions that listeners send in by what sort of answer they call for. Which pile does this one join?\n\n{options}\n\n{text}", "{answer}"),
    ("{text}\n\nThe answer to this has one of six types (description, entity, abbreviation, human, numeric, location), namely", "{answer}"),
    ("Before a search engine can answer a question it has to know what it is looking for. A question may ask for a person or group, a place, a number or date, some other thing, the meaning of a short form, or an explanation; choose the class of the question below.\n\n{text}\n\n{options}", "{answer}"),
    ("Don't answer this, only classify it.\n{options}\n\n{text}", "{answer}"),
    ("My quiz cards got mixed up and I'm putting them back into six boxes: abbreviation, description, entity, human, location and numeric. Where does this card go?\n\n{text}", "{answer}"),
    ('Write a trivia question that belongs in the category "{answer}".', "{text}"),
    ("Category: {answer}\nOne question for a general knowledge quiz:", "{text}"),
  ),
)
