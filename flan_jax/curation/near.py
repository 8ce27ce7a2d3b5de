"""Which of many texts are near which, exactly, without scoring every pair.

Texts of up to 64 tokens are compared by a bit-parallel subsequence of one
machine word, several pairs at a time: that is faster than any test that could
spare it, except the one of lengths. Longer texts are first compared by bitsets
of their tokens, and only pairs that can reach the threshold are scored.

Dimensions: Q texts asked about, N texts of a pool, W words of a bitset, P pairs
found.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt

from flan_jax.curation import rouge_l
from flan_jax.curation.rouge_l import Encoded, Limit

# Tokens of a text whose subsequence fits one machine word.
SHORT = 64
BITS = 1024
# Pairs whose tables are held at a time: about 100 MB.
PAIRS_AT_ONCE = 1 << 23
_ROWS_AT_ONCE = 1 << 14
# Odd numbers with well-spread bits, for hashing.
_TOKEN = np.uint64(0x9E3779B97F4A7C15)
_TIMES = np.uint64(0xC2B2AE3D27D4EB4F)


@dataclasses.dataclass
class Texts:
  """Encoded texts with what the bounds read.

  Attributes:
    encoded: one for each text.
    lengths: tokens of each, int64 [N].
    bits: `bitsets` of each, uint64 [N, W].
  """

  encoded: list[Encoded]
  lengths: Int[np.ndarray, " N"]
  bits: UInt[np.ndarray, "N W"]

  def take(self, rows) -> "Texts":
    """The texts of these rows, or of a slice."""
    if isinstance(rows, slice):
      encoded = self.encoded[rows]
    else:
      encoded = [self.encoded[i] for i in rows]
    return Texts(encoded, self.lengths[rows], self.bits[rows])


def describe(encoded: Sequence[Encoded]) -> Texts:
  """What the bounds need to know of each text.

  >>> describe(["abc", ""]).lengths.tolist()
  [3, 0]
  """
  lengths = np.array([len(e) for e in encoded], np.int64)
  return Texts(list(encoded), lengths, bitsets(encoded))


def bitsets(encoded: Sequence[Encoded]) -> UInt[np.ndarray, "N W"]:
  """Hashes of the tokens of each text as 1,024 bits.

  >>> np.bitwise_count(bitsets(["aab", "ab"])).sum(1).tolist()
  [3, 2]

  The second "a" of a text is another bit than the first, so that two texts
  share at most as many tokens as they have less those whose bit is missing.
  """
  out = np.zeros((len(encoded), BITS // 64), np.uint64)
  for start in range(0, len(encoded), _ROWS_AT_ONCE):
    rows = encoded[start : start + _ROWS_AT_ONCE]
    codes, text, times = occurrences(rows)
    hashed = (codes + np.uint64(1)) * _TOKEN
    hashed ^= times * _TIMES
    hashed = (hashed * _TIMES) >> np.uint64(64 - BITS.bit_length() + 1)
    table = np.zeros((len(rows), BITS), bool)
    table[text, hashed.astype(np.int64)] = True
    packed = np.packbits(table, axis=1).view(np.uint64)
    out[start : start + len(rows)] = packed
  return out


def occurrences(encoded: Sequence[Encoded]):
  """The tokens of texts as (code, text, times seen before in it), by text.

  >>> [x.tolist() for x in occurrences(["aba", "b"])]
  [[97, 97, 98, 98], [0, 0, 0, 1], [0, 1, 0, 0]]
  """
  codes = np.concatenate([np.zeros(0, np.uint64), *map(_codes, encoded)])
  text = np.repeat(np.arange(len(encoded)), [len(e) for e in encoded])
  order = np.lexsort((codes, text))
  codes, text = codes[order], text[order]
  place = np.arange(len(codes))
  new = np.ones(len(codes), bool)
  new[1:] = (codes[1:] != codes[:-1]) | (text[1:] != text[:-1])
  times = place - np.maximum.accumulate(np.where(new, place, 0))
  return codes, text, times.astype(np.uint64)


def _codes(encoded: Encoded) -> UInt[np.ndarray, " T"]:
  if isinstance(encoded, str):
    raw = encoded.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, "<u4").astype(np.uint64)
  return np.array(encoded, np.uint64)


def most_common(queries: Texts, texts: Texts) -> Int[np.ndarray, "Q N"]:
  """At least as many as the tokens that a query and a text can share.

  >>> a = describe(["aab", "abc"])
  >>> most_common(a, a).tolist()
  [[3, 2], [2, 3]]
  """
  shared = np.zeros((len(queries.encoded), len(texts.encoded)), np.int32)
  for q, t in zip(queries.bits.T, texts.bits.T, strict=True):
    shared += np.bitwise_count(q[:, None] & t[None, :])
  missing_q = queries.lengths - np.bitwise_count(queries.bits).sum(1)
  missing_t = texts.lengths - np.bitwise_count(texts.bits).sum(1)
  return np.minimum(
    shared + missing_q.astype(np.int32)[:, None],
    shared + missing_t.astype(np.int32)[None, :],
  )


@dataclasses.dataclass(frozen=True)
class Found:
  """Pairs that are near: a query, a text and their common tokens, [P] each."""

  query: Int[np.ndarray, " P"]
  text: Int[np.ndarray, " P"]
  common: Int[np.ndarray, " P"]


def find(queries: Texts, texts: Texts, limit: Limit, workers: int = 1) -> Found:
  """Every pair of a query and a text that is near, ordered by query and text.

  >>> a = describe(["abcd", "xbcd", "q"])
  >>> found = find(a.take(slice(1)), a, limit=Limit(0.7))
  >>> found.text.tolist(), found.common.tolist()
  ([0, 1], [4, 3])

  Holds tables of up to `PAIRS_AT_ONCE` pairs, and what it found.
  """
  parts = []
  short = queries.lengths <= SHORT
  if len(texts.encoded):
    for rows, search in ((short, _find_short), (~short, _find_long)):
      for chunk in _chunks(np.flatnonzero(rows), len(texts.encoded)):
        q, t, common = search(queries.take(chunk), texts, limit, workers)
        parts.append((chunk[q], t, common.astype(np.int64)))
  empty = np.zeros(0, np.int64)
  query, text, common = (
    np.concatenate([empty, *columns])
    for columns in (zip(*parts, strict=True) if parts else [()] * 3)
  )
  order = np.lexsort((text, query))
  return Found(query[order], text[order], common[order])


def _chunks(rows, others: int) -> Iterator[Int[np.ndarray, " Q"]]:
  size = max(1, PAIRS_AT_ONCE // others)
  for start in range(0, len(rows), size):
    yield rows[start : start + size]


def _least(queries: Texts, texts: Texts, limit: Limit):
  """`Limit.least_common` of every pair, computed once for each two lengths."""
  m, m_row = np.unique(queries.lengths, return_inverse=True)
  n, n_row = np.unique(texts.lengths, return_inverse=True)
  table = limit.least_common(m[:, None], n[None, :]).astype(np.int32)
  return table, m_row, n_row


def _find_short(queries: Texts, texts: Texts, limit: Limit, workers: int):
  common = rouge_l.common_matrix(queries.encoded, texts.encoded, workers)
  table, m_row, n_row = _least(queries, texts, limit)
  # No query reaches more than SHORT, which fits the narrowest type.
  table = np.minimum(table, SHORT + 1).astype(common.dtype)
  q, t = np.nonzero(common >= table[:, n_row][m_row])
  return q, t, common[q, t]


def _find_long(queries: Texts, texts: Texts, limit: Limit, workers: int):
  table, m_row, n_row = _least(queries, texts, limit)
  # Lengths first: the bitsets of texts that no query can be near are not read.
  shortest = np.minimum(queries.lengths.max(), texts.lengths)
  rows = np.flatnonzero(table[:, n_row].min(0) <= shortest)
  near = texts.take(rows)
  q, t = np.nonzero(most_common(queries, near) >= table[:, n_row[rows]][m_row])
  common = rouge_l.common_pairs(
    [queries.encoded[i] for i in q], [near.encoded[i] for i in t], workers
  )
  hit = common >= table[m_row[q], n_row[rows[t]]]
  return q[hit], rows[t[hit]], common[hit]
