"""Which of two sentences goes against common sense, and why (Wang et al., 2019)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_sensemaking",
  paper_name="Sense-Making (chain of thought)",
  source=Cot("sensemaking_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nSay what is wrong before you name the sentence.", "{rationale} So the answer is {target}."),
    ("Common sense rules out one of these. Give the reason and then the sentence.\n\n{question}", "{rationale} Therefore it is {target}."),
    ("{question}\nExplanation, then A or B:", "{rationale} The answer is {target}."),
    ("An editor strikes out whatever cannot happen and notes the reason in the margin.\n\n{question}\n\nNote and decision:", "{rationale} Strike out {target}."),
    ("Picture both situations. Which does not work, and what is in the way?\n\n{question}", "{rationale} That rules out {target}."),
    ("{question}\nThink about how the world works, not about the grammar.", "{rationale} Hence the answer is {target}."),
    ("My little daughter laughed at one of these. Can you tell me which, and what is so funny?\n\n{question}", "{rationale} So she laughed at {target}."),
    ("Reason first.\n\n{question}", "{rationale}\nSentence: {target}"),
    ("For a test of common sense, write a line that explains the fault, followed by the faulty sentence's name.\n\n{question}", "{rationale} The faulty one is {target}."),
    ("{question}\n\nHow do you know?", "{rationale} This is how I know that it is {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
