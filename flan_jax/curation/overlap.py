"""New instructions that are unlike all earlier ones, by ROUGE-L; and copies.

Every decision is the one that scoring every pair with `rouge_score` (rougeL
F, no stemmer) gives; see `near.py` for how most of the work is spared. For
millions of texts see `minhash.py`, which may miss some.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2.

Dimensions: N texts of a pool, P pairs.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from flan_jax.curation import near, rouge_l, tokens
from flan_jax.curation.rouge_l import Limit
from flan_jax.errors import UserError

# Texts that are compared with the pool at a time.
_BLOCK = 128
# Self-Instruct's and Alpaca's: above 0.7 is dropped.
DEFAULT = Limit()
# 24 bytes each.
MOST_PAIRS = 30_000_000


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether a text is unlike the pool, and what it is most like.

  Attributes:
    novel: no text of the pool is a near-duplicate of it.
    nearest: (position in the pool, score) of the most similar texts, best
      first, the earlier text first among equals.
    mean: of the scores against the whole pool; 0 for an empty one, None when
      only near-duplicates were looked for.
  """

  novel: bool
  nearest: tuple[tuple[int, float], ...]
  mean: float | None

  @property
  def score(self) -> float | None:
    """The best score, or None where no score is known."""
    return self.nearest[0][1] if self.nearest else None


