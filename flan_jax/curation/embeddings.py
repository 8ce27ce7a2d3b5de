"""A vector for every row: from a file, or from one of our checkpoints.

For those of a sentence encoder see `sentence_encoder.py`; a file (.npy) may
come from any other program.

Dimensions: N rows, B batch, S source, T target, D size of an embedding.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flan_jax.convert import load, source
from flan_jax.curation import backends
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import buckets
from flan_jax.training import checks

_SHOWN = 8
_ROWS_AT_ONCE = 8192
GIB = 1 << 30


class Embedder(Protocol):
  """Turns texts into vectors."""

  def __call__(
    self, texts: Sequence[str], *, told: Callable[[int], None] | None = None
  ) -> Float[np.ndarray, "N D"]:
    """A vector for each text, not yet of length 1."""

  @property
  def identity(self) -> Mapping[str, Any]:
    """What the manifest says of it, its name under "model"."""


@dataclasses.dataclass(frozen=True)
class FromFile:
  """Vectors of a .npy file, a row for each row of the data, in its order.

  The file is not read as a whole until it is needed.

  Attributes:
    path: of the file: an array [N, D] of floats.
    model: what made it, for the manifest.

  Raises:
    UserError: when called: another number of rows, another shape or type, a
      file that cannot be read.
  """

  path: str
  model: str = "unknown"

  @property
  def identity(self) -> Mapping[str, Any]:
    return {"model": self.model, "path": str(self.path)}

  def __call__(self, texts, *, told=None):
    del told
    try:
      found_ND = np.load(self.path, mmap_mode="r", allow_pickle=False)
    except OSError as e:
      raise UserError(
        f"EMBEDDINGS_PATH {self.path} cannot be read: {e.strerror or e}."
      ) from None
    except (ValueError, EOFError) as e:
      raise UserError(
        f"EMBEDDINGS_PATH {self.path} is no .npy array: {e}."
      ) from None
    if found_ND.ndim != 2 or found_ND.dtype.kind != "f":
      raise UserError(
        f"EMBEDDINGS_PATH {self.path} has shape {found_ND.shape} and type"
        f" {found_ND.dtype}; it must be floats [rows, size]."
      )
    if len(found_ND) != len(texts):
      raise UserError(
        f"EMBEDDINGS_PATH {self.path} has {len(found_ND):,} rows, the data"
        f" {len(texts):,}; there must be one for each row, in the same order."
      )
    return found_ND


@dataclasses.dataclass(frozen=True)
class FromCheckpoint:
  """The mean over a text's tokens of a checkpoint's last hidden states.

      FromCheckpoint("checkpoints/smollm2_135m")(["Name a fruit."]).shape
      # (1, 576)

  Of an encoder-decoder model the encoder's states. The head's norm is part of
  them; the begin id, where a model has one, is read and not counted. Texts are
  cut at `length` tokens.

  Attributes:
    path: of a checkpoint of any format.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with it.
    length: tokens of a text that are read.
    batch_size: texts at once.

  Raises:
    UserError: a size below 1; when called, what `load_params` refuses, and a
      text without a token.
  """

  path: str
  model: Any = None
  vocabulary: Any = None
  length: int = 256
  batch_size: int = 32

  def __post_init__(self):
    checks.numbers(length=self.length, batch_size=self.batch_size)

  @functools.cached_property
  def _loaded(self):
    opened = source.open_source(self.path)
    model = load.model_of(opened, self.model)
    vocabulary = load.vocabulary_of(opened, self.vocabulary)
    checks.vocabulary(vocabulary, model)
    params = load.load_params(opened, model)
    name = f"{opened.path.name}-{backends.fingerprint(params)}"
    return model, params, vocabulary, name

  @property
  def identity(self) -> Mapping[str, Any]:
    vocabulary, name = self._loaded[2:]
    return {
      "model": name,
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "pooling": "mean",
      "length": self.length,
    }

  def __call__(self, texts, *, told=None):
    model, params, vocabulary, _ = self._loaded
    return mean_states(
      model,
      params,
      vocabulary,
      texts,
      length=self.length,
      batch_size=self.batch_size,
      told=told,
    )


def mean_states(
  model: Any,
  params: Any,
  vocabulary: Any,
  texts: Sequence[str],
  *,
  length: int = 256,
  batch_size: int = 32,
  told: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "N D"]:
  """The mean over each text's tokens of the last hidden states.

  See `FromCheckpoint` for the arguments.

  Raises:
    UserError: a text without a token.
  """
  begin = vocabulary_lib.begin_id(vocabulary)
  start = [begin] if model.kind == "decoder_only" and begin is not None else []
  ids = vocabulary_lib.encode_batch(vocabulary, texts)
  blank = [n for n, found in enumerate(ids) if not found]
  if blank:
    raise UserError(
      f"{len(blank):,} texts have no token to take a mean of:"
      f" {_named(blank)}. Filter empty rows out first."
    )
  return in_batches(
    [[*start, *found][:length] for found in ids],
    functools.partial(_mean, model, len(start), params),
    length=length,
    batch_size=batch_size,
    told=told,
  )


def in_batches(
  ids: Sequence[Sequence[int]],
  encode: Callable[[Int[Array, "B S"]], Float[Array, "B D"]],
  *,
  length: int,
  batch_size: int,
  told: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "N D"]:
  """Vectors of texts, those of like length together in batches of few shapes.

  >>> first = lambda tokens_BS: tokens_BS[:, :1]
  >>> in_batches([[5, 6], [1]], first, length=4, batch_size=2).tolist()
  [[5.0], [1.0]]

  Args:
    ids: tokens of each text, 1 to `length`.
    encode: tokens, -1 after each row's end -> vectors.
    length: tokens of the longest text.
    batch_size: texts at once.
    told: called with the number of texts done.
  """
  sizes = buckets.sizes(length, smallest=32)
  order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
  out_ND = np.empty((len(ids), 0), np.float32)
  for first in range(0, len(order), batch_size):
    rows = order[first : first + batch_size]
    tokens = [ids[n] for n in rows]
    size = buckets.fit(max(map(len, tokens)), sizes)
    tokens_BS = buckets.pad_inputs(tokens, batch_size, size)
    made_BD = np.asarray(encode(tokens_BS))[: len(rows)]
    if not out_ND.size:
      out_ND = np.empty((len(ids), made_BD.shape[1]), np.float32)
    out_ND[rows] = made_BD
    if told:
      told(first + len(rows))
  return out_ND


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mean(
  model: Any, skipped: int, params: Any, tokens_BS: Int[Array, "B S"]
) -> Float[Array, "B D"]:
  """Without the first `skipped` states: the begin id's is the same in all."""
  valid_BS = tokens_BS >= 0
  if model.kind == "encoder_decoder":
    hidden_BSD = model.encode(params, tokens_BS).hidden_BSD
  else:
    batch = {
      "decoder_input_tokens": jnp.where(valid_BS, tokens_BS, 0),
      "decoder_segment_ids": valid_BS.astype(jnp.int32),
    }
    if getattr(model.config, "prefix_lm", False):
      batch["decoder_causal_attention"] = valid_BS.astype(jnp.int32)
    hidden_BSD = model.hidden(params, batch)
  valid_BS &= jnp.arange(tokens_BS.shape[1]) >= skipped
  hidden_BSD = jnp.where(valid_BS[..., None], hidden_BSD, 0)
  total_BD = hidden_BSD.astype(jnp.float32).sum(axis=1)
  return total_BD / jnp.maximum(valid_BS.sum(axis=1, keepdims=True), 1)


