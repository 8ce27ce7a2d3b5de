"""MinHash: what it reports is right, and it misses as little as it says."""

import numpy as np
import pytest

from flan_jax.curation import minhash, overlap, rouge_l
from flan_jax.errors import UserError
from tests.benchmarks.overlap import made


def pairs_of(pairs):
  return dict(
    zip(
      zip(pairs.first.tolist(), pairs.second.tolist(), strict=True),
      pairs.score.tolist(),
      strict=True,
    )
  )


def test_recall_against_the_exact_search():
  texts = list(dict.fromkeys(made(6_000, seed=3)))
  exact = pairs_of(overlap.near_pairs(texts))
  found = pairs_of(minhash.near_pairs(texts))
  assert len(exact) > 300
  assert found.items() <= exact.items()
  assert len(found) >= 0.95 * len(exact)
  few = pairs_of(minhash.near_pairs(texts, bands=2, rows=8))
  assert len(few) < len(found)


def test_recall_is_the_formula():
  rng = np.random.default_rng(0)
  agree = 0
  for i in range(200):
    shared, a, b = np.split(rng.permutation(2000)[:40], [20, 30])
    texts = [" ".join(f"w{x}" for x in sorted([*shared, *y])) for y in (a, b)]
    limit = rouge_l.Limit(0.01)
    agree += len(
      minhash.near_pairs(texts, bands=10, rows=3, seed=i, limit=limit)
    )
  # Jaccard 20 / 40; three standard deviations.
  assert agree / 200 == pytest.approx(minhash.recall(0.5, 10, 3), abs=0.1)


def test_copies_and_empty_texts():
  texts = ["a b c", "", "A, b c!", "x y", "a b c.", "!"]
  assert list(pairs_of(minhash.near_pairs(texts))) == [(0, 2), (0, 4)]
  assert len(minhash.near_pairs([])) == 0
  assert len(minhash.near_pairs(["", "!"])) == 0


def test_user_mistakes():
  with pytest.raises(UserError, match="bands is 0"):
    minhash.near_pairs(["a"], bands=0)
  with pytest.raises(UserError, match="More than 1 pairs of the 4 texts"):
    minhash.near_pairs(["a b c"] * 4, most_pairs=1)
