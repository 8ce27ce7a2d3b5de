"""Questions of quiz makers (TriviaQA; Joshi et al., 2017), asked without their documents."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """Question and answer without the documents, which are not shown.

  >>> prepare({"question": "Who wrote Faust?", "answer": {"value": "Goethe",
  ...          "aliases": ["Goethe", "J. W. Goethe"], ...}, ...})  # doctest: +SKIP
  {"question": "Who wrote Faust?", "target": "Goethe",
   "references": ["J. W. Goethe"], "answers": ["Goethe", "J. W. Goethe"]}
  """
  return ops.accepted({
    "question": row["question"],
    "target": row["answer"]["value"],
    "references": row["answer"]["aliases"],
  })


def keep(row):
  """The published test split hides its answers as "<unk>"."""
  return row["target"] != "<unk>"


TASK = Task(
  name="trivia_qa",
  paper_name="TQA",
  source=tfds("trivia_qa/rc:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  keep=keep,
  inputs={"question": "question"},
  target="target",
  references="answers",
  templates=(
    ("{question}\n\nYour answer, please.", "{target}"),
    ("Answer this trivia question.\n\n{question}", "{target}"),
    ("Q: {question}\nA:", "{target}"),
    ("It is the last round of a pub quiz, and your team needs one more point. The quiz master asks:\n\n{question}\n\nWhat do you write on the sheet?", "{target}"),
    ("No sources are given with the question that follows. Rely on what you know of the world, and name the person, place, thing or number that is asked for without any explanation.\n\n{question}", "{target}"),
    ("I've been puzzling over this all evening: {question} Do you know?", "{target}"),
    ("Quiz card\nFront: {question}\nBack: ___", "{target}"),
    ("Name what is asked for here.\n\n{question}", "{target}"),
    ("Set a trivia question to which the answer is \"{target}\".", "{question}"),
    ("The card says {target} on its back. Write what is on its front, if it comes from a box of general knowledge questions.", "{question}"),
  ),
  metrics=("trivia_qa",),
  notes=(
    "The target is the answer as it is written; the published one is lower-cased and without punctuation.",
    "Hidden answers are dropped row by row; the published filter never dropped any.",
    "Two templates are turned around; the published ten have none.",
  ),
)
