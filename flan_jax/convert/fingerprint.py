"""What tells the parameters of two checkpoints apart."""

import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from flan_jax.convert import trees

# Numbers of a tensor that are read.
SAMPLED = 4096


def fingerprint(params: Any) -> str:
  """Eight hex digits of a model's parameters.

  Of every tensor its name, shape and some thousand numbers that are spread
  over it, so that the same checkpoint has the same on every device, with its
  layers stacked or not.

  >>> one = {"layers": {"w": np.ones((2, 3), np.float32)}}
  >>> other = {f"layers_{i}": {"w": np.ones(3, np.float32)} for i in (0, 1)}
  >>> fingerprint(one) == fingerprint(other)
  True
  """
  flat = trees.flatten(params)
  return combined(x for name, array in flat.items() for x in of(name, array))


def of(name: str, array: Any) -> list[tuple[str, bytes]]:
  """The part of a fingerprint that is one parameter's, or its layers'."""
  if not trees.is_stacked(name):
    return [(name, _digest(array))]
  return [
    (trees.unstacked(name, i), _digest(array[i])) for i in range(len(array))
  ]


def combined(parts: Iterable[tuple[str, bytes]]) -> str:
  """The fingerprint of all parts, in any order."""
  digest = hashlib.sha256()
  for name, own in sorted(parts):
    digest.update(name.encode() + b"\0" + own)
  return digest.hexdigest()[:8]


def _digest(array) -> bytes:
  step = max(1, array.size // SAMPLED)
  digest = hashlib.sha256(f"{tuple(array.shape)}".encode())
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    whole = jax.sharding.NamedSharding(
      array.sharding.mesh, jax.sharding.PartitionSpec()
    )
    array = jax.jit(lambda x: x.reshape(-1)[::step], out_shardings=whole)(array)
    sample = np.asarray(array.addressable_data(0))
  else:
    sample = np.asarray(array.reshape(-1)[::step])
  # The same numbers in 16 bits have the same fingerprint.
  digest.update(sample.astype(np.float32).tobytes())
  return digest.digest()