def check(x_ND: Float[np.ndarray, "N D"], name: str = "embeddings") -> None:
  """Refuses vectors that are not finite or that have no direction.

  >>> check(np.array([[1.0], [np.nan]], np.float32))
  Traceback (most recent call last):
  flan_jax.errors.UserError: embeddings: 1 of 2 rows is not finite: row 1.\
 Leave these rows out of the data, or embed them again.

  Args:
    x_ND: vectors, which may lie in a file.
    name: what messages call them.

  Raises:
    UserError: a row has a number that is not finite, or is 0 throughout; the
      first such rows are named.
  """
  broken: list[int] = []
  zero: list[int] = []
  for start in range(0, len(x_ND), _ROWS_AT_ONCE):
    part = np.asarray(x_ND[start : start + _ROWS_AT_ONCE])
    broken += (np.flatnonzero(~np.isfinite(part).all(axis=1)) + start).tolist()
    zero += (np.flatnonzero((part == 0).all(axis=1)) + start).tolist()
  for rows, what in ((broken, "not finite"), (zero, "0 throughout")):
    if rows:
      verb = "is" if len(rows) == 1 else "are"
      raise UserError(
        f"{name}: {len(rows):,} of {len(x_ND):,} rows {verb} {what}:"
        f" {_named(rows)}. Leave these rows out of the data, or embed them"
        " again."
      )


