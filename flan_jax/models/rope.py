"""Rotary position embeddings and their scalings to longer contexts.

Su et al. 2021 (arXiv:2104.09864) section 3.4.2, with a head's first half
paired with its second, as checkpoints in the Hugging Face layout have it.

B batch, T target, H heads, K size per head.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flan_jax.errors import UserError, check_known

# Which fields a kind reads: (needed, further).
KINDS = {
  "linear": (("factor",), ()),
  "dynamic": (("factor", "original_max_position"), ()),
  "yarn": (
    ("factor", "original_max_position"),
    (
      "attention_factor",
      "beta_fast",
      "beta_slow",
      "mscale",
      "mscale_all_dim",
      "truncate",
    ),
  ),
  "longrope": (
    ("factor", "original_max_position", "short_factor", "long_factor"),
    ("attention_factor",),
  ),
  "llama3": (
    ("factor", "original_max_position", "low_freq_factor", "high_freq_factor"),
    (),
  ),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How a model trained on short contexts reads long ones.

  >>> RopeScaling("linear", factor=4.0).depends_on_length
  False

  Attributes:
    kind: "linear" divides every frequency by `factor` (Chen et al. 2023,
      arXiv:2306.15595); "dynamic" raises the base with the length beyond
      `original_max_position`; "yarn" divides low frequencies only (Peng et al.
      2023, arXiv:2309.00071); "longrope" divides each frequency by its
      `short_factor` or, beyond `original_max_position`, its `long_factor`
      (Ding et al. 2024, arXiv:2402.13753); "llama3" divides frequencies of
      wavelengths over original_max_position / low_freq_factor and blends up to
      original_max_position / high_freq_factor.
    factor: how many times longer the contexts are.
    original_max_position: tokens that the model was trained on.
    attention_factor: multiplies sines and cosines; None: the papers' function
      of `factor` (yarn, longrope).
    beta_fast, beta_slow: turns over the trained context between which yarn
      blends; None: 32 and 1.
    mscale, mscale_all_dim: yarn's attention factor as a ratio; both or none.
    truncate: whether yarn's blend begins and ends at whole dimensions; None:
      True.
    short_factor, long_factor: one per frequency, K / 2.
    low_freq_factor, high_freq_factor: of llama3.

  Raises:
    UserError: an unknown kind, a field the kind needs and has not, or a field
      it does not read.
  """

  kind: str
  factor: float | None = None
  original_max_position: int | None = None
  attention_factor: float | None = None
  beta_fast: float | None = None
  beta_slow: float | None = None
  mscale: float | None = None
  mscale_all_dim: float | None = None
  truncate: bool | None = None
  short_factor: tuple[float, ...] | None = None
  long_factor: tuple[float, ...] | None = None
  low_freq_factor: float | None = None
  high_freq_factor: float | None = None

  def __post_init__(self):
    check_known("RopeScaling.kind", self.kind, KINDS)
    for name in ("short_factor", "long_factor"):
      if getattr(self, name) is not None:
        object.__setattr__(self, name, tuple(getattr(self, name)))
    needed, further = KINDS[self.kind]
    for field in dataclasses.fields(self)[1:]:
      value = getattr(self, field.name)
      if value is None and field.name in needed:
        raise UserError(
          f"RopeScaling of kind {self.kind!r} needs {field.name}; set it."
        )
      if value is not None and field.name not in needed + further:
        raise UserError(
          f"RopeScaling.{field.name} is {value!r}, which the kind"
          f" {self.kind!r} does not read. Leave it out; it reads"
          f" {', '.join(needed + further)}."
        )
    if self.factor < 1.0:
      raise UserError(
        f"RopeScaling.factor is {self.factor}; it must be 1 or more."
      )
    if (self.mscale is None) != (self.mscale_all_dim is None):
      raise UserError(
        "RopeScaling.mscale and mscale_all_dim go together: set both or none."
      )

  @property
  def depends_on_length(self) -> bool:
    """Whether a token's rotation depends on how long its text is."""
    return self.kind in ("dynamic", "longrope")


