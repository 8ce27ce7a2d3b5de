"""Machines by name, and their devices without having one.

TPU slices are known to libtpu, which compiles for them on any processor; of
other machines there are as many devices of this processor, made up.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from flan_jax.errors import UserError
from flan_jax.training import chips

_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = (
  "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8",
  "8x8x12", "8x8x16", "8x16x16",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
  """How the chips of a machine are joined.

  Attributes:
    shapes: of its slices.
    link: bytes a second of one link in one direction.
    links: of a chip that one collective uses: both directions of a ring along
      one axis of a torus, or the one way into a switch.
    options: of libtpu, so that a chip is one device.
    tpu: whether libtpu compiles for it.
  """

  shapes: tuple[str, ...]
  link: float
  links: int = 2
  options: tuple[tuple[str, str], ...] = ()
  tpu: bool = True


# Links as in Austin et al. 2025, "How to Scale Your Model", chapter 2; NVLink
# of an H100 from NVIDIA's data sheet.
NETWORKS = {
  "v4": Network(_SOLID, 45e9, options=(("chip_config_name", "megacore"),)),
  "v5e": Network(_FLAT, 45e9),
  "v5p": Network((*_SOLID, "16x16x16", "16x16x24"), 90e9),
  "v6e": Network(_FLAT, 90e9),
  "H100": Network(("1", "2", "4", "8"), 450e9, links=1, tpu=False),
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice of a machine.

  Attributes:
    name: "v5e:16x16".
    chip: what one device can do.
    network: how they are joined.
    shape: of the slice, chips along each axis.
  """

  name: str
  chip: chips.Chip
  network: Network
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Chips, each of which is one device of JAX."""
    return math.prod(self.shape)

  @property
  def ring(self) -> float:
    """Bytes a second that a chip sends in a collective."""
    return self.network.link * self.network.links


def named(name: str) -> Topology:
  """The topology of a name such as "v5e:16x16".

  >>> named("v4:4x4x8").size, named("v5e:16x16").chip.name
  (128, 'v5e')

  Raises:
    UserError: there is none of this name; all are listed.
  """
  kind, _, shape = str(name).partition(":")
  network = NETWORKS.get(kind)
  if network is None or shape not in network.shapes:
    known = [f"{k}:{s}" for k, n in NETWORKS.items() for s in n.shapes]
    near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
    listed = "\n".join(
      f"  {k}: {', '.join(n.shapes)}" for k, n in NETWORKS.items()
    )
    raise UserError(
      f"TOPOLOGY is {name!r}, which does not exist; the nearest is {near!r}."
      f" Known are, as kind:shape,\n{listed}"
    )
  chip = next(chip for chip in chips.CHIPS if chip.name == kind)
  axes = tuple(int(n) for n in shape.split("x"))
  return Topology(name, chip, network, axes)


def has_libtpu() -> bool:
  """Whether the compiler for TPUs is installed."""
  return importlib.util.find_spec("libtpu") is not None


def tpu_devices(topology: Topology) -> Sequence[Any]:
  """The slice's devices, of which only the compiler makes use.

  Raises:
    UserError: libtpu does not know the slice.
  """
  shape = topology.shape
  # A ring closes along an axis of whole racks: 16 chips of a flat pod, whole
  # cubes of 4 x 4 x 4 of a solid one.
  whole = 16 if len(shape) == 2 else 4
  cubes = all(n % 4 == 0 for n in shape)
  wrap = [n % whole == 0 and cubes for n in shape]
  # Its lock is for chips, of which a description has none.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  try:
    with _quiet():
      described = topologies.get_topology_desc(
        topology.name,
        "tpu",
        wrap=tuple(wrap + [False] * (3 - len(wrap))),
        **dict(topology.network.options),
      )
  except (RuntimeError, NotImplementedError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f"libtpu cannot describe TOPOLOGY {topology.name!r}: {reason}. Update"
      " libtpu, or choose a smaller slice."
    ) from error
  return described.devices


@contextlib.contextmanager
def _quiet():
  """Drops what libtpu writes to stderr: that it has found no TPU."""
  sys.stderr.flush()
  real = os.dup(2)
  with open(os.devnull, "wb") as nowhere:
    os.dup2(nowhere.fileno(), 2)
  try:
    yield
  finally:
    os.dup2(real, 2)
    os.close(real)


def fake_devices(count: int) -> Sequence[Any]:
  """So many devices of this processor; for compiling, nothing runs on them.

  Raises:
    UserError: jax has begun with fewer.
  """
  with contextlib.suppress(RuntimeError):  # jax has begun, perhaps with enough.
    jax.config.update("jax_num_cpu_devices", count)
  devices = jax.devices("cpu")
  if len(devices) < count:
    raise UserError(
      f"the plan needs {count} devices and jax has begun with"
      f" {len(devices)}: start with --plan in a process of its own, without"
      " --xla_force_host_platform_device_count in XLA_FLAGS."
    )
  return devices[:count]
