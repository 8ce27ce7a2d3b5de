"""Super-NaturalInstructions: its test tasks, and scores by category.

The folder is a checkout of natural-instructions: `tasks/NAME.json` and
`splits/TRACK/test_tasks.txt`, the tracks being `default` (English) and
`xlingual`. A prompt is the definition, two positive examples and the instance,
laid out as published; examples that do not fit are left out, the instance
never is. The first 100 instances of a task are its test set.

Source: Wang et al., 2022 (arXiv 2204.07705), sections 4 and 5, and the code
released with it.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from flan_jax.data import super_ni_files, super_ni_prompts
from flan_jax.data.super_ni_files import TRACKS
from flan_jax.errors import UserError, check_known
from flan_jax.eval import bootstrap, text_metrics
from flan_jax.eval import metrics as metrics_lib
from flan_jax.eval.compare import TaskAnswers
from flan_jax.eval.metric import Metric
from flan_jax.eval.prompted import PromptedTask, Question

INSTANCES = 100
POSITIVES = 2
# The value that the paper looks at where a category is one of few answers;
# ROUGE-L elsewhere.
EXACT_MATCH = (
  "Textual Entailment",
  "Cause Effect Classification",
  "Coreference Resolution",
  "Dialogue Act Recognition",
  "Answerability Classification",
  "Word Analogy",
)
ALL = "all"


def load(
  folder: str | pathlib.Path,
  *,
  track: str = "default",
  positives: int = POSITIVES,
  instances: int = INSTANCES,
) -> dict[PromptedTask, list[Question]]:
  """The test instances of every task of a track.

  >>> tasks = load("data/natural-instructions")            # doctest: +SKIP
  >>> len(tasks), sum(map(len, tasks.values()))            # doctest: +SKIP
  (119, 11810)

  Args:
    folder: with `tasks` and `splits`.
    track: of `TRACKS`.
    positives: solved examples before each instance, at most.
    instances: of each task, the first.

  Raises:
    UserError: an unknown track; a file that is not there or not as published.
  """
  check_known("SUPER_NI_TRACK", track, TRACKS)
  if positives < 0 or instances < 1:
    raise UserError(
      f"SUPER_NI_POSITIVES={positives} and SUPER_NI_INSTANCES={instances}:"
      " write 0 or more, and 1 or more."
    )
  folder = pathlib.Path(folder)
  names = super_ni_files.Checkout(folder, track).listed("test")
  out = {}
  for name in names:
    value = super_ni_files.read(folder / "tasks", name)
    task = PromptedTask(
      name=name,
      paper_name=name,
      cluster=value["Categories"][0],
      family=None,
      kind="generation",
      metrics=("super_ni" if track == "default" else "super_ni_characters",),
    )
    heading = super_ni_prompts.heading(value["Definition"])
    solved = tuple(
      super_ni_prompts.example("Positive", number, example)
      for number, example in enumerate(
        value["Positive Examples"][:positives], 1
      )
    )
    out[task] = [
      Question(
        heading=heading,
        exemplars=solved,
        query=super_ni_prompts.query(one["input"]),
        choices=(),
        label=-1,
        references=tuple(one["output"]),
      )
      for one in value["Instances"][:instances]
    ]
  return out


# ------------------------------------------------------------------- scores


@dataclasses.dataclass(frozen=True)
class CategoryScore:
  """One category of a track, or `ALL` of it.

  Attributes:
    track: of `TRACKS`.
    category: its name; `ALL` for the track.
    tasks: how many.
    n: their instances, over which means and intervals are.
    rouge_l: mean ROUGE-L, in per cent.
    rouge_l_interval: its 95 % bootstrap interval.
    exact_match: in per cent.
    exact_match_interval: its 95 % bootstrap interval.
    preferred: `exact_match` where the paper looks at it, else `rougeL`.
    signature: how texts were made words.
  """

  track: str
  category: str
  tasks: int
  n: int
  rouge_l: float
  rouge_l_interval: tuple[float, float]
  exact_match: float
  exact_match_interval: tuple[float, float]
  preferred: str
  signature: str


def scores(
  answers: Mapping[str, TaskAnswers],
  track: str = "default",
  tokens: Callable[[str], list[str]] | None = None,
) -> tuple[CategoryScore, ...]:
  """The track's score, then that of each category; means over instances.

  Args:
    answers: by task, with the category as `cluster`; `recorded.read` has them.
    track: of `TRACKS`. The English one has words with Porter's stems, the
      other tokens.
    tokens: of a text, in the cross-lingual track; None: its characters.

  Raises:
    UserError: an unknown track, tokens for the English one, or no answers.
  """
  check_known("SUPER_NI_TRACK", track, TRACKS)
  if tokens is not None and track == "default":
    raise UserError(
      "SUPER_NI_TOKENIZER has no effect in the English track; leave it out."
    )
  if not answers:
    raise UserError("Super-NaturalInstructions: there are no answers to score.")
  metric, signature = _metric(track, tokens)
  groups: dict[str, list[TaskAnswers]] = {ALL: list(answers.values())}
  for task in answers.values():
    groups.setdefault(task.cluster, []).append(task)
  return tuple(
    _score(metric, signature, track, name, tasks)
    for name, tasks in groups.items()
  )


def _metric(track, tokens) -> tuple[Metric, str]:
  if track == "default":
    metric = metrics_lib.get("super_ni")
  elif tokens is None:
    metric = metrics_lib.get("super_ni_characters")
  else:
    return text_metrics.super_ni_tokens(tokens), "ROUGE-L of the tokenizer's"
  return metric, metric.signature()


def _score(metric, signature, track, name, tasks) -> CategoryScore:
  # Each task counts its rows from 0.
  pooled = [
    dataclasses.replace(answer, index=n)
    for n, answer in enumerate(a for task in tasks for a in task.answers)
  ]
  drawn = bootstrap.draws(metric, {0: pooled}, f"{track}/{name}")
  values = {v: float(score_T[0]) for v, score_T in drawn.values.items()}
  return CategoryScore(
    track=track,
    category=name,
    tasks=len(tasks),
    n=drawn.units,
    rouge_l=values["rougeL"],
    rouge_l_interval=bootstrap.interval(drawn.samples["rougeL"][:, 0]),
    exact_match=values["exact_match"],
    exact_match_interval=bootstrap.interval(drawn.samples["exact_match"][:, 0]),
    preferred="exact_match" if name in EXACT_MATCH else "rougeL",
    signature=signature,
  )
