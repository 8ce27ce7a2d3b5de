"""Kernels in 4 or 8 bits, for a base that is frozen (QLoRA).

A stored kernel is a small dict of arrays in the place of the kernel [d, f], so
that a tree of them is saved, sharded and scanned like any other:

  nf4          uint8 [d/block, block/2, f]: two codes a byte, the first half of
               a block in the low bits
  scale        of each block's largest number: [d/block, f]
  scale_low, scale_step  of groups of 8-bit scales: [d/block, f/group]

  int8         [d, f], and scale [f], one of each output

A block is 64 inputs of one output. NF4: Dettmers et al. 2023
(arXiv:2305.14314), section 3; 8-bit with one scale of an output: Dettmers et
al. 2022 (arXiv:2208.07339), section 2. Products are of the dequantised
kernel, which lives while one layer runs, forwards and again backwards.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flan_jax.errors import UserError, check_known
from flan_jax.models import placement

KINDS = ("nf4", "int8")
BLOCK = 64
# Scales that share a lowest one and a step.
GROUP = 256

# Quantiles of a normal distribution, made to have a 0 and to end at -1 and 1
# (QLoRA, appendix E).
NF4 = (
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
)

Stored = Mapping[str, Array]
Params = Mapping[str, Any]


def check(base_type: str | None, base_rest: str) -> None:
  """Refuses types of a stored base that there are not.

  Args:
    base_type: of the kernels of layers; None: as they are.
    base_rest: of embedding and head.

  Raises:
    UserError: an unknown type, or one that has no effect.
  """
  if base_type is not None:
    check_known("BASE_TYPE", base_type, KINDS)
  check_known("BASE_REST", base_rest, ("float32", "bfloat16"))
  if base_type is None and base_rest != "float32":
    raise UserError(
      f"BASE_REST={base_rest!r} has no effect on a base that is not quantised:"
      " give a BASE_TYPE, or leave it out."
    )


def quantise(kernel: Float[Array, "d f"], kind: str) -> dict[str, Array]:
  """A kernel in fewer bits.

  >>> kernel = jnp.linspace(-1, 1, 128 * 2).reshape(128, 2)
  >>> stored = quantise(kernel, "nf4")
  >>> {name: (str(x.dtype), x.shape) for name, x in stored.items()}
  {'nf4': ('uint8', (2, 32, 2)), 'scale': ('float32', (2, 2))}

  Where f has a divisor from 32 to 256, scales are of 8 bits themselves (double
  quantisation): between the smallest and the largest of a group in 255 steps,
  which is nearer than the paper's 8-bit floats around a mean. A width d that
  64 does not divide has smaller blocks.

  Args:
    kernel: any type; numbers are read as float32.
    kind: "nf4" or "int8".

  Raises:
    UserError: another kind, or for nf4 an odd d.
  """
  check_known("the type of a quantised kernel", kind, KINDS)
  kernel = jnp.asarray(kernel, jnp.float32)
  if kind == "int8":
    largest = jnp.max(jnp.abs(kernel), axis=0)
    scale = jnp.where(largest > 0, largest / 127.0, 1.0)
    return {"int8": jnp.round(kernel / scale).astype(jnp.int8), "scale": scale}
  d, f = kernel.shape
  block = _block(d)
  blocks = kernel.reshape(d // block, block, f)
  scale = jnp.max(jnp.abs(blocks), axis=1)
  scales = _quantised_scale(scale)
  # Codes are of the scales as they will be read.
  scale = _scale(scales)
  unit = blocks / jnp.where(scale > 0, scale, 1.0)[:, None]
  between = (np.asarray(NF4[1:]) + np.asarray(NF4[:-1])) / 2
  codes = jnp.searchsorted(
    jnp.asarray(between, jnp.float32), unit, side="right"
  ).astype(jnp.uint8)
  low, high = jnp.split(codes, 2, axis=1)
  return {"nf4": low | (high << 4), **scales}


def is_kernel(name: str) -> bool:
  """Whether a parameter is the kernel of a layer, what `tree` quantises.

  >>> is_kernel("decoder/layers_0/mlp/wo/kernel")
  True
  >>> is_kernel("decoder/logits_dense/kernel")
  False
  """
  return re.search(r"(^|/)layers(_\d+)?/.*kernel$", name) is not None


def is_rest(name: str, rest: str) -> bool:
  """Whether a parameter is one of the other matrices, and gets a new type."""
  last = name.split("/")[-1]
  matrix = last in ("kernel", "embedding") and not is_kernel(name)
  return matrix and rest != "float32"


def one(name: str, x: Array, kind: str, rest: str = "float32") -> Any:
  """One parameter as it is stored; see `tree`."""
  if is_kernel(name):
    function = functools.partial(quantise, kind=kind)
    return function(x) if x.ndim == 2 else jax.vmap(function)(x)
  return x.astype(rest) if is_rest(name, rest) else x


def tree(params: Params, kind: str, rest: str = "float32") -> dict[str, Any]:
  """Parameters with the kernels of layers quantised, stacked layers too.

  Args:
    params: of a model, nested.
    kind: "nf4" or "int8".
    rest: type of embedding and head; norms and biases stay.
  """

  def stored(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return one(name, x, kind, rest)

  return jax.tree_util.tree_map_with_path(stored, dict(params))


def numbers(params: Params) -> int:
  """How many parameters a tree stands for, however they are stored.

  >>> kernel = jnp.ones((64, 8))
  >>> numbers({"layers_0": {"kernel": quantise(kernel, "nf4")}})
  512
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(dict(params))
  total = 0
  for path, x in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name.endswith("kernel/nf4"):
      total += 2 * x.size
    elif not re.search(r"kernel/scale(_low|_step)?$", name):
      total += x.size
  return total


