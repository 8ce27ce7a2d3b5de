"""Two runs on the same rows: difference, interval and paired test per task.

Both runs' rows are drawn together, so what is hard for both does not widen the
interval. The test is exact (McNemar) for one template and right-or-wrong, and
else a permutation: each unit's two answers change places at random, with all
templates of the unit at once. Both hold for metrics that are no means over
rows (F1, BLEU, correlations).

Source: McNemar, 1947; Noreen, 1989; Yeh, 2000 (permutation for F1); Koehn,
2004 (paired bootstrap); Holm, 1979.

Dimension key: R rows, T templates, U units, X samples.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import answers as answers_lib
from flan_jax.eval import bootstrap
from flan_jax.eval import metrics as metrics_lib
from flan_jax.eval.answers import Answer
from flan_jax.eval.metric import Metric

SAMPLES = bootstrap.SAMPLES
# p is at least 1 / (permutations + 1).
PERMUTATIONS = 4000
MEAN = "mean of all tasks"


@dataclasses.dataclass(frozen=True)
class TaskAnswers:
  """One run's answers to one task.

  Attributes:
    task: its name.
    metrics: names of metrics, as in `spec.Task.metrics`.
    answers: of one split, all templates.
    cluster: the cluster that the task is in; "" without.
  """

  task: str
  metrics: tuple[str, ...]
  answers: tuple[Answer, ...]
  cluster: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
  """One value of one task (or the mean of several) in two runs.

  Attributes:
    task: its name; a cluster's name, or `MEAN`, for a mean of tasks.
    value: name of the value, such as `accuracy`; "mean" for a mean of tasks.
    cluster: of the task.
    primary: whether the value stands for its task.
    n: units compared: rows, or groups of rows; tasks for a mean of tasks.
    rows: test rows; every template sees each of them.
    templates: how many.
    a: mean over templates of the first run.
    b: of the second run.
    difference: b - a, in points.
    interval: 95 % interval of the difference, by paired bootstrap.
    p: two-sided; of no difference.
    p_holm: p after Holm's correction for the number of tasks compared; None
      for values that are not primary and for means.
    test: `mcnemar`, `permutation` or `bootstrap` (of means of tasks).
    draws: differences of the samples, [X]; not compared.
  """

  task: str
  value: str
  cluster: str
  primary: bool
  n: int
  rows: int
  templates: int
  a: float
  b: float
  difference: float
  interval: tuple[float, float]
  p: float
  p_holm: float | None
  test: str
  draws: np.ndarray = dataclasses.field(repr=False, compare=False)


def compare(
  a: Mapping[str, TaskAnswers],
  b: Mapping[str, TaskAnswers],
  *,
  samples: int = SAMPLES,
  permutations: int = PERMUTATIONS,
) -> tuple[Difference, ...]:
  """Differences of every value of every task, in the order of `a`.

  >>> def run(*said):
  ...   rows = [Answer(i, 0, 1, p, ("no", "yes"), "", ())
  ...           for i, p in enumerate(said)]
  ...   return {"rte": TaskAnswers("rte", ("accuracy",), tuple(rows))}
  >>> (row,) = compare(run(0, 0, 0, 0, 0, 1), run(1, 1, 1, 1, 1, 1))
  >>> round(row.difference, 1), row.p, row.test  # 5 of 5 coins: 2 / 2**5
  (83.3, 0.0625, 'mcnemar')

  Args:
    a: the first run (the baseline), by task; `predictions.read` makes it.
    b: the second run, of the same tasks, templates and rows.
    samples: of the bootstrap.
    permutations: of the permutation test.

  Raises:
    UserError: the runs have other tasks, templates or rows, or the rows of one
      have another label or other references: they are of another dataset.
  """
  _check_tasks(a, b)
  rows: list[Difference] = []
  for name, first in a.items():
    sides = [answers_lib.by_template(name, run[name].answers) for run in (a, b)]
    check_same_rows(name, *sides)
    if b[name].metrics != first.metrics:
      raise UserError(
        f"task {name!r}: one run has the metrics {first.metrics}, the other"
        f" {b[name].metrics}; score both with the same."
      )
    for metric_name in first.metrics:
      metric = metrics_lib.get(metric_name)
      is_first = metric_name == first.metrics[0]
      rows += _differences(
        first, metric, sides, is_first, samples, permutations
      )
  return _with_holm(rows)


def means(rows: Sequence[Difference]) -> tuple[Difference, ...]:
  """Differences of cluster means and of the mean of all tasks.

  Every task's rows are drawn on their own, so the interval is for these tasks,
  not for tasks to come. p is twice the share of samples on the far side of 0.

  Args:
    rows: of `compare`; their primary values count.
  """
  primary = [row for row in rows if row.primary]
  groups: dict[str, list[Difference]] = {}
  for row in primary:
    groups.setdefault(row.cluster, []).append(row)
  named = [(name, part) for name, part in groups.items() if name]
  return tuple(_mean(*g) for g in [*named, (MEAN, primary)] if g[1])


def check_same_rows(
  task: str,
  a: Mapping[int, Sequence[Answer]],
  b: Mapping[int, Sequence[Answer]],
) -> None:
  """Refuses two runs that did not answer the same rows of a task.

  Raises:
    UserError: templates or rows differ, or what is right does.
  """
  if list(a) != list(b):
    raise UserError(
      f"task {task!r}: one run has the templates {list(a)}, the other"
      f" {list(b)}; evaluate both with the same."
    )
  if not a:
    raise UserError(f"task {task!r} has no answers.")
  for template in a:
    first = {x.index: x for x in a[template]}
    second = {x.index: x for x in b[template]}
    if first.keys() != second.keys():
      odd = min(first.keys() ^ second.keys())
      raise UserError(
        f"task {task!r}: one run answers {len(first):,} rows, the other"
        f" {len(second):,} (row {odd} is in one alone). A file was cut off, or"
        " EVAL_EXAMPLES differs; evaluate both on the same rows."
      )
    for index, one in first.items():
      other = second[index]
      if _what_is_right(one) != _what_is_right(other):
        raise UserError(
          f"task {task!r}, row {index}: one run expects"
          f" {_shown(one)}, the other {_shown(other)}. They were made from"
          " different data, or from other copies of it."
        )


def _check_tasks(a, b):
  if a.keys() == b.keys() and a:
    return
  lines = [
    f"only the {which} has {', '.join(sorted(map(repr, extra)))}"
    for which, extra in (
      ("first", a.keys() - b.keys()),
      ("second", b.keys() - a.keys()),
    )
    if extra
  ]
  raise UserError(
    f"two runs are compared on the same tasks: {'; '.join(lines) or 'none is'}"
    " given. Evaluate both on one mixture, or leave tasks out of both."
  )


def _what_is_right(answer: Answer):
  return answer.label, answer.choices, tuple(answer.references), answer.group


def _shown(answer: Answer) -> str:
  if answer.choices:
    return repr(answer.choices[answer.label])
  return repr(answer.references[0]) if answer.references else "nothing"


def _differences(task, metric, sides, is_first, samples, permutations):
  functions, unit_R = [], None
  for side in sides:
    made, unit_R = bootstrap.weighted_templates(metric, side)
    functions.append(list(made.values()))
  count = len(unit_R)
  ones = np.ones((1, count))
  whole = [_template_means(f, ones) for f in functions]
  drawn: dict[str, list[np.ndarray]] = {}
  draw = bootstrap.generator(task.task)
  for weights_XR in bootstrap.weights(unit_R, draw, samples):
    first, second = (_template_means(f, weights_XR) for f in functions)
    for value in first:
      drawn.setdefault(value, []).append(second[value] - first[value])
  p_of, test = _p_values(metric, sides, unit_R, permutations, task.task)
  for value in whole[0]:
    x, y = (float(w[value][0]) for w in whole)
    draws_X = np.concatenate(drawn[value])
    yield Difference(
      task=task.task,
      value=value,
      cluster=task.cluster,
      primary=is_first and value == metric.primary,
      n=int(unit_R.max()) + 1,
      rows=count,
      templates=len(sides[0]),
      a=x,
      b=y,
      difference=y - x,
      interval=bootstrap.interval(draws_X),
      p=p_of[value],
      p_holm=None,
      test=test,
      draws=draws_X,
    )


def _template_means(functions, *weights) -> dict[str, np.ndarray]:
  columns = [function(*weights) for function in functions]
  return {v: np.mean([c[v] for c in columns], axis=0) for v in columns[0]}


def _p_values(
  metric: Metric, sides, unit_R, permutations, name
) -> tuple[dict[str, float], str]:
  if metric.name == "accuracy" and len(sides[0]) == 1:
    return {"accuracy": mcnemar(*(_right(side) for side in sides))}, "mcnemar"
  # Rows of both runs side by side: weights choose for each unit whose answer
  # is the first run's in this permutation.
  functions, places = [], answers_lib.places(sides[0])
  for template, place in places.items():
    pairs = [answers_lib.pairs(metric, side[template]) for side in sides]
    if metric.takes == "groups":
      # A group of one run is no group of the other.
      pairs = [
        (predictions, [((run, group), label) for group, label in references])
        for run, (predictions, references) in enumerate(pairs)
      ]
    predictions = [*pairs[0][0], *pairs[1][0]]
    references = [*pairs[0][1], *pairs[1][1]]
    weighted = metric.weighted(predictions, references)
    functions.append(
      lambda own_XR, other_XR, weighted=weighted, place=place: weighted(
        np.hstack([own_XR[:, place], other_XR[:, place]])
      )
    )

  def change(own_XR):
    other_XR = 1.0 - own_XR
    first = _template_means(functions, own_XR, other_XR)
    second = _template_means(functions, other_XR, own_XR)
    return {value: second[value] - first[value] for value in first}

  observed = change(np.ones((1, len(unit_R))))
  draw = bootstrap.generator(f"{name}, permuted")
  units = int(unit_R.max()) + 1
  block = max(1, 2**20 // max(1, len(unit_R)))
  as_far = dict.fromkeys(observed, 0)
  for start in range(0, permutations, block):
    size = min(block, permutations - start)
    own_XU = draw.integers(2, size=(size, units)).astype(np.float64)
    for value, change_X in change(own_XU[:, unit_R]).items():
      # Rounding must not part what is equal.
      bound = abs(observed[value][0]) - 1e-9
      as_far[value] += int((np.abs(change_X) >= bound).sum())
  total = permutations + 1
  return {v: (n + 1) / total for v, n in as_far.items()}, "permutation"


def _right(side) -> np.ndarray:
  (rows,) = side.values()
  return np.array([a.right for a in rows])


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
  """Exact two-sided p of McNemar's test: coins for the rows that differ.

  >>> mcnemar(np.array([True, True, False]), np.array([True, False, False]))
  1.0

  Args:
    right_a: for each row whether the first run is right.
    right_b: the same of the second.
  """
  from scipy import stats

  gained = int((~right_a & right_b).sum())
  lost = int((right_a & ~right_b).sum())
  if gained + lost == 0:
    return 1.0
  return float(stats.binomtest(gained, gained + lost).pvalue)


def _with_holm(rows: list[Difference]) -> tuple[Difference, ...]:
  adjusted = holm(r.p for r in rows if r.primary)
  return tuple(
    dataclasses.replace(r, p_holm=next(adjusted)) if r.primary else r
    for r in rows
  )


def holm(ps: Iterable[float]) -> Iterable[float]:
  """p-values after Holm's correction, in the order given.

  >>> list(holm([0.01, 0.04, 0.03]))
  [0.03, 0.06, 0.06]
  """
  ps = list(ps)
  out, largest = [0.0] * len(ps), 0.0
  for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
    largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
    out[place] = largest
  return iter(out)


def _mean(name: str, rows: Sequence[Difference]) -> Difference:
  draws_X = np.mean([r.draws for r in rows], axis=0)
  far = min((draws_X <= 0).sum(), (draws_X >= 0).sum())
  a, b = (float(np.mean([getattr(r, s) for r in rows])) for s in ("a", "b"))
  return Difference(
    task=name,
    value="mean",
    cluster=name if name != MEAN else "",
    primary=False,
    n=len(rows),
    rows=sum(r.rows for r in rows),
    templates=max(r.templates for r in rows),
    a=a,
    b=b,
    difference=b - a,
    interval=bootstrap.interval(draws_X),
    p=min(1.0, 2 * (int(far) + 1) / (len(draws_X) + 1)),
    p_holm=None,
    test="bootstrap",
    draws=draws_X,
  )
