"""Tokens of conversations, and which of them are trained.

A conversation's text is tokenised as a whole, never piece by piece, so its
tokens are those that a model reads that is given the whole. A token is trained
if one of its characters is. Where a vocabulary has no text for EOS and BOS
(SentencePiece), the text between two of them is a whole.

N tokens.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import seqio

from flan_jax.data import chat_formats, replacing, tokenizers
from flan_jax.data.chat_formats import Rendered
from flan_jax.errors import UserError


class Tokens(NamedTuple):
  """One conversation.

  Attributes:
    ids_N: int32, without begin id.
    trained_N: bool.
    ends: for each exchange how many tokens there are up to its end, about
      (what is kept is tokenised again).
  """

  ids_N: np.ndarray
  trained_N: np.ndarray
  ends: list[int]


class _Chunk(NamedTuple):
  """Text between two tokens that have none: its pieces, and where they end."""

  text: str
  trained: list[tuple[int, bool]]
  ends: list[int]


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Tokenises conversations with a vocabulary.

  >>> tokenizer = Tokenizer(vocabulary_lib.load())
  >>> pieces = [chat_formats.Piece("ab "), chat_formats.Piece("c", True),
  ...   chat_formats.Piece(chat_formats.EOS, True, special=True)]
  >>> tokens = tokenizer.encode([Rendered(pieces, [3])])[0]
  >>> tokens.trained_N.tolist()
  [False, False, False, False, True, True]

  Attributes:
    vocabulary: any of `vocabulary.load`, or seqio's of bytes.
    begun: whether the begin id stands before the text.
  """

  vocabulary: seqio.Vocabulary
  begun: bool = True

  def encode(self, conversations: Sequence[Rendered]) -> list[Tokens]:
    """Tokens of each, in one call of the library.

    Raises:
      UserError: a format has BOS between turns, and the vocabulary has none.
    """
    plans = [self._plan(rendered) for rendered in conversations]
    texts = [
      part.text
      for part in itertools.chain.from_iterable(plans)
      if isinstance(part, _Chunk)
    ]
    spans = iter(_spans(self.vocabulary, texts))
    found = [_joined(plan, spans) for plan in plans]
    return [
      self._without_begin(tokens) if self._begin and r.behind_bos else tokens
      for tokens, r in zip(found, conversations, strict=True)
    ]

  @functools.cached_property
  def _begin(self) -> str | None:
    """The text of the begin id, where texts can have one."""
    inner = replacing.innermost(self.vocabulary)
    if not (self.begun and isinstance(inner, tokenizers.TokenizerVocabulary)):
      return None
    return None if inner.begin_id is None else inner.token(inner.begin_id)

  def _without_begin(self, tokens: Tokens) -> Tokens:
    if not len(tokens.ids_N) or (
      tokens.ids_N[0] != replacing.innermost(self.vocabulary).begin_id
    ):
      return tokens
    return Tokens(
      tokens.ids_N[1:], tokens.trained_N[1:], [end - 1 for end in tokens.ends]
    )

  def _plan(self, rendered: Rendered) -> list:
    """Chunks of text, and between them (id, trained, exchange ends here)."""
    ends = set(rendered.ends)
    out, text, trained, closing = [], "", [], []
    if rendered.behind_bos and self._begin:
      text = self._begin
      trained.append((len(text), False))

    def close():
      if text:
        out.append(_Chunk(text, list(trained), list(closing)))

    for number, piece in enumerate(rendered.pieces, 1):
      said = piece.text
      if piece.special:
        said = self._special(said)
        if isinstance(said, int):
          close()
          out.append((said, piece.trained, number in ends))
          text, trained, closing = "", [], []
          continue
      else:
        said = self._replaced(said)
      text += said
      trained.append((len(text), piece.trained))
      if number in ends:
        closing.append(len(text))
    close()
    return out

  def _replaced(self, said: str) -> str:
    inner = self.vocabulary
    while isinstance(inner, replacing.ReplacingVocabulary):
      said, inner = inner.replaced(said), inner.inner
    return said

  def _special(self, mark: str) -> str | int:
    """The text of EOS or BOS, or its id where there is none."""
    inner = replacing.innermost(self.vocabulary)
    is_bos = mark == chat_formats.BOS
    id_ = inner.bos_id if is_bos else inner.eos_id
    if id_ is None or id_ < 0:
      raise UserError(
        f"the chat format puts {'BOS' if is_bos else 'EOS'} between turns, but"
        f" {self.vocabulary} has none. Give another CHAT_FORMAT."
      )
    if isinstance(inner, tokenizers.TokenizerVocabulary):
      return inner.token(id_)
    return int(id_)


