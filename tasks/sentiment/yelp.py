"""Yelp: is a review of a business positive or negative (Zhang et al., 2015)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""Escapes left in the text are undone: `\"` is a quote, `\n` a space.

  >>> prepare({"text": r"\"Fresh\" fish.\n\nNo.", "label": 0})["text"]
  '"Fresh" fish. No.'  # as a string tensor
  """
  escapes = [(r'\\"', '"'), (r"[ ]*(\\n)+[ ]*", " ")]
  return ops.clean(row, "text", replace=escapes)


TASK = Task(
  name="yelp",
  paper_name="Yelp",
  source=tfds("yelp_polarity_reviews:0.2.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"text": "text"},
  choices=("negative", "positive"),
  label="label",
  prepare=prepare,
  metrics=("accuracy",),
  templates=(
    ("Was this customer's experience positive or negative?\n\n{text}\n\n{options}", "{answer}"),
    ("{text}\n\nLabel the review.\n{options}", "{answer}"),
    ("Customer review: {text}\nOverall rating (negative or positive):", "{answer}"),
    ("Suppose you own the place that is described here. Would you call this review positive or negative?\n\n{text}", "{answer}"),
    ("{text}\n\nPutting it all together, the review is\n\n{options}", "{answer}"),
    ("A site for local businesses splits its reviews into two groups: those where the customer would come back, and those where they would rather not. Assign the next one to its group.\n\n{options}\n\n{text}", "{answer}"),
    ("Say negative or positive, nothing else, for the review that follows.\n\n{text}", "{answer}"),
    ("We were thinking of going there on Saturday, and then I found this:\n\n{text}\n\nDoes that sound positive or negative to you? Reply with one of these:\n\n{options}", "{answer}"),
    ("Write a {answer} review of a restaurant, shop or other local business.", "{text}"),
    ("You have just visited a business in your town and your opinion of it is {answer}. Tell other customers what happened.", "{text}"),
  ),
)
