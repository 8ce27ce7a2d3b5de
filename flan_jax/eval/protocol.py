"""FLAN's protocol: from scored rows to the numbers that a table prints.

A dataset is evaluated with each template that asks for its answer; templates
that are turned around ask for something else and are left out. Reported are
the mean over templates and, as "best dev template", the test score of the
template that is best on the development split (Wei et al., 2022, arXiv
2109.01652, section 2.4 and tables 1 and 2); median and spread follow T0
(Sanh et al., 2022, section 6).

A cluster's mean counts every task once, so each round of ANLI counts: the
paper's 56.2 for NLI (figure 1) is the mean of the five rows ANLI R1, R2, R3,
CB and RTE. `family_mean` counts a family once, for comparison.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flan_jax.data import forms, spec
from flan_jax.errors import UserError
from flan_jax.eval import answers as answers_lib
from flan_jax.eval import bootstrap
from flan_jax.eval import metrics as metrics_lib
from flan_jax.eval.answers import Answer


@dataclasses.dataclass(frozen=True)
class Spread:
  """Scores of all templates, summarised; quartiles interpolate linearly."""

  mean: float
  median: float
  q1: float
  q3: float
  min: float
  max: float

  @classmethod
  def of(cls, scores: Sequence[float]) -> "Spread":
    """Summary of at least one score.

    >>> Spread.of([40.0, 50.0, 60.0, 90.0])
    Spread(mean=60.0, median=55.0, q1=47.5, q3=67.5, min=40.0, max=90.0)
    """
    q1, median, q3 = np.percentile(np.asarray(scores, np.float64), (25, 50, 75))
    return cls(
      mean=statistics.fmean(scores),
      median=float(median),
      q1=float(q1),
      q3=float(q3),
      min=float(min(scores)),
      max=float(max(scores)),
    )


@dataclasses.dataclass(frozen=True)
class MetricResult:
  """One metric of one task.

  Attributes:
    name: of the value, such as `accuracy` or `rougeL`.
    scores: test score by template number.
    dev_scores: development score by template number; empty without one.
    spread: over the templates' test scores.
    best_dev_template: the template with the best `dev_scores` (of the task's
      primary value; the lowest number wins a tie); None without dev rows.
    best_dev_score: that template's test score.
    interval: 95 % interval of `spread.mean` over test rows (percentile
      bootstrap, 1,000 samples of rows, each with all its templates; rows of a
      group are drawn together).
    chance: expected score of guessing evenly, where it is known.
    majority: best score of one constant prediction, where it is known.
    n: rows, or groups of them, that the interval draws.
    median_interval: as `interval`, of `spread.median`.
    best_dev_interval: as `interval`, of `best_dev_score`; the template is not
      chosen again in each sample.
    signature: what the value must be told with; "" where its name says it.
  """

  name: str
  scores: Mapping[int, float]
  dev_scores: Mapping[int, float]
  spread: Spread
  best_dev_template: int | None
  best_dev_score: float | None
  interval: tuple[float, float] | None = None
  chance: float | None = None
  majority: float | None = None
  n: int | None = None
  median_interval: tuple[float, float] | None = None
  best_dev_interval: tuple[float, float] | None = None
  signature: str = ""


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """One held-out task.

  Attributes:
    rows: test rows; every template sees each of them, unless `prompts` says
      that some see a part.
    dev_rows: development rows.
    templates: numbers of the templates that are scored.
    turned_around: how many templates are not, because they ask for an input.
    ties: test examples whose best score is shared by several choices.
    primary: the name of the metric that stands for the task.
    metrics: by name, the primary one first.
    metric_names: as the task names them; a metric may have several values.
    prompts: test rows times the templates that see each; None: not counted.
    draws: `main.spread.mean` in each bootstrap sample, [X]; for intervals over
      several tasks. Not compared and not written to files.
  """

  task: str
  paper_name: str
  cluster: str
  family: str
  kind: str
  rows: int
  dev_rows: int
  templates: tuple[int, ...]
  turned_around: int
  ties: int
  primary: str
  metrics: Mapping[str, MetricResult]
  metric_names: tuple[str, ...] = ()
  prompts: int | None = None
  draws: np.ndarray | None = dataclasses.field(
    default=None, repr=False, compare=False
  )

  @property
  def main(self) -> MetricResult:
    """The primary metric."""
    return self.metrics[self.primary]


@dataclasses.dataclass(frozen=True)
class ClusterResult:
  """Means of the tasks' primary metrics; each task counts once.

  Attributes:
    tasks: their names.
    mean: mean of the means over templates.
    best_dev: mean of the best-dev-template scores; None if one is missing.
    family_mean: as `mean`, but a family (ANLI R1 to R3) counts once.
    interval: 95 % interval of `mean`, for these tasks: their rows are drawn,
      each task's on its own. None where a task has no draws.
  """

  cluster: str
  tasks: tuple[str, ...]
  mean: float
  best_dev: float | None
  family_mean: float
  interval: tuple[float, float] | None = None


def summarise(
  task: "object",
  test: Sequence[Answer],
  dev: Sequence[Answer] = (),
  *,
  cluster: str = "",
) -> TaskResult:
  """The protocol's numbers for one task.

  Args:
    task: the `data.spec.Task`.
    test: answers of all scored templates on the test split.
    dev: the same on the development split; may be empty.
    cluster: the cluster that the task is in.

  Raises:
    UserError: no test answers, templates with different rows, or a metric
      that is unknown or does not suit the task.
  """
  test_by = answers_lib.by_template(task.name, test)
  dev_by = answers_lib.by_template(task.name, dev)
  if not getattr(task, "prompts_choose_rows", False):
    answers_lib.check_rows(task.name, test_by)
    answers_lib.check_rows(task.name, dev_by)
  if not test_by:
    raise UserError(f"task {task.name!r} has no answers on its test split.")
  results: dict[str, MetricResult] = {}
  best, primary_draws = None, None
  for name in task.metrics:
    metric = metric_of(task, name)
    drawn = bootstrap.draws(metric, test_by, task.name)
    dev_scores = {t: _score(metric, rows) for t, rows in dev_by.items()}
    if not results and dev_scores:
      best = _best({t: s[metric.primary] for t, s in dev_scores.items()})
    if primary_draws is None:
      primary_draws = drawn.samples[metric.primary].mean(axis=-1)
    for value, score_T in drawn.values.items():
      sampled_XT = drawn.samples[value]
      column = dict(zip(test_by, map(float, score_T), strict=True))
      results[value] = MetricResult(
        name=value,
        scores=column,
        dev_scores={t: s[value] for t, s in dev_scores.items()},
        spread=Spread.of(list(column.values())),
        best_dev_template=best,
        best_dev_score=None if best is None else column[best],
        interval=bootstrap.interval(sampled_XT.mean(axis=-1)),
        chance=_chance(task, metric, test_by),
        majority=_majority(metric, test_by, value),
        n=drawn.units,
        median_interval=bootstrap.interval(np.median(sampled_XT, axis=-1)),
        best_dev_interval=(
          None
          if best is None
          else bootstrap.interval(sampled_XT[:, list(test_by).index(best)])
        ),
        signature=metric.signature() if metric.signature else "",
      )
  return TaskResult(
    task=task.name,
    paper_name=task.paper_name,
    cluster=cluster,
    family=task.family or task.name,
    kind=task.kind,
    rows=len(answers_lib.row_numbers(test_by)),
    dev_rows=len(answers_lib.row_numbers(dev_by)),
    templates=tuple(test_by),
    turned_around=len(task.templates) - len(scored_templates(task)),
    ties=sum(a.ties > 1 for a in test),
    primary=metrics_lib.get(task.metrics[0]).primary,
    metrics=results,
    metric_names=tuple(task.metrics),
    prompts=len(test),
    draws=primary_draws,
  )


def scored_templates(
  task: spec.Task, form: forms.Form = forms.PLAIN
) -> tuple[int, ...]:
  """Numbers of the templates of a form that ask for the answer.

  For a task with choices these are the rankable ones.
  """
  # Tasks of a collection or of a benchmark say it themselves.
  if hasattr(task, "scored_templates"):
    return task.scored_templates(form)
  if task.kind == "classification":
    return tuple(n for n in form.templates if forms.rankable(task, n))
  return tuple(
    n for n in form.templates if not forms.template(task, n).turned_around
  )


def clusters(results: Iterable[TaskResult]) -> dict[str, ClusterResult]:
  """Cluster means, in the order in which the clusters first appear."""
  members: dict[str, list[TaskResult]] = {}
  for result in results:
    members.setdefault(result.cluster, []).append(result)
  out = {}
  for cluster, tasks in members.items():
    families: dict[str, list[float]] = {}
    for t in tasks:
      families.setdefault(t.family, []).append(t.main.spread.mean)
    best = [t.main.best_dev_score for t in tasks]
    out[cluster] = ClusterResult(
      cluster=cluster,
      tasks=tuple(t.task for t in tasks),
      mean=statistics.fmean(t.main.spread.mean for t in tasks),
      best_dev=None if None in best else statistics.fmean(best),
      family_mean=statistics.fmean(map(statistics.fmean, families.values())),
      interval=mean_interval(tasks),
    )
  return out


def overall_interval(
  results: Iterable[TaskResult],
) -> tuple[float, float] | None:
  """95 % interval of the mean over clusters of the cluster means."""
  drawn: dict[str, list[np.ndarray | None]] = {}
  for task in results:
    drawn.setdefault(task.cluster, []).append(task.draws)
  if not drawn or any(d is None for part in drawn.values() for d in part):
    return None
  means = [np.mean(part, axis=0) for part in drawn.values()]
  return bootstrap.interval(np.mean(means, axis=0))


def mean_interval(
  results: Iterable[TaskResult],
) -> tuple[float, float] | None:
  """95 % interval of the mean of tasks' primary means, for these tasks.

  None where a task has no draws, as after reading it from a file.
  """
  drawn = [t.draws for t in results]
  if not drawn or any(d is None for d in drawn):
    return None
  return bootstrap.interval(np.mean(drawn, axis=0))


def metric_of(task: "object", name: str) -> metrics_lib.Metric:
  """The metric called `name`, if it suits the kind of `task`.

  Raises:
    UserError: it does not, or there is none.
  """
  metric = metrics_lib.get(name)
  free = task.kind == "generation"
  takes_texts = metric.takes == "texts"
  # Choices of which several are accepted are judged by their texts too.
  if free != takes_texts and not (takes_texts and task.references):
    other = "texts" if free else "labels or numbers"
    raise UserError(
      f"task {task.name!r} is a {task.kind} task, but its metric {name!r}"
      f" takes {metric.takes}; use one that takes {other}."
    )
  return metric


def _score(metric, rows) -> dict[str, float]:
  return metric.function(*answers_lib.pairs(metric, rows))


def _best(scores: Mapping[int, float]) -> int:
  return min(scores, key=lambda t: (-scores[t], t))


def _chance(task, metric, by_template) -> float | None:
  known = getattr(task, "chance", None)
  if known is not None:
    return known
  rows = max(by_template.values(), key=len)
  if metric.name == "accuracy":
    return 100.0 * statistics.fmean(1 / len(a.choices) for a in rows)
  return 0.0 if metric.takes == "numbers" else None


def _majority(metric, by_template, value: str) -> float | None:
  rows = max(by_template.values(), key=len)
  if metric.takes == "texts":
    return None
  options = range(min(len(a.choices) for a in rows))
  constant = (
    [dataclasses.replace(a, prediction=c) for a in rows] for c in options
  )
  return max(_score(metric, c)[value] for c in constant)
