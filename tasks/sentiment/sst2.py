"""SST-2: is a phrase from a film review positive (Socher et al., 2013)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """The trailing space of most training phrases goes.

  >>> prepare({"sentence": "a quiet triumph ", "label": 1})["sentence"]
  'a quiet triumph'  # as a string tensor
  """
  return ops.clean(row, "sentence")


TASK = Task(
  name="sst2",
  paper_name="SST-2",
  source=tfds("glue/sst2:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"sentence": "sentence"},
  choices=("negative", "positive"),
  label="label",
  prepare=prepare,
  metrics=("accuracy",),
  templates=(
    ('A critic wrote: "{sentence}"\n\nIs that positive or negative?\n\n{options}', "{answer}"),
    ("Phrase: {sentence}\nOpinion:\n{options}", "{answer}"),
    ("Judge the attitude towards the film in the words below, as either negative or positive.\n\n{sentence}", "{answer}"),
    ("The following words come from a film review. They may be only part of a sentence, so go by the impression they leave.\n\n{sentence}\n\n{options}", "{answer}"),
    ('Would a film studio put "{sentence}" on its poster? Answer positive if the words are flattering and negative if they are not.', "{answer}"),
    ("{options}\n\nWhich of the two describes these words about a movie?\n\n{sentence}", "{answer}"),
    ('"{sentence}" -- to judge by this remark, the reviewer\'s feelings about the movie were (negative or positive)', "{answer}"),
    ('Hey, you read more film criticism than I do. When someone writes "{sentence}", what kind of review am I looking at?\n\n{options}', "{answer}"),
    ("Give me a phrase that could appear in a {answer} film review.", "{sentence}"),
    ("You review films for a newspaper and this week's film left a {answer} impression. What is the key line of your review?", "{sentence}"),
  ),
)
