"""A `tokenizer.json`, or the tokenizer of a GGUF file, for seqio."""

import itertools
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf
import tokenizers

from flan_jax.errors import UserError

# Tokens that end a turn of a conversation (ChatML, Llama 3, Gemma): what an
# instruction-tuned model writes where a plain one writes EOS.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


class TokenizerVocabulary(seqio.Vocabulary):
  """Encodes with the `tokenizers` library, adding no special tokens.

  Special tokens in a text are special: `<|im_start|>` is its one id.

  >>> vocabulary = TokenizerVocabulary("tokenizer.json", eos="</s>")
  ... # doctest: +SKIP
  >>> vocabulary.encode("a b"), vocabulary.eos_id  # doctest: +SKIP
  ([5, 9], 1)

  In a graph it encodes one text to int32 [T], or N texts to a ragged int32
  [N, None], through one call into Python for all of them, which the library
  does on all cores and without Python's lock.

  How the special tokens are found: `eos` is the argument, else `eos_token` of
  `tokenizer_config.json` beside the file. `pad` is the argument, else its
  `pad_token`, else the token with id 0 if it is a special one, else EOS: a
  decoder-only model never reads padding. A GGUF file says them itself.

  Attributes:
    begin_id: the id that a text begins with, None where nothing is put before
      it: BOS if `add_bos_token` says so or the tokenizer adds it itself.
    end_ids: EOS, then the other ids that end a text: `TURN_ENDS`, what
      `generation_config.json` beside the file lists, what a GGUF file says.

  Raises:
    UserError: the file is not a tokenizer, or EOS cannot be told; the message
      lists the file's special tokens.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    pad: str | None = None,
    eos: str | None = None,
  ):
    super().__init__(extra_ids=0)
    self.path = pathlib.Path(path)
    ends: tuple[int, ...] = ()
    if self.path.suffix == ".gguf":
      # Its reader is not needed, nor imported, for any other vocabulary.
      from flan_jax.data import gguf_tokenizer

      found = gguf_tokenizer.read(self.path)
      self._tokenizer, config, ends = (
        found.tokenizer,
        found.config,
        found.end_ids,
      )
    else:
      self._tokenizer = self._read()
      config = _config(self.path)
      ends = generation_ends(self.path)
    added = self._tokenizer.get_added_tokens_decoder()
    special = {t.content: id_ for id_, t in added.items() if t.special}
    self._eos = self._id("eos", eos or config.get("eos_token"), special)
    first = self._tokenizer.id_to_token(0)
    default = first if first in special else None
    pad = pad or config.get("pad_token") or default
    self._pad = self._eos if pad is None else self._id("pad", pad, special)
    self._bos = self._optional(config.get("bos_token"))
    self.begin_id = self._begin(config)
    turns = (id_ for id_, t in added.items() if t.content in TURN_ENDS)
    self.end_ids = tuple(dict.fromkeys((self._eos, *turns, *ends)))
    # What a copy is made from: reading a GGUF file again takes seconds.
    self._json = self._tokenizer.to_str()
    model = json.loads(self._json)["model"]
    unknown = config.get("unk_token") or model.get("unk_token")
    self._unk = self._optional(unknown)
    if self._unk is None:
      self._unk = model.get("unk_id")
    # Ids may have gaps, and added tokens come after the model's. Counted once:
    # seqio asks for the size at every decoding.
    self._size = 1 + max(self._tokenizer.get_vocab().values())

  def _read(self) -> tokenizers.Tokenizer:
    try:
      tokenizer = tokenizers.Tokenizer.from_file(str(self.path))
    except Exception as e:  # the library raises bare Exception
      raise UserError(
        f"{self.path} is not a tokenizer.json ({str(e).splitlines()[0]})."
      ) from e
    # A file may carry the lengths that its last user trimmed and padded to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

  def _id(self, what: str, token: str | None, special: dict[str, int]) -> int:
    id_ = None if token is None else self._tokenizer.token_to_id(token)
    if id_ is None:
      said = "is not said" if token is None else f"{token!r} is not a token"
      raise UserError(
        f"{self.path}: the {what} token {said}; give {what}=..., one of its"
        f" special tokens: {', '.join(map(repr, special)) or 'it has none'}."
      )
    return id_

  def _optional(self, token: str | None) -> int | None:
    return None if token is None else self._tokenizer.token_to_id(token)

  def _begin(self, config: Mapping) -> int | None:
    """BOS as `add_bos_token` says, else as the post-processor does."""
    adds = config.get("add_bos_token")
    if adds is None:
      plain = self._tokenizer.encode("a", add_special_tokens=False).ids
      whole = self._tokenizer.encode("a").ids
      return whole[0] if whole[:1] != plain[:1] else None
    if adds and self._bos is None:
      raise UserError(
        f"{self.path}: add_bos_token is set, but bos_token"
        f" {config.get('bos_token')!r} is not a token."
      )
    return self._bos if adds else None

  # gin and tf.data copy vocabularies; the library's object is rebuilt.
  def __getstate__(self):
    return {k: v for k, v in self.__dict__.items() if k != "_tokenizer"}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._tokenizer = tokenizers.Tokenizer.from_str(self._json)

  def token(self, id_: int) -> str | None:
    """The token of an id as the file writes it, `'<|im_end|>'`."""
    return self._tokenizer.id_to_token(id_)

  def encode_batch(self, texts: list[str]) -> list[list[int]]:
    """Ids of each text, on all cores and without Python's lock."""
    encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [e.ids for e in encoded]

  def encode_spans(
    self, texts: list[str]
  ) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Ids of each text, and which of its characters each id stands for."""
    encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
    return [(e.ids, e.offsets) for e in encoded]

  def texts(self, ids: list[int]) -> list[str]:
    """What each token adds to the text, special ones as the file has them."""
    said = [
      self._tokenizer.decode(ids[:n], skip_special_tokens=False)
      for n in range(len(ids) + 1)
    ]
    # A part of a character adds nothing until the last of its parts is there.
    whole = [text.rstrip("\ufffd") for text in said]
    return [b.removeprefix(a) for a, b in itertools.pairwise(whole)]

  @property
  def bos_id(self) -> int | None:
    return self._bos

  @property
  def eos_id(self) -> int:
    return self._eos

  @property
  def pad_id(self) -> int:
    return self._pad

  @property
  def unk_id(self) -> int | None:
    return self._unk

  @property
  def _base_vocab_size(self) -> int:
    return self._size

  def _encode(self, s: str) -> list[int]:
    return self._tokenizer.encode(s, add_special_tokens=False).ids

  def _decode(self, ids) -> str:
    return self._tokenizer.decode([int(i) for i in ids])

  def _encode_many(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = self.encode_batch([t.decode("utf-8") for t in texts.tolist()])
    flat = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
    return flat, np.array([len(row) for row in ids], np.int64)

  def _encode_tf(self, s):
    s = tf.convert_to_tensor(s)
    flat, lengths = tf.numpy_function(
      self._encode_many,
      [tf.reshape(s, [-1])],
      (tf.int32, tf.int64),
      stateful=False,
    )
    flat.set_shape([None])
    if s.shape.rank == 0:
      return flat
    if s.shape.rank != 1:
      raise ValueError(f"encode_tf takes one text or a vector, not {s.shape}")
    lengths.set_shape(s.shape)
    return tf.RaggedTensor.from_row_lengths(flat, lengths)

  def _decode_tf(self, ids):
    if isinstance(ids, tf.RaggedTensor):
      ids = ids.to_tensor(self.pad_id)

    def decode(rows: np.ndarray) -> np.ndarray:
      return np.array([self._decode(r).encode() for r in rows], object)

    ids = tf.convert_to_tensor(ids)
    texts = tf.numpy_function(
      decode, [tf.reshape(ids, [-1, tf.shape(ids)[-1]])], tf.string
    )
    texts = tf.reshape(texts, tf.shape(ids)[:-1])
    texts.set_shape(ids.shape[:-1])
    return texts

  def __eq__(self, other):
    return (
      isinstance(other, TokenizerVocabulary)
      and (self._pad, self._eos) == (other._pad, other._eos)
      and self._json == other._json
    )

  def __str__(self):
    return f"TokenizerVocabulary({self.path})"


def _config(path: pathlib.Path) -> dict:
  """Special tokens of `tokenizer_config.json`, as text; `add_bos_token`."""
  read = json_beside(path, "tokenizer_config.json")
  out = {}
  for name in ("pad_token", "eos_token", "bos_token", "unk_token"):
    token = read.get(name)
    if isinstance(token, dict):  # older files write {"content": ...}
      token = token.get("content")
    if isinstance(token, str):
      out[name] = token
  if isinstance(read.get("add_bos_token"), bool):
    out["add_bos_token"] = read["add_bos_token"]
  return out


def generation_ends(path: pathlib.Path) -> tuple[int, ...]:
  """EOS ids that `generation_config.json` beside the file lists."""
  ends = json_beside(path, "generation_config.json").get("eos_token_id")
  if ends is None:
    return ()
  return tuple(ends) if isinstance(ends, list) else (ends,)


def json_beside(path: pathlib.Path, name: str) -> dict:
  """A JSON file beside a vocabulary; empty where there is none."""
  beside = path.with_name(name)
  if not beside.is_file():
    return {}
  try:
    read = json.loads(beside.read_text(encoding="utf-8"))
  except ValueError as e:
    raise UserError(f"{beside} is not JSON ({e}).") from e
  if not isinstance(read, dict):
    raise UserError(f"{beside} holds no JSON object.")
  return read
