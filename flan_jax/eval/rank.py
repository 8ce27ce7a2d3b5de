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
same few shapes, see `buckets.py`.

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
from flan_jax.eval import buckets

if TYPE_CHECKING:
  from flan_jax.data.evaluation import EvalExample

# Small choices matter: with a small model and a large vocabulary the head over
# the choices' tokens costs as much as the encoder.
CHOICE_COUNTS = functools.partial(buckets.sizes, smallest=2)
CHOICE_SIZES = functools.partial(buckets.sizes, smallest=4)

# Examples that share an input share its encoding up to so many choices.
MAX_SHARED_CHOICES = 16

# Rows x choices x tokens that go through the decoder at once: with 32,128
# words a float32 array of logits is then about 1 GiB at most.
MAX_DECODER_TOKENS = 8192

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


# (batch, row, column) of each choice.
Places = tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class Batch:
  """Distinct inputs with their distinct choices, padded to one shape."""

  inputs_BS: np.ndarray
  choices_BCT: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
  """Examples and the batches that score them; reusable with any parameters.

  Attributes:
    examples: as they were given.
    batches: what the model sees.
    places: for each example where each of its choices is scored: batch, row,
      column.
    unconditional: the same for their scores without an input; None: there is
      no unconditional prompt, and no calibrated score.
  """

  examples: tuple["EvalExample", ...]
  batches: tuple[Batch, ...]
  places: tuple[Places, ...]
  unconditional: tuple[Places, ...] | None = None

  @property
  def shapes(self) -> set[tuple[int, ...]]:
    """Distinct shapes (rows, input length, choices, choice length): as many
    compilations are needed."""
    return {
      (*b.inputs_BS.shape, *b.choices_BCT.shape[1:]) for b in self.batches
    }


@dataclasses.dataclass
class _Unit:
  """One distinct input and the distinct choices that are asked of it."""

  inputs: np.ndarray
  choices: dict[bytes, np.ndarray]


@functools.partial(jax.jit, static_argnames="model")
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
  encoded = model.encode(params, inputs_BS)
  return model.score(params, encoded, choices_BCT).sum(axis=-1)


def plan(
  examples: Sequence["EvalExample"],
  *,
  batch_size: int,
  lengths: Mapping[str, int],
  unconditional: np.ndarray | None = None,
) -> Plan:
  """Batches that score every choice of `examples`.

  Args:
    examples: of any number of datasets and templates, each with choices.
    batch_size: inputs per batch; fewer where the choices are many and long.
    lengths: `inputs` and `targets`, the limits in tokens.
    unconditional: tokens of the prompt without a question that calibrated
      scores are relative to, [S'], at least one; None: no such scores.

  Raises:
    UserError: an example without choices, longer than `lengths`, or with a
      label that is none of its choices.
  """
  buckets.check_lengths(lengths, batch_size)
  units, asked = _units(examples, lengths)
  most = max([2, *(len(u.choices) for u in units)])
  free: dict[bytes, _Unit] = {}
  if unconditional is not None:
    free = _free_units(examples, unconditional, most)
    units += {id(unit): unit for unit in free.values()}.values()
  batches, place_of = _batches(units, batch_size, lengths)
  keys = [[c.tobytes() for c in e.choices] for e in examples]
  places = tuple(
    tuple(place_of[id(unit), key] for key in own)
    for unit, own in zip(asked, keys, strict=True)
  )
  without = None
  if unconditional is not None:
    without = tuple(
      tuple(place_of[id(free[key]), key] for key in own) for own in keys
    )
  return Plan(tuple(examples), tuple(batches), places, without)


