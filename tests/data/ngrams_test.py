"""Shared n-grams, against sets of tuples."""

import doctest

import numpy as np
import pytest

from flan_jax.data import ngrams
from flan_jax.errors import UserError


def texts(count, seed, words=6, longest=30):
  """So few words that runs are shared by chance."""
  random = np.random.default_rng(seed)
  return [
    " ".join(f"w{i}" for i in random.integers(words, size=n))
    for n in random.integers(0, longest, count)
  ]


def grams(text, n):
  words = text.lower().split()
  return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def plain(indexed, scanned, n, shortest):
  """For each indexed text, how many of its distinct grams are in `scanned`."""
  out = []
  for text in indexed:
    size = min(n, len(text.split()))
    if size < min(shortest, n):
      out.append(0)
      continue
    seen = set().union(*(grams(t, size) for t in scanned))
    out.append(len(grams(text, size) & seen))
  return out


def test_docstrings():
  assert doctest.testmod(ngrams).failed == 0


@pytest.mark.parametrize(("n", "shortest"), [(1, 1), (4, 2), (6, 6), (13, 8)])
def test_counts_are_those_of_sets(n, shortest):
  indexed = texts(60, 0, words=3 if n > 6 else 6)
  scanned = texts(200, 1, words=3 if n > 6 else 6)
  index = ngrams.Index(indexed, n=n, shortest=shortest)
  for batch in ngrams.batches(scanned, 7):
    index.scan(batch)
  expected = plain(indexed, scanned, n, shortest)
  assert index.shared().tolist() == expected
  assert sum(expected) > 0
  if n > 1:
    assert min(expected) == 0


def test_scan_says_which_texts_share():
  index = ngrams.Index(["a b c d", "c d e f", "x y z w"], n=2, shortest=2)
  assert index.scan(["q c d q"]).tolist() == [0, 1]
  assert index.scan(["nothing"]).tolist() == []
  assert index.scan([]).tolist() == []
  assert index.shared().tolist() == [1, 1, 0]


def test_a_run_ends_with_its_text():
  index = ngrams.Index(["a b c d"], n=4, shortest=4)
  assert index.scan(["a b", "c d"]).tolist() == []
  assert index.scan(["a b unknown c d"]).tolist() == []
  assert index.scan(["so A-b,\nC (d)!"]).tolist() == [0]


def test_short_texts_are_whole_or_not_at_all():
  index = ngrams.Index(["one two three four", "one two"], n=13, shortest=3)
  assert index.grams.tolist() == [1, 0]
  assert index.scan(["zero one two three four five"]).tolist() == [0]


def test_nothing_to_look_for():
  index = ngrams.Index([])
  assert index.scan(["a b c"]).tolist() == []
  assert index.shared().tolist() == []
  with pytest.raises(UserError, match="NGRAM is 0"):
    ngrams.Index(["a"], n=0)


@pytest.mark.parametrize("text", ["", "…", "ÄÖ Straße 北京 देवनागरी"])
def test_any_script(text):
  index = ngrams.Index([text], n=2, shortest=1)
  index.scan([text.upper(), text])
  assert index.shared().tolist() == [index.grams[0]]
