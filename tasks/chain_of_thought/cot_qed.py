"""Questions about a passage, answered with the sentence that tells (Lamm et al., 2021)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_qed",
  paper_name="QED (chain of thought)",
  source=Cot("qed_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nShow where the passage says so, then answer.", "{rationale} So the answer is {target}."),
    ("Find the part of the text that the answer rests on, explain it, and answer.\n\n{question}", "{rationale} The answer is {target}."),
    ("{question}\nEvidence and answer:", "{rationale} Therefore the answer is {target}."),
    ("A librarian answers from the page that lies open, and points out the place.\n\n{question}\n\nLibrarian:", "{rationale} So the answer is {target}."),
    ("Say first what the words of the question refer to in the text.\n\n{question}", "{rationale} Hence the answer is {target}."),
    ("Answer from the text alone, and let me follow how.\n\n{question}", "{rationale} That gives {target}."),
    ("{question} Which sentence tells us?", "{rationale} It tells us: {target}."),
    ("The passage and question below come from a reading test in which the evidence has to be given as well.\n\n{question}", "{rationale} From this, the answer is {target}."),
    ("Evidence first, then the answer in a few words.\n\n{question}", "{rationale}\nAnswer: {target}"),
    ("Read, look for the place, and report what it says.\n{question}", "{rationale} In a word: {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
    "The file was not at hand when this was written; the templates take any question.",
  ),
)
