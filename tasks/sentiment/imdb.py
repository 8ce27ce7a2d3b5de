"""IMDB: is a movie review positive or negative (Maas et al., 2011)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""HTML line breaks become line breaks.

  >>> prepare({"text": "Dull.<br /><br />Skip it.", "label": 0})["text"]
  'Dull.\n\nSkip it.'  # as a string tensor
  """
  return ops.clean(row, "text", replace=[(r"[ ]*<br\s*/?>[ ]*", "\n")])


TASK = Task(
  name="imdb",
  paper_name="IMDB",
  source=tfds("imdb_reviews/plain_text:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"text": "text"},
  choices=("negative", "positive"),
  label="label",
  prepare=prepare,
  metrics=("accuracy",),
  templates=(
    ("{text}\n\nIs this movie review positive or negative?\n\n{options}", "{answer}"),
    ("Read the review and judge how the writer felt about the film.\n\nReview:\n{text}\n\n{options}", "{answer}"),
    ("{text}\n\nThe verdict of the review above, in one word (negative or positive), is", "{answer}"),
    ("You run the letters page of a film magazine and sort the mail from readers into two trays. Which tray does this letter go into?\n\n{options}\n\n{text}", "{answer}"),
    ("Review: {text}\nSentiment (positive or negative):", "{answer}"),
    ("I have no time to read all of this before the cinema closes its box office. Just tell me, was it a negative or a positive review?\n\n{text}", "{answer}"),
    ("Below is what a viewer wrote after seeing a movie. Some viewers recommend what they saw and some warn others away from it; pick the word that describes the opinion as a whole, even where praise and complaints are mixed.\n\n{text}\n\n{options}", "{answer}"),
    ("Classify the sentiment.\n{options}\n\n{text}", "{answer}"),
    ("Write a movie review whose overall opinion is {answer}.", "{text}"),
    ("Imagine that you saw a film last night and your impression of it was {answer}. Post your review here.", "{text}"),
  ),
)
