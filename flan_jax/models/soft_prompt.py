"""Soft prompts: trained vectors that a model reads before its input.

Lester et al. 2021 (arXiv:2104.08691). The prompt is read as tokens are: to the
model underneath it is ids V, V + 1, ... whose vectors are the prompt's, so that
positions, padding, masks and the cache are those of tokens. It stands before
everything else, the begin token of a decoder-only model too.

    model = SoftPrompt(base, length=10)     # `prompt_tuning.py`: from gin
    params = {**base_params, "soft_prompt": model.initial(rng, base_params)}
    model.hidden(params, batch)

B batch, N prompts, P positions of a prompt, S source, T target, D model,
C choices, F width of the reparameterisation, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flan_jax.errors import UserError, check_known
from flan_jax.models import adapted, dense, prompt_start
from flan_jax.models.layers import PROMPT
from flan_jax.models.stack import Params

KEY = "soft_prompt"
MAX_LENGTH = 150
SIDES = ("encoder", "decoder", "both")


class Encoded(NamedTuple):
  """An encoder's output, and the prompt that each row's decoder reads."""

  encoded: Any
  ids_B: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class SoftPrompt(adapted.OnBase):
  """A model with soft prompts; hashable, with a model's interface.

  Its parameters are the base's and, under `soft_prompt`, for each side
  `prompt` [N * P, D].

  Which prompt a row reads, where there are several: a training batch says it
  in `prompt_ids` [B]; inputs for ranking and decoding in their first column,
  as id V + n (`chosen`).

  Attributes:
    base: `EncoderDecoder` or `DecoderOnly`.
    length: P, vectors of a prompt on each side, from 1 to 150.
    names: of the prompts of a pool; one prompt needs no name.
    side: where an encoder-decoder reads the prompt: "encoder", before its
      input; "decoder", before the decoder's start; or "both". A decoder-only
      model has "decoder".
    reparameterisation: F of p + tanh(p A) B, trained with the prompt p and
      folded into it for export (Razdaibiedina et al. 2023, arXiv:2305.03937);
      0: none.
    start: what the vectors are before the first step.

  Raises:
    UserError: a value outside its range, or of another kind of model.
  """

  base: Any
  length: int = 10
  names: tuple[str, ...] = ("prompt",)
  side: str | None = None
  reparameterisation: int = 0
  start: prompt_start.Start = prompt_start.RANDOM

  key: ClassVar[str] = KEY
  trainable: ClassVar[str] = rf"{KEY}/.*"
  packs: ClassVar[bool] = False

  def __post_init__(self):
    object.__setattr__(self, "names", tuple(self.names))
    default = "encoder" if self.kind == "encoder_decoder" else "decoder"
    object.__setattr__(self, "side", self.side or default)
    if not 1 <= self.length <= MAX_LENGTH:
      raise UserError(
        f"the prompt's length is {self.length} vectors; it is from 1 to"
        f" {MAX_LENGTH} (PROMPT_LENGTH)."
      )
    if self.reparameterisation < 0:
      raise UserError(
        f"the reparameterisation's width is {self.reparameterisation}; give 0"
        " for none, or 1 or more (PROMPT_REPARAMETERISATION)."
      )
    if not self.names or len(set(self.names)) < len(self.names):
      raise UserError(
        f"prompts are named {list(self.names)}: give each a name of its own."
      )
    check_known("the side of a prompt (PROMPT_SIDE)", self.side, SIDES)
    if self.kind == "decoder_only" and self.side != "decoder":
      raise UserError(
        f"PROMPT_SIDE is {self.side!r}, but a decoder-only model has no"
        " encoder: leave it None, or give 'decoder'."
      )

  @property
  def sides(self) -> tuple[str, ...]:
    return ("encoder", "decoder") if self.side == "both" else (self.side,)

  @property
  def saved_at(self) -> str | None:
    """Where the prompt to begin with is, if it is a saved one."""
    return self.start.path

  def prompt_id(self, name: str) -> int:
    """The number of a prompt of the pool.

    >>> from flan_jax.models import t5
    >>> base = t5.EncoderDecoder(t5.T5Config(vocab_size=128, emb_dim=32))
    >>> SoftPrompt(base, names=("cb", "rte")).prompt_id("rte")
    1

    Raises:
      UserError: there is no such prompt; the nearest is named.
    """
    check_known("the prompt", name, self.names)
    return self.names.index(name)

  def chosen(
    self, inputs_BS: Int[Array, "B S"], ids_B: Int[Array, " B"]
  ) -> Int[Array, "B 1+S"]:
    """Inputs that say which prompt of the pool each row reads."""
    first_B1 = self.config.vocab_size + jnp.asarray(ids_B)[:, None]
    return jnp.concatenate([first_B1.astype(jnp.int32), inputs_BS], axis=1)

  # Parameters.

  def init(
    self, rng: Array, batch_shapes: Mapping[str, tuple[int, ...]] | None = None
  ) -> Params:
    """The base's fresh parameters and random prompts."""
    base = self.base.init(rng, batch_shapes)
    return {**base, KEY: self._tree(rng, base, prompt_start.RANDOM, None)}

  def initial(self, rng: Array, base_params: Params, saved: Any = None):
    """The tree under `soft_prompt` before the first step, as `start` says.

    Raises:
      UserError: see `prompt_start.vectors`.
    """
    return self._tree(rng, base_params, self.start, saved)

  def _tree(self, rng, base_params, start, saved):
    D, F = self.config.emb_dim, self.reparameterisation
    tree = {}
    for number, side in enumerate(self.sides):
      vectors = [
        prompt_start.vectors(
          start,
          jax.random.fold_in(rng, len(self.sides) * n + number),
          embedding_VD=self.embedding(base_params),
          length=self.length,
          saved=None if saved is None else saved.get(side),
          side=side,
        )
        for n in range(len(self.names))
      ]
      tree[side] = {"prompt": jnp.concatenate(vectors)}
    if F:
      down = jax.random.normal(jax.random.fold_in(rng, 2**20), (D, F))
      # The second factor is 0: training begins at the prompt itself.
      tree["reparameterisation"] = {
        "wi": {"kernel": down / np.sqrt(D)},
        "wo": {"kernel": jnp.zeros((F, D))},
      }
    return tree

  def vectors(self, params: Params) -> dict[str, Float[Array, "N P D"]]:
    """The prompts as the model reads them, for each side."""
    own, out = params[KEY], {}
    for side in self.sides:
      x = own[side]["prompt"]
      if self.reparameterisation:
        wi, wo = (
          own["reparameterisation"][name]["kernel"] for name in ("wi", "wo")
        )
        x = x + jnp.tanh(x @ wi) @ wo
      out[side] = x.reshape(len(self.names), self.length, x.shape[-1])
    return out

  def embedding(self, params: Params) -> Float[Array, "V D"]:
    """The base's table of tokens, which the vectors stand beside."""
    return self._embedder(params)["embedding"]

  def described(self) -> dict[str, Any]:
    return {
      "kind": KEY,
      "length": self.length,
      "names": list(self.names),
      "side": self.side,
      "reparameterisation": self.reparameterisation,
    }

  @classmethod
  def recalled(cls, base: Any, described: Mapping[str, Any]) -> "SoftPrompt":
    values = {k: v for k, v in described.items() if k != "kind"}
    known = {f.name for f in dataclasses.fields(cls)} - {"base", "start"}
    if set(values) - known:
      raise UserError(
        "the soft prompt was written by another version: it has"
        f" {', '.join(sorted(set(values) - known))}, which this one does not"
        " know."
      )
    return cls(base, **values)

  # A model's interface.

  def hidden(
    self,
    params: Params,
    batch: Mapping[str, Array],
    *,
    dropout_rng: Array | None = None,
  ) -> Float[Array, "B T D"]:
    """What the head multiplies after each token, none of it the prompt's.

    Raises:
      UserError: a packed batch; several prompts, and the batch does not say
        which. While a decoder-only model is traced, segments are not known:
        the rows that have several become NaN.
    """
    batch = dict(_unpacked(batch))
    B = batch["decoder_input_tokens"].shape[0]
    ids_B = batch.pop("prompt_ids", None)
    if ids_B is None:
      if len(self.names) > 1:
        raise UserError(
          f"there are {len(self.names)} prompts, but the batch has no"
          " 'prompt_ids' [B] that say which each row reads."
        )
      ids_B = jnp.zeros(B, jnp.int32)
    prompted = self._prompted(params, ids_B)
    if self.kind == "decoder_only":
      batch = self._before_decoder(batch, B)
    else:
      if "encoder" in self.sides:
        name = "encoder_input_tokens"
        batch[name] = self._put("encoder", batch[name])
      if "decoder" in self.sides:
        name = "decoder_input_tokens"
        batch[name] = self._put("decoder", batch[name])
        # Targets are read for their padding alone.
        ones_BP = jnp.ones((B, self.length), jnp.int32)
        batch["decoder_target_tokens"] = jnp.concatenate(
          [ones_BP, batch["decoder_target_tokens"]], axis=1
        )
    hidden_BTD = self.base.hidden(prompted, batch, dropout_rng=dropout_rng)
    return hidden_BTD[:, self._before :]

  def head(self, params: Params):
    return self.base.head(params)

  def logits(self, params, batch, *, dropout_rng=None):
    """Teacher-forced logits, float32."""
    hidden_BTD = self.hidden(params, batch, dropout_rng=dropout_rng)
    return self.head(params).logits(hidden_BTD)

  def encode(self, params: Params, inputs_BS: Int[Array, "B S"]) -> Any:
    """The prompt and the inputs, for `score`; see `chosen`."""
    ids_B, inputs_BS = self._choice(inputs_BS)
    encoded = self._encode(self._prompted(params, ids_B), inputs_BS)
    return Encoded(encoded, ids_B) if self._before_start else encoded

  def score(
    self, params: Params, encoded: Any, choices_BCT: Int[Array, "B C T"]
  ) -> Float[Array, "B C T"]:
    """As the base's: log p of each token of each choice."""
    if not self._before_start:
      return self.base.score(_without(params), encoded, choices_BCT)
    B, C, T = choices_BCT.shape
    P = self.length
    inputs_BCT = jnp.pad(choices_BCT[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    before_BCP = jnp.broadcast_to(self._ids("decoder"), (B, C, P))
    read = jnp.concatenate([before_BCP, inputs_BCT], axis=2)
    said = jnp.concatenate([jnp.ones_like(before_BCP), choices_BCT], axis=2)
    hidden = self._apply(
      self._prompted(params, encoded.ids_B),
      encoded.encoded,
      read.reshape(B, -1),
      said.reshape(B, -1),
      None,
      jnp.repeat(jnp.arange(1, C + 1), P + T)[None],
      method="decode",
    )
    hidden = hidden.reshape(B, C, P + T, -1)[:, :, P:].reshape(B, C * T, -1)
    targets_BT = choices_BCT.reshape(B, C * T)
    log_prob_BT = self.head(params).log_prob(hidden, targets_BT)
    return jnp.where(targets_BT > 0, log_prob_BT, 0.0).reshape(B, C, T)

  def start_decoding(
    self, params: Params, inputs_BS: Int[Array, "B S"], cache_length: int
  ) -> tuple[Float[Array, "B V"], Any]:
    """As the base's; see `chosen` for several prompts."""
    ids_B, inputs_BS = self._choice(inputs_BS)
    prompted = self._prompted(params, ids_B)
    if self._before_start:
      encoded = self._encode(prompted, inputs_BS)
      before_BP = jnp.broadcast_to(
        self._ids("decoder"), (len(ids_B), self.length)
      )
      hidden_BD, cache = self._apply(
        prompted, encoded, cache_length, before_BP, method="start_decoding"
      )
      return self.head(params).logits(hidden_BD), cache
    inputs_BS = self._put(self.sides[0], inputs_BS)
    return self.base.start_decoding(prompted, inputs_BS, cache_length)

  def decode_step(self, params: Params, token_B, cache, index):
    if self._before_start:
      index = index + self.length
    return self.base.decode_step(_without(params), token_B, cache, index)

  def take_rows(self, cache, rows):
    return self.base.take_rows(cache, rows)

  def model_flops(self, batch_shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Of a step with the base frozen: 2 x forward, the prompt's positions too.

    No product is made for the gradient of a frozen weight.
    """
    shapes = dict(batch_shapes)
    for side in self.sides:
      name = f"{side}_input_tokens"
      B, length = shapes[name]
      shapes[name] = (B, length + self.length)
    return self.base.model_flops(shapes) * 2.0 / 3.0

  # The prompt among the tokens.

  @property
  def _before_start(self) -> bool:
    """Whether the decoder of an encoder-decoder reads a prompt."""
    return self.kind == "encoder_decoder" and "decoder" in self.sides

  @property
  def _before(self) -> int:
    """Positions of the decoder that are the prompt's."""
    return self.length if "decoder" in self.sides else 0

  def _ids(self, side) -> np.ndarray:
    """The ids of a side's vectors, behind the vocabulary's."""
    first = self.config.vocab_size + self.length * self.sides.index(side)
    return np.arange(first, first + self.length, dtype=np.int32)

  def _put(self, side, tokens_BS):
    """The tokens behind the ids of a side's prompt."""
    tokens_BS = jnp.asarray(tokens_BS)
    ids_BP = jnp.broadcast_to(
      self._ids(side), (tokens_BS.shape[0], self.length)
    )
    return jnp.concatenate([ids_BP.astype(tokens_BS.dtype), tokens_BS], axis=1)

  def _before_decoder(self, batch, B):
    """A decoder-only batch with the prompt in front of each row."""
    P = self.length
    ones_BP = jnp.ones((B, P), jnp.int32)
    name = "decoder_input_tokens"
    batch[name] = self._put("decoder", batch[name])
    for name in ("decoder_segment_ids", "decoder_causal_attention"):
      if name in batch:
        batch[name] = jnp.concatenate([ones_BP, batch[name]], axis=1)
    name = "decoder_positions"
    if name in batch:
      index_BP = jnp.broadcast_to(jnp.arange(P), (B, P))
      batch[name] = jnp.concatenate([index_BP, P + batch[name]], axis=1)
    return batch

  def _choice(self, inputs_BS):
    """Which prompt each row reads, and its inputs."""
    N = len(self.names)
    if N == 1:
      return jnp.zeros(inputs_BS.shape[0], jnp.int32), inputs_BS
    # A row that fills a batch, all -1, reads any.
    ids_B = jnp.clip(inputs_BS[:, 0] - self.config.vocab_size, 0, N - 1)
    return ids_B, inputs_BS[:, 1:]

  def _encode(self, prompted, inputs_BS):
    if "encoder" in self.sides or self.kind == "decoder_only":
      inputs_BS = self._put(self.sides[0], inputs_BS)
    return self.base.encode(prompted, inputs_BS)

  def _embedder(self, params):
    if self.kind == "decoder_only":
      return params["decoder"]["token_embedder"]
    return params["token_embedder"]

  def _prompted(self, params, ids_B):
    """The base's parameters, each row's prompt beside the embedding."""
    vectors = self.vectors(params)
    prompt_BPD = jnp.concatenate(
      [jnp.take(vectors[side], ids_B, axis=0) for side in self.sides], axis=1
    )
    out = _without(params)
    embedder = {**self._embedder(params), PROMPT: prompt_BPD}
    if self.kind == "decoder_only":
      out["decoder"] = {**out["decoder"], "token_embedder": embedder}
    else:
      out["token_embedder"] = embedder
    return out

  def _apply(self, params, *args, **fields):
    return self.module.apply(dense.variables(params), *args, **fields)


def _unpacked(batch):
  """The batch, if each of its rows is one example."""
  segments_BT = batch.get("decoder_segment_ids")
  traced = isinstance(segments_BT, jax.core.Tracer)
  several = segments_BT is not None and not traced and np.max(segments_BT) > 1
  if several or "encoder_segment_ids" in batch:
    raise UserError(
      "the batch is packed: its segment ids tell several examples of a row"
      " apart, and a soft prompt stands before one. Set PACK = False."
    )
  if not traced:
    return batch
  name = "decoder_input_tokens"
  # An id that no vocabulary has, which is NaN as an embedding.
  outside = np.iinfo(np.int32).max
  return {**batch, name: jnp.where(segments_BT > 1, outside, batch[name])}


def _without(params):
  """The base's parameters."""
  return {name: value for name, value in params.items() if name != KEY}
