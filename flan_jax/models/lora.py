"""LoRA: a product of two thin matrices beside kernels that are frozen.

Hu et al. 2021 (arXiv:2106.09685), section 4.1: a layer x W becomes
x W + (alpha / r) x A B with A [d, r], B [r, f] and B = 0 at the start. W + A B
is never made while training, so W needs no gradient, and may be stored in 4 or
8 bits (`quantised.py`; QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

    adapter = Lora(rank=8, targets=r".*(query|value)/kernel")
    model = adapter.on(EncoderDecoder(config))
    params = model.init(rng)
    params["lora"]["encoder"]["layers_0"]["attention"]["query"]["lora_a"]

d and f are the widths of a layer's input and output, r the rank, B batch,
A adapters of a bank.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.struct
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Int

from flan_jax.errors import UserError
from flan_jax.models import adapted as adapted_lib
from flan_jax.models import dense, layers, placement, quantised
from flan_jax.models import targets as targets_lib

KEY = "lora"
# Between the adapted kernel's axes; on no mesh is it split.
RANK_AXIS = "lora_rank"
Params = Mapping[str, Any]
_is_stacked = targets_lib.is_stacked


@flax.struct.dataclass
class LowRank:
  """What one layer adds; the scale is in B.

  Attributes:
    a: [d, r]; or [B, d, r], one of each example.
    b: [r, f]; or [B, r, f].
    dropout: rate of what A reads, while training.
  """

  a: Float[Array, "d r"] | Float[Array, "B d r"]
  b: Float[Array, "r f"] | Float[Array, "B r f"]
  dropout: float = flax.struct.field(pytree_node=False, default=0.0)

  def __call__(
    self,
    x: Float[Array, "*b d"],
    product: Callable[[Array], Array],
    rng: Array | None,
    axes: tuple[str, ...],
  ) -> Float[Array, "*b f"]:
    """Product(x) + dropout(x) A B, as `dense.Dense` asks."""
    a, b = self.a.astype(x.dtype), self.b.astype(x.dtype)
    read = layers.dropout(x, self.dropout, rng)
    if a.ndim == 3:
      rows = x.shape[0] // a.shape[0]
      a, b = (jnp.repeat(m, rows, axis=0) for m in (a, b))
      thin = jnp.einsum("b...d,bdr->b...r", read, a)
      return product(x) + jnp.einsum("b...r,brf->b...f", thin, b)
    if axes:
      a = placement.gather(a, (axes[0], RANK_AXIS))
      b = placement.gather(b, (RANK_AXIS, axes[1]))
    return product(x) + dense.project(dense.project(read, a), b)


@dataclasses.dataclass(frozen=True)
class Lora(adapted_lib.Options):
  r"""The options of gin/adapters/lora.gin and qlora.gin.

  Attributes:
    rank: r. Up to the smaller side of the narrowest kernel it adapts.
    alpha: the product is multiplied by alpha / r.
    dropout: of what A reads, while training.
    targets: regular expression of the whole names of kernels to adapt, as
      they are without scanning: `.*layers_\d+/.*kernel` is all of them.
    rank_stabilised: divide alpha by the root of r instead (Kalajdzievski 2023,
      arXiv:2312.03732).
    base_type: how kernels of layers are stored: None, as they are; "nf4" or
      "int8", see `quantised.py`. Adapted or not.
    base_rest: type of the other matrices then (embedding and head), "float32"
      or "bfloat16".

  Raises:
    UserError: a number out of its range, an unknown type, or no regular
      expression.
  """

  key: ClassVar[str] = KEY
  label: ClassVar[str] = "LoRA"
  rank: int = 8
  alpha: float = 16.0
  dropout: float = 0.0
  targets: str = r".*(query|value)/kernel"
  rank_stabilised: bool = False
  base_type: str | None = None
  base_rest: str = "float32"

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f"Lora.rank is {self.rank}; it must be 1 or more.")
    if not self.alpha > 0:
      raise UserError(f"Lora.alpha is {self.alpha}; it must be more than 0.")
    if not 0.0 <= self.dropout < 1.0:
      raise UserError(f"Lora.dropout is {self.dropout}; it must be in [0, 1).")
    targets_lib.check(self.targets, "LORA_TARGETS")
    quantised.check(self.base_type, self.base_rest)

  @property
  def scale(self) -> float:
    """What A B is multiplied by.

    >>> Lora(rank=4, alpha=8).scale, Lora(4, 8, rank_stabilised=True).scale
    (2.0, 4.0)
    """
    r = math.sqrt(self.rank) if self.rank_stabilised else self.rank
    return self.alpha / r

  def on(self, model: Any, vocabulary: Any = None) -> "WithLora":
    """The model with an adapter of these options.

    Raises:
      UserError: `targets` matches no kernel of its layers, or something else
        too; or the rank is too large.
    """
    del vocabulary
    adapted = WithLora(model, self)
    _ = adapted.targets  # says what is wrong with them
    return adapted


@dataclasses.dataclass(frozen=True)
class WithLora(adapted_lib.OnBase):
  """A model and its adapter; has the interface of a model.

  Parameters are the base's and, under "lora", `lora_a` and `lora_b` in the
  place of each kernel that they adapt.

  Attributes:
    made_by: the dataclass of its options.
  """

  base: Any
  options: Lora
  made_by: ClassVar[type[adapted_lib.Options]] = Lora
  key: ClassVar[str] = KEY
  trainable: ClassVar[str] = rf"{KEY}/.*"
  packs: ClassVar[bool] = True

  @functools.cached_property
  def targets(self) -> dict[str, tuple[int, ...]]:
    """Each kernel that is adapted, as it is named in the tree -> its shape.

    Raises:
      UserError: see `Lora.on`.
    """
    found = targets_lib.find(self.base, self.options.targets, "LORA_TARGETS")
    name, narrow = min(
      ((n, min(shape[-2:])) for n, shape in found.items()), key=lambda x: x[1]
    )
    if self.options.rank > narrow:
      raise UserError(
        f"LORA_RANK={self.options.rank} is more than {narrow}, the smaller side"
        f" of {name}: beyond that an adapter is larger than its kernel."
      )
    return found

  def init(self, rng: Array, batch_shapes: Any = None) -> Params:
    """Fresh parameters: the base as it is stored, and the adapter."""
    base = self.store(self.base.init(rng, batch_shapes))
    return {**base, self.key: self.initial(rng, base)}

  def initial(
    self, rng: Array, base_params: Any = None, saved: Any = None
  ) -> Params:
    """The adapter at the start: A uniform within 1 / sqrt(d), B zero."""
    del base_params, saved
    arrays = {}
    r = self.options.rank
    for number, (name, shape) in enumerate(self.targets.items()):
      *layers_N, d, f = shape
      bound = 1.0 / math.sqrt(d)
      key = jax.random.fold_in(rng, number)
      scope = name.removesuffix("/kernel")
      arrays[f"{scope}/lora_a"] = jax.random.uniform(
        key, (*layers_N, d, r), minval=-bound, maxval=bound
      )
      arrays[f"{scope}/lora_b"] = jnp.zeros((*layers_N, r, f))
    return traverse_util.unflatten_dict(arrays, sep="/")

  def store(self, base_params: Params) -> Params:
    """The base in the types that the options give it."""
    o = self.options
    if o.base_type is None:
      return base_params
    return quantised.tree(base_params, o.base_type, o.base_rest)

  def hidden(
    self, params: Params, batch: Any, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T D"]:
    """What the head multiplies; dropout if and only if there is a key."""
    return self.base.hidden(self._on(params), batch, dropout_rng=dropout_rng)

  def head(self, params: Params) -> Any:
    """The base's."""
    return self.base.head(params)

  def logits(
    self, params: Params, batch: Any, *, dropout_rng: Array | None = None
  ) -> Float[Array, "B T V"]:
    """Logits of each next token, float32; dropout iff there is a key."""
    return self.base.logits(self._on(params), batch, dropout_rng=dropout_rng)

  def encode(self, params: Params, inputs_BS: Array) -> Any:
    """The inputs alone, for `score`."""
    return self.base.encode(self._on(params), inputs_BS)

  def score(
    self, params: Params, encoded: Any, choices_BCT: Array
  ) -> Float[Array, "B C T"]:
    """Log p(token | input, earlier tokens) of each choice; 0 at padding."""
    return self.base.score(self._on(params), encoded, choices_BCT)

  def start_decoding(
    self, params: Params, inputs_BS: Array, cache_length: int
  ) -> tuple[Float[Array, "B V"], Any]:
    """Logits of the first token after the inputs, and a cache to go on with."""
    return self.base.start_decoding(self._on(params), inputs_BS, cache_length)

  def decode_step(
    self, params: Params, token_B: Array, cache: Any, index: Any
  ) -> tuple[Float[Array, "B V"], Any]:
    """Logits after one more token of each row, and the cache with it."""
    return self.base.decode_step(self._on(params), token_B, cache, index)

  def take_rows(self, cache: Any, rows: Array) -> Any:
    """The cache of some rows, in another order or more than once."""
    return self.base.take_rows(cache, rows)

  def model_flops(self, batch_shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Operations of a training step: the base's without kernels' gradients.

    Two thirds of what the base says: forwards, and backwards to its input.
    The adapter itself, r / d of that, counts 0.
    """
    return self.base.model_flops(batch_shapes) * 2.0 / 3.0

  def described(self) -> dict[str, Any]:
    """The options as JSON, for a checkpoint; `recalled` is the inverse."""
    return self.options.described()

  @classmethod
  def recalled(cls, base: Any, described: Mapping[str, Any]) -> Self:
    """The adapted model that a checkpoint of the adapter describes.

    Raises:
      UserError: options of another version.
    """
    return cls.made_by.of(described).on(base)

  def check_same(self, described: Mapping[str, Any], where: Any) -> None:
    """Refuses a saved adapter that these options would not read as it is.

    Raises:
      UserError: another rank or scale; both are named.
    """
    said, own = Lora.of(described), self.options
    if (said.rank, said.scale) != (own.rank, own.scale):
      raise UserError(
        f"{where} is LoRA of rank {said.rank} and scale {said.scale:g} (alpha"
        f" {said.alpha:g}); ADAPTER has rank {own.rank} and scale"
        f" {own.scale:g}. Give LORA_RANK and LORA_ALPHA of the checkpoint."
      )

  def _on(self, params):
    """The base's parameters with the adapters of its layers among them."""

    def beside(node):
      adapter = self._adapter(node)
      if adapter is not None:
        return {"adapter": adapter}
      return {name: beside(part) for name, part in node.items()}

    rest = {name: part for name, part in params.items() if name != self.key}
    return {**rest, dense.ADAPTERS: beside(params[self.key])}

  def _adapter(self, node):
    """The adapter of one layer; None where the node is no layer's."""
    if "lora_a" not in node:
      return None
    b = node["lora_b"] * self.options.scale
    return LowRank(node["lora_a"], b, self.options.dropout)


def bank(adapters: Sequence[Params]) -> Params:
  """Several adapters of one shape in one tree: a first axis A.

  Raises:
    UserError: their kernels or ranks are not the same.
  """
  trees = [jax.tree.map(jnp.shape, dict(one)) for one in adapters]
  if any(one != trees[0] for one in trees):
    raise UserError(
      "adapters of one bank must have the same targets and rank; these differ."
    )
  return jax.tree.map(lambda *x: jnp.stack(x), *adapters)


def choose(banked: Params, ids_B: Int[Array, " B"]) -> Params:
  """The adapter of each example, as the part "lora" of parameters.

      params = {**base, "lora": choose(bank([nli, summaries]), ids_B)}
      model.start_decoding(params, inputs_BS, 64)

  A batch then has one row an example, or several side by side (beams).

  Args:
    banked: of `bank`.
    ids_B: which adapter each example uses, below A.
  """

  def take(path, x):
    chosen = jnp.take(x, ids_B, axis=0, mode="clip")
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # A scan goes over the first axis.
    return jnp.moveaxis(chosen, 1, 0) if _is_stacked(name) else chosen

  return jax.tree_util.tree_map_with_path(take, dict(banked))