def amplitude(scaling: RopeScaling | None) -> float:
  """What sines and cosines are multiplied by."""
  if scaling is None or scaling.kind not in ("yarn", "longrope"):
    return 1.0
  if scaling.attention_factor is not None:
    return scaling.attention_factor
  if scaling.factor <= 1.0:
    return 1.0
  log = math.log(scaling.factor)
  if scaling.kind == "longrope":
    return math.sqrt(1.0 + log / math.log(scaling.original_max_position))
  if scaling.mscale is None:
    return 0.1 * log + 1.0
  return (0.1 * scaling.mscale * log + 1.0) / (
    0.1 * scaling.mscale_all_dim * log + 1.0
  )


def frequencies(
  head_dim: int,
  theta: float,
  scaling: RopeScaling | None = None,
  length: Int[Array, "*b"] | int | None = None,
) -> Float[Array, "*b K/2"]:
  """Radians per position of each pair of dimensions, float32.

  >>> frequencies(4, 10_000.0)
  array([1.  , 0.01], dtype=float32)

  Args:
    head_dim: K, even.
    theta: the base.
    scaling: to longer contexts.
    length: tokens of the text that a position belongs to, for scalings that
      depend on it.

  Returns:
    numpy's array unless the scaling depends on the length.
  """
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
  plain = (1.0 / np.float64(theta) ** exponent).astype(np.float32)
  if scaling is None:
    return plain
  if scaling.kind == "linear":
    return (plain / scaling.factor).astype(np.float32)
  if scaling.kind == "yarn":
    return _yarn(head_dim, theta, scaling, plain)
  if scaling.kind == "llama3":
    return _llama3(scaling, plain)
  if length is None:
    raise ValueError(f"The scaling {scaling.kind} needs a length.")
  length = jnp.asarray(length, jnp.float32)[..., None]
  most = scaling.original_max_position
  if scaling.kind == "longrope":
    short, long = (
      np.asarray(x, np.float32)
      for x in (scaling.short_factor, scaling.long_factor)
    )
    return plain / jnp.where(length > most, long, short)
  factor = scaling.factor
  growth = factor * jnp.maximum(length, most) / most - (factor - 1.0)
  # (theta * growth ** (K / (K - 2))) ** -exponent
  return plain * growth ** (-exponent * (head_dim / (head_dim - 2)))


def _yarn(head_dim, theta, scaling, plain):
  def dimension(turns):
    wavelengths = scaling.original_max_position / (turns * 2 * math.pi)
    return head_dim * math.log(wavelengths) / (2 * math.log(theta))

  low = dimension(scaling.beta_fast or 32.0)
  high = dimension(scaling.beta_slow or 1.0)
  if scaling.truncate is None or scaling.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, head_dim - 1)
  high += 0.001 if low == high else 0.0
  ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0.0, 1.0)
  blend = plain * (1.0 - ramp) + plain / scaling.factor * ramp
  return blend.astype(np.float32)


def _llama3(scaling, plain):
  turns = scaling.original_max_position * plain / (2 * math.pi)
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
  blend = plain * smooth + plain / scaling.factor * (1.0 - smooth)
  return blend.astype(np.float32)


def angles(
  positions: Int[Array, "*b T"],
  head_dim: int,
  theta: float,
  scaling: RopeScaling | None = None,
  length: Int[Array, "*b T"] | None = None,
) -> tuple[Float[Array, "*b T K/2"], Float[Array, "*b T K/2"]]:
  """Cosines and sines of positions, float32, for `rotate`."""
  radians = positions.astype(jnp.float32)[..., None] * frequencies(
    head_dim, theta, scaling, length
  )
  factor = amplitude(scaling)
  return factor * jnp.cos(radians), factor * jnp.sin(radians)


def rotate(
  x_BTHK: Float[Array, "B T H K"],
  cos_BTk: Float[Array, "#B T K/2"],
  sin_BTk: Float[Array, "#B T K/2"],
) -> Float[Array, "B T H K"]:
  """Turns each pair (k, k + K/2) of a head by its position's angle.

  >>> cos, sin = angles(jnp.array([[0, 1]]), 2, 10_000.0)
  >>> rotate(jnp.ones((1, 2, 1, 2)), cos, sin)[0, :, 0].round(2).tolist()
  [[1.0, 1.0], [-0.3..., 1.38...]]

  In float32; the result has the type of `x`.
  """
  a, b = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos_BTk[:, :, None], sin_BTk[:, :, None]
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return turned.astype(x_BTHK.dtype)
