"""Where XLA's CPU backend gets the memory of a step from.

It asks for the temporaries of a step in one piece of hundreds of megabytes and
gives it back when the step ends. glibc maps such a piece afresh each time, and
the kernel then clears and maps every page again: a fifth of the CPU time of a
step of 1.7 s in `tests/benchmarks/step.py`.
"""

import ctypes
import math
import sys
from typing import Any

import jax

# Bytes from which glibc maps every piece afresh, whatever was freed before
# (DEFAULT_MMAP_THRESHOLD_MAX). Smaller steps gain nothing from what is below,
# and one heap for all threads slows the input: 14-17k tokens a second instead
# of 17-19k with the 1.8M-parameter model.
ALWAYS_MAPPED = 32 * 2**20

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def for_model(model: Any) -> None:
  """`keep_freed_memory` if a step's arrays are as large as `ALWAYS_MAPPED`.

  They are where the parameters are: each has a gradient.

  Args:
    model: has `init(rng)`; only its shapes are looked at.
  """
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
  numbers = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
  if 4 * numbers > ALWAYS_MAPPED:
    keep_freed_memory()


def keep_freed_memory() -> bool:
  """Tells glibc to keep what is freed for the next step, in one heap.

  For a process that trains: its size stays that of its largest moment. Call it
  before jax computes anything; a thread that has allocated keeps its own heap.

  Returns:
    Whether it was done: False where the C library is not glibc, which is left
    as it is.
  """
  if not sys.platform.startswith("linux"):
    return False
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return False
  options = (
    (_M_ARENA_MAX, 1),
    (_M_MMAP_MAX, 0),
    (_M_TRIM_THRESHOLD, 2**31 - 1),
    (_M_TOP_PAD, 2**28),
  )
  return all(mallopt(name, value) == 1 for name, value in options)
