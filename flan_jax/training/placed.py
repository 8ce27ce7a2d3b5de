"""A partition as models see it: what `models/placement.py` asks of a mesh."""

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flan_jax.models import placement
from flan_jax.training import mesh as mesh_lib

if TYPE_CHECKING:
  from flan_jax.training.sharding import Partition


def put(x: np.ndarray, where: NamedSharding) -> jax.Array:
  """An array that every process has: each sends its own devices' part."""
  if where.is_fully_addressable:
    return jax.device_put(x, where)
  return jax.make_array_from_callback(x.shape, where, x.__getitem__)


@dataclasses.dataclass(frozen=True)
class Placed:
  """A partition as models see it: `placement.Placement`.

  Equal for equal partitions: a program is compiled once for all of them.

  Attributes:
    partition: of the devices.
    gathers: whether weights are brought together over `fsdp`.
  """

  partition: "Partition"
  gathers: bool = True

  @property
  def parts(self) -> int:
    spec = self.partition.spec(("batch", "vocab"))
    return math.prod(self.partition.size(rule) for rule in spec)

  @property
  def platform(self) -> str:
    return self.partition.mesh.devices.flat[0].platform

  def share(self, axis):
    return self.partition.size(self.partition.rules.get(axis))

  def per_device(self, function, inputs, output):
    def split(*arrays):
      made = jax.eval_shape(function, *arrays)
      return jax.shard_map(
        function,
        mesh=self.partition.mesh,
        in_specs=tuple(map(self._fitting, arrays, inputs)),
        out_specs=self._fitting(made, output),
        check_vma=False,
      )(*arrays)

    return split

  def activation(self, x, axes):
    return self._constrain(x, self._fitting(x, axes))

  def put(self, x, axes):
    where = NamedSharding(self.partition.mesh, self._fitting(x, axes))
    return put(x, where)

  def rows(self, count):
    rule = self.partition.rules.get("batch")
    if count % self.partition.size(rule):
      return ()
    axes = mesh_lib.axes_of(rule)
    return tuple(a for a in axes if self.partition.mesh.shape[a] > 1)

  def decoding(self, rows):
    rules = dict(self.partition.rules)
    over = mesh_lib.axes_of(rules.get("batch")) if rows else ()
    rules["batch"] = tuple(axis for axis in over if axis != "fsdp")
    return Placed(
      dataclasses.replace(self.partition, rules=rules), gathers=False
    )

  def stored(self, x, axes):
    return self._constrain(x, self.partition.spec(axes))

  def used(self, x, axes):
    if not self.gathers:
      return self.stored(x, axes)
    return self._constrain(x, self.partition.spec(axes, without="fsdp"))

  def lookup(self, table, tokens, dtype):
    """Every device looks up its own rows of the batch in its share of ids.

    By hand, since the partitioner would bring the gradients of all rows
    together on every device to add them into the table.
    """
    batch = self._fitting(tokens, ("batch", *[None] * (tokens.ndim - 1)))
    vocab, embed = self.partition.spec(("vocab", "embed"))
    if self.gathers:
      embed = None
    whole = table.shape[0]

    def local(table, tokens):
      first = 0
      if vocab is not None:
        first = jax.lax.axis_index(vocab) * table.shape[0]
      own = tokens - first
      here = (own >= 0) & (own < table.shape[0])
      x = jnp.take(table, jnp.where(here, own, 0), axis=0).astype(dtype)
      x = jnp.where(here[..., None], x, 0)
      if vocab is not None:
        # One device has the row, the others add 0.
        x = jax.lax.psum(x, vocab)
      inside = (tokens >= 0) & (tokens < whole)
      return jnp.where(inside[..., None], x, jnp.nan)

    looked_up = jax.shard_map(
      local,
      mesh=self.partition.mesh,
      in_specs=(PartitionSpec(vocab, embed), batch),
      out_specs=PartitionSpec(*batch, embed),
    )
    # In float32, so that the gradient is added up in it over the devices.
    table = placement.gather(table, ("vocab", "embed"))
    return looked_up(table, tokens)

  def gradients(self, tree):
    return jax.tree.map(
      jax.lax.with_sharding_constraint, tree, self.partition.params(tree)
    )

  def _fitting(self, x, axes) -> PartitionSpec:
    """Of an activation: what does not divide, such as a length, stays whole."""
    spec = self.partition.spec(axes)
    return PartitionSpec(
      *(
        rule if size % self.partition.size(rule) == 0 else None
        for size, rule in zip(x.shape, spec, strict=True)
      )
    )

  def _constrain(self, x, spec):
    where = NamedSharding(self.partition.mesh, spec)
    return jax.lax.with_sharding_constraint(x, where)
