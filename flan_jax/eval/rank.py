"""Rank classification: the choice to which the model gives most probability.

Every choice of an example is scored by the log-probability of its tokens, end
of sequence included, given the input; the best one is the prediction (Wei et
al., 2022, arXiv 2109.01652, section 2.4 and appendix). One pass gives all
scores of a choice:

* `sum`: log p(choice | input), in nats.
* `mean`: that divided by the tokens of the choice, end of sequence included
  (Brown et al., 2020, arXiv 2005.14165, section 2.4).
* `calibrated`: log p(choice | input) - log p(choice | unconditional prompt),
  the pointwise mutual information (Holtzman et al., 2021, arXiv 2104.08315,
  section 3). The unconditional prompt is one for all (`EvaluationSet`).

Choices that have the same tokens are one answer: the first of them stands for
all, as prediction and as label, and they are no tie. Where different choices
share the best score, the first one is the prediction and the tie is counted.

Each distinct input is read once (encoded, or run into a cache that its choices
share) and each distinct (input, choice) pair is scored once, however many
choices, templates or examples share it. Examples of all datasets go through the
same few shapes, see `rank_plan.py`.

Dimension key: B batch, C choices, S source, T target.
"""

import collections
import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from flan_jax.errors import UserError
from flan_jax.eval import answer_file, buckets, rank_plan
from flan_jax.eval.rank_plan import Plan
from flan_jax.models import placement

if TYPE_CHECKING:
  from flan_jax.data.evaluation import EvalExample

# Batches in flight, so that the host fills the next while one is computed.
_IN_FLIGHT = 2

SCORES = ("sum", "mean", "calibrated")


@dataclasses.dataclass(frozen=True)
class Scored:
  """One example with all scores of each of its choices.

  Attributes:
    example: as it was given.
    by_score: `sum`, `mean` and, where there is an unconditional prompt,
      `calibrated` -> a number per choice, in nats (per token).
    score: the one that the prediction is made by.
    first: for each choice the index of the first one with the same tokens.
  """

  example: "EvalExample"
  by_score: Mapping[str, tuple[float, ...]]
  score: str
  first: tuple[int, ...]

  @property
  def scores(self) -> tuple[float, ...]:
    """One per choice, of the kind that the prediction is made by."""
    return self.by_score[self.score]

  @property
  def prediction(self) -> int:
    """Index of the best choice; the lowest index wins a tie."""
    return int(np.argmax(self.scores))

  @property
  def label(self) -> int:
    """The right choice: the first one with its tokens."""
    return self.first[self.example.label]

  @property
  def correct(self) -> bool:
    """Whether `prediction` is the label."""
    return self.prediction == self.label

  @property
  def ties(self) -> int:
    """How many different choices have the best score; 1 is no tie."""
    best = max(self.scores)
    pairs = zip(self.first, self.scores, strict=True)
    return len({first for first, score in pairs if score == best})

  def by(self, score: str) -> "Scored":
    """The same with the prediction made by another score."""
    return dataclasses.replace(self, score=score)


def choice_log_probs(
  model: Any,
  params: Any,
  inputs_BS: Int[Array, "B S"],
  choices_BCT: Int[Array, "B C T"],
) -> Float[Array, "B C"]:
  """Log-probability of each choice, in nats; 0 for a choice of only padding.

  Args:
    model: of either kind: has `encode(params, inputs_BS)` and `score(params,
      encoded, choices_BCT)`; hashable, since one compilation belongs to one
      model.
    params: the model's parameters.
    inputs_BS: ids, padded with -1.
    choices_BCT: ids with EOS, padded with -1.
  """
  return _log_probs(
    model,
    params,
    placement.put(inputs_BS, "batch", None),
    placement.put(choices_BCT, "batch", None, None),
    placement.current(),
  )


@functools.partial(jax.jit, static_argnames=("model", "placed"))
def _log_probs(model, params, inputs_BS, choices_BCT, placed):
  del placed  # A program is of one placement.
  encoded = model.encode(params, inputs_BS)
  scores_BC = model.score(params, encoded, choices_BCT).sum(axis=-1)
  return placement.whole(scores_BC)


