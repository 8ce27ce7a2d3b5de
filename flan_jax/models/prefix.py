"""Prefix tuning: trained keys and values that every layer's queries read.

Li & Liang 2021 (arXiv:2101.00190), section 4. A prefix has no place: it is the
same for every token of every text of a row, so that rows may be packed, and
caches hold the tokens alone. Everything else is as of LoRA (`lora.py`): the
base may be in few bits, checkpoints hold the prefix alone.

    model = Prefix(length=10).on(DecoderOnly(config))
    params["prefix"]["decoder"]["layers_0"]["self_attention"]["prefix_key"]

P positions of a prefix, f = G K the width of keys, B batch, S source, T target,
G kv-heads, K head size.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Bool, Float

from flan_jax.errors import UserError
from flan_jax.models import adapted as adapted_lib
from flan_jax.models import lora, quantised
from flan_jax.models import targets as targets_lib

KEY = "prefix"
PARTS = ("prefix_key", "prefix_value")
# Keys near 0 take a query's attention evenly, and values near 0 add little.
START = 0.02


@flax.struct.dataclass
class KeysValues:
  """What one attention reads before its own keys and values.

  Attributes:
    key, value: [P, f]; or [B, P, f], of each example its own (`lora.choose`).
  """

  key: Float[Array, "P f"] | Float[Array, "B P f"]
  value: Float[Array, "P f"] | Float[Array, "B P f"]

  def __call__(
    self,
    key_BSGK: Float[Array, "B S G K"],
    value_BSGK: Float[Array, "B S G K"],
    mask_BTS: Bool[Array, "#B T S"],
    bias_HTS: Float[Array, "H T S"] | None,
  ) -> tuple[Array, Array, Array, Array | None]:
    """Keys, values, mask and bias of S + P positions, for `attend`."""
    P = self.key.shape[-2]
    before = ((0, 0), (0, 0), (P, 0))
    mask = jnp.pad(mask_BTS, before, constant_values=True)
    bias = None if bias_HTS is None else jnp.pad(bias_HTS, before)
    key = _in_front(self.key, key_BSGK)
    return key, _in_front(self.value, value_BSGK), mask, bias


def _in_front(own, x_BSGK):
  B, _, G, K = x_BSGK.shape
  own = own.astype(x_BSGK.dtype).reshape(-1, own.shape[-2], G, K)
  own = jnp.repeat(own, B // len(own), axis=0)
  return jnp.concatenate([own, x_BSGK], axis=1)


@dataclasses.dataclass(frozen=True)
class Prefix(adapted_lib.Options):
  """The options of gin/adapters/prefix.gin.

  Attributes:
    length: P, positions of the prefix of each attention.
    targets: regex of the whole names of the kernels of keys whose attention
      gets one.
    base_type, base_rest: as of `lora.Lora`.

  Raises:
    UserError: a length below 1, no regular expression, or an unknown type.
  """

  key: ClassVar[str] = KEY
  label: ClassVar[str] = "prefix tuning"
  length: int = 10
  targets: str = r".*/key/kernel"
  base_type: str | None = None
  base_rest: str = "float32"

  def __post_init__(self):
    if self.length < 1:
      raise UserError(
        f"PREFIX_LENGTH={self.length} positions; it must be 1 or more."
      )
    targets_lib.check(self.targets, "PREFIX_TARGETS")
    quantised.check(self.base_type, self.base_rest)

  def on(self, model: Any, vocabulary: Any = None) -> "WithPrefix":
    """The model with a prefix of these options.

    >>> from flan_jax.models import decoder
    >>> c = decoder.DecoderConfig(vocab_size=8, num_layers=1, num_heads=2)
    >>> Prefix(3).on(decoder.DecoderOnly(c)).targets
    {'decoder/layers_0/self_attention/prefix_key': (3, 128), \
'decoder/layers_0/self_attention/prefix_value': (3, 128)}

    Raises:
      UserError: `targets` matches no kernel of keys, or something else too.
    """
    del vocabulary
    adapted = WithPrefix(model, self)
    _ = adapted.targets  # says what is wrong with them
    return adapted


@dataclasses.dataclass(frozen=True)
class WithPrefix(lora.WithLora):
  """A model and the prefixes of its layers; has the interface of a model."""

  options: Prefix
  made_by: ClassVar[type[adapted_lib.Options]] = Prefix
  key: ClassVar[str] = KEY
  trainable: ClassVar[str] = rf"{KEY}/.*"

  @functools.cached_property
  def targets(self) -> dict[str, tuple[int, ...]]:
    """Each array, as it is named below "prefix" -> its shape."""
    o = self.options
    kernels = targets_lib.find(self.base, o.targets, "PREFIX_TARGETS")
    out = {}
    for name, (*stack, _, width) in kernels.items():
      scope = name.removesuffix("/key/kernel")
      if scope == name:
        raise UserError(
          f"PREFIX_TARGETS={o.targets!r} matches {name}, which makes no keys:"
          " give names that end in key/kernel alone."
        )
      for part in PARTS:
        out[f"{scope}/{part}"] = (*stack, o.length, width)
    return out

  def initial(
    self, rng: Array, base_params: Any = None, saved: Any = None
  ) -> lora.Params:
    """Normal numbers of the deviation `START`."""
    del base_params, saved
    keys = jax.random.split(rng, len(self.targets))
    arrays = {
      name: START * jax.random.normal(key, shape)
      for key, (name, shape) in zip(keys, self.targets.items(), strict=True)
    }
    return traverse_util.unflatten_dict(arrays, sep="/")

  def check_same(self, described: Mapping[str, Any], where: Any) -> None:
    """Refuses a saved prefix of another length; both are named."""
    said, own = Prefix.of(described).length, self.options.length
    if said != own:
      raise UserError(
        f"{where} is a prefix of {said} positions; ADAPTER has {own}: set"
        f" PREFIX_LENGTH={said}."
      )

  def _adapter(self, node):
    if PARTS[0] not in node:
      return None
    return KeysValues(*(node[part] for part in PARTS))
