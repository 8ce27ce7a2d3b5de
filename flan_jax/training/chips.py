"""What a chip can do at most, by the name that JAX has for it.

Dense bfloat16 products, memory and its bandwidth, as the makers publish them
(cloud.google.com/tpu/docs/system-architecture-tpu-vm; NVIDIA's data sheets).
"""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device of JAX.

  Attributes:
    name: as people write it.
    kinds: how `device_kind` may begin.
    flops: floating-point operations a second, dense bfloat16.
    memory: bytes.
    bandwidth: of the memory, bytes a second.
  """

  name: str
  kinds: tuple[str, ...]
  flops: float
  memory: float
  bandwidth: float


_GIB = 2.0**30
# The longer name first where one begins with another.
CHIPS = (
  Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * _GIB, 819e9),
  Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * _GIB, 1640e9),
  Chip("v5p", ("TPU v5p", "TPU v5"), 459e12, 95 * _GIB, 2765e9),
  Chip("v4", ("TPU v4",), 275e12, 32 * _GIB, 1228e9),
  # A device is one of the two cores of a chip.
  Chip("v3", ("TPU v3",), 61.5e12, 16 * _GIB, 450e9),
  Chip("B200", ("NVIDIA B200",), 2250e12, 180 * _GIB, 8000e9),
  Chip("H200", ("NVIDIA H200",), 989e12, 141e9, 4800e9),
  Chip("H100 PCIe", ("NVIDIA H100 PCIe",), 756e12, 80 * _GIB, 2000e9),
  Chip("H100", ("NVIDIA H100",), 989e12, 80 * _GIB, 3350e9),
  Chip("A100", ("NVIDIA A100",), 312e12, 80 * _GIB, 2039e9),
  Chip("L4", ("NVIDIA L4",), 121e12, 24e9, 300e9),
)


def of_kind(device_kind: str) -> Chip | None:
  """The chip of a device's kind; None: it is not in the table.

  >>> of_kind("TPU v5 lite").name, of_kind("TPU v5p").name
  ('v5e', 'v5p')
  >>> of_kind("NVIDIA H100 80GB HBM3").flops / 1e12
  989.0
  >>> of_kind("cpu")
  """
  for chip in CHIPS:
    if device_kind.startswith(chip.kinds):
      return chip
  return None


def peak_flops(device: jax.Device, devices: int = 1) -> float | None:
  """Operations a second that a device does at most; None: not known.

  The processor of this machine is measured, by a product of matrices on all
  its cores: XLA's own, in float32, which is what a step there is made of.

  Args:
    device: one of those that train.
    devices: how many share the processor, where they are made of one
      (`--xla_force_host_platform_device_count`).
  """
  if device.platform != "cpu":
    chip = of_kind(device.device_kind)
    return None if chip is None else chip.flops
  return measured_flops(device) / devices


def measured_flops(
  device: jax.Device, size: int = 768, seconds: float = 0.1
) -> float:
  """The best of repeated float32 products of two size x size matrices."""
  x = jax.device_put(jnp.ones((size, size), jnp.float32), device)
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  best, end = float("inf"), time.perf_counter() + seconds
  while (start := time.perf_counter()) < end:
    product(x, x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2.0 * size**3 / best


def memory_bytes(device: jax.Device) -> float | None:
  """The most memory this device has held so far; None: it does not say.

  Of the processor, what this process has held, TensorFlow's part included.
  """
  if device.platform == "cpu":
    try:
      import resource
    except ImportError:  # Not a Unix.
      return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but on macOS bytes.
    return float(peak if sys.platform == "darwin" else 1024 * peak)
  stats = device.memory_stats() or {}
  return float(stats["peak_bytes_in_use"]) if stats else None
