"""Word problems in arithmetic, solved step by step (Cobbe et al., 2021)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_gsm8k",
  paper_name="GSM8K (chain of thought)",
  source=Cot("gsm8k_train.tsv"),
  splits=SPLITS,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nWork it out step by step.", "{rationale}\nThe answer is {target}."),
    ("Solve this problem. Show every step, and give the result at the end.\n\n{question}", "{rationale}\nThe result is {target}."),
    ("Problem: {question}\nSolution:", "{rationale}\nAnswer: {target}"),
    ("A pupil hands in this exercise with the calculation written out in full. What does the pupil write?\n\n{question}", "{rationale}\nSo the answer is {target}."),
    ("{question} Explain how you get to the number.", "{rationale}\nTherefore the answer is {target}."),
    ("I have to help my son with his mathematics homework and must be able to say why, so please do not skip anything.\n\n{question}", "{rationale}\nThat makes {target}."),
    ("First reason, then answer with a number.\n\nQuestion: {question}", "{rationale}\nFinal answer: {target}"),
    ("What is asked for below takes more than one calculation. Do them one after the other.\n\n{question}", "{rationale}\nThe final result is {target}."),
    ("Read the text, find the quantities in it, and compute.\n{question}\nCalculation and answer:", "{rationale}\nThe answer is {target}."),
    ("{question}\nLet us go through it slowly.", "{rationale}\nSo it is {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
