"""(IA)3: what a layer gives or reads, times a trained vector.

Liu et al. 2022 (arXiv:2205.05638), section 3.3: keys, values and what the last
kernel of an mlp reads are multiplied, entry by entry, by vectors that begin as
ones. Everything else is as of LoRA (`lora.py`): the base may be in few bits,
checkpoints hold the vectors alone.

    model = Ia3().on(DecoderOnly(config))
    params["ia3"]["decoder"]["layers_0"]["mlp"]["wo"]["ia3_input"]      # [F]

d and f are the widths of a layer's input and output.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.struct
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from flan_jax.errors import UserError
from flan_jax.models import adapted as adapted_lib
from flan_jax.models import lora, quantised
from flan_jax.models import targets as targets_lib

KEY = "ia3"
SIDES = ("ia3_input", "ia3_output")


@flax.struct.dataclass
class Scaled:
  """What one layer does: its input or its output, times a vector."""

  vector: Float[Array, " d"] | Float[Array, " f"]
  side: str = flax.struct.field(pytree_node=False)

  def __call__(
    self,
    x: Float[Array, "*b d"],
    product: Callable[[Array], Array],
    rng: Array | None,
    axes: tuple[str, ...],
  ) -> Float[Array, "*b f"]:
    """Product(x * vector), or product(x) * vector, as `dense.Dense` asks."""
    del rng, axes
    vector = self.vector.astype(x.dtype)
    if self.side == "ia3_input":
      return product(x * vector)
    return product(x) * vector


@dataclasses.dataclass(frozen=True)
class Ia3(adapted_lib.Options):
  r"""The options of gin/adapters/ia3.gin.

  Attributes:
    outputs: regex of the whole names of kernels whose output is multiplied.
    inputs: of those whose input is; None: of none.
    base_type, base_rest: as of `lora.Lora`.

  Raises:
    UserError: no regular expression, or an unknown type.
  """

  key: ClassVar[str] = KEY
  label: ClassVar[str] = "IA3"
  outputs: str = r".*(key|value)/kernel"
  inputs: str | None = r".*mlp/wo/kernel"
  base_type: str | None = None
  base_rest: str = "float32"

  def __post_init__(self):
    targets_lib.check(self.outputs, "IA3_OUTPUTS")
    if self.inputs is not None:
      targets_lib.check(self.inputs, "IA3_INPUTS")
    quantised.check(self.base_type, self.base_rest)

  def on(self, model: Any, vocabulary: Any = None) -> "WithIa3":
    """The model with vectors of these options.

    >>> from flan_jax.models import decoder
    >>> c = decoder.DecoderConfig(vocab_size=8, num_layers=1, num_heads=2)
    >>> Ia3(inputs=None).on(decoder.DecoderOnly(c)).targets
    {'decoder/layers_0/self_attention/key/ia3_output': (128,), \
'decoder/layers_0/self_attention/value/ia3_output': (128,)}

    Raises:
      UserError: a regex that matches no kernel of a layer, or something else,
        or a kernel that the other one matches too.
    """
    del vocabulary
    adapted = WithIa3(model, self)
    _ = adapted.targets  # says what is wrong with them
    return adapted


@dataclasses.dataclass(frozen=True)
class WithIa3(lora.WithLora):
  """A model and its vectors; has the interface of a model."""

  options: Ia3
  made_by: ClassVar[type[adapted_lib.Options]] = Ia3
  key: ClassVar[str] = KEY
  trainable: ClassVar[str] = rf"{KEY}/.*"

  @functools.cached_property
  def targets(self) -> dict[str, tuple[int, ...]]:
    """Each vector, as it is named below "ia3" -> its shape."""
    o, found = self.options, {}
    outputs = targets_lib.find(self.base, o.outputs, "IA3_OUTPUTS")
    inputs = {}
    if o.inputs is not None:
      inputs = targets_lib.find(self.base, o.inputs, "IA3_INPUTS")
    both = sorted(outputs.keys() & inputs.keys())
    if both:
      raise UserError(
        f"IA3_OUTPUTS and IA3_INPUTS both match {both[0]}; a kernel has one"
        " vector: say in one of them alone."
      )
    for name, (*stack, d, f) in (inputs | outputs).items():
      scope = name.removesuffix("/kernel")
      side, width = ("ia3_input", d) if name in inputs else ("ia3_output", f)
      found[f"{scope}/{side}"] = (*stack, width)
    return found

  def initial(
    self, rng: Array, base_params: Any = None, saved: Any = None
  ) -> lora.Params:
    """Ones, so that logits are the base's."""
    del rng, base_params, saved
    ones = {name: jnp.ones(shape) for name, shape in self.targets.items()}
    return traverse_util.unflatten_dict(ones, sep="/")

  def check_same(self, described: Mapping[str, Any], where: Any) -> None:
    """Nothing but the vectors' names and shapes matters."""

  def _adapter(self, node):
    for side in SIDES:
      if side in node:
        return Scaled(node[side], side)
    return None
