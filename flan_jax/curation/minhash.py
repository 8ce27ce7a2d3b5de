"""Near-duplicates among millions of texts, nearly all of them.

Texts whose tokens are alike, a second "the" being another token than the first,
agree in all rows of at least one band of
their MinHash signatures with high probability: 1 - (1 - s^rows)^bands for a
Jaccard similarity s. Only pairs that agree are scored, exactly, so what is
reported is right and what is missed is bounded by that formula.

Source: Broder, 1997, "On the resemblance and containment of documents"; bands:
Leskovec, Rajaraman and Ullman, "Mining of massive datasets", section 3.4.

Dimensions: N distinct texts, B bands, P pairs.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int, UInt

from flan_jax.curation import near, overlap, rouge_l, tokens
from flan_jax.curation.rouge_l import Limit
from flan_jax.errors import UserError

_TEXTS_AT_ONCE = 1 << 14
_PAIRS_AT_ONCE = 1 << 20
_MIX = np.uint64(0x9E3779B97F4A7C15)


def recall(jaccard: float, bands: int = 50, rows: int = 5) -> float:
  """Probability that a pair of this Jaccard similarity is scored.

  >>> round(recall(0.7), 4), round(recall(0.54), 1), round(recall(0.1), 4)
  (0.9999, 0.9, 0.0005)
  """
  return 1 - (1 - jaccard**rows) ** bands


def near_pairs(
  texts: Iterable[str],
  *,
  tokenizer: str | tokens.Tokenize = "rouge",
  limit: Limit = overlap.DEFAULT,
  bands: int = 50,
  rows: int = 5,
  seed: int = 0,
  workers: int = 1,
  most_pairs: int = overlap.MOST_PAIRS,
) -> overlap.Pairs:
  """Most pairs of texts that are near-duplicates, each with its exact score.

  >>> pairs = near_pairs(["Name a fruit.", "Sort it.", "name a fruit"])
  >>> pairs.first.tolist(), pairs.second.tolist(), pairs.score.tolist()
  ([0], [2], [1.0])

  A text with the same tokens as an earlier one is paired with the first such
  text alone. Memory: 8 bytes a band and text, and the texts.

  Args:
    texts: to compare with one another.
    tokenizer: a name of `tokens.TOKENIZERS` or a function from text to tokens.
    limit: what counts as a near-duplicate.
    bands: more find more, and cost more.
    rows: more score fewer pairs that are not near, and miss more.
    seed: of the hash functions.
    workers: threads for the scores.
    most_pairs: to hold.

  Raises:
    UserError: for fewer than one band or row, more pairs than `most_pairs`, or
      a tokenizer that finds no token in more than a tenth of the texts.
  """
  for name, value in (("bands", bands), ("rows", rows), ("workers", workers)):
    if value < 1:
      raise UserError(f"{name} is {value}; it must be 1 or more.")
  texts = list(texts)
  tokenize = tokens.resolve(tokenizer)
  cut = [tokenize(text) for text in texts]
  tokens.Blanks().see(texts, cut)
  encode = rouge_l.Encoder()
  first_of: dict[rouge_l.Encoded | tuple, int] = {}
  copies = []
  encoded = []
  for i, found in enumerate(cut):
    code = encode(found)
    key = code if isinstance(code, str) else tuple(code)
    first = first_of.setdefault(key, i)
    if first == i and found:
      encoded.append(code)
    elif first != i and found:
      copies.append((first, i))
  del cut
  place = np.array([i for k, i in first_of.items() if k], np.int64)
  keys = _keys(encoded, bands, rows, seed)
  lengths = np.array([len(e) for e in encoded], np.int64)
  parts = [np.array(copies, np.int64).reshape(-1, 2)]
  scores = [np.ones(len(copies))]
  for key in keys:
    for a, b in _agreeing(key):
      least = limit.least_common(lengths[a], lengths[b])
      able = least <= np.minimum(lengths[a], lengths[b])
      a, b, least = a[able], b[able], least[able]
      common = rouge_l.common_pairs(
        [encoded[i] for i in a], [encoded[i] for i in b], workers
      )
      hit = common >= least
      a, b, common = a[hit], b[hit], common[hit]
      parts.append(np.stack([place[a], place[b]], 1))
      scores.append(rouge_l.f_measure(common, lengths[a], lengths[b]))
    pairs, kept = np.unique(np.concatenate(parts), axis=0, return_index=True)
    parts, scores = [pairs], [np.concatenate(scores)[kept]]
    if len(pairs) > most_pairs:
      raise UserError(
        f"More than {most_pairs:,} pairs of the {len(texts):,} texts are near-"
        f"duplicates at threshold {limit.threshold}. Raise the threshold or"
        " most_pairs."
      )
  return overlap.Pairs(parts[0][:, 0], parts[0][:, 1], scores[0])


def _keys(encoded, bands: int, rows: int, seed: int) -> UInt[np.ndarray, "B N"]:
  """One number for each band of each text's signature."""
  rng = np.random.default_rng(seed)
  # Multiply, fold and multiply again: one odd pair for each hash function.
  odd = rng.integers(0, 1 << 63, (bands * rows, 2), np.uint64) * 2 + 1
  odd = odd.astype(np.uint64)
  out = np.zeros((bands, len(encoded)), np.uint64)
  for start in range(0, len(encoded), _TEXTS_AT_ONCE):
    part = encoded[start : start + _TEXTS_AT_ONCE]
    ends = np.cumsum([len(e) for e in part])
    begins = np.concatenate([[0], ends[:-1]])
    codes, _, times = near.occurrences(part)
    codes = (codes + np.uint64(1)) ^ (times << np.uint64(32))
    for k, (first, second) in enumerate(odd):
      hashed = codes * first
      hashed = (hashed ^ (hashed >> np.uint64(29))) * second
      hashed ^= hashed >> np.uint64(32)
      least = np.minimum.reduceat(hashed, begins)
      band = out[k // rows, start : start + len(part)]
      band[:] = (band ^ least) * _MIX
  return out


def _agreeing(
  key: UInt[np.ndarray, " N"],
) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
  """All pairs of texts with the same key, the earlier first, in pieces."""
  order = np.argsort(key, kind="stable")
  ranked = key[order]
  left = np.arange(len(key) - 1)
  step = 1
  while len(left):
    left = left[left + step < len(key)]
    left = left[ranked[left] == ranked[left + step]]
    for start in range(0, len(left), _PAIRS_AT_ONCE):
      piece = left[start : start + _PAIRS_AT_ONCE]
      yield order[piece], order[piece + step]
    step += 1
