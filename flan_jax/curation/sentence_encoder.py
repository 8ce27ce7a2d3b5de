"""Vectors of texts from a sentence encoder: a BERT with a pooling on top.

Reads folders in the layout of sentence-transformers (config.json, safetensors,
tokenizer.json, modules.json and 1_Pooling/config.json), such as
all-MiniLM-L6-v2.

Source: Devlin et al., 2019 (arXiv 1810.04805), section 3; pooled as in Reimers
and Gurevych, 2019, "Sentence-BERT" (arXiv 1908.10084), section 3.

Dimensions: B batch, S source, D size of a vector, H heads, K head size, F mlp.
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import tokenizers
from jaxtyping import Array, Float, Int

from flan_jax.convert import fingerprint, shards
from flan_jax.curation import embeddings
from flan_jax.errors import UserError
from flan_jax.models import attention
from flan_jax.training import checks

POOLINGS = {
  "pooling_mode_mean_tokens": "mean",
  "pooling_mode_cls_token": "first token",
}
_MODULES = ("Transformer", "Pooling", "Normalize")
# A buffer of older files, 0, 1, 2, ...
_UNREAD = ("embeddings.position_ids", "bert.embeddings.position_ids")


@dataclasses.dataclass(frozen=True)
class Config:
  """The shape of a BERT; `read_config` makes it."""

  layers: int
  heads: int
  epsilon: float
  positions: int
  pooling: str


@dataclasses.dataclass(frozen=True)
class FromSentenceEncoder:
  """A sentence encoder's vector of each text.

      FromSentenceEncoder("all-MiniLM-L6-v2")(["Name a fruit."]).shape
      # (1, 384)

  Attributes:
    path: of a folder in the layout of sentence-transformers.
    length: tokens of a text that are read; None: what the folder says.
    batch_size: texts at once.

  Raises:
    UserError: a size below 1; when called, a file that is missing, a model that
      is no BERT, or an option of it that we do not know, by name.
  """

  path: str
  length: int | None = None
  batch_size: int = 32

  def __post_init__(self):
    checks.numbers(batch_size=self.batch_size)
    if self.length is not None:
      checks.numbers(length=self.length)

  @functools.cached_property
  def _loaded(self):
    folder = pathlib.Path(self.path)
    config = read_config(folder)
    found = shards.open_shards(folder, without=_UNREAD)
    prefix = "bert." if "bert.embeddings.LayerNorm.bias" in found.files else ""
    params = {
      name.removeprefix(prefix): jnp.asarray(found.read(name), jnp.float32)
      for name in found.files
      if name.startswith((f"{prefix}embeddings.", f"{prefix}encoder."))
    }
    try:
      tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
      raise UserError(
        f"{folder / 'tokenizer.json'} cannot be read: {error}. Fetch the whole"
        " folder."
      ) from None
    length = self.length or _length(folder, config)
    if length > config.positions:
      raise UserError(
        f"EMBEDDING_LENGTH is {length}, and {self.path} has"
        f" {config.positions} positions; give {config.positions} or less."
      )
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    name = f"{folder.resolve().name}-{fingerprint.fingerprint(params)}"
    return config, params, tokenizer, length, name

  @property
  def identity(self) -> Mapping[str, Any]:
    config, _, _, length, name = self._loaded
    return {"model": name, "pooling": config.pooling, "length": length}

  def __call__(self, texts, *, told=None):
    config, params, tokenizer, length, _ = self._loaded
    return embeddings.in_batches(
      [found.ids for found in tokenizer.encode_batch(list(texts))],
      functools.partial(encode, params, config=config),
      length=length,
      batch_size=self.batch_size,
      told=told,
    )


def read_config(folder: pathlib.Path) -> Config:
  """What the folder's JSON files say.

      read_config(pathlib.Path("all-MiniLM-L6-v2")).layers
      # 6

  Raises:
    UserError: a file is missing, or it is another model or pooling.
  """
  found = shards.read_json(folder / "config.json")
  other = "Make the vectors with its own program: vectors_file.gin."
  for name, known in (
    ("model_type", "bert"),
    ("hidden_act", "gelu"),
    ("position_embedding_type", "absolute"),
  ):
    value = found.get(name, known)
    if value != known:
      raise UserError(
        f"{folder}: {name} is {value!r}; we read {known!r} alone. {other}"
      )
  pooling = "mean"
  for kind, path in _modules(folder / "modules.json"):
    if kind not in _MODULES:
      raise UserError(
        f"{folder}: the module {kind!r} of modules.json is none of"
        f" {', '.join(_MODULES)}. {other}"
      )
    if kind == "Pooling":
      pooling = _pooling(folder / path, other)
  try:
    return Config(
      layers=found["num_hidden_layers"],
      heads=found["num_attention_heads"],
      epsilon=found.get("layer_norm_eps", 1e-12),
      positions=found["max_position_embeddings"],
      pooling=pooling,
    )
  except KeyError as error:
    raise UserError(f"{folder}: config.json has no {error}.") from None


def _modules(file: pathlib.Path) -> list[tuple[str, str]]:
  """Kind and folder of each; a BERT alone has no such file."""
  if not file.is_file():
    return []
  try:
    found = json.loads(file.read_text(encoding="utf-8"))
    return [(m["type"].rpartition(".")[2], m["path"]) for m in found]
  except (ValueError, TypeError, KeyError, AttributeError):
    raise UserError(
      f"{file} is no list of modules. Fetch the whole folder."
    ) from None


def _pooling(folder: pathlib.Path, other: str) -> str:
  said = shards.read_json(folder / "config.json")
  on = [name for name, value in said.items() if "_mode_" in name and value]
  if len(on) != 1 or on[0] not in POOLINGS:
    raise UserError(
      f"{folder}: the pooling is {', '.join(on) or 'none'}; we know one of"
      f" {', '.join(POOLINGS)}. {other}"
    )
  return POOLINGS[on[0]]


def _length(folder: pathlib.Path, config: Config) -> int:
  file = folder / "sentence_bert_config.json"
  said = shards.read_json(file) if file.is_file() else {}
  return said.get("max_seq_length") or config.positions


@functools.partial(jax.jit, static_argnames="config")
def encode(
  params: Mapping[str, Float[Array, "..."]],
  tokens_BS: Int[Array, "B S"],
  *,
  config: Config,
) -> Float[Array, "B D"]:
  """One vector for each row of tokens.

  Args:
    params: by their names in the file, Linear as [out, in].
    tokens_BS: ids with the marks around a text, -1 after each row's end.
    config: of the model.
  """
  valid_BS = tokens_BS >= 0
  S = tokens_BS.shape[1]

  def norm(x_BSD, name):
    x_BSD -= x_BSD.mean(-1, keepdims=True)
    x_BSD *= jax.lax.rsqrt(
      jnp.square(x_BSD).mean(-1, keepdims=True) + config.epsilon
    )
    return x_BSD * params[f"{name}.weight"] + params[f"{name}.bias"]

  def dense(x, name):
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

  def heads(x_BSD, name):
    x_BSD = dense(x_BSD, name)
    return x_BSD.reshape(*x_BSD.shape[:2], config.heads, -1)

  part = "embeddings"
  x_BSD = params[f"{part}.word_embeddings.weight"][jnp.maximum(tokens_BS, 0)]
  x_BSD += params[f"{part}.position_embeddings.weight"][:S]
  x_BSD += params[f"{part}.token_type_embeddings.weight"][0]
  x_BSD = norm(x_BSD, f"{part}.LayerNorm")
  for layer in range(config.layers):
    part = f"encoder.layer.{layer}"
    query_BSHK = heads(x_BSD, f"{part}.attention.self.query")
    read_BSHK = attention.attend(
      query_BSHK / math.sqrt(query_BSHK.shape[-1]),
      heads(x_BSD, f"{part}.attention.self.key"),
      heads(x_BSD, f"{part}.attention.self.value"),
      jnp.broadcast_to(valid_BS[:, None, :], (*tokens_BS.shape, S)),
    )
    read_BSD = dense(
      read_BSHK.reshape(x_BSD.shape), f"{part}.attention.output.dense"
    )
    x_BSD = norm(x_BSD + read_BSD, f"{part}.attention.output.LayerNorm")
    hidden_BSF = jax.nn.gelu(
      dense(x_BSD, f"{part}.intermediate.dense"), approximate=False
    )
    x_BSD = norm(
      x_BSD + dense(hidden_BSF, f"{part}.output.dense"),
      f"{part}.output.LayerNorm",
    )
  if config.pooling != "mean":
    return x_BSD[:, 0]
  total_BD = jnp.where(valid_BS[..., None], x_BSD, 0).sum(axis=1)
  return total_BD / jnp.maximum(valid_BS.sum(axis=1, keepdims=True), 1)
