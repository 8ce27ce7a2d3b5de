"""Is a claim about a well-known thing true, by common sense (Onoe et al., 2021)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_creak",
  paper_name="CREAK (chain of thought)",
  source=Cot("creak_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nSay why before you decide.", "{rationale} So the answer is {target}."),
    ("Check the claim against what everybody knows. Give your reason, then the verdict.\n\n{question}", "{rationale} The verdict is {target}."),
    ("{question}\nReason and answer:", "{rationale} The answer is {target}."),
    ("A fact checker gets the following and replies with one or two sentences that settle it, followed by yes or no.\n\n{question}", "{rationale} Therefore, {target}."),
    ("Answer by reasoning: what is the thing like that is spoken of here, and does the claim agree with that?\n\n{question}", "{rationale} Hence the answer is {target}."),
    ("Somebody sent me this. I am not sure what to make of it.\n\n{question}\n\nTell me how you see it, and why.", "{rationale} So I would say {target}."),
    ("Before you reply to the question below, name the fact that it turns on.\n{question}", "{rationale} This means that the answer is {target}."),
    ("True claims get a yes. Explain, then answer.\n\n{question}", "{rationale} So it is {target}."),
    ("Statement under test:\n{question}\n\nExplanation, then the result of the test:", "{rationale}\nResult: {target}"),
    ("{question}\n\nWhat speaks for it or against it?", "{rationale} On that ground, {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