def units(
  x_ND: Float[np.ndarray, "N D"],
  rows: Int[np.ndarray, " N"] | None = None,
  *,
  memory_gib: float,
  what: str = "all rows",
) -> Float[np.ndarray, "N D"]:
  """Vectors of length 1, float32, of all rows or some, in memory.

  >>> units(np.array([[3.0, 4.0]]), memory_gib=1.0)
  array([[0.6, 0.8]], dtype=float32)

  Raises:
    UserError: they are larger than `memory_gib`, in GiB; `what` names them.
  """
  N = len(x_ND) if rows is None else len(rows)
  need = N * x_ND.shape[1] * 4 / GIB
  if need > memory_gib:
    raise UserError(
      f"{what}: {N:,} vectors of {x_ND.shape[1]:,} numbers need"
      f" {need:.3g} GiB, above MEMORY_GIB {memory_gib:g}. Raise it, choose"
      " within more and smaller clusters (CLUSTERS), or give shorter vectors."
    )
  out_ND = np.empty((N, x_ND.shape[1]), np.float32)
  for start in range(0, N, _ROWS_AT_ONCE):
    stop = min(start + _ROWS_AT_ONCE, N)
    part = x_ND[start:stop] if rows is None else x_ND[rows[start:stop]]
    part = np.asarray(part, np.float64)
    # By the largest number first: its square may not be finite.
    part = part / np.abs(part).max(axis=1, keepdims=True)
    out_ND[start:stop] = part / np.linalg.norm(part, axis=1, keepdims=True)
  return out_ND


def cached(
  embedder: Embedder, texts: Sequence[str], folder: pathlib.Path, told=None
) -> Float[np.ndarray, "N D"]:
  """Vectors of `embedder`, kept in the run's folder for the same command.

  Args:
    embedder: a file's vectors are not copied.
    texts: of the rows.
    folder: gets `embeddings-<fingerprint>.npy`.
    told: called with the number of texts done.
  """
  if isinstance(embedder, FromFile):
    return embedder(texts)
  digest = hashlib.sha256(repr(sorted(embedder.identity.items())).encode())
  for text in texts:
    digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
  path = folder / f"embeddings-{digest.hexdigest()[:16]}.npy"
  if path.exists():
    return np.load(path, mmap_mode="r", allow_pickle=False)
  made_ND = embedder(texts, told=told)
  save(path, made_ND)
  return made_ND


def save(path: pathlib.Path, values: np.ndarray) -> None:
  """Writes a .npy file that is whole or not there."""
  draft = path.with_name(f".{path.name}")
  np.save(draft, values, allow_pickle=False)
  draft.replace(path)


def _named(rows: Sequence[int]) -> str:
  some = ", ".join(f"{n:,}" for n in rows[:_SHOWN])
  more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
  return f"row{'s' * (len(rows) > 1)} {some}{more}"
