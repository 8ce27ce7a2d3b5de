"""Science questions whose answer joins two facts, with eight options (Khot et al., 2020)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_qasc",
  paper_name="QASC (chain of thought)",
  source=Cot("qasc_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nName the facts that lead to the answer, and then its letter.", "{rationale} So the answer is {target}."),
    ("Two facts of school science have to be put together here. Do so and choose an option.\n\n{question}", "{rationale} Together this gives {target}."),
    ("{question}\nReasoning and letter:", "{rationale} The answer is {target}."),
    ("Explain to a child of ten which of these it is and how one can tell.\n\n{question}", "{rationale} That is why it is {target}."),
    ("Science test. A letter without a reason is not counted.\n\n{question}", "{rationale} Therefore the letter is {target}."),
    ("Go from what the question says to what you know about it, and on to one of the options.\n{question}", "{rationale} This leads to {target}."),
    ("{question}\n\nThink it through first.", "{rationale} Hence {target}."),
    ("I keep choosing wrongly in questions like this one. Show me how to get it right.\n\n{question}", "{rationale} So one should choose {target}."),
    ("What follows is a question with eight options. Write the explanation that a textbook would give, and close with the right letter.\n\n{question}", "{rationale} The right option is {target}."),
    ("Facts first, choice second.\n\n{question}", "{rationale}\nChoice: {target}"),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
