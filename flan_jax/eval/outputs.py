"""Outputs to look at: the worst, some at random, and what is taken for what."""

import math
import random
import zlib
from collections.abc import Sequence

import numpy as np

from flan_jax.eval import answers as answers_lib
from flan_jax.eval.answers import Answer
from flan_jax.eval.evaluation import Confusion, Sample
from flan_jax.eval.metric import Metric

PER_TASK = 2  # of each kind
SCORED = 200  # free texts of a task that the worst are picked from
CLASSES = 20  # at most in a confusion table


def shares(scores: Sequence[float]) -> list[float]:
  """Probability of each choice given that one of them is said, in per cent.

  >>> shares([math.log(0.3), math.log(0.1)])
  [75.0, 25.0]
  """
  top = max(scores)
  if not math.isfinite(top):
    return [100.0 / len(scores)] * len(scores)
  weights = [math.exp(s - top) for s in scores]
  return [round(100 * w / sum(weights), 6) for w in weights]


def worst(
  metric: Metric, answers: Sequence[Answer], samples: Sequence[Sample]
) -> tuple[Sample, ...]:
  """The most confidently wrong choices, or the free texts that score lowest.

  A row is shown once, under the template where it is worst. Every free text is
  scored alone; where there are more than `SCORED`, these many at random are.

  Args:
    metric: that stands for the task.
    answers: of one task.
    samples: the same, in the same order.
  """
  if not answers:
    return ()
  if answers[0].choices:
    order = sorted(
      (i for i, s in enumerate(samples) if not s.correct),
      key=lambda i: -_confidence(samples[i]),
    )
  else:
    some = _drawn(samples, SCORED)
    pairs = answers_lib.pairs(metric, [answers[i] for i in some])
    alone = metric.weighted(*pairs)(np.eye(len(some)))[metric.primary]
    order = [some[k] for k in np.argsort(alone, kind="stable")]
  return _once([samples[i] for i in order])


def at_random(samples: Sequence[Sample]) -> tuple[Sample, ...]:
  """Some rows, the same ones for every model; each under some template."""
  return _once([samples[i] for i in _drawn(samples, len(samples))])


def confusion(
  answers: Sequence[Answer], unmatched: Sequence[bool]
) -> Confusion | None:
  """How often each class is taken for each, all templates together.

  None for tasks without classes: free text, and choices that differ by row.

  >>> rows = [Answer(i, 0, i, 1, ("no", "yes"), "yes", ()) for i in (0, 1)]
  >>> confusion(rows, [False, False]).counts
  ((0, 1), (0, 1))

  Args:
    answers: of one task.
    unmatched: whether a generated answer is none of the choices; those are
      counted in a column of their own.
  """
  worded: dict[int, tuple[str, ...]] = {}
  for a in answers:
    if not a.choices or worded.setdefault(a.template, a.choices) != a.choices:
      return None
  classes = {len(c) for c in worded.values()}
  distinct = all(len(set(c)) == len(c) for c in worded.values())
  if len(classes) != 1 or max(classes) > CLASSES or not distinct:
    return None
  n = classes.pop()
  counts = np.zeros((n, n + any(unmatched)), np.int64)
  for a, lost in zip(answers, unmatched, strict=True):
    counts[a.label, n if lost else a.prediction] += 1
  first = min(worded)
  return Confusion(
    classes=worded[first],
    counts=tuple(map(tuple, counts.tolist())),
    named_by=first if len(set(worded.values())) > 1 else None,
  )


def _confidence(sample: Sample) -> float:
  """Share of the choice that was picked; 0 where choices have no scores."""
  return max(shares(sample.scores)) if sample.scores else 0.0


def _drawn(samples: Sequence[Sample], count: int) -> list[int]:
  """Numbers of `count` samples in an order that only the task decides."""
  seed = zlib.crc32(samples[0].task.encode()) if samples else 0
  numbers = list(range(len(samples)))
  random.Random(seed).shuffle(numbers)
  return numbers[:count]


def _once(samples: Sequence[Sample]) -> tuple[Sample, ...]:
  """The first `PER_TASK` different rows."""
  kept: dict[int, Sample] = {}
  for sample in samples:
    if len(kept) == PER_TASK:
      break
    kept.setdefault(sample.index, sample)
  return tuple(kept.values())
