"""Which texts share a run of words with others, in bounded memory.

Evaluation texts are indexed by a 64-bit hash of each of their n-grams of
words; training texts stream past it. A word that no evaluation text has ends
a run, so most of a training text is skipped after one look-up a word.

Words are lower-case runs of letters and digits, so that neither layout nor
punctuation hides a copy. Two different n-grams share a hash with probability
about (indexed x scanned) / 2^64: 10^-4 for 10 million against 200 million.

Source: Brown et al., 2020 (arXiv 2005.14165), appendix C: 13-grams; Wei et
al., 2022 (arXiv 2109.01652), appendix C, uses the same.

Dimensions: E evaluation texts, G distinct n-grams, W words of a batch.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from flan_jax.errors import UserError

N = 13
# Texts of fewer words are not looked for: they are shared by chance.
SHORTEST = 8

_WORD = re.compile(r"\w+")
# Odd, so that powers of it never vanish modulo 2^64.
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
  """Lower-case words of a text.

  >>> words("It's 5 o'clock, somewhere.")
  ['it', 's', '5', 'o', 'clock', 'somewhere']
  """
  return _WORD.findall(text.lower())


class Index:
  """The n-grams of a fixed set of texts; counts which of them were seen.

  >>> index = Index(["the cat sat on the mat all day long, it did"], n=5)
  >>> index.scan(["He said the cat sat on the mat."])
  array([0], dtype=int32)
  >>> index.shared().tolist()
  [2]

  A text of `shortest` to n - 1 words is one gram, the whole text.

  Attributes:
    lengths: words of each text, int64 [E].
    grams: n-grams of each text, int64 [E]; 0 for texts of fewer words than
      `shortest`.
  """

  def __init__(
    self, texts: Iterable[str], *, n: int = N, shortest: int = SHORTEST
  ):
    """Args:
    texts: what is looked for.
    n: words of a gram.
    shortest: words that a text needs to be looked for at all.

    Raises:
      UserError: n is below 1.
    """
    if n < 1:
      raise UserError(f"NGRAM is {n} words; it is 1 or more.")
    self.n, self.shortest = n, min(shortest, n)
    self._ids: dict[str, int] = {}
    hashes, owners, lengths = [], [], []
    for number, text in enumerate(texts):
      ids = np.array(
        [self._ids.setdefault(w, len(self._ids) + 1) for w in words(text)],
        np.uint64,
      )
      lengths.append(len(ids))
      if len(ids) >= self.shortest:
        made = np.unique(_grams(ids, min(self.n, len(ids))))
        hashes.append(made)
        owners.append(np.full(len(made), number, np.int32))
    self.lengths = np.array(lengths, np.int64)
    flat = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    owner = np.concatenate(owners) if owners else np.zeros(0, np.int32)
    self._hash_G, inverse = np.unique(flat, return_inverse=True)
    # Owners of gram g: owner[starts[g] : starts[g + 1]].
    order = np.argsort(inverse, kind="stable")
    self._owners = owner[order]
    counts = np.bincount(inverse, minlength=len(self._hash_G))
    self._starts = np.concatenate([[0], counts.cumsum()])
    self.grams = np.bincount(owner, minlength=len(lengths)).astype(np.int64)
    self._seen_G = np.zeros(len(self._hash_G), bool)
    self._sizes = sorted(
      {min(self.n, int(x)) for x in self.lengths if x >= self.shortest}
    )

  def scan(self, texts: Iterable[str]) -> np.ndarray:
    """Marks the n-grams that occur in `texts`.

    Returns:
      Numbers of the indexed texts that share a gram with one of them, sorted.
    """
    ids: list[int] = []
    get = self._ids.get
    for text in texts:
      ids += [get(w, 0) for w in words(text)]
      ids.append(0)  # no gram goes from one text into the next
    ids_W = np.array(ids, np.uint64)
    found = [self._find(ids_W, size) for size in self._sizes]
    hit = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    self._seen_G[hit] = True
    return self._owners_of(hit)

  def _find(self, ids_W: np.ndarray, size: int) -> np.ndarray:
    """Grams (their places in the index) of one size in a run of ids."""
    if len(ids_W) < size:
      return np.zeros(0, np.int64)
    # A window holds a break (0) exactly if the count of breaks grows in it.
    breaks = np.concatenate([[0], np.cumsum(ids_W == 0)])
    whole = np.flatnonzero(breaks[size:] == breaks[:-size])
    if not len(whole):
      return np.zeros(0, np.int64)
    hashes = np.unique(_grams(ids_W, size)[whole])
    place = np.searchsorted(self._hash_G, hashes)
    place = place[place < len(self._hash_G)]
    hashes = hashes[: len(place)]
    return place[self._hash_G[place] == hashes]

  def _owners_of(self, grams: np.ndarray) -> np.ndarray:
    parts = [self._owners[self._starts[g] : self._starts[g + 1]] for g in grams]
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int32)

  def shared(self) -> np.ndarray:
    """How many grams of each text were seen in what was scanned, int64 [E]."""
    seen = np.repeat(self._seen_G, np.diff(self._starts))
    return np.bincount(self._owners[seen], minlength=len(self.lengths)).astype(
      np.int64
    )


def _grams(ids: np.ndarray, size: int) -> np.ndarray:
  """Hash of every window of `size` ids: a polynomial modulo 2^64, mixed."""
  count = len(ids) - size + 1
  out = np.full(count, size, np.uint64)
  with np.errstate(over="ignore"):
    for offset in range(size):
      out = out * _BASE + ids[offset : offset + count]
      out ^= out >> np.uint64(29)
  return out


def batches(texts: Iterable[str], size: int) -> Iterable[Sequence[str]]:
  """Lists of at most `size` texts, in order."""
  batch: list[str] = []
  for text in texts:
    batch.append(text)
    if len(batch) == size:
      yield batch
      batch = []
  if batch:
    yield batch
