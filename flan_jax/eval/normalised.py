"""Normalised average: benchmarks of unlike chance as one number.

A task's score is shifted and stretched so that guessing gives 0 and a perfect
model 100; the mean over tasks is a benchmark's score (tasks of one family count
once), and the mean over benchmarks the average.

Source: Srivastava et al., 2022 (BIG-bench, arXiv 2206.04615), section 2.1;
Chung et al., 2022 (arXiv 2210.11416), section 2.3.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import bootstrap
from flan_jax.eval.protocol import TaskResult

AVERAGE = "normalised average"


@dataclasses.dataclass(frozen=True)
class Score:
  """One benchmark, or the average of several.

  Attributes:
    name: of the benchmark, or `AVERAGE`.
    tasks: how many.
    n: their test rows.
    raw: mean of the tasks' means, in per cent; None for the average.
    raw_interval: its 95 % bootstrap interval.
    chance: mean of the tasks' chance; where it is not known it counts as 0.
    normalised: see above; below 0 where guessing is better.
    interval: 95 % bootstrap interval of `normalised`.
  """

  name: str
  tasks: int
  n: int
  raw: float | None
  raw_interval: tuple[float, float] | None
  chance: float | None
  normalised: float
  interval: tuple[float, float] | None
  draws: np.ndarray | None = dataclasses.field(
    default=None, repr=False, compare=False
  )


def normalise(raw: np.ndarray | float, chance: float) -> np.ndarray | float:
  """100 (raw - chance) / (100 - chance).

  >>> normalise(62.5, 25.0), normalise(25.0, 25.0), normalise(0.0, 50.0)
  (50.0, 0.0, -100.0)

  Args:
    raw: in per cent.
    chance: in per cent, below 100.
  """
  return 100.0 * (raw - chance) / (100.0 - chance)


def score(name: str, tasks: Sequence[TaskResult]) -> Score:
  """The normalised score of one benchmark.

  Args:
    name: of the benchmark.
    tasks: results; their primary means count.

  Raises:
    UserError: there is none, or guessing gives 100.
  """
  tasks = list(tasks)
  if not tasks:
    raise UserError(f"benchmark {name!r} has no task.")
  families: dict[str, int] = {}
  for task in tasks:
    families[task.family] = families.get(task.family, 0) + 1
  weight_T = np.array([1 / families[t.family] for t in tasks]) / len(families)
  chance_T = np.array([t.main.chance or 0.0 for t in tasks])
  if (chance_T >= 100).any():
    task = tasks[int(chance_T.argmax())]
    raise UserError(
      f"task {task.task!r}: guessing gives {task.main.chance}, so its score"
      " cannot be normalised; leave it out."
    )
  raw_T = np.array([t.main.spread.mean for t in tasks])
  draws_X = raw_X = None
  if all(t.draws is not None for t in tasks):
    raw_TX = np.stack([t.draws for t in tasks])
    raw_X = weight_T @ raw_TX
    draws_X = weight_T @ normalise(raw_TX, chance_T[:, None])
  return Score(
    name=name,
    tasks=len(tasks),
    n=sum(t.rows for t in tasks),
    raw=float(weight_T @ raw_T),
    raw_interval=None if raw_X is None else bootstrap.interval(raw_X),
    chance=float(weight_T @ chance_T),
    normalised=float(weight_T @ normalise(raw_T, chance_T)),
    interval=None if draws_X is None else bootstrap.interval(draws_X),
    draws=draws_X,
  )


def average(scores: Sequence[Score]) -> Score:
  """The mean of benchmarks' normalised scores.

  The rows of every benchmark are drawn on their own, also where two ask the
  same questions in two ways; with those the interval is somewhat too narrow.

  Raises:
    UserError: there is no score.
  """
  if not scores:
    raise UserError("an average needs a benchmark at least.")
  drawn = [s.draws for s in scores]
  known = all(d is not None for d in drawn)
  return Score(
    name=AVERAGE,
    tasks=sum(s.tasks for s in scores),
    n=sum(s.n for s in scores),
    raw=None,
    raw_interval=None,
    chance=None,
    normalised=float(np.mean([s.normalised for s in scores])),
    interval=bootstrap.interval(np.mean(drawn, axis=0)) if known else None,
  )
