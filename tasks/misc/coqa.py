"""All the questions of a conversation about a story, answered as a list (CoQA; Reddy et al., 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds

# More turns than any conversation has.
TURNS = 1000
SPACES = ((r"\s+", " "),)


def prepare(row):
  r"""Questions and answers as two numbered lists.

  >>> prepare({"story": "Mila had a kite.", "questions": ["Who?", "Had what?"],
  ...          "answers": {"input_text": ["Mila", "a kite"], ...}, ...})  # doctest: +SKIP
  {"story": "Mila had a kite.", "asked": "1. Who?\n2. Had what?",
   "answered": "1. Mila\n2. a kite"}
  """
  texts = {"q": row["questions"], "a": row["answers"]["input_text"]}
  texts = ops.clean(texts, "q", "a", replace=SPACES)
  out = ops.numbered({"story": row["story"]}, texts["q"], "asked", TURNS)
  return ops.numbered(out, texts["a"], "answered", TURNS)


TASK = Task(
  name="coqa",
  paper_name="CoQA",
  source=tfds("coqa:1.0.0"),
  splits=Splits(validation=last("train", 100), test="test"),
  prepare=prepare,
  inputs={"story": "story", "asked": "asked"},
  target="answered",
  templates=(
    ("{story}\n\n{asked}\n\nAnswer each question, in the same order and with its number.", "{target}"),
    ("Read the text and reply to all the questions under it as a numbered list.\n\nText: {story}\n\nQuestions:\n{asked}", "{target}"),
    ("Story:\n{story}\n\nQuestions:\n{asked}\n\nAnswers:", "{target}"),
    ("Two people are talking. One has this text and the other, who has not, asks about it:\n\n{asked}\n\nWrite what the first one says in turn, numbered as the questions are.\n\n{story}", "{target}"),
    ("The questions after the passage belong together: a later one may take up what an earlier one was about. Give short answers, a line for each number.\n\n{story}\n\n{asked}", "{target}"),
    ("My son has to do these for school tomorrow:\n\n{asked}\n\nIt's all about this piece of reading. Can you give me the numbers with the answers?\n\n{story}", "{target}"),
    ("{asked}\n\nNumber by number, what does the following say?\n\n{story}", "{target}"),
    ("Fill in the answer sheet, with one numbered line for every question.\n\n{story}\n\nQuestion sheet\n{asked}\n\nAnswer sheet\n___", "{target}"),
    ("{story}\n\nA reader was asked about this and answered:\n{target}\n\nWrite down the questions under the same numbers.", "{asked}"),
    ("Make up a story or a piece of news that answers all of these questions in the way shown.\n\nQuestions:\n{asked}\n\nAnswers:\n{target}", "{story}"),
  ),
  metrics=("squad_turns",),
  notes=(
    "Scored turn by turn; the published metric compares characters, and a perfect prediction has no exact match.",
    "Two templates are turned around; the published ten have one.",
  ),
)
