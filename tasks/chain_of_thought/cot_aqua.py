"""Algebraic word problems with five options and a rationale (Ling et al., 2017)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_aqua",
  paper_name="AQuA (chain of thought)",
  source=Cot("aqua_train.tsv"),
  splits=SPLITS,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nWrite down your working, then the letter of the right option.", "{rationale}\nThe answer is {target}."),
    ("The following is from an admission test. Solve it on paper first, and only then mark an option.\n\n{question}", "{rationale}\nI mark {target}."),
    ("{question}\nSolution, with the option at the end:", "{rationale}\nAnswer: {target}"),
    ("Derive the value that is asked for and say which of the options it is.\n\n{question}", "{rationale}\nThis is option {target}."),
    ("Multiple choice in algebra. Give the derivation as well.\n{question}", "{rationale}\nThe right option is {target}."),
    ("{question}\n\nNobody gets the point for a letter alone, so show how you found it.", "{rationale}\nSo the answer is {target}."),
    ("How would you solve this, and which letter do you end up with?\n\n{question}", "{rationale}\nI end up with {target}."),
    ("Set up what is known, calculate, compare with the options.\n\n{question}", "{rationale}\nSo the right option has to be {target}."),
    ("A tutor explains the next exercise to a class and then names the correct choice.\n\n{question}\n\nTutor:", "{rationale}\nSo the correct choice is {target}."),
    ("Q: {question}\nReason before you answer.", "{rationale}\nFinal answer: {target}"),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
