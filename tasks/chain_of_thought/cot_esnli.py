"""Does one sentence follow from another, with the reason (Camburu et al., 2018)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_esnli",
  paper_name="e-SNLI (chain of thought)",
  source=Cot("esnli_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nGive the reason, then the answer.", "{rationale} So the answer is {target}."),
    ("Compare what the two sentences say. Explain how they relate before you answer.\n\n{question}", "{rationale} The answer is {target}."),
    ("{question}\nExplanation and answer:", "{rationale} Therefore the answer is {target}."),
    ("Someone sees a picture and describes it; someone else makes a claim about it. Judge the claim, and say what the judgement rests on.\n\n{question}", "{rationale} So the judgement is: {target}."),
    ("Read closely and reason in a sentence or two.\n\n{question}", "{rationale} Hence {target}."),
    ("What in the wording decides this?\n\n{question}", "{rationale} This decides it: {target}."),
    ("{question}\n\nArgue first.", "{rationale} In short, {target}."),
    ("I would like to check my reading of these lines. Here they are, with the question I was asked.\n\n{question}\n\nHow would you answer, and for what reason?", "{rationale} I would answer: {target}."),
    ("For each pair of sentences annotators wrote one line of explanation and then their label.\n\n{question}\n\nThe annotators wrote:", "{rationale} Label: {target}"),
    ("Justify, then conclude.\n\n{question}", "{rationale}\nConclusion: {target}"),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
    "The file was not at hand when this was written; the templates take any question.",
  ),
)
