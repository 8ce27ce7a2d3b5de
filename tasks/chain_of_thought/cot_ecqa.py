"""Questions of common sense with an explanation of the right option (Aggarwal et al., 2021)."""

from flan_jax.tasks.chain_of_thought.inversions import INVERSIONS
from flan_jax.tasks.chain_of_thought.rationales import SPLITS, ended

from flan_jax.data.spec import Cot, Task

TASK = Task(
  name="cot_ecqa",
  paper_name="ECQA (chain of thought)",
  source=Cot("ecqa_train.tsv"),
  splits=SPLITS,
  prepare=ended,
  inputs={"question": "question", "rationale": "rationale"},
  target="answer",
  templates=(
    ("{question}\n\nExplain which option fits best, then give it.", "{rationale} So the answer is {target}."),
    ("Use what you know of everyday life. Reason in a few sentences, and name one of the options at the end.\n\n{question}", "{rationale} Therefore the answer is {target}."),
    ("{question}\nReason and choice:", "{rationale} The best choice is {target}."),
    ("A visitor from another planet wants to know the answer and why people find it obvious.\n\n{question}", "{rationale} That is why the answer is {target}."),
    ("Several of the options may seem possible. Think about what each would mean, and settle on one.\n\n{question}", "{rationale} This speaks for {target}."),
    ("Weigh the options aloud.\n{question}", "{rationale} So it comes down to {target}."),
    ("{question}\n\nAnd why?", "{rationale} The answer is {target}."),
    ("In a game, players get a card with a question and must defend their answer. This is the card:\n\n{question}\n\nWhat does a good player say?", "{rationale} So my answer is {target}."),
    ("Think, then pick.\n\n{question}", "{rationale}\nPick: {target}"),
    ("Tell me what makes one of these right.\n\n{question}", "{rationale} Hence it is {target}."),
  ),
  inversions=INVERSIONS,
  metrics=("rouge",),
  notes=(
    "The last 200 rows of the file are held out; the released mixture trains on all.",
  ),
)
