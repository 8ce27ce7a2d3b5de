"""Where a model's arrays lie on a mesh, said by whoever traces the model.

A model names the axes of its activations and of the weights it multiplies by;
`training/sharding.py` knows the mesh and what each name means there. Without a
`Placement`, on one device, every function here returns what it was given.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Axes = tuple[str | None, ...]


class Placement(Protocol):
  """What a mesh says of logical axes.

  Attributes:
    parts: devices over which the logits of a batch are spread.
    platform: of these devices, as jax names it.
  """

  parts: int
  platform: str

  def share(self, axis: str) -> int:
    """How many parts an axis is split into."""

  def per_device(
    self, function: Callable, inputs: Sequence[Axes], output: Axes
  ) -> Callable:
    """The function on each device's part of its arrays."""

  def activation(self, x: Array, axes: Axes) -> Array:
    """The array, constrained to lie as its axes say."""

  def stored(self, x: Array, axes: Axes) -> Array:
    """A parameter, or its gradient, as it lies in memory between steps."""

  def used(self, x: Array, axes: Axes) -> Array:
    """A parameter as a product reads it: whole but for `tensor`'s share."""

  def lookup(self, table: Array, tokens: Array, dtype: Any) -> Array:
    """Rows of a table of axes `vocab`, `embed`, for tokens of a batch."""

  def gradients(self, tree: Any) -> Any:
    """A tree like the parameters, constrained to lie as they do."""

  def put(self, x: np.ndarray, axes: Axes) -> Array:
    """An array that every process has, on the devices."""

  def decoding(self, rows: bool) -> "Placement":
    """As `placement.decoding` says."""

  def rows(self, count: int) -> tuple[str, ...]:
    """The mesh's axes that split a batch of so many rows."""


_current: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
  "placement", default=None
)


@contextlib.contextmanager
def placed_by(placement: Placement | None) -> Iterator[None]:
  """While tracing inside, models lay their arrays out by `placement`."""
  token = _current.set(placement)
  try:
    yield
  finally:
    _current.reset(token)


def current() -> Placement | None:
  """What `placed_by` was given.

  A program is kept for equal arguments, so whoever has one compiled for
  arrays on a mesh gives it this as a static argument.
  """
  return _current.get()


@contextlib.contextmanager
def decoding(*, rows: bool = True) -> Iterator[None]:
  """While tracing inside, weights stay where they lie.

  The activations of one token of each row are small beside the weights, which
  training and ranking bring together over `fsdp`: here each device multiplies
  by its share and the results are added up (Pope et al. 2022,
  arXiv:2211.05102, section 3.2.2). `fsdp` splits no rows then: each of its
  devices has the keys and values of them all.

  Args:
    rows: split over `data`; False: whole, or split by who maps over them.
  """
  placement = _current.get()
  with placed_by(None if placement is None else placement.decoding(rows)):
    yield


def put(x: np.ndarray, *axes: str | None) -> Array | np.ndarray:
  """An array of the host where its logical axes say; as it is without a mesh.

  >>> put(np.ones((2, 3)), "batch", None).shape
  (2, 3)

  Args:
    x: the same in every process.
    *axes: one an axis; one that the mesh does not divide stays whole.
  """
  placement = _current.get()
  return x if placement is None else placement.put(x, axes)


def over_rows(
  function: Callable, count: int, in_axes: Any, out_axes: Any
) -> Callable:
  """`jax.vmap` over `count` rows, which stay where `batch` has them.

  Inside, no array has rows, so that none is split by them.
  """
  placement = _current.get()
  names = () if placement is None else placement.rows(count)

  def one(*args):
    with decoding(rows=False):
      return function(*args)

  return jax.vmap(one, in_axes, out_axes, spmd_axis_name=names or None)


def constrain(x: Array, *axes: str | None) -> Array:
  """An activation where its logical axes say; None is not split.

  >>> constrain(jnp.ones((2, 3)), "batch", None).shape
  (2, 3)

  Args:
    x: an array with one axis a name.
    *axes: `batch`, `length`, `heads`, `mlp`, `vocab`, or None.
  """
  placement = _current.get()
  return x if placement is None else placement.activation(x, axes)


def whole(x: Array) -> Array:
  """An array that every device has, and so every process can read."""
  return constrain(x, *[None] * x.ndim)


