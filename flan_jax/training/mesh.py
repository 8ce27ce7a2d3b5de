"""The mesh of devices: its three axes, and whether everything divides by it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from flan_jax.errors import UserError, check_known

AXES = ("data", "fsdp", "tensor")


def check_sizes(given: Mapping[str, int]) -> None:
  """Raises UserError unless `given` is a mesh: known axes, sizes, one -1.

  >>> check_sizes({"data": -1, "tensor": 4})
  """
  for name, size in given.items():
    check_known("MESH: the axis", name, AXES)
    if not isinstance(size, int) or (size < 1 and size != -1):
      raise UserError(
        f"MESH[{name!r}] is {size!r}; give a number of devices of 1 or more,"
        " or -1 for those that the other axes leave."
      )
  if list(given.values()).count(-1) > 1:
    raise UserError(f"MESH is {dict(given)}: at most one axis can be -1.")


def sizes(
  given: Mapping[str, int], count: int, topology: str | None = None
) -> dict[str, int]:
  """The mesh's sizes on `count` devices, with -1 filled in.

  >>> sizes({"data": -1, "fsdp": 1, "tensor": 4}, 8)
  {'data': 2, 'fsdp': 1, 'tensor': 4}

  Raises:
    UserError: their product is not `count`; the nearest mesh is named.
  """
  fixed = math.prod(size for size in given.values() if size != -1)
  free = [name for name, size in given.items() if size == -1]
  if free and count % fixed == 0:
    return {**given, free[0]: count // fixed}
  if not free and fixed == count:
    return dict(given)
  meant = f" ({topology})" if topology else ""
  what = f"MESH {dict(given)}{meant} needs"
  need = f"a multiple of {fixed}" if free else f"{fixed}"
  raise UserError(
    f"{what} {need} devices, here are {count}. The nearest mesh of {count}:"
    f" --gin.MESH={nearest(given, count)!r}, or take the gin/hardware file of"
    " this machine."
  )


def nearest(given: Mapping[str, int], count: int) -> dict[str, int]:
  """The mesh of `count` devices whose tensor and fsdp are nearest to these.

  >>> nearest({"data": 1, "fsdp": 16, "tensor": 16}, 64)
  {'data': 1, 'fsdp': 4, 'tensor': 16}
  """
  out, left = {}, count
  for name in reversed(AXES):
    size = given.get(name, 1)
    out[name] = closest(divisors(left), left if size == -1 else size)
    left //= out[name]
  out["data"] *= left
  return {name: out[name] for name in AXES}


def make(axis_sizes: Mapping[str, int], devices: Sequence[Any]) -> Mesh:
  """A mesh whose last axis, `tensor`, is of near neighbours on a TPU."""
  shape = tuple(axis_sizes[name] for name in AXES)
  if len(devices) > 1 and devices[0].platform == "tpu":
    grid = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
  else:
    grid = np.asarray(devices).reshape(shape)
  return Mesh(grid, AXES)


def check_heads(config: Any, n: int) -> None:
  """Raises UserError unless every device gets whole heads.

  Args:
    config: has `num_heads` and, of a decoder, `num_kv_heads`.
    n: devices over which heads are split.
  """
  names = [x for x in ("num_heads", "num_kv_heads") if hasattr(config, x)]
  counts = {name: getattr(config, name) for name in names}
  for name, heads in counts.items():
    if heads % n:
      near = closest(divisors(math.gcd(*counts.values())), n)
      raise UserError(
        f"the model's {name} is {heads}, which MESH's tensor of {n} does not"
        f" divide; the nearest that does is {near}."
      )


def check_batch_size(
  batch_size: int, n: int, accumulate: int = 1, axes: Sequence[str] = ("data",)
) -> None:
  """Raises UserError unless every device gets whole rows of a micro-batch.

  >>> check_batch_size(16, 8)

  Args:
    batch_size: rows, over all devices and micro-batches.
    n: devices over which rows are split.
    accumulate: micro-batches.
    axes: of the mesh that split rows, for the message.
  """
  part = n * accumulate
  by = f"{n} devices ({' x '.join(axes)} of MESH)"
  if batch_size < n:
    raise UserError(
      f"BATCH_SIZE {batch_size} is smaller than the {by}; every device"
      f" needs a row: give at least {part}, or a mesh with more `tensor`."
    )
  if batch_size % part:
    low = max(batch_size // part, 1) * part
    raise UserError(
      f"BATCH_SIZE {batch_size} does not divide over {by} x"
      f" {accumulate} micro-batches; the nearest that do are {low} and"
      f" {low + part}."
    )


def not_divided(name, size, logical, rule, n) -> str:
  """What is wrong with a parameter's dimension that `n` does not divide."""
  by = " x ".join((rule,) if isinstance(rule, str) else rule)
  return (
    f"parameter {name} has {size} along {logical!r}, which MESH's {by} of {n}"
    f" does not divide; the nearest that does is"
    f" {closest(divisors(size), n)}. Or make it a multiple of {n}:"
    f" {round_up(size, n)}."
  )


def round_up(size: int, n: int) -> int:
  """The next multiple of `n`.

  >>> round_up(100, 8)
  104
  """
  return math.ceil(size / n) * n


def divisors(n: int) -> list[int]:
  """All divisors, ascending.

  >>> divisors(12)
  [1, 2, 3, 4, 6, 12]
  """
  return [i for i in range(1, n + 1) if n % i == 0]


def closest(numbers: Sequence[int], to: int) -> int:
  """The one with the smallest distance; of two the larger.

  >>> closest([1, 2, 4, 8], 6)
  8
  """
  return min(numbers, key=lambda x: (abs(x - to), -x))


def axes_of(rule: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """The mesh's axes that a rule names.

  >>> axes_of("tensor"), axes_of(None)
  (('tensor',), ())
  """
  if rule is None:
    return ()
  return (rule,) if isinstance(rule, str) else tuple(rule)
