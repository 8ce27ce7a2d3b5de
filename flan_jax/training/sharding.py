"""Where arrays live: one mesh over the devices, batches split over `data`.

Parameters and optimiser state are on every device; each device reads its own
rows of the batch. The gradient's sum over rows is then a sum over devices,
which XLA inserts (GSPMD), so the step's code does not know the mesh.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import UserError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A one-axis mesh, `data`, over `devices` (default: all)."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices), ("data",))


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1):
  """Raises UserError unless every device gets whole rows of a micro-batch.

  >>> check_batch_size(16, make_mesh())
  """
  n = mesh.devices.size
  part = n * accumulate
  if batch_size < n:
    raise UserError(
      f"BATCH_SIZE {batch_size} is smaller than the {n} devices; every device"
      f" needs a row: give at least {part}."
    )
  if batch_size % part:
    low = max(batch_size // part, 1) * part
    raise UserError(
      f"BATCH_SIZE {batch_size} does not divide over {n} devices x"
      f" {accumulate} micro-batches; the nearest that do are {low} and"
      f" {low + part}."
    )


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of parameters: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: its first axis over `data`."""
  return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh
) -> dict[str, jax.Array]:
  """The batch on the devices, rows split over `data`."""
  return jax.device_put(dict(batch), rows(mesh))
