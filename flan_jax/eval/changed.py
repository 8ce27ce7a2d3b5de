"""Rows that two runs answer differently, to be read side by side."""

import dataclasses
import os
from collections.abc import Mapping

from flan_jax.eval import recorded
from flan_jax.eval.compare import TaskAnswers

PER_TASK = 4  # shown of each direction


@dataclasses.dataclass(frozen=True)
class Changed:
  """One prompt, right in one run and wrong in the other.

  Attributes:
    task, template, index: which prompt it is.
    prompt: what both models read; "" where a run did not keep it.
    expected: the right answer.
    a, b: what each run answered.
    gained: whether it is the second run that is right.
  """

  task: str
  template: int
  index: int
  prompt: str
  expected: str
  a: str
  b: str
  gained: bool


@dataclasses.dataclass(frozen=True)
class Counts:
  """How many prompts of a task became right and wrong, of how many."""

  gained: int
  lost: int
  prompts: int


def changed(
  a: Mapping[str, TaskAnswers], b: Mapping[str, TaskAnswers]
) -> tuple[dict[str, Counts], list[Changed]]:
  """Counts by task, and the first `PER_TASK` prompts of each direction.

  `Answer.right` says which answers are right.

  Args:
    a: the first run's answers, as `compare.compare` takes them.
    b: the second run's, of the same rows.
  """
  counts, shown = {}, []
  for name, first in a.items():
    other = {(x.template, x.index): x for x in b[name].answers}
    gained, lost = [], []
    for x in first.answers:
      y = other[x.template, x.index]
      if x.right != y.right:
        (gained if y.right else lost).append((x, y))
    counts[name] = Counts(len(gained), len(lost), len(first.answers))
    for pairs, is_gain in ((gained, True), (lost, False)):
      for x, y in pairs[:PER_TASK]:
        expected = x.choices[x.label] if x.choices else x.references[0]
        shown.append(
          Changed(
            name, x.template, x.index, "", expected, x.text, y.text, is_gain
          )
        )
  return counts, shown


def with_prompts(
  shown: list[Changed], path: str | os.PathLike, split: str
) -> list[Changed]:
  """The same with what the models read, from a run's recorded answers."""
  prompts = recorded.prompts(
    path, {(c.task, c.template, c.index) for c in shown}, split=split
  )
  return [
    dataclasses.replace(
      c, prompt=prompts.get((c.task, c.template, c.index), "")
    )
    for c in shown
  ]
