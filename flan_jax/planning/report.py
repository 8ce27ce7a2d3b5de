"""The plan of a training job, and how it is printed."""

import dataclasses
import math
from collections.abc import Mapping

from flan_jax.planning import roofline, sizing
from flan_jax.planning.costs import Costs
from flan_jax.planning.topology import Topology
from flan_jax.training.progress import Display

_GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Plan:
  """What `plan.plan` finds out.

  Attributes:
    topology: the machine; None: this processor.
    mesh: devices along each axis.
    parameters: numbers of the model.
    batch_size, microbatches, lengths, train_steps: of the job.
    state: bytes a chip of `parameters` and `optimiser`.
    step: what was compiled, or why it was not.
    model_flops: of one step, all chips, without recomputation.
    costs: of one chip in one step; None if the step is too large.
    estimate: seconds of a step; None without a machine or a step.
    largest: batch that fits; None without a machine.
    notes: what to know of the numbers.
    seconds: that planning took.
  """

  topology: Topology | None
  mesh: Mapping[str, int]
  parameters: int
  batch_size: int
  microbatches: int
  lengths: tuple[int, int]
  train_steps: int
  state: Mapping[str, float]
  step: sizing.Step | sizing.TooLarge
  model_flops: float
  costs: Costs | None
  estimate: roofline.Estimate | None
  largest: sizing.Largest | None
  notes: tuple[str, ...]
  seconds: float

  @property
  def chips(self) -> int:
    """Devices of the mesh."""
    return math.prod(self.mesh.values())

  @property
  def fits(self) -> bool:
    """Whether the step was compiled and its bytes are the chip's at most."""
    if not isinstance(self.step, sizing.Step):
      return False
    return self.topology is None or self.step.bytes <= self.topology.chip.memory

  @property
  def tokens(self) -> int:
    """Positions of a batch, which packing fills nearly all."""
    return self.batch_size * sum(self.lengths)

  def chip_hours(self, seconds: float) -> float:
    """Of the whole run, at so many seconds a step."""
    return self.train_steps * seconds * self.chips / 3600.0


def show(display: Display, plan: Plan) -> None:
  """Prints a plan."""
  say = display.say
  machine = plan.topology.name if plan.topology else "this processor"
  mesh = " x ".join(f"{name} {n}" for name, n in plan.mesh.items())
  inputs, targets = plan.lengths
  say(f"\nmachine:  {machine}, {plan.chips} devices as {mesh}")
  say(f"model:    {plan.parameters:,} parameters")
  say(
    f"batch:    {plan.batch_size:,} rows of {inputs:,} + {targets:,} tokens,"
    f" {plan.microbatches} micro-batches; {plan.train_steps:,} steps\n"
  )
  _show_memory(display, plan)
  if plan.costs is not None:
    _show_costs(display, plan)
  if plan.largest is not None:
    say(f"largest batch that fits: {_largest(plan.largest)}")
  for note in plan.notes:
    say(f"note: {note}.")
  say(f"planned in {plan.seconds:,.0f} s, nothing was run")


def _show_memory(display, plan):
  rows = list(plan.state.items())
  step = plan.step
  if isinstance(step, sizing.Step):
    state = sum(plan.state.values())
    rows += [
      ("batch", max(0.0, step.arguments - state)),
      ("temporaries", step.temporaries),
      ("program", step.program),
      ("in all", step.bytes),
    ]
  if plan.topology is not None:
    chip = plan.topology.chip
    rows.append((f"memory of a {chip.name}", chip.memory))
  display.table(
    "a chip", ("what", "bytes"), [(name, binary(size)) for name, size in rows]
  )
  if isinstance(step, sizing.TooLarge):
    display.say(
      f"\nDoes not fit: {step.reason}. More devices along fsdp or tensor,"
      " more MICROBATCHES, fewer rows, or remat_policy = 'full'.\n"
    )
  elif plan.topology is not None:
    display.say("\nfits\n" if plan.fits else "\nDoes not fit.\n")
  else:
    display.say("")


def binary(size: float) -> str:
  """Bytes as people read them.

  >>> binary(3 * 2**20), binary(1.5 * 2**30)
  ('3.00 MiB', '1.50 GiB')
  """
  unit = 2.0**20 if size < _GIB else _GIB
  return f"{size / unit:,.2f} {'MiB' if size < _GIB else 'GiB'}"


def duration(seconds: float) -> str:
  """Seconds as people read them.

  >>> duration(0.00123), duration(1.234)
  ('1.23 ms', '1.23 s')
  """
  if seconds < 1.0:
    return f"{1e3 * seconds:.3g} ms"
  return f"{seconds:.3g} s"


def _largest(found: sizing.Largest) -> str:
  if found.rows is None:
    return "none on this mesh"
  text = f"{found.rows:,} rows (compiled)"
  if found.estimated is not None:
    text += f"; about {found.estimated:,} by its growth, not compiled"
  return text


def _show_costs(display, plan):
  costs, say = plan.costs, display.say
  done = costs.flops * plan.chips
  say(
    f"operations of a step: {plan.model_flops:.3g} of the model,"
    f" {done:.3g} of the program (recomputation and padding too)\n"
  )
  display.table(
    "collectives of a step, each chip",
    ("kind", "among", "times", "arrays", "sent"),
    [
      (t.kind, t.group, t.count, binary(t.bytes), binary(t.sent))
      for t in costs.traffic
    ],
  )
  say("")
  estimate = plan.estimate
  if estimate is None:
    return
  chip = plan.topology.chip
  display.table(
    "a step, each roof alone",
    ("roof", "rate", "time"),
    [
      ("compute", f"{chip.flops / 1e12:g} TFLOP/s", duration(estimate.compute)),
      ("memory", f"{chip.bandwidth / 1e9:g} GB/s", duration(estimate.memory)),
      (
        "network",
        f"{plan.topology.ring / 1e9:g} GB/s",
        duration(estimate.network),
      ),
    ],
  )
  least, most = estimate.least, estimate.most
  peak = chip.flops * plan.chips
  say(
    f"\nstep: {duration(least)} to {duration(most)}, bound by {estimate.bound};"
    f" {plan.tokens / most:,.0f} to {plan.tokens / least:,.0f} tokens a second;"
    f" {plan.model_flops / peak / most:.1%} to"
    f" {plan.model_flops / peak / least:.1%} of the peak"
  )
  say(
    f"run:  {plan.train_steps:,} steps, {plan.chip_hours(least):,.3g} to"
    f" {plan.chip_hours(most):,.3g} chip-hours\n"
  )
  say("assumed:")
  for one in roofline.ASSUMPTIONS:
    say(f"  {one}")
  say("")
