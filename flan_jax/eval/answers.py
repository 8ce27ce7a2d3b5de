"""Answers: what a model said to every example, in the form metrics take."""

import dataclasses
from collections.abc import Iterable, Sequence

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


def by_template(
  task: str, answers: Iterable[Answer]
) -> dict[int, list[Answer]]:
  """Answers of each template, by row; every template has the same rows.

  Args:
    task: named in messages.
    answers: in any order.

  Raises:
    UserError: a row is answered twice, or the templates' rows differ.
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
  rows = {tuple(a.index for a in part) for part in out.values()}
  if len(rows) > 1:
    counts = {t: len(part) for t, part in out.items()}
    raise UserError(
      f"task {task!r}: its templates answer different rows (rows by template:"
      f" {counts}); evaluate all templates on the same rows."
    )
  return out


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
