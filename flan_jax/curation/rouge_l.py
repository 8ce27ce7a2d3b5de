"""ROUGE-L F of many pairs at once, with `rouge_score`'s own rounding.

With L tokens in the longest common subsequence of texts of m and n tokens,
F = 2pr / (p + r), p = L / m, r = L / n. The order of the operations is that of
`rouge_score`, so that a score equal to a threshold falls on the same side.

Source: Lin, 2004, "ROUGE: a package for automatic evaluation of summaries",
section 3.

Dimensions: Q texts asked about, N texts of a pool, P pairs.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from flan_jax.errors import UserError

# A text as a string with one character for each token, which the library
# compares fastest; a list of numbers where characters run out.
Encoded = str | list[int]

_SURROGATES = 0xD800
_SURROGATE_COUNT = 0x800
_LAST_CHARACTER = 0x10FFFF


class Encoder:
  """Numbers tokens, and writes texts as strings of one character a token.

  >>> encoder = Encoder()
  >>> a, b = (encoder(x.split()) for x in ("to be or not to be", "to be"))
  >>> len(a), b == a[:2]
  (6, True)
  """

  def __init__(self):
    self._codes: dict[str, int] = {}

  def __call__(self, tokens: Sequence[str]) -> Encoded:
    codes = [self._code(t) for t in tokens]
    if max(codes, default=0) > _LAST_CHARACTER:
      return codes
    return "".join(map(chr, codes))

  def _code(self, token: str) -> int:
    code = self._codes.get(token)
    if code is None:
      code = len(self._codes)
      if code >= _SURROGATES:
        code += _SURROGATE_COUNT
      self._codes[token] = code
    return code


@dataclasses.dataclass(frozen=True)
class Limit:
  """Which ROUGE-L F makes two texts near-duplicates: above `threshold`.

  >>> Limit(0.7).is_near(np.array([0.7, 0.71])).tolist()
  [False, True]
  >>> Limit(0.7, equal_is_near=True).is_near(np.array([0.7])).tolist()
  [True]

  Attributes:
    threshold: above 0, at most 1.
    equal_is_near: a score equal to the threshold counts as near. The code of
      Self-Instruct and of Alpaca keeps such a text (False); Self-Instruct's
      paper says that it is kept when less than 0.7 (True).

  Raises:
    UserError: for a threshold with which all or no texts are near.
  """

  threshold: float = 0.7
  equal_is_near: bool = False

  def __post_init__(self):
    top = 1 if self.equal_is_near else np.nextafter(1, 0)
    if not 0 < self.threshold <= top:
      raise UserError(
        f"threshold is {self.threshold}; it must be above 0 and"
        f" {'at most' if self.equal_is_near else 'below'} 1, for example 0.7."
      )

  def is_near(
    self, scores: Float[np.ndarray, "..."]
  ) -> Bool[np.ndarray, "..."]:
    """Whether texts with these scores count as near-duplicates."""
    if self.equal_is_near:
      return scores >= self.threshold
    return scores > self.threshold

  def least_common(self, m, n) -> Int[np.ndarray, "..."]:
    """The smallest L with which texts of m and n tokens are near.

    >>> Limit(0.7).least_common(10, np.array([5, 10, 20])).tolist()
    [6, 8, 11]

    It may exceed min(m, n): then the two cannot be near.
    """
    m, n = np.broadcast_arrays(m, n)
    # Rounding moves the border by less than one token.
    guess = np.floor(self.threshold * (m + n) / 2).astype(np.int64) - 1
    least = np.full(m.shape, -1, np.int64)
    for step in range(4):
      common = np.maximum(guess + step, 1)
      near = self.is_near(f_measure(common, m, n))
      least = np.where((least < 0) & near, common, least)
    # A text without tokens is near nothing.
    return np.where((m == 0) | (n == 0), 1, least)


def f_measure(common, m, n) -> Float[np.ndarray, "..."]:
  """ROUGE-L F of L common tokens between texts of m and n tokens.

  >>> f_measure(7, 8, 9).round(4).item()
  0.8235

  Zero where L, m or n is zero. The arguments broadcast.
  """
  common = np.asarray(common, np.float64)
  precision = common / np.maximum(m, 1)
  recall = common / np.maximum(n, 1)
  total = precision + recall
  return 2 * precision * recall / np.where(total > 0, total, 1)


def common_matrix(
  queries: Sequence[Encoded], texts: Sequence[Encoded], workers: int = 1
) -> Int[np.ndarray, "Q N"]:
  """L of every query with every text, uint16 (uint32 for very long ones).

  >>> common_matrix(["abc"], ["axc", "b", ""]).tolist()
  [[2, 1, 0]]
  """
  return process.cdist(
    queries,
    texts,
    scorer=LCSseq.similarity,
    dtype=_dtype(queries),
    workers=workers,
  )


def common_pairs(
  first: Sequence[Encoded], second: Sequence[Encoded], workers: int = 1
) -> Int[np.ndarray, " P"]:
  """L of each text of one list with its neighbour in the other.

  >>> common_pairs(["abc", "ab"], ["axc", "ba"]).tolist()
  [2, 1]
  """
  return process.cpdist(
    first,
    second,
    scorer=LCSseq.similarity,
    dtype=_dtype(first),
    workers=workers,
  )


def _dtype(texts: Sequence[Encoded]):
  longest = max(map(len, texts), default=0)
  return np.uint16 if longest < np.iinfo(np.uint16).max else np.uint32
