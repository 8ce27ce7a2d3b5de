"""Compiles a training step for a machine, and finds the batch that fills it."""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from flan_jax.training import compiled, sharding
from flan_jax.training import trainable as trainable_lib
from flan_jax.training.loss import LossConfig

# Of the memory, what a batch that has not been compiled is reckoned with: the
# compiler keeps some for itself.
_USABLE = 0.97
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step; bytes are each chip's.

  Attributes:
    arguments: of state and batch.
    temporaries: of everything else: activations, gradients, buffers.
    program: of the program itself.
    text: the program, HLO.
    seconds: that compiling took.
  """

  arguments: float
  temporaries: float
  program: float
  text: str
  seconds: float

  @property
  def bytes(self) -> float:
    """In all."""
    return self.arguments + self.temporaries + self.program


@dataclasses.dataclass(frozen=True)
class TooLarge:
  """A step that the compiler refuses.

  Attributes:
    bytes: that it needs; None: it does not say.
    reason: the compiler's words.
    seconds: until it said so.
  """

  bytes: float | None
  reason: str
  seconds: float


@dataclasses.dataclass(frozen=True)
class Largest:
  """The largest batch that fits.

  Attributes:
    rows: compiled, and it fits; None: none does.
    estimated: rows that would fill the memory by what smaller ones need; None
      where the next one was compiled and does not fit.
  """

  rows: int | None
  estimated: int | None = None


def compile_step(
  layout: sharding.Layout,
  devices: Sequence[Any],
  *,
  model: Any,
  optimiser: Any,
  batch: Mapping[str, Any],
  loss_config: LossConfig,
  accumulate: int,
  dropout_seed: int,
  trainable: str | None = None,
) -> Step | TooLarge:
  """The step of `training/compiled.py` for these devices.

  Args:
    layout: mesh and rules.
    devices: of the machine; only compiled for.
    model: as of `compiled.train_step`, and so are the others.
    optimiser: see there.
    batch: arrays of the shapes that training reads.
    loss_config: see there.
    accumulate: see there.
    dropout_seed: see there.
    trainable: regex of the parameters that are trained, the others are frozen;
      None: all.
  """
  rows = next(iter(batch.values())).shape[0]
  partition = sharding.Partition.of(
    layout,
    devices,
    config=model.config,
    batch_size=rows,
    accumulate=accumulate,
  )
  state = partition.abstract_state(model, optimiser, trainable)
  take = compiled.train_step(
    partition,
    state,
    model=model,
    optimiser=optimiser,
    loss_config=loss_config,
    accumulate=accumulate,
    dropout_seed=dropout_seed,
    frozen=trainable is not None,
  )
  began = time.monotonic()
  kept = ()
  if trainable is not None:
    whole = partition.abstract_params(model)
    kept = (trainable_lib.split(whole, trainable)[1],)
  lowered = take.lower(state, *kept, partition.abstract_batch(batch))
  try:
    made = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return too_large(str(error), time.monotonic() - began)
  memory = made.memory_analysis()
  return Step(
    arguments=memory.argument_size_in_bytes,
    # What is not written in place of an argument.
    temporaries=memory.temp_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes,
    program=memory.generated_code_size_in_bytes,
    text=made.as_text(),
    seconds=time.monotonic() - began,
  )


def too_large(message: str, seconds: float = 0.0) -> TooLarge:
  """What the compiler's refusal says.

  >>> too_large("... Used 18.50G of 15.75G hbm. Exceeded ...").bytes / 2**30
  18.5
  """
  used = re.search(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+[KMGT]?) hbm", message)
  size = float(used[1]) * _UNITS[used[2]] if used else None
  reason = used[0] if used else message.splitlines()[0][:200]
  return TooLarge(size, reason, seconds)


def largest_batch(
  compile_rows: Callable[[int], Step | TooLarge],
  *,
  first: tuple[int, Step | TooLarge],
  unit: int,
  memory: float,
  until: float,
  say: Callable[[str], None] = lambda text: None,
) -> Largest:
  """The most rows whose step fits, by compiling two or three.

  Temporaries grow with the rows by a line, near enough: two steps say where it
  meets the memory, and the step there is compiled to be sure.

  >>> steps = {8: 4.0, 16: 6.0, 24: 8.0, 32: 10.0}
  >>> def compile_rows(rows):
  ...   if steps[rows] > 9: return TooLarge(None, "", 0.0)
  ...   return Step(2.0, steps[rows] - 2.0, 0.0, "", 0.0)
  >>> largest_batch(compile_rows, first=(8, compile_rows(8)), unit=8,
  ...               memory=9.0, until=math.inf)
  Largest(rows=24, estimated=None)

  Args:
    compile_rows: rows -> their step.
    first: rows, and their step.
    unit: what the rows of a batch are a multiple of.
    memory: bytes of a chip.
    until: `time.monotonic()` after which no compilation may end.
    say: called before each compilation.
  """
  rows, step = first
  known = {rows: step}
  last = step.seconds

  def fitting():
    return [n for n, x in known.items() if isinstance(x, Step)]

  def over():
    return [n for n, x in known.items() if isinstance(x, TooLarge)]

  guess = _next_guess(known, unit, memory)
  while guess is not None and guess not in known:
    if time.monotonic() + 1.5 * last > until:
      break
    say(f"compiling the step of {guess:,} rows ...")
    known[guess] = compile_rows(guess)
    last = known[guess].seconds
    guess = _next_guess(known, unit, memory)
  best = max(fitting(), default=None)
  closed = best is not None and best + unit in over()
  return Largest(
    best, None if closed or guess is None or guess == best else guess
  )


def _next_guess(known, unit, memory) -> int | None:
  """The rows to compile next: as many as should fit by what is known."""
  fits = sorted(n for n, x in known.items() if isinstance(x, Step))
  over = sorted(n for n, x in known.items() if isinstance(x, TooLarge))
  if not fits:
    # As much less as it is too much, and a half where that is not said.
    least = over[0]
    size = known[least].bytes
    share = min(0.9, _USABLE * memory / size) if size else 0.5
    guess = int(least * share) // unit * unit
    return guess if guess >= unit else (unit if unit not in known else None)
  best = fits[-1]
  step = known[best]
  if len(fits) == 1:
    # Of one step it is not known what grows: all temporaries, at most.
    slope, limit = step.temporaries / best, 16 * best
  else:
    other = fits[-2]
    slope = (step.bytes - known[other].bytes) / (best - other)
    limit = 1 << 24
  room = _USABLE * memory - step.bytes
  more = math.inf if slope <= 0 else room / slope
  guess = (best + int(min(more, limit))) // unit * unit
  if over:
    # Between what fits and what does not, not at either again.
    guess = min(guess, over[0] - unit)
  guess = max(guess, best)
  return guess


def state_bytes(
  partition: sharding.Partition,
  model: Any,
  optimiser: Any,
  trainable: str | None = None,
) -> dict[str, float]:
  """Bytes of a chip's part of the parameters and of the optimiser's state."""
  state = partition.abstract_state(model, optimiser, trainable)

  def of(tree):
    return float(
      sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
      )
    )

  return {
    "parameters": of(partition.abstract_params(model)),
    "optimiser": of(state.opt_state),
  }


def parameters(model: Any) -> int:
  """How many numbers a model has."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
