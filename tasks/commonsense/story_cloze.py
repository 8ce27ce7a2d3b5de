"""StoryCloze: the right ending of a story (Mostafazadeh et al., 2016)."""

from flan_jax.data.spec import Splits, Task, from_features, last, tfds


def prepare(row):
  """The label counts endings from 1 and becomes an index from 0.

  >>> prepare({"context": "...", "endings": ["a", "b"], "label": 2})["label"]
  1  # as a tensor
  """
  return {**row, "label": row["label"] - 1}


def keep(row):
  """A label outside 0..1 points at no ending (-1 where it was missing)."""
  return (row["label"] >= 0) & (row["label"] < 2)


TASK = Task(
  name="story_cloze",
  paper_name="StoryCloze",
  source=tfds("story_cloze/2016:1.0.0"),
  splits=Splits(
    train="validation", validation=last("validation", 200), test="test"
  ),
  inputs={"context": "context"},
  choices=from_features("endings"),
  label="label",
  prepare=prepare,
  keep=keep,
  metrics=("accuracy",),
  templates=(
    ("{context}\n\nHow does the story end?\n\n{options}", "{answer}"),
    ("Choose the last sentence of this story.\n\n{options}\n\n{context}", "{answer}"),
    ("{context}", "{answer}"),
    ("Story so far: {context}\nPossible endings:\n{options}\nBest ending:", "{answer}"),
    ("Add one closing sentence to the story.\n\n{context}", "{answer}"),
    ("You edit a children's magazine, and the printer has mixed up the last lines of two stories. Which line belongs to this one?\n\n{context}\n\n{options}", "{answer}"),
    ("The story below has four sentences and lacks its fifth. Two candidates for it are given, but only one agrees with what has happened so far; answer with that one.\n\n{context}\n\n{options}", "{answer}"),
    ("My phone died just before the end of a story I was being told:\n\n{context}\n\nWhat do you think I missed?", "{answer}"),
    ("Write four sentences that lead up to this ending.\n\n{answer}", "{context}"),
    ("A very short story closes with the words \"{answer}\" Tell everything that happens before them.", "{context}"),
  ),
)