def rank(
  model: Any,
  params: Any,
  examples: Sequence["EvalExample"] | Plan,
  *,
  batch_size: int | None = None,
  lengths: Mapping[str, int] | None = None,
  score: str = "sum",
  file: answer_file.AnswerFile | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
  """Scores every choice of every example; results in the order given.

  >>> rank(model, params, examples, batch_size=32,
  ...      lengths={"inputs": 512, "targets": 64})[0].scores  # doctest: +SKIP
  (-0.31, -1.37)

  Args:
    model: see `choice_log_probs`.
    params: the model's parameters.
    examples: or the `plan` of such, made once for many calls.
    batch_size: as for `plan`; not with a plan.
    lengths: as for `plan`; not with a plan.
    score: which of `SCORES` the predictions are made by; all are kept.
    file: keeps the scores of every example as soon as they are there; those
      that it has are not computed again.
    progress: called with (batches done, batches in all).

  Raises:
    UserError: an unknown `score`, or `calibrated` without an unconditional
      prompt; what `plan` and `AnswerFile` raise; a score that is not a number,
      naming the example.
  """
  if not isinstance(examples, Plan):
    examples = rank_plan.plan(examples, batch_size=batch_size, lengths=lengths)
  planned = examples
  _check_score(score, planned)
  found = _kept(planned, score, file)
  # The batches that an example waits for, and the examples that wait for one.
  missing = {
    n: planned.batches_of(n) for n, kept in enumerate(found) if kept is None
  }
  waiting = collections.defaultdict(list)
  for number, batches in missing.items():
    for batch in batches:
      waiting[batch].append(number)
  results: dict[int, np.ndarray] = {}
  total = len(planned.batches)
  if progress and total and not waiting:
    progress(total, total)
  # First those without a question, which are parts of many examples.
  free = {b for of in planned.unconditional or () for b, _, _ in of}
  order = sorted(waiting, key=lambda batch: (batch not in free, batch))
  for batch, scores_BC in _computed(model, params, planned, order):
    results[batch] = scores_BC
    for number in waiting[batch]:
      missing[number].discard(batch)
      if not missing[number]:
        found[number] = _read(planned, number, results, score)
        if file is not None:
          file.add(number, planned.examples[number], _rows(found[number]))
    if progress:
      progress(total - len(waiting) + len(results), total)
  if file is not None:
    file.end(planned.examples)
  return found


def _computed(model, params, planned: Plan, numbers: Sequence[int]):
  """(number of a batch, its scores) in order, some batches in flight."""
  pending = collections.deque()
  for number in numbers:
    batch = planned.batches[number]
    scores_BC = choice_log_probs(
      model, params, batch.inputs_BS, batch.choices_BCT
    )
    pending.append((number, scores_BC))
    if len(pending) > _IN_FLIGHT:
      number, scores_BC = pending.popleft()
      yield number, np.asarray(scores_BC, np.float64)
  for number, scores_BC in pending:
    yield number, np.asarray(scores_BC, np.float64)


def _read(planned: Plan, number: int, results, score: str) -> Scored:
  def at(places):
    return np.array([results[b][row, column] for b, row, column in places])

  without = planned.unconditional
  return _scored(
    planned.examples[number],
    at(planned.places[number]),
    None if without is None else at(without[number]),
    score,
  )


def _kept(planned: Plan, score: str, file) -> list[Scored | None]:
  """What the file has of each example, unless its choices were others."""
  found: list[Scored | None] = [None] * len(planned.examples)
  for number, rows in (file.begin(planned.examples) if file else {}).items():
    example = planned.examples[number]
    if [row["tokens"] for row in rows] == list(map(tuple, example.choices)):
      by_score = {
        name: tuple(row["scores"][name] for row in rows)
        for name in rows[0]["scores"]
      }
      found[number] = Scored(example, by_score, score, _first(example))
  return found


def _rows(scored: Scored) -> list[dict[str, Any]]:
  """For each choice its tokens and its scores."""
  return [
    {
      "tokens": choice.tolist(),
      "scores": {name: values[i] for name, values in scored.by_score.items()},
    }
    for i, choice in enumerate(scored.example.choices)
  ]


def _check_score(score: str, planned: Plan):
  if score not in SCORES:
    near = difflib.get_close_matches(score, SCORES, 1, 0.0)[0]
    raise UserError(
      f"score {score!r} is unknown; the nearest is {near!r}, all are"
      f" {', '.join(SCORES)}."
    )
  if score == "calibrated" and planned.unconditional is None:
    raise UserError(
      "score 'calibrated' needs the unconditional prompt that it is relative"
      " to: give plan(unconditional=...)."
    )


def _scored(example, sums_C, without_C, score: str) -> Scored:
  found = {"sum": sums_C}
  found["mean"] = sums_C / [len(c) for c in example.choices]
  if without_C is not None:
    found["calibrated"] = sums_C - without_C
  for name, values_C in found.items():
    if np.isnan(values_C).any():
      raise UserError(
        f"{buckets.example_name(example)}: the scores ({name}) of its choices"
        f" are {[float(s) for s in values_C]}; the parameters or the input are"
        " not finite. Evaluate an earlier checkpoint."
      )
  return Scored(
    example=example,
    by_score={
      name: tuple(float(s) for s in values_C)
      for name, values_C in found.items()
    },
    score=score,
    first=_first(example),
  )


def _first(example) -> tuple[int, ...]:
  """For each choice the first one with its tokens."""
  keys = [c.tobytes() for c in example.choices]
  return tuple(keys.index(key) for key in keys)
