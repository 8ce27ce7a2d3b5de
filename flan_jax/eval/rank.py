"""Rank classification: the choice to which the model gives most probability.

Every choice of an example is scored by the log-probability of its tokens, end
of sequence included, given the input; the best one is the prediction (Wei et
al., 2022, arXiv 2109.01652, section 2.4 and appendix; Brown et al., 2020).

Each distinct input is read once (encoded, or run into a cache that its choices
share) and each distinct (input, choice) pair is scored once, however many
choices, templates or examples share it. Examples of all datasets go through the
same few shapes, see `buckets.py`.

Dimension key: B batch, C choices, S source, T target.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
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

SCORES = ("sum", "mean")


@dataclasses.dataclass(frozen=True)
class Scored:
  """One example with the score of each of its choices.

  Attributes:
    example: as it was given.
    scores: nats (sum), or nats per token (mean), one per choice.
    prediction: index of the best choice; the lowest index wins a tie.
    correct: whether `prediction` is the label.
    ties: how many choices have the best score; 1 is no tie.
  """

  example: "EvalExample"
  scores: tuple[float, ...]
  prediction: int
  correct: bool
  ties: int


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
    places: for each example its batch, its row there, and the column of each
      of its choices.
  """

  examples: tuple["EvalExample", ...]
  batches: tuple[Batch, ...]
  places: tuple[tuple[int, int, tuple[int, ...]], ...]

  @property
  def shapes(self) -> set[tuple[int, ...]]:
    """Distinct shapes (rows, input length, choices, choice length): as many
    compilations are needed."""
    return {
      (*b.inputs_BS.shape, *b.choices_BCT.shape[1:]) for b in self.batches
    }


@dataclasses.dataclass
class _Unit:
  """One distinct input and the distinct choices that examples ask of it."""

  inputs: np.ndarray
  choices: dict[bytes, np.ndarray]
  examples: list[int]


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
  examples: Sequence["EvalExample"], *, batch_size: int, lengths: dict[str, int]
) -> Plan:
  """Batches that score every choice of `examples`.

  Args:
    examples: of any number of datasets and templates, each with choices.
    batch_size: inputs per batch; fewer where the choices are many and long.
    lengths: `inputs` and `targets`, the limits in tokens.

  Raises:
    UserError: an example without choices, longer than `lengths`, or with a
      label that is none of its choices.
  """
  buckets.check_lengths(lengths, batch_size)
  units = _units(examples, lengths)
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
  batches, places = [], [None] * len(examples)
  for shape, members in buckets.group(shaped, at_least=batch_size).items():
    rows = batch_size
    while rows > 1 and rows * shape[1] * shape[2] > MAX_DECODER_TOKENS:
      rows //= 2
    # Alike lengths side by side would help nothing: the shape is fixed.
    for start in range(0, len(members), rows):
      part = members[start : start + rows]
      for row, unit in enumerate(part):
        column = {key: i for i, key in enumerate(unit.choices)}
        for number in unit.examples:
          columns = tuple(column[c.tobytes()] for c in examples[number].choices)
          places[number] = (len(batches), row, columns)
      batches.append(_batch(part, rows, shape))
  return Plan(tuple(examples), tuple(batches), tuple(places))


def rank(
  model: Any,
  params: Any,
  examples: Sequence["EvalExample"] | Plan,
  *,
  batch_size: int | None = None,
  lengths: dict[str, int] | None = None,
  score: str = "sum",
  progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
  """Scores every choice of every example; results in the order given.

  >>> scored = rank(model, params, examples, batch_size=32,
  ...               lengths={"inputs": 512, "targets": 64})  # doctest: +SKIP
  >>> scored[0].scores, scored[0].prediction               # doctest: +SKIP
  ((-1.93, -0.41, -2.62), 1)

  Args:
    model: see `choice_log_probs`.
    params: the model's parameters.
    examples: with choices; or the `plan` of such, made once for many calls.
    batch_size: as for `plan`; not with a plan.
    lengths: as for `plan`; not with a plan.
    score: `sum` of the tokens' log-probabilities (the paper's), or `mean` per
      token, which does not favour short choices.
    progress: called with (batches done, batches in all).

  Raises:
    UserError: an unknown `score`; what `plan` raises; a score that is not a
      number, naming the example.
  """
  if score not in SCORES:
    raise UserError(f"score {score!r} is unknown; use {' or '.join(SCORES)}.")
  if not isinstance(examples, Plan):
    examples = plan(examples, batch_size=batch_size, lengths=lengths)
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
  return [
    _scored(example, results[batch][row, list(columns)], score)
    for example, (batch, row, columns) in zip(
      examples.examples, examples.places, strict=True
    )
  ]


def _units(examples, lengths) -> list[_Unit]:
  latest: dict[bytes, _Unit] = {}
  units = []
  for number, example in enumerate(examples):
    _check(example, lengths)
    asked = {c.tobytes(): c for c in example.choices}
    key = example.inputs.tobytes()
    unit = latest.get(key)
    if unit is None or len(unit.choices | asked) > MAX_SHARED_CHOICES:
      unit = latest[key] = _Unit(example.inputs, {}, [])
      units.append(unit)
    unit.choices.update(asked)
    unit.examples.append(number)
  return units


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
      f"{name} has no choices to rank; evaluate it by generation"
      " (eval/generation.py)."
    )
  if not 0 <= example.label < len(example.choices):
    raise UserError(
      f"{name}: label {example.label} is none of its"
      f" {len(example.choices)} choices."
    )
  buckets.check_input(example, lengths["inputs"])


def _scored(example, log_probs, score: str) -> Scored:
  if np.isnan(log_probs).any():
    raise UserError(
      f"{buckets.example_name(example)}: the scores of its choices are"
      f" {[float(s) for s in log_probs]}; the parameters or the input are not"
      " finite. Evaluate an earlier checkpoint."
    )
  if score == "mean":
    log_probs = log_probs / [len(c) for c in example.choices]
  prediction = int(np.argmax(log_probs))
  return Scored(
    example=example,
    scores=tuple(float(s) for s in log_probs),
    prediction=prediction,
    correct=prediction == example.label,
    ties=int((log_probs == log_probs[prediction]).sum()),
  )
