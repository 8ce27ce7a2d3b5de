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
from flan_jax.eval import metrics as metrics_lib

BOOTSTRAP_SAMPLES = 1000
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the model said to one example, ready for any metric.

  Attributes:
    index: row of the split; rows of different templates pair up by it.
    template: number of the template.
    label: index of the right choice; -1 for free text.
    prediction: index of the chosen choice; -1 for free text.
    choices: texts; empty for free text.
    text: the chosen or generated text.
    references: accepted texts.
    ties: choices that share the best score.
    group: what the rows share that a metric takes together.
  """

  index: int
  template: int
  label: int
  prediction: int
  choices: tuple[str, ...]
  text: str
  references: tuple[str, ...]
  ties: int = 1
  group: str = ""


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
      bootstrap, 1,000 samples of rows, each with all its templates), for
      values that are means over rows; otherwise None.
    chance: expected score of guessing evenly, where it is known.
    majority: best score of one constant prediction, where it is known.
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


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """One held-out task.

  Attributes:
    rows: test rows; every template sees each of them.
    dev_rows: development rows.
    templates: numbers of the templates that are scored.
    turned_around: how many templates are not, because they ask for an input.
    ties: test examples whose best score is shared by several choices.
    primary: the name of the metric that stands for the task.
    metrics: by name, the primary one first.
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
  """

  cluster: str
  tasks: tuple[str, ...]
  mean: float
  best_dev: float | None
  family_mean: float


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
  test_by, dev_by = _by_template(task.name, test), _by_template(task.name, dev)
  results: dict[str, MetricResult] = {}
  best = None
  for name in task.metrics:
    metric = _metric(task, name)
    scores = {t: _score(metric, rows) for t, rows in test_by.items()}
    dev_scores = {t: _score(metric, rows) for t, rows in dev_by.items()}
    if not results and dev_scores:
      best = _best({t: s[metric.primary] for t, s in dev_scores.items()})
    for value in next(iter(scores.values())):
      is_primary = value == metric.primary
      column = {t: s[value] for t, s in scores.items()}
      results[value] = MetricResult(
        name=value,
        scores=column,
        dev_scores={t: s[value] for t, s in dev_scores.items()},
        spread=Spread.of(list(column.values())),
        best_dev_template=best,
        best_dev_score=None if best is None else column[best],
        interval=_interval(metric, test_by) if is_primary else None,
        chance=_chance(metric, test_by),
        majority=_majority(metric, test_by, value),
      )
  first = next(iter(test_by.values()))
  return TaskResult(
    task=task.name,
    paper_name=task.paper_name,
    cluster=cluster,
    family=task.family or task.name,
    kind=task.kind,
    rows=len(first),
    dev_rows=len(next(iter(dev_by.values()), ())),
    templates=tuple(test_by),
    turned_around=len(task.templates) - len(scored_templates(task)),
    ties=sum(a.ties > 1 for a in test),
    primary=metrics_lib.get(task.metrics[0]).primary,
    metrics=results,
  )


def scored_templates(
  task: spec.Task, form: forms.Form = forms.PLAIN
) -> tuple[int, ...]:
  """Numbers of the templates of a form that ask for the answer.

  For a task with choices these are the rankable ones.
  """
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
    )
  return out


def _by_template(task: str, answers) -> dict[int, list[Answer]]:
  out: dict[int, list[Answer]] = {}
  for answer in sorted(answers, key=lambda a: (a.template, a.index)):
    out.setdefault(answer.template, []).append(answer)
  rows = {tuple(a.index for a in part) for part in out.values()}
  if len(rows) > 1:
    counts = {t: len(part) for t, part in out.items()}
    raise UserError(
      f"task {task!r}: its templates answer different rows (rows by template:"
      f" {counts}); evaluate all templates on the same rows."
    )
  return out


def _metric(task, name: str) -> metrics_lib.Metric:
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


def _pairs(metric, rows: Sequence[Answer]) -> tuple[list, list]:
  if metric.takes == "labels":
    return [a.prediction for a in rows], [a.label for a in rows]
  if metric.takes == "groups":
    return [a.prediction for a in rows], [(a.group, a.label) for a in rows]
  if metric.takes == "texts":
    return [a.text for a in rows], [a.references for a in rows]
  try:
    numbers = [[float(c) for c in a.choices] for a in rows]
  except ValueError as e:
    raise UserError(
      f"metric {metric.name!r} needs choices that are numbers: {e}."
    ) from None
  return (
    [n[a.prediction] for n, a in zip(numbers, rows, strict=True)],
    [n[a.label] for n, a in zip(numbers, rows, strict=True)],
  )


def _score(metric, rows) -> dict[str, float]:
  return metric.function(*_pairs(metric, rows))


def _best(scores: Mapping[int, float]) -> int:
  return min(scores, key=lambda t: (-scores[t], t))


def _interval(metric, by_template) -> tuple[float, float] | None:
  if metric.rows is None:
    return None
  values_XR = np.stack(
    [metric.rows(*_pairs(metric, rows)) for rows in by_template.values()]
  )
  row_R = values_XR.mean(axis=0)
  draw = np.random.default_rng(_SEED)
  picks = draw.integers(len(row_R), size=(BOOTSTRAP_SAMPLES, len(row_R)))
  low, high = np.percentile(row_R[picks].mean(axis=1), (2.5, 97.5))
  return float(low), float(high)


def _chance(metric, by_template) -> float | None:
  rows = next(iter(by_template.values()))
  if metric.name == "accuracy":
    return 100.0 * statistics.fmean(1 / len(a.choices) for a in rows)
  return 0.0 if metric.takes == "numbers" else None


def _majority(metric, by_template, value: str) -> float | None:
  rows = next(iter(by_template.values()))
  if metric.takes == "texts":
    return None
  options = range(min(len(a.choices) for a in rows))
  constant = (
    [dataclasses.replace(a, prediction=c) for a in rows] for c in options
  )
  return max(_score(metric, c)[value] for c in constant)