def dequantise(stored: Stored, dtype: Any = jnp.float32) -> Float[Array, "d f"]:
  """The kernel that is stored, nearly.

  >>> kernel = jnp.array([[0.5, 1.0], [-0.5, 0.1]])
  >>> dequantise(quantise(kernel, "nf4")).round(2).tolist()
  [[0.5, 1.0], [-0.5, 0.07999999821186066]]
  """
  if "int8" in stored:
    return (stored["int8"].astype(jnp.float32) * stored["scale"]).astype(dtype)
  codes = stored["nf4"]
  scale = _scale(stored)[:, None]
  # A gather, no tree of `where`s: constants as large as codes are the same for
  # every layer of a scan, which then keeps them from pass to pass.
  levels = jnp.asarray(NF4, jnp.float32)
  halves = [levels[c] * scale for c in (codes & 15, codes >> 4)]
  kernel = jnp.concatenate(halves, axis=1).astype(dtype)
  return kernel.reshape(-1, codes.shape[-1])


def project(
  stored: Stored, x: Float[Array, "*b d"], axes: tuple[str, ...] = ()
) -> Float[Array, "*b f"]:
  """X @ the stored kernel, which has no gradient.

  Args:
    stored: of `quantise`.
    x: in the type of the product.
    axes: the kernel's logical axes, see `placement.gather`.
  """
  return _project(x, dict(stored), axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _project(x, stored, axes):
  return x @ _gathered(stored, x.dtype, axes)


def _project_fwd(x, stored, axes):
  return _project(x, stored, axes), stored


def _project_bwd(axes, stored, gradient):
  # Else XLA would find the kernel of the forward pass again, and so keep it.
  stored, gradient = jax.lax.optimization_barrier((stored, gradient))
  return gradient @ _gathered(stored, gradient.dtype, axes).T, None


_project.defvjp(_project_fwd, _project_bwd)


def _gathered(stored, dtype, axes):
  return placement.gather(dequantise(stored, dtype), axes)


def _block(d: int) -> int:
  if d % 2:
    raise UserError(
      f"a kernel of {d} inputs cannot be stored as 'nf4', which puts two"
      " numbers into a byte: it needs an even width. Use 'int8'."
    )
  return max(n for n in range(2, BLOCK + 1, 2) if d % n == 0)


def _quantised_scale(scale):
  f = scale.shape[1]
  group = max(n for n in range(1, GROUP + 1) if f % n == 0)
  if group < 32:
    return {"scale": scale}
  grouped = scale.reshape(len(scale), f // group, group)
  low, high = jnp.min(grouped, axis=-1), jnp.max(grouped, axis=-1)
  step = (high - low) / 255.0
  codes = (grouped - low[..., None]) / jnp.where(step > 0, step, 1)[..., None]
  codes = jnp.round(codes).astype(jnp.uint8).reshape(scale.shape)
  return {"scale": codes, "scale_low": low, "scale_step": step}


def _scale(stored):
  scale = stored["scale"]
  if "scale_low" not in stored:
    return scale
  low = stored["scale_low"]
  grouped = scale.astype(jnp.float32).reshape(*low.shape, -1)
  grouped = grouped * stored["scale_step"][..., None] + low[..., None]
  return grouped.reshape(scale.shape)
