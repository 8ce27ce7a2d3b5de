"""Where arrays live: one mesh, and rules from logical axes to its axes.

    layout = Layout({"data": 1, "fsdp": 16, "tensor": 16})
    partition = Partition.of(layout, devices, config=model.config,
                             batch_size=256)
    state = partition.fresh_state(model, optimiser, seed=0)
    step = partition.jit(train_step, out=partition.state(state))
    state, metrics = step(state, partition.put(batch))

`data` splits rows of the batch, `fsdp` splits them too and with them every
parameter, gradient and slot of the optimiser, `tensor` splits heads, mlp and
vocabulary. What an axis of a parameter is called stands in `axes.py`, what the
names mean on a mesh in gin/hardware/*.gin. The step itself does not know the
mesh: XLA's partitioner (GSPMD, Xu et al. 2021, arXiv:2105.04663) inserts what
must be sent.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import UserError, check_known
from flan_jax.models import placement
from flan_jax.training import axes as axes_lib
from flan_jax.training import mesh as mesh_lib
from flan_jax.training import placed, slots
from flan_jax.training import state as state_lib
from flan_jax.training import trainable as trainable_lib

MESH_AXES = mesh_lib.AXES

# As gin/hardware/rules.gin has them: what Python calls get.
RULES: Mapping[str, str | tuple[str, ...] | None] = {
  "batch": ("data", "fsdp"),
  "length": "tensor",
  "embed": "fsdp",
  "vocab": "tensor",
  "mlp": "tensor",
  "joined_kv": "tensor",
  "heads": "tensor",
  "norm": None,
  "relpos_buckets": None,
  "lora_rank": None,
  "layers": None,
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """What gin/hardware/*.gin says: a mesh, rules, and what machine it is for.

  >>> Layout({"data": 1, "fsdp": 8}).mesh
  {'data': 1, 'fsdp': 8, 'tensor': 1}

  Attributes:
    mesh: devices along `data`, `fsdp` and `tensor`; one left out is 1, and one
      that is -1 takes the devices that the others leave.
    rules: logical axis -> mesh axis, several of them, or None for "whole".
    topology: a TPU slice such as "v5e:16x16", for `--plan`; None: whatever
      machine this is.

  Raises:
    UserError: an axis that is not known, a size below 1 other than one -1, or
      a rule that uses a mesh axis twice.
  """

  mesh: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"data": -1}
  )
  rules: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: dict(RULES)
  )
  topology: str | None = None

  def __post_init__(self):
    mesh_lib.check_sizes(self.mesh)
    sizes = {name: self.mesh.get(name, 1) for name in MESH_AXES}
    object.__setattr__(self, "mesh", sizes)
    for name, rule in self.rules.items():
      check_known("AXIS_RULES: the logical axis", name, axes_lib.KNOWN)
      for axis in mesh_lib.axes_of(rule):
        check_known(f"AXIS_RULES[{name!r}]", axis, MESH_AXES)


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
  """A mesh of devices and what the logical axes mean on it.

  Attributes:
    mesh: with the axes data, fsdp and tensor.
    rules: logical axis -> mesh axes.
  """

  mesh: Mesh
  rules: Mapping[str, Any]

  def __eq__(self, other: Any) -> bool:
    return isinstance(other, Partition) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)

  @property
  def _key(self):
    return self.mesh, repr(sorted(self.rules.items()))

  @classmethod
  def of(
    cls,
    layout: Layout,
    devices: Sequence[jax.Device] | None = None,
    *,
    config: Any = None,
    batch_size: int | None = None,
    accumulate: int = 1,
  ) -> "Partition":
    """The layout on these devices, after checking that everything divides.

    >>> Partition.of(Layout(), jax.devices()[:1], batch_size=16).mesh.size
    1

    Args:
      layout: from gin.
      devices: default: all.
      config: of a model, whose heads are then checked.
      batch_size: rows of a batch over all micro-batches.
      accumulate: micro-batches.

    Raises:
      UserError: the mesh does not divide the devices, the heads or the batch;
        the numbers are named and the nearest that do.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_lib.sizes(layout.mesh, len(devices), layout.topology)
    out = cls(mesh_lib.make(sizes, devices), dict(layout.rules))
    if config is not None:
      mesh_lib.check_heads(config, out.size(out.rules.get("joined_kv")))
    if batch_size is not None:
      out.check_batch_size(batch_size, accumulate)
    return out

  def check_batch_size(self, batch_size: int, accumulate: int = 1):
    """Raises UserError unless each device gets whole rows of a micro-batch."""
    rule = self.rules.get("batch")
    mesh_lib.check_batch_size(
      batch_size, self.size(rule), accumulate, mesh_lib.axes_of(rule)
    )

  def sharding(self, *names: str | None) -> NamedSharding:
    """Of an array whose axes have these logical names; rest whole."""
    return NamedSharding(self.mesh, self.spec(names))

  @property
  def everywhere(self) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(self.mesh, PartitionSpec())

  def params(self, tree: Any) -> Any:
    """The sharding of every parameter, in a tree like theirs.

    Raises:
      UserError: a parameter without logical axes, or with a dimension that the
        mesh does not divide.
    """
    return jax.tree_util.tree_map_with_path(self._parameter, tree)

  def state(self, state: state_lib.TrainState) -> state_lib.TrainState:
    """The sharding of every array of a training state or of its shapes.

    A slot of the optimiser lies like its parameter; Adafactor's row and column
    means like the axes they keep.
    """
    names = {} if self._whole else axes_lib.of_tree(state.params)
    shapes = {
      axes_lib.path_name(path): tuple(x.shape)
      for path, x in jax.tree_util.tree_flatten_with_path(state.params)[0]
    }

    def of_slot(path, x):
      if self._whole or not x.shape:
        return self.everywhere
      kept = slots.kept_axes(axes_lib.path_name(path), x.shape, shapes)
      if kept is None:
        return self.everywhere
      name, dimensions = kept
      return self.sharding(*(names[name][i] for i in dimensions))

    return state_lib.TrainState(
      step=self.everywhere,
      params=self.params(state.params),
      opt_state=jax.tree_util.tree_map_with_path(of_slot, state.opt_state),
      skipped=self.everywhere,
    )

  def abstract_params(self, model: Any) -> Any:
    """Shapes of a model's parameters and where each lies."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return _with_shardings(shapes, self.params(shapes))

  def abstract_state(
    self, model: Any, optimiser: Any, trainable: str | None = None
  ) -> state_lib.TrainState:
    """Shapes of the state and where each array lies; nothing is computed.

    Args:
      model: whose parameters are trained.
      optimiser: of them.
      trainable: regex of those that are, see `trainable.split`; None: all.
    """
    create = _create(model, optimiser, trainable)
    shapes = jax.eval_shape(create, jax.random.key(0))
    return _with_shardings(shapes, self.state(shapes))

  def fresh_state(
    self, model: Any, optimiser: Any, seed: int
  ) -> state_lib.TrainState:
    """Random parameters and an empty optimiser, each device making its part."""
    shardings = _shardings(self.abstract_state(model, optimiser))
    create = jax.jit(_create(model, optimiser), out_shardings=shardings)
    return create(jax.random.key(seed))

  def state_of(self, params: Any, optimiser: Any) -> state_lib.TrainState:
    """An empty optimiser around parameters, which are donated."""

    def create(params):
      return state_lib.create(params, optimiser)

    shardings = self.state(jax.eval_shape(create, params))
    made = jax.jit(create, out_shardings=shardings, donate_argnums=0)
    return made(params)

  def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """The batch on the devices, rows split as `batch` says.

    Every process gives the whole batch and sends its own devices' rows.
    """
    sharding = self.sharding("batch")
    return {name: placed.put(x, sharding) for name, x in batch.items()}

  def own_rows(self, batch_size: int) -> list[int]:
    """Rows of a batch that this process's devices hold; `put` reads no other.

    >>> Partition.of(Layout(), jax.devices()[:1]).own_rows(3)
    [0, 1, 2]
    """
    sharding = self.sharding("batch")
    where = sharding.addressable_devices_indices_map((batch_size,))
    spans = [range(*rows.indices(batch_size)) for (rows,) in where.values()]
    return sorted({row for span in spans for row in span})

  def abstract_batch(
    self, batch: Mapping[str, np.ndarray]
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch as `put` lays it out."""
    where = self.sharding("batch")
    return {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
      for name, x in batch.items()
    }

  def laid_out(self) -> contextlib.AbstractContextManager[None]:
    """Inside, models that are traced lay their arrays out as the rules say.

    `jit` does it by itself; what compiles its own programs, such as an
    evaluation, runs inside.
    """
    one = self.mesh.size == 1
    return placement.placed_by(None if one else placed.Placed(self))

  def jit(
    self, function: Callable, out: Any = None, donate: int | None = None
  ) -> Callable:
    """`jax.jit`, with the model's arrays laid out as the rules say.

    Args:
      function: of arrays alone.
      out: shardings of its result, a prefix of its tree; None: whole.
      donate: the argument that may be overwritten.
    """

    @functools.wraps(function)
    def inside(*args):
      with self.laid_out():
        return function(*args)

    return jax.jit(
      inside,
      out_shardings=self.everywhere if out is None else out,
      donate_argnums=() if donate is None else donate,
    )

  @property
  def _whole(self) -> bool:
    """Whether every device holds every parameter."""
    return self.mesh.size == self.mesh.shape["data"]

  def size(self, rule: str | tuple[str, ...] | None) -> int:
    """Devices along a mesh axis, or several."""
    return math.prod(self.mesh.shape[axis] for axis in mesh_lib.axes_of(rule))

  def spec(
    self, names: Sequence[str | None], without: str | None = None
  ) -> PartitionSpec:
    """Of an array whose axes have these logical names.

    Args:
      names: one an axis; None is not split.
      without: a mesh axis that splits nothing here.
    """
    spec, used = [], set()
    for name in names:
      axes = mesh_lib.axes_of(self.rules.get(name)) if name else ()
      # Of two axes of an array that want one mesh axis the first has it.
      axes = tuple(a for a in axes if a != without and a not in used)
      used.update(axes)
      spec.append(axes[0] if len(axes) == 1 else axes or None)
    return PartitionSpec(*spec)

  def _parameter(self, path, x) -> NamedSharding:
    if self._whole:
      return self.everywhere
    name = axes_lib.path_name(path)
    names = axes_lib.of_parameter(name, len(x.shape))
    spec = self.spec(names)
    for size, logical, rule in zip(x.shape, names, spec, strict=True):
      n = self.size(rule)
      if size % n:
        raise UserError(mesh_lib.not_divided(name, size, logical, rule, n))
    return NamedSharding(self.mesh, spec)


def _create(model, optimiser, trainable=None):
  def create(rng):
    params = model.init(rng)
    if trainable is not None:
      params, _ = trainable_lib.split(params, trainable)
    return state_lib.create(params, optimiser)

  return create


def _with_shardings(shapes, shardings):
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


def _shardings(abstract):
  return jax.tree.map(lambda x: x.sharding, abstract)
