"""Greedy generation for tasks whose answer is free text.

Inputs go through a few fixed lengths (`buckets.py`); each distinct input is
answered once. Source: Wei et al., 2022 (arXiv 2109.01652), section 2.4.

Dimension key: B batch, S source, T target.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import buckets
from flan_jax.eval.rank import INPUT_SIZES, name
from flan_jax.models import decoding

if TYPE_CHECKING:
  from flan_jax.data.evaluation import EvalExample

_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Generated:
  """One example with the model's answer.

  Attributes:
    example: as it was given.
    text: the answer, as the vocabulary decodes it.
    complete: whether the model ended it; False is an answer cut at the limit.
  """

  example: "EvalExample"
  text: str
  complete: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """Examples and the batches that answer them; reusable.

  Attributes:
    examples: as they were given.
    batches_BS: encoder tokens.
    places: for each example its batch and its row there.
    max_decode_len: tokens of the longest answer, EOS included.
  """

  examples: tuple["EvalExample", ...]
  batches_BS: tuple[np.ndarray, ...]
  places: tuple[tuple[int, int], ...]
  max_decode_len: int

  @property
  def shapes(self) -> set[tuple[int, ...]]:
    """Distinct shapes: as many compilations are needed."""
    return {b.shape for b in self.batches_BS}


@functools.partial(
  jax.jit, static_argnames=("model", "max_decode_len", "eos_id")
)
def _greedy(model, params, inputs_BS, max_decode_len, eos_id):
  return decoding.greedy(
    model, params, inputs_BS, max_decode_len=max_decode_len, eos_id=eos_id
  )


def plan(
  examples: Sequence["EvalExample"], *, batch_size: int, lengths: dict[str, int]
) -> Plan:
  """Batches that answer every example.

  Args:
    examples: of any number of datasets and templates.
    batch_size: inputs per batch.
    lengths: `inputs` and `targets`, the limits in tokens.

  Raises:
    UserError: an input that is over the limit.
  """
  buckets.check_lengths(lengths, batch_size)
  distinct: dict[bytes, list[int]] = {}
  for number, example in enumerate(examples):
    if len(example.inputs) > lengths["inputs"]:
      raise UserError(
        f"{name(example)}: its input of {len(example.inputs)} tokens is over"
        f" the limit of {lengths['inputs']}; raise TASK_FEATURE_LENGTHS."
      )
    distinct.setdefault(example.inputs.tobytes(), []).append(number)
  sizes = INPUT_SIZES(lengths["inputs"])
  shaped = [
    ((buckets.fit(len(examples[numbers[0]].inputs), sizes),), numbers)
    for numbers in distinct.values()
  ]
  batches, places = [], [None] * len(examples)
  for (size,), members in buckets.group(shaped, at_least=batch_size).items():
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      for row, numbers in enumerate(part):
        for number in numbers:
          places[number] = (len(batches), row)
      inputs = [examples[numbers[0]].inputs for numbers in part]
      batches.append(buckets.pad_inputs(inputs, batch_size, size))
  return Plan(
    tuple(examples), tuple(batches), tuple(places), lengths["targets"]
  )


def generate(
  model: Any,
  params: Any,
  examples: Sequence["EvalExample"] | Plan,
  *,
  decode: Callable[[list[int]], str],
  batch_size: int | None = None,
  lengths: dict[str, int] | None = None,
  eos_id: int = 1,
  progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
  """The most probable next token, again and again, until EOS.

  >>> generate(model, params, examples, decode=vocabulary.decode,
  ...          batch_size=32, lengths={"inputs": 512, "targets": 64}
  ...          )[0].text                                   # doctest: +SKIP
  'The Eagle is a cheap coffee shop by the river.'

  Args:
    model: as `decoding.greedy` takes it.
    params: the model's parameters.
    examples: or the `plan` of such, made once for many calls.
    decode: tokens (without EOS and padding) to text.
    batch_size: as for `plan`; not with a plan.
    lengths: as for `plan`; answers have at most `lengths["targets"]` tokens.
    eos_id: the token that ends an answer.
    progress: called with (batches done, batches in all).

  Returns:
    One answer per example, in the order given.

  Raises:
    UserError: what `plan` raises.
  """
  if not isinstance(examples, Plan):
    examples = plan(examples, batch_size=batch_size, lengths=lengths)
  results, pending = [], collections.deque()
  for inputs_BS in examples.batches_BS:
    pending.append(
      _greedy(model, params, inputs_BS, examples.max_decode_len, eos_id)
    )
    if len(pending) > _IN_FLIGHT:
      results.append(np.asarray(pending.popleft()))
    if progress:
      progress(len(results), len(examples.batches_BS))
  results += [np.asarray(p) for p in pending]
  if progress and examples.batches_BS:
    progress(len(results), len(examples.batches_BS))
  return [
    _generated(example, results[batch][row], decode, eos_id)
    for example, (batch, row) in zip(
      examples.examples, examples.places, strict=True
    )
  ]


def _generated(example, tokens_T, decode, eos_id) -> Generated:
  tokens = [int(t) for t in tokens_T]
  complete = eos_id in tokens
  if complete:
    tokens = tokens[: tokens.index(eos_id)]
  tokens = [t for t in tokens if t != 0]
  return Generated(example, decode(tokens) if tokens else "", complete)
