"""Answers: what a model said to every example, in the form metrics take."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval.metric import Metric


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

  @property
  def right(self) -> bool:
    """Whether it is the right choice, or says what a reference says.

    A row may have several right choices, of which `label` is one (ReCoRD). Of
    free text: letter for letter but for spaces around it, so that it tells
    something only where that is short.
    """
    if self.choices and self.prediction == self.label:
      return True
    said = self.choices[self.prediction] if self.choices else self.text
    said = said.strip()
    return any(said == reference.strip() for reference in self.references)


# Template -> its answers, by row.
ByTemplate = Mapping[int, Sequence[Answer]]


def by_template(
  task: str, answers: Iterable[Answer]
) -> dict[int, list[Answer]]:
  """Answers of each template, by row.

  Args:
    task: named in messages.
    answers: in any order.

  Raises:
    UserError: a row is answered twice under a template.
  """
  out: dict[int, list[Answer]] = {}
  for answer in sorted(answers, key=lambda a: (a.template, a.index)):
    part = out.setdefault(answer.template, [])
    if part and part[-1].index == answer.index:
      raise UserError(
        f"task {task!r}: row {answer.index} is answered twice under template"
        f" {answer.template}; keep one answer."
      )
    part.append(answer)
  return out


def check_rows(task: str, by_template: ByTemplate) -> None:
  """Refuses templates that do not answer the same rows.

  Raises:
    UserError: they do not.
  """
  rows = {tuple(a.index for a in part) for part in by_template.values()}
  if len(rows) > 1:
    counts = {t: len(part) for t, part in by_template.items()}
    raise UserError(
      f"task {task!r}: its templates answer different rows (rows by template:"
      f" {counts}); evaluate all templates on the same rows."
    )


def row_numbers(by_template: ByTemplate) -> list[int]:
  """Every row that some template answers, in order."""
  return sorted({a.index for part in by_template.values() for a in part})


def places(by_template: ByTemplate) -> dict[int, slice | np.ndarray]:
  """Where each template's rows are among `row_numbers`.

  >>> one, two = (Answer(i, 0, 1, 1, ("a", "b"), "", ()) for i in (3, 7))
  >>> places({0: [one, two], 4: [two]})
  {0: slice(None, None, None), 4: array([1])}
  """
  place = {row: n for n, row in enumerate(row_numbers(by_template))}
  return {
    template: slice(None)
    if len(part) == len(place)
    else np.array([place[a.index] for a in part])
    for template, part in by_template.items()
  }


def pairs(metric: Metric, rows: Sequence[Answer]) -> tuple[list, list]:
  """Predictions and references of `rows` in the form `metric` takes.

  >>> from flan_jax.eval import metrics
  >>> rows = [Answer(0, 0, 1, 0, ("no", "yes"), "no", ("yes",))]
  >>> pairs(metrics.get("accuracy"), rows)
  ([0], [1])
  >>> pairs(metrics.get("squad"), rows)
  (['no'], [('yes',)])

  Raises:
    UserError: the metric takes numbers, and the choices are none.
  """
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
