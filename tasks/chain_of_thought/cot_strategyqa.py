"""Yes-or-no questions that take several facts at once (Geva et al., 2021)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_strategyqa",
  paper_name="StrategyQA (chain of thought)",
  source=Cot("strategyqa_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nGive the facts that decide it, then yes or no.", "{rationale} So the answer is {target}."),
    ("Yes or no? {question}\nExplain first.", "{rationale} The answer is {target}."),
    ("To answer the question below one has to put several facts together. List them and draw the conclusion.\n\n{question}", "{rationale} In conclusion, {target}."),
    ("Question: {question}\nWhat we know, and what follows from it:", "{rationale} It follows that the answer is {target}."),
    ("{question} Think about what you would need to find out, and answer with yes or no in the end.", "{rationale} Therefore, the answer is {target}."),
    ("At a quiz night the host accepts a yes or a no only with the reasons for it. The question is:\n\n{question}\n\nWhat do you say?", "{rationale} So we say {target}."),
    ("Decide this by reasoning from general knowledge.\n\n{question}", "{rationale} Hence the answer is {target}."),
    ("My brother and I cannot agree whether it is yes or no: {question} Settle it for us, with the reasons.", "{rationale} So it is {target}."),
    ("Q: {question}\nReasoning and verdict (yes or no):", "{rationale}\nVerdict: {target}"),
    ("Take it apart: {question}", "{rationale} The answer to the whole question is {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
