"""Whether a training job fits a machine, and how long it takes, before it runs.

  python launch/run.py --gin_file=gin/flan_holdout_nli.gin \
      --gin_file=gin/models/t5_1_1_xxl.gin \
      --gin_file=gin/hardware/v5e_256.gin --plan

The step that trains is compiled for the machine that the hardware file names,
on this processor, and what the compiler says is read: bytes, operations,
collectives. Nothing is run and no data are read. TPUs need the extra
`tpu` (libtpu); without it the step is compiled for as many fake devices.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import config as config_lib
from flan_jax.data import layouts
from flan_jax.errors import UserError
from flan_jax.planning import costs, hlo, report, roofline, sizing
from flan_jax.planning import topology as topology_lib
from flan_jax.training import checks, mesh, sharding
from flan_jax.training import loss as loss_lib
from flan_jax.training.progress import Display

# No further batch is tried that would end after so many seconds.
TRY_SECONDS = 420.0


def run(config: config_lib.Config) -> report.Plan:
  """Plans the training job of a configuration and prints the plan.

  Raises:
    UserError: its job is not the training job; or see `plan`.
  """
  name, arguments = config_lib.job_arguments(config)
  if name != "flan_jax.train.train":
    raise UserError(
      f"--plan sizes up the training job; this configuration's job is {name}."
      " Give a file that trains, such as gin/flan_holdout_nli.gin."
    )
  display = Display()
  made = plan(**arguments, say=display.say)
  report.show(display, made)
  return made


def plan(
  *,
  model: Any,
  optimizer: Any,
  task_feature_lengths: Mapping[str, int],
  batch_size: int,
  train_steps: int,
  layout: sharding.Layout | None = None,
  vocabulary: Any = None,
  adapter: Any = None,
  trainable: str | None = None,
  microbatches: int = 1,
  pack: bool = True,
  random_seed: int = 0,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
  loss_normalizing_factor: str | float | None = loss_lib.REAL_TOKENS,
  try_seconds: float = TRY_SECONDS,
  say: Any = lambda text: None,
  **unread: Any,
) -> report.Plan:
  """What a training job needs of the machine in its layout.

  Args:
    model: as of `train.train`, and so are all others but these:
    optimizer: see there.
    task_feature_lengths: see there.
    batch_size: see there.
    train_steps: see there.
    layout: see there; its `topology` names the machine.
    vocabulary: see there; checked against the model if given.
    adapter: see there.
    trainable: see there.
    microbatches: see there.
    pack: see there.
    random_seed: see there.
    z_loss: see there.
    label_smoothing: see there.
    loss_normalizing_factor: see there.
    try_seconds: no larger batch is tried that would end later.
    say: called with a line when something long begins.
    **unread: arguments of `train.train` that a step does not depend on.

  Raises:
    UserError: a topology that does not exist; a mesh that does not divide the
      devices, heads, batch or parameters.
  """
  del unread
  began = time.monotonic()
  checks.numbers(batch_size=batch_size, microbatches=microbatches)
  checks.lengths(task_feature_lengths)
  if vocabulary is not None:
    checks.vocabulary(vocabulary, model)
  if adapter is not None:
    model = adapter.on(model, vocabulary)
    trainable = trainable or model.trainable
  layout = layout or sharding.Layout()
  topology, devices, notes = machine(layout)
  lengths = (task_feature_lengths["inputs"], task_feature_lengths["targets"])

  def compile_step(rows: int) -> sizing.Step | sizing.TooLarge:
    return sizing.compile_step(
      layout,
      devices,
      model=model,
      optimiser=optimizer,
      batch=empty_batch(model.kind, lengths, rows, pack),
      loss_config=loss_lib.LossConfig(
        z_loss, label_smoothing, loss_normalizing_factor
      ),
      accumulate=microbatches,
      dropout_seed=random_seed,
      trainable=trainable,
    )

  where = topology.name if topology else f"{len(devices)} CPU devices"
  say(f"compiling the step of {batch_size:,} rows for {where} ...")
  step = compile_step(batch_size)
  partition = sharding.Partition.of(layout, devices)
  state = sizing.state_bytes(partition, model, optimizer, trainable)
  found = None
  if topology is not None:
    rule = partition.sharding("batch").spec[0]
    unit = microbatches * partition.size(rule)
    found = sizing.largest_batch(
      compile_step,
      first=(batch_size, step),
      unit=unit,
      memory=topology.chip.memory,
      until=began + try_seconds,
      say=say,
    )
  shapes = {
    name: x.shape
    for name, x in empty_batch(model.kind, lengths, batch_size, pack).items()
  }
  cost = estimate = None
  if isinstance(step, sizing.Step):
    cost = costs.of(hlo.parse(step.text))
    estimate = topology and roofline.estimate(cost, topology)
  return report.Plan(
    topology=topology,
    mesh=dict(partition.mesh.shape),
    parameters=sizing.parameters(model),
    batch_size=batch_size,
    microbatches=microbatches,
    lengths=lengths,
    train_steps=train_steps,
    state=state,
    step=step,
    model_flops=model.model_flops(shapes),
    costs=cost,
    estimate=estimate,
    largest=found,
    notes=tuple(notes),
    seconds=time.monotonic() - began,
  )


def machine(
  layout: sharding.Layout,
) -> tuple[topology_lib.Topology | None, Sequence[Any], list[str]]:
  """The machine that a layout names, its devices, and what to know of them."""
  if layout.topology is None:
    note = (
      "the hardware file names no machine: planned on this processor, without"
      " an estimate of time (gin/hardware/v5e_256.gin and others name one)"
    )
    # -1 takes what other axes leave: here, nothing.
    count = abs(math.prod(layout.mesh.values()))
    return None, topology_lib.fake_devices(count), [note]
  topology = topology_lib.named(layout.topology)
  # Before anything long: the mesh must fit the machine.
  mesh.sizes(layout.mesh, topology.size, topology.name)
  if topology.network.tpu and topology_lib.has_libtpu():
    return topology, topology_lib.tpu_devices(topology), []
  missing = (
    "libtpu is not installed (pip install -e '.[tpu]')"
    if topology.network.tpu
    else f"there is no compiler for {topology.chip.name} without one"
  )
  note = (
    f"{missing}: compiled for {topology.size} fake CPU devices instead, whose"
    " temporaries, fusions and collectives are other ones; parameters and"
    " optimiser are exact"
  )
  return topology, topology_lib.fake_devices(topology.size), [note]


def empty_batch(
  kind: str, lengths: tuple[int, int], rows: int, pack: bool
) -> Mapping[str, Any]:
  """A batch of padding, in the shapes and types that training reads."""
  if kind == "encoder_decoder":
    return layouts.EncoderDecoder(*lengths, pack=pack).empty(rows)
  return layouts.DecoderOnly(sum(lengths), None, pack).empty(rows)