def round_up(rows: int) -> int:
  """The fewest rows, from `rows` on, that the mesh divides."""
  parts = share("batch")
  return -(-rows // parts) * parts


def gather(weight: Array, axes: Axes) -> Array:
  """A weight brought together over `fsdp` just before it is multiplied by.

  Its gradient is scattered again at once, so that neither a whole weight nor a
  whole gradient outlives the layer that needs it (Rajbhandari et al. 2020,
  arXiv:1910.02054, stage 3).

  Args:
    weight: in the type of the product, so that half as much is sent.
    axes: its logical axes; none: an array without a place of its own.
  """
  placement = _current.get()
  if placement is None or not axes:
    return weight
  return _gather(weight, placement, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(weight, placement, axes):
  # Twice: a cast before it then happens on the small part.
  return placement.used(placement.stored(weight, axes), axes)


def _gather_fwd(weight, placement, axes):
  return _gather(weight, placement, axes), None


def _gather_bwd(placement, axes, _, gradient):
  return (placement.stored(gradient, axes),)


_gather.defvjp(_gather_fwd, _gather_bwd)


def enter(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
  """What a layer's first products read: whole along the length.

  Between layers the length is split over `tensor`; here it is brought
  together, and the gradient split again (Korthikanti et al. 2022,
  arXiv:2205.05198, section 4.2.2).
  """
  return _turn(x_BTD, ("batch", None, None), ("batch", "length", None))


def leave(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
  """What a layer's last product gives, split along the length: see `enter`."""
  return _turn(x_BTD, ("batch", "length", None), ("batch", None, None))


def _turn(x, forward, backward):
  placement = _current.get()
  return x if placement is None else _turned(x, placement, forward, backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _turned(x, placement, forward, backward):
  del backward
  return placement.activation(x, forward)


def _turned_fwd(x, placement, forward, backward):
  return _turned(x, placement, forward, backward), None


def _turned_bwd(placement, forward, backward, _, gradient):
  del forward
  return (placement.activation(gradient, backward),)


_turned.defvjp(_turned_fwd, _turned_bwd)


def lookup(
  table_VD: Float[Array, "V D"],
  tokens: Int[Array, "*b"],
  dtype: Any,
  prompt_BPD: Float[Array, "B P D"] | None = None,
) -> Float[Array, "*b D"]:
  """Rows of an embedding; NaN for an id outside it, not another's row.

  >>> lookup(jnp.eye(2), jnp.array([1, 0, 2]), "float32").tolist()
  [[0.0, 1.0], [1.0, 0.0], [nan, nan]]

  Args:
    table_VD: the embedding.
    tokens: ids.
    dtype: of the result.
    prompt_BPD: further vectors of each row of tokens [B, T]: V + p is the id
      of vector p.
  """
  placement = _current.get()
  if prompt_BPD is not None:
    V, P = table_VD.shape[0], prompt_BPD.shape[1]
    place_BT1 = (tokens - V)[..., None]
    inside_BT1 = (place_BT1 >= 0) & (place_BT1 < P)
    tokens = jnp.where(inside_BT1[..., 0], 0, tokens)
    vector_BTD = jnp.take_along_axis(
      prompt_BPD.astype(dtype), jnp.clip(place_BT1, 0, P - 1), axis=1
    )
    x_BTD = lookup(table_VD, tokens, dtype)
    return jnp.where(inside_BT1, vector_BTD, x_BTD)
  if placement is not None:
    return placement.lookup(table_VD, tokens, dtype)
  return jnp.take(table_VD, tokens, axis=0, mode="fill").astype(dtype)


def gradients(tree: Any) -> Any:
  """Gradients where the parameters lie."""
  placement = _current.get()
  return tree if placement is None else placement.gradients(tree)


def parts() -> int:
  """Devices over which the logits of a batch are spread; 1 without a mesh."""
  placement = _current.get()
  return 1 if placement is None else placement.parts


def platform() -> str:
  """What the program will run on: "cpu", "gpu" or "tpu"."""
  placement = _current.get()
  return jax.default_backend() if placement is None else placement.platform


def share(axis: str) -> int:
  """How many parts a mesh splits an axis into; 1 without a mesh."""
  placement = _current.get()
  return 1 if placement is None else placement.share(axis)


def per_device(
  function: Callable, inputs: Sequence[Axes], output: Axes
) -> Callable:
  """The function on each device's part, for what cannot be partitioned.

  Args:
    function: of arrays, one for each of `inputs`.
    inputs: logical axes of each; the mesh divides those that it splits.
    output: logical axes of the result.
  """
  placement = _current.get()
  if placement is None:
    return function
  return placement.per_device(function, inputs, output)