def _spans(vocabulary, texts: list[str]):
  """Ids and spans of characters of each text."""
  vocabulary = replacing.innermost(vocabulary)
  if isinstance(vocabulary, tokenizers.TokenizerVocabulary):
    return vocabulary.encode_spans(texts)
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    # Positions are of bytes.
    found = vocabulary.tokenizer.encode(texts, return_type="proto")
    return [
      _of_bytes(text, [(p.id, p.begin, p.end) for p in proto.pieces])
      for text, proto in zip(texts, found, strict=True)
    ]
  if isinstance(vocabulary, seqio.ByteVocabulary):
    return [
      _of_bytes(text, [(b + 3, n, n + 1) for n, b in enumerate(text.encode())])
      for text in texts
    ]
  raise UserError(
    f"{vocabulary} does not say which characters its tokens stand for, which"
    " the loss on answers alone needs. Use a SentencePiece model, a"
    " tokenizer.json or a GGUF file."
  )


def _of_bytes(text: str, found) -> tuple[list[int], list[tuple[int, int]]]:
  """Spans of bytes as spans of characters; part of one counts as it whole."""
  if text.isascii():
    return [i for i, *_ in found], [(b, e) for _, b, e in found]
  sizes = np.array([len(c.encode()) for c in text])
  char = np.repeat(np.arange(len(text)), sizes)
  after = np.append(char, len(text))
  spans = [
    (int(after[b]), int(char[e - 1]) + 1 if e > b else int(after[b]))
    for _, b, e in found
  ]
  return [i for i, *_ in found], spans


def _joined(plan: list, spans) -> Tokens:
  ids: list[int] = []
  trained: list[bool] = []
  ends: list[int] = []
  for part in plan:
    if isinstance(part, _Chunk):
      found, where = next(spans)
      begin, end = _tiled(where)
      # Trained characters before each position.
      char = np.zeros(part.trained[-1][0] + 2, np.int64)
      start = 0
      for stop, is_trained in part.trained:
        char[start + 1 : stop + 1] = is_trained
        start = stop
      before = char.cumsum()
      end = np.minimum(end, start + 1)
      trained += (before[end] > before[np.minimum(begin, end)]).tolist()
      ends += [
        len(ids) + int(np.searchsorted(end, at, "right")) for at in part.ends
      ]
      ids += found
    else:
      id_, is_trained, closes = part
      ids.append(id_)
      trained.append(is_trained)
      if closes:
        ends.append(len(ids))
  return Tokens(np.array(ids, np.int32), np.array(trained, bool), ends)


def _tiled(spans) -> tuple[np.ndarray, np.ndarray]:
  """Begins and ends, with no character between two tokens left out.

  Some tokenizers leave white space out of a span, or give none to a token that
  is a part of a character: it then stands for what comes next.
  """
  begin = np.array([b for b, _ in spans], np.int64)
  end = np.array([e for _, e in spans], np.int64)
  if len(end):
    previous = np.concatenate([[0], np.maximum.accumulate(end)[:-1]])
    begin = np.minimum(begin, previous)
    # A part of a character has the whole character, as its other parts have.
    same = begin >= end
    begin = np.where(same, np.array([b for b, _ in spans]), begin)
    end = np.maximum(end, begin + 1)
  return begin, end
