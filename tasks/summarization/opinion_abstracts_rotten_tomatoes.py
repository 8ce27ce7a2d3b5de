"""What critics agree on about a film (Rotten Tomatoes; Wang and Ling, 2016)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""The film's name in words, the first ten reviews as a list, and the first.

  >>> prepare({"_movie_name": "blue_hour",
  ...          "_critics": {"value": ["Dark.", "Dull."], ...}})  # doctest: +SKIP
  {"_movie_name": "blue hour", "reviews": "1. Dark.\n2. Dull.",
   "first_review": "Dark.", ...}
  """
  texts = row["_critics"]["value"]
  row = ops.clean(row, "_movie_name", replace=[("_", " ")])
  first = tf.strings.reduce_join(texts[:1])
  return {**ops.numbered(row, texts, "reviews"), "first_review": first}


TASK = Task(
  name="opinion_abstracts_rotten_tomatoes",
  paper_name="Opin-Abs (Rotten Tomatoes)",
  source=tfds("opinion_abstracts/rotten_tomatoes:1.0.0"),
  splits=Splits(validation=last("train", 100, 500), test=last("train", 500)),
  prepare=prepare,
  inputs={
    "movie": "_movie_name",
    "reviews": "reviews",
    "first_review": "first_review",
  },
  target="_critic_consensus",
  templates=(
    ('{reviews}\n\nWhat do these critics agree on about the film "{movie}"?', "{target}"),
    ('Write a sentence that sums up the reviews of "{movie}".\n\n{reviews}', "{target}"),
    ("Film: {movie}\nReviews:\n{reviews}\nConsensus:", "{target}"),
    ("A website collects what critics write and puts their common verdict at the top of the page, in one sentence. What does it put at the top of this page?\n\nReviews of: {movie}\n\n{reviews}", "{target}"),
    ("These quotations are from reviews of one film. Not all of them need be of the same mind; weigh them, and state the opinion that most share together with the main reason for it.\n\n{reviews}", "{target}"),
    ('Should I go and see "{movie}"? This is what the papers say:\n\n{reviews}\n\nWhat\'s the verdict on the whole?', "{target}"),
    ("{reviews}\n\nAll things considered, the critics find: ___", "{target}"),
    ("Bring these opinions on a film together.\n\n{reviews}", "{target}"),
    ('The verdict of the critics on "{movie}" reads: {target}\n\nWrite a numbered list of what single critics may have said.', "{reviews}"),
    ("{target}\n\nThat is what critics as a whole think of a film. Write one of the reviews behind it, in a sentence or so.", "{first_review}"),
  ),
  metrics=("rouge",),
)