def rank(
  model: Any,
  params: Any,
  examples: Sequence["EvalExample"] | Plan,
  *,
  batch_size: int | None = None,
  lengths: Mapping[str, int] | None = None,
  score: str = "sum",
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
    progress: called with (batches done, batches in all).

  Raises:
    UserError: an unknown `score`, or `calibrated` without an unconditional
      prompt; what `plan` raises; a score that is not a number, naming the
      example.
  """
  if not isinstance(examples, Plan):
    examples = plan(examples, batch_size=batch_size, lengths=lengths)
  _check_score(score, examples)
  results, pending = [], collections.deque()
  for batch in examples.batches:
    pending.append(
      choice_log_probs(model, params, batch.inputs_BS, batch.choices_BCT)
    )
    if len(pending) > _IN_FLIGHT:
      results.append(np.asarray(pending.popleft(), np.float64))
    if progress:
      progress(len(results), len(examples.batches))
  results += [np.asarray(p, np.float64) for p in pending]
  if progress and examples.batches:
    progress(len(results), len(examples.batches))

  def read(places):
    return np.array([results[b][row, column] for b, row, column in places])

  without = examples.unconditional or [None] * len(examples.examples)
  return [
    _scored(example, read(own), None if free is None else read(free), score)
    for example, own, free in zip(
      examples.examples, examples.places, without, strict=True
    )
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


def _units(examples, lengths) -> tuple[list[_Unit], list[_Unit]]:
  """All units, and the one of each example."""
  latest: dict[bytes, _Unit] = {}
  units, of_example = [], []
  for example in examples:
    _check(example, lengths)
    asked = {c.tobytes(): c for c in example.choices}
    key = example.inputs.tobytes()
    unit = latest.get(key)
    if unit is None or len(unit.choices | asked) > MAX_SHARED_CHOICES:
      unit = latest[key] = _Unit(example.inputs, {})
      units.append(unit)
    unit.choices.update(asked)
    of_example.append(unit)
  return units, of_example


def _free_units(examples, inputs, most: int) -> dict[bytes, _Unit]:
  """Units that score every distinct choice after the unconditional prompt.

  Choices of like length share a unit; none has more choices than the examples'
  own units, so that few shapes are new.
  """
  distinct = {c.tobytes(): c for e in examples for c in e.choices}
  ordered = sorted(distinct.items(), key=lambda item: len(item[1]))
  out = {}
  for start in range(0, len(ordered), most):
    part = dict(ordered[start : start + most])
    out |= dict.fromkeys(part, _Unit(inputs, part))
  return out


def _batches(units, batch_size: int, lengths):
  """Batches of all units, and (unit's id, choice) -> batch, row, column."""
  counts = CHOICE_COUNTS(max([2, *(len(u.choices) for u in units)]))
  # Choices are scored whole, also where they are longer than training targets.
  longest_choice = max(
    [lengths["targets"], *(len(c) for u in units for c in u.choices.values())]
  )
  shaped = []
  for unit in units:
    longest = max(len(c) for c in unit.choices.values())
    shape = (
      buckets.fit(len(unit.inputs), buckets.INPUT_SIZES(lengths["inputs"])),
      buckets.fit(len(unit.choices), counts),
      buckets.fit(longest, CHOICE_SIZES(longest_choice)),
    )
    shaped.append((shape, unit))
  batches, place_of = [], {}
  for shape, members in buckets.group(shaped, at_least=batch_size).items():
    rows = batch_size
    while rows > 1 and rows * shape[1] * shape[2] > MAX_DECODER_TOKENS:
      rows //= 2
    for start in range(0, len(members), rows):
      part = members[start : start + rows]
      for row, unit in enumerate(part):
        for column, key in enumerate(unit.choices):
          place_of[id(unit), key] = (len(batches), row, column)
      batches.append(_batch(part, rows, shape))
  return batches, place_of


def _batch(units: Sequence[_Unit], rows: int, shape) -> Batch:
  length, count, choice_length = shape
  choices_BCT = np.full((rows, count, choice_length), -1, np.int32)
  for row, unit in zip(choices_BCT, units, strict=False):
    for column, tokens in zip(row, unit.choices.values(), strict=False):
      column[: len(tokens)] = tokens
  inputs_BS = buckets.pad_inputs([u.inputs for u in units], rows, length)
  return Batch(inputs_BS, choices_BCT)


def _check(example, lengths):
  name = buckets.example_name(example)
  if not example.choices:
    raise UserError(
      f"{name} has no choices to rank; answer it by generation: leave"
      " ANSWER_BY out (or None), or --gin.ANSWER_BY=generate for all tasks."
    )
  if not 0 <= example.label < len(example.choices):
    raise UserError(
      f"{name}: label {example.label} is none of its"
      f" {len(example.choices)} choices."
    )
  buckets.check_input(example, lengths["inputs"])


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
  keys = [c.tobytes() for c in example.choices]
  return Scored(
    example=example,
    by_score={
      name: tuple(float(s) for s in values_C)
      for name, values_C in found.items()
    },
    score=score,
    first=tuple(keys.index(key) for key in keys),
  )
