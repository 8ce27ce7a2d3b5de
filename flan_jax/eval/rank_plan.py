"""Plan of a rank classification: distinct pairs in batches of a few shapes.

Each distinct input has one row, with its distinct choices, whatever examples,
templates or datasets share it. See `rank.py`, which runs the batches.

Dimension key: B batch, C choices, S source, T target.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import buckets
from flan_jax.models import placement

if TYPE_CHECKING:
  from flan_jax.data.evaluation import EvalExample

# Small choices matter: with a small model and a large vocabulary the head over
# the choices' tokens costs as much as the encoder.
CHOICE_COUNTS = functools.partial(buckets.sizes, smallest=2)
CHOICE_SIZES = functools.partial(buckets.sizes, smallest=4)

# Examples that share an input share its encoding up to so many choices.
MAX_SHARED_CHOICES = 16

# Rows x choices x tokens that go through the decoder at once, of each part of a
# mesh: with 32,128 words a float32 array of logits is then about 1 GiB at most.
MAX_DECODER_TOKENS = 8192

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

  def batches_of(self, number: int) -> set[int]:
    """The batches that score an example."""
    places = self.places[number]
    if self.unconditional is not None:
      places += self.unconditional[number]
    return {batch for batch, _, _ in places}


@dataclasses.dataclass
class _Unit:
  """One distinct input and the distinct choices that are asked of it."""

  inputs: np.ndarray
  choices: dict[bytes, np.ndarray]


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
    batch_size: inputs per batch; fewer where the choices are many and long,
      more where a mesh (`placement.placed_by`) does not divide them.
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
    rows, parts = batch_size, placement.share("batch")
    while rows > 1 and rows * shape[1] * shape[2] > MAX_DECODER_TOKENS * parts:
      rows //= 2
    rows = placement.round_up(rows)
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