class Pool:
  """Texts that are kept; a new one is admitted when it is unlike all of them.

  >>> pool = Pool(["Write a cover letter based on the given facts."])
  >>> verdict = pool.admit(["Write a poem based on the given facts."])[0]
  >>> verdict.novel, round(verdict.score, 4)
  (False, 0.8235)
  >>> pool.admit(["Name a fruit."])[0].novel, len(pool)
  (True, 2)

  The texts given at the start are not compared with one another. Memory: about
  1 kB a text, and half a gigabyte for tables at most.

  Args:
    texts: known at the start, for example the seeds.
    tokenizer: a name of `tokens.TOKENIZERS` or a function from text to tokens.
    limit: what counts as a near-duplicate.
    workers: threads.

  Raises:
    UserError: for a tokenizer that finds no token in more than a tenth of the
      texts so far; here and in `admit`.
  """

  def __init__(
    self,
    texts: Iterable[str] = (),
    *,
    tokenizer: str | tokens.Tokenize = "rouge",
    limit: Limit = DEFAULT,
    workers: int = 1,
  ):
    self._tokenize = tokens.resolve(tokenizer)
    self._encode = rouge_l.Encoder()
    self._blanks = tokens.Blanks()
    self._limit = limit
    self._workers = _checked_workers(workers)
    self._texts: list[str] = []
    self._encoded: list[rouge_l.Encoded] = []
    self._lengths = np.zeros(0, np.int64)
    self._bits = near.bitsets([])
    texts = _checked(texts)
    self._add(texts, self._read(texts))

  def __len__(self) -> int:
    return len(self._texts)

  def __getitem__(self, position: int) -> str:
    """The text at a position."""
    return self._texts[position]

  def admit(self, texts: Iterable[str], *, nearest: int = 10) -> list[Verdict]:
    """Adds each text that is novel; a later one is compared with it too.

    >>> pool = Pool()
    >>> [v.novel for v in pool.admit(["a b c", "A, b, c!", "d e f"])]
    [True, False, True]

    Args:
      texts: in the order in which they are to be decided.
      nearest: how many of the most similar texts each verdict names. With 0,
        a verdict has the one that is nearest to a dropped text and no mean:
        several times as fast.

    Returns:
      One verdict for each text.

    Raises:
      UserError: for texts that are not strings, or blank to the tokenizer.
    """
    texts = _checked(texts)
    if nearest < 0:
      raise UserError(f"nearest is {nearest}; it must be 0 or more.")
    described = self._read(texts)
    out = []
    start = 0
    while start < len(texts):
      size = max(1, min(_BLOCK, near.PAIRS_AT_ONCE // (len(self) + 1)))
      block = described.take(slice(start, start + size))
      decide = self._score if nearest else self._search
      verdicts = decide(block, nearest)
      kept = [i for i, verdict in enumerate(verdicts) if verdict.novel]
      self._add([texts[start + i] for i in kept], block.take(kept))
      out += verdicts
      start += size
    return out

  def _read(self, texts: Sequence[str]) -> near.Texts:
    cut = [self._tokenize(text) for text in texts]
    self._blanks.see(texts, cut)
    return near.describe([self._encode(found) for found in cut])

  def _all(self) -> near.Texts:
    count = len(self._encoded)
    return near.Texts(self._encoded, self._lengths[:count], self._bits[:count])

  def _add(self, texts: Sequence[str], described: near.Texts) -> None:
    count = len(self._texts)
    end = count + len(texts)
    if end > len(self._lengths):
      size = max(end, 2 * len(self._lengths))
      self._lengths = np.resize(self._lengths, size)
      self._bits = np.resize(self._bits, (size, self._bits.shape[1]))
    self._texts += texts
    self._encoded += described.encoded
    self._lengths[count:end] = described.lengths
    self._bits[count:end] = described.bits

  def _search(self, block: near.Texts, nearest: int) -> list[Verdict]:
    """Near-duplicates alone, which the bounds find."""
    del nearest
    size, count = len(self), len(block.encoded)
    outer = _matches(block, self._all(), self._limit, self._workers)
    inner = _matches(block, block, self._limit, self._workers)
    position: dict[int, int] = {}
    verdicts = []
    for i in range(count):
      scored = outer[i] + [
        (position[j], score) for j, score in inner[i] if j in position
      ]
      best = min(scored, key=lambda x: (-x[1], x[0]), default=None)
      if best is None:
        position[i] = size + len(position)
      verdicts.append(Verdict(best is None, (best,) if best else (), None))
    return verdicts

  def _score(self, block: near.Texts, nearest: int) -> list[Verdict]:
    """The scores against every text."""
    kept: list[int] = []
    verdicts = []
    outer = _scores(block, self._all(), self._workers)
    inner = _scores(block, block, self._workers)
    for i, scores in enumerate(outer):
      scores = np.concatenate([scores, inner[i, kept]])
      best = _largest(scores, nearest)
      novel = not (len(best) and self._limit.is_near(scores[best[0]]))
      mean = float(scores.mean()) if len(scores) else 0.0
      named = tuple((int(j), float(scores[j])) for j in best)
      verdicts.append(Verdict(novel, named, mean))
      if novel:
        kept.append(i)
    return verdicts


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Near-duplicates, ordered by first and second.

  Attributes:
    first: position of the earlier text, int64 [P].
    second: position of the later text, int64 [P].
    score: ROUGE-L F, float64 [P].
  """

  first: Int[np.ndarray, " P"]
  second: Int[np.ndarray, " P"]
  score: Float[np.ndarray, " P"]

  def __len__(self) -> int:
    return len(self.first)


def near_pairs(
  texts: Iterable[str],
  *,
  tokenizer: str | tokens.Tokenize = "rouge",
  limit: Limit = DEFAULT,
  workers: int = 1,
  most_pairs: int = MOST_PAIRS,
) -> Pairs:
  """All pairs of texts that are near-duplicates.

  >>> pairs = near_pairs(["Name a fruit.", "Sort a list.", "Name a red fruit."])
  >>> pairs.first.tolist(), pairs.second.tolist(), pairs.score.round(3).tolist()
  ([0], [2], [0.857])

  Args:
    texts: to compare with one another.
    tokenizer: a name of `tokens.TOKENIZERS` or a function from text to tokens.
    limit: what counts as a near-duplicate.
    workers: threads.
    most_pairs: to hold; 24 bytes each.

  Raises:
    UserError: for more pairs than `most_pairs`, and as `Pool`.
  """
  texts, workers = _checked(texts), _checked_workers(workers)
  described = _described(texts, tokenizer)
  order = np.argsort(described.lengths, kind="stable")
  rows = described.take(order)
  parts, count = [], 0
  for start in range(0, len(texts), _BLOCK):
    block = rows.take(slice(start, start + _BLOCK))
    # Both sides are ordered by length: only texts as long or longer, up to
    # the first that is too long for the longest of the block.
    longest = block.lengths[-1]
    least = limit.least_common(longest, rows.lengths[start:])
    end = start + int(np.searchsorted(least, longest, "right"))
    end = max(end, start + len(block.encoded))
    found = near.find(block, rows.take(slice(start, end)), limit, workers)
    later = found.text > found.query
    query, text = found.query[later] + start, found.text[later] + start
    score = rouge_l.f_measure(
      found.common[later], rows.lengths[query], rows.lengths[text]
    )
    pair = np.sort(np.stack([order[query], order[text]]), axis=0)
    parts.append((pair[0], pair[1], score))
    count += len(score)
    if count > most_pairs:
      raise UserError(
        f"More than {most_pairs:,} pairs of the {len(texts):,} texts are near-"
        f"duplicates at threshold {limit.threshold}. Raise the threshold, raise"
        " most_pairs, or thin the texts with Pool.admit first."
      )
  first, second, score = (
    np.concatenate([np.zeros(0, kind), *(part[i] for part in parts)])
    for i, kind in enumerate((np.int64, np.int64, np.float64))
  )
  rank = np.lexsort((second, first))
  return Pairs(first[rank], second[rank], score[rank])


def nearest_scores(
  texts: Iterable[str],
  *,
  tokenizer: str | tokens.Tokenize = "rouge",
  workers: int = 1,
) -> Float[np.ndarray, " N"]:
  """ROUGE-L F of each text to the most similar other one; every pair is scored.

  >>> nearest_scores(["a b", "c d", "a b", "a c"]).tolist()
  [1.0, 0.5, 1.0, 0.5]

  Raises:
    UserError: as `Pool`.
  """
  texts, workers = _checked(texts), _checked_workers(workers)
  described = _described(texts, tokenizer)
  out = np.zeros(len(texts))
  for start in range(0, len(texts), _BLOCK):
    block = described.take(slice(start, start + _BLOCK))
    scores = _scores(block, described, workers)
    own = np.arange(len(block.encoded))
    scores[own, start + own] = 0
    out[start : start + len(own)] = scores.max(axis=1)
  return out


def _described(
  texts: list[str], tokenizer: str | tokens.Tokenize
) -> near.Texts:
  """Texts as tokens, for a comparison with one another."""
  tokenize = tokens.resolve(tokenizer)
  cut = [tokenize(text) for text in texts]
  tokens.Blanks().see(texts, cut)
  encode = rouge_l.Encoder()
  return near.describe([encode(found) for found in cut])


def _matches(
  block: near.Texts, texts: near.Texts, limit: Limit, workers: int
) -> list[list[tuple[int, float]]]:
  """(position, score) of the near-duplicates of each text of the block."""
  found = near.find(block, texts, limit, workers)
  score = rouge_l.f_measure(
    found.common, block.lengths[found.query], texts.lengths[found.text]
  )
  out: list[list[tuple[int, float]]] = [[] for _ in block.encoded]
  for i, j, s in zip(
    found.query.tolist(), found.text.tolist(), score.tolist(), strict=True
  ):
    out[i].append((j, s))
  return out


def _scores(block: near.Texts, texts: near.Texts, workers: int):
  """F of every pair, float64 [Q, N]."""
  common = rouge_l.common_matrix(block.encoded, texts.encoded, workers)
  return rouge_l.f_measure(
    common, block.lengths[:, None], texts.lengths[None, :]
  )


def _largest(scores: Float[np.ndarray, " N"], count: int):
  """Positions of the largest, best first, the earlier first among equals."""
  if count < len(scores):
    least = np.partition(scores, -count)[-count]
    rows = np.flatnonzero(scores >= least)
  else:
    rows = np.arange(len(scores))
  return rows[np.argsort(-scores[rows], kind="stable")][:count]


def _checked(texts: Iterable[str]) -> list[str]:
  if isinstance(texts, str):
    raise UserError(
      f"texts is one string, {texts[:40]!r}; give a list of strings."
    )
  texts = list(texts)
  for i, text in enumerate(texts):
    if not isinstance(text, str):
      raise UserError(
        f"Text {i} is of type {type(text).__name__}, {str(text)[:40]!r}; every"
        " text must be a string."
      )
  return texts


def _checked_workers(workers: int) -> int:
  if workers < 1:
    raise UserError(f"workers is {workers}; it must be 1 or more.")
  return workers
