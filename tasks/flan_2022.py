"""The one table of FLAN 2022: its sub-mixtures, their shares, caps and tasks.

Values only: nothing is imported but the table of FLAN's own tasks. To join
tasks of another reader to a sub-mixture, write the names that it gives them in
seqio's registry into `names`; they are found when a job starts.

Source: Longpre et al., 2023 (arXiv 2301.13688), and the code released with it
(google-research/FLAN, flan/v2, run_example.py): shares, caps, members.
"""

import dataclasses

from flan_jax.tasks import clusters


@dataclasses.dataclass(frozen=True)
class SubMixture:
  """One of the five.

  Attributes:
    name: in names of mixtures, `flan_2022_cot_train`.
    share: of the examples.
    cap: a task's rate, at most.
    prompt_types: names of the types that prompts of `tasks` are drawn from.
    tasks: its tasks in this project.
    folder: where their files are, below `tasks`; "" is the catalogue.
    names: of its tasks or mixtures in seqio's registry, where another reader
      registers them.
    inverted: prompts that ask for an input, for each that asks for the answer.
  """

  name: str
  share: float
  cap: int
  prompt_types: tuple[str, ...]
  tasks: tuple[str, ...] = ()
  folder: str = ""
  names: tuple[str, ...] = ()
  inverted: float = 0.0


WITH_AND_WITHOUT = ("zs_opt", "fs_opt", "zs_noopt", "fs_noopt")
WITH_OPTIONS = ("zs_opt", "fs_opt")

# Of this project's FLAN tasks these are not among the released 71: WSC273 has
# no training rows, and of ParaCrawl there is English and Spanish alone.
NOT_RELEASED = ("wsc273", "para_crawl_ende", "para_crawl_enfr")
# These keep the 30,000 training rows of FLAN 2021; the others have all rows.
KEPT_SHORT = (
  "true_case",
  "fix_punct",
  "word_segment",
  "para_crawl_enes",
  "opinion_abstracts_rotten_tomatoes",
  "opinion_abstracts_idebate",
)

FLAN = tuple(
  task
  for table in (clusters.CLUSTERS, clusters.EXTRAS)
  for tasks in table.values()
  for task in tasks
  if task not in NOT_RELEASED
)

SUB_MIXTURES: tuple[SubMixture, ...] = (
  SubMixture("flan", 0.40, 30_000, WITH_AND_WITHOUT, FLAN),
  # P3's prompts as they are, zero-shot.
  SubMixture("t0", 0.32, 20_000, (), names=("t0_flan_2022_train",)),
  SubMixture("niv2", 0.20, 5_000, (), names=("super_ni_flan_2022_train",)),
  SubMixture(
    "cot",
    0.05,
    100_000,
    WITH_OPTIONS,
    (
      "cot_aqua",
      "cot_creak",
      "cot_ecqa",
      "cot_esnli",
      "cot_gsm8k",
      "cot_qasc",
      "cot_qed",
      "cot_sensemaking",
      "cot_strategyqa",
    ),
    folder="chain_of_thought",
    inverted=0.3,
  ),
  SubMixture(
    "dialog",
    0.03,
    200_000,
    WITH_OPTIONS,
    ("wiki_dialog", "qrecc"),
    folder="dialog",
    inverted=0.3,
  ),
)

# Evaluated in the paper with all of it trained on ("held-in"): four datasets
# of question answering, four of inference. Those held out there, MMLU and
# BIG-Bench Hard, are not tasks; gin/eval_flan_2022.gin evaluates on them.
HELD_IN: tuple[str, ...] = (
  "arc_challenge",
  "arc_easy",
  "bool_q",
  "unified_qa_science",
  "anli_r1",
  "anli_r2",
  "anli_r3",
  "rte",
)
