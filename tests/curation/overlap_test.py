"""Overlap: the same decisions as scoring every pair with rouge_score."""

import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from rouge_score import rouge_scorer, scoring

from flan_jax.curation import near, overlap, rouge_l, tokens
from flan_jax.errors import UserError

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
_LINES = (
  "write a the of given list sort find name explain translate sentence into"
  " story poem about number two three city café résumé code python word text"
  " summarize paragraph email to for in and with your my best 3 10 don't"
)
WORDS = _LINES.split()


def made(count, seed, longest=30):
  """Instructions, a third of them earlier ones with a few words changed."""
  rng = random.Random(seed)
  out = []
  for _ in range(count):
    if out and rng.random() < 0.35:
      words = rng.choice(out).split()
      for _ in range(rng.randint(0, 1 + len(words) // 3)):
        i = rng.randrange(len(words) + 1)
        words[i : i + rng.randint(0, 1)] = rng.sample(WORDS, rng.randint(0, 2))
    else:
      words = rng.choices(WORDS, k=rng.randint(0, longest))
    text = " ".join(words).capitalize() + rng.choice([".", "?", "", " !"])
    out.append(text)
  return out


def brute(texts):
  scores = np.zeros((len(texts), len(texts)))
  for i, j in itertools.combinations(range(len(texts)), 2):
    scores[i, j] = SCORER.score(texts[i], texts[j])["rougeL"].fmeasure
    scores[j, i] = scores[i, j]
  return scores


@pytest.fixture(scope="module")
def short():
  texts = made(200, 0)
  return texts, brute(texts)


@pytest.fixture(scope="module")
def long():
  """From 0 to 170 tokens, so that both ways of comparing are taken."""
  texts = made(40, 1) + made(50, 2, longest=160)
  random.Random(3).shuffle(texts)
  return texts, brute(texts)


def check_pairs(texts, scores, limit):
  pairs = overlap.near_pairs(texts, limit=limit, workers=2)
  first, second = np.nonzero(np.triu(limit.is_near(scores), 1))
  assert pairs.first.tolist() == first.tolist()
  assert pairs.second.tolist() == second.tolist()
  assert pairs.score.tolist() == scores[first, second].tolist()
  return len(pairs)


@pytest.mark.parametrize("made_texts", ["short", "long"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 2 / 3, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("equal", [False, True])
def test_pairs_are_those_of_every_pair(made_texts, threshold, equal, request):
  if threshold == 1 and not equal:
    pytest.skip("refused: nothing is above 1")
  texts, scores = request.getfixturevalue(made_texts)
  limit = rouge_l.Limit(threshold, equal)
  assert check_pairs(texts, scores, limit)


def test_equal_scores_occur(short):
  """Otherwise the test above says nothing about them."""
  _, scores = short
  assert (scores == 0.7).any() or (scores == 2 / 3).any()


def greedy(scores, limit, known):
  """Verdicts by the definition: score against every text kept so far."""
  kept = list(range(known))
  verdicts = []
  for i in range(known, len(scores)):
    row = scores[i, kept]
    best = sorted(range(len(row)), key=lambda j: (-row[j], j))[:10]
    novel = not (len(row) and limit.is_near(row.max()))
    mean = float(row.mean()) if len(row) else 0.0
    verdicts.append((novel, [(j, row[j]) for j in best], mean))
    if novel:
      kept.append(i)
  return verdicts, kept


@pytest.mark.parametrize("made_texts", ["short", "long"])
@pytest.mark.parametrize("known", [0, 30])
@pytest.mark.parametrize("batch", [7, 1000])
def test_admits_as_the_definition_does(
  made_texts, known, batch, request, monkeypatch
):
  monkeypatch.setattr(overlap, "_BLOCK", 16)
  texts, scores = request.getfixturevalue(made_texts)
  limit = rouge_l.Limit(0.7)
  expected, kept = greedy(scores, limit, known)
  for nearest in (10, 0):
    pool = overlap.Pool(texts[:known], limit=limit)
    got = []
    for start in range(known, len(texts), batch):
      got += pool.admit(texts[start : start + batch], nearest=nearest)
    assert [pool[j] for j in range(len(pool))] == [texts[i] for i in kept]
    for verdict, (novel, best, mean) in zip(got, expected, strict=True):
      assert verdict.novel == novel
      if nearest:
        assert list(verdict.nearest) == best
        assert verdict.mean == pytest.approx(mean, abs=1e-12)
      else:
        assert list(verdict.nearest) == ([] if novel else best[:1])
        assert verdict.mean is None


def test_tables_in_pieces_find_the_same(short, long, monkeypatch):
  monkeypatch.setattr(near, "PAIRS_AT_ONCE", 500)
  for texts, scores in (short, long):
    check_pairs(texts, scores, rouge_l.Limit(0.7))


def test_more_tokens_than_characters_find_the_same(short, monkeypatch):
  """Texts are then lists of numbers, some beside strings."""
  monkeypatch.setattr(rouge_l, "_LAST_CHARACTER", 20)
  texts, scores = short
  check_pairs(texts, scores, rouge_l.Limit(0.7))


def test_tokens_around_the_surrogates_stay_apart():
  encode = rouge_l.Encoder()
  encoded = encode([str(i) for i in range(0xE100)])
  assert len(set(encoded)) == 0xE100
  part = encoded[0xD7F0:0xD830]
  other = encoded[0xD7F1:0xD831]
  assert rouge_l.common_matrix([part], [other]).tolist() == [[63]]
  assert near.describe([part]).bits.any()


def test_f_and_least_common_are_rouge_scores():
  for threshold, equal in itertools.product((1 / 3, 0.7, 0.8), (False, True)):
    limit = rouge_l.Limit(threshold, equal)
    for m, n in itertools.product(range(40), range(40)):
      least = limit.least_common(m, n)
      for common in range(min(m, n) + 1):
        f = scoring.fmeasure(common / n if n else 0, common / m if m else 0)
        assert rouge_l.f_measure(common, m, n) == f
        near_ = f >= threshold if equal else f > threshold
        assert near_ == (common >= least)


def test_bitsets_never_promise_too_few(long):
  texts, _ = long
  encode = rouge_l.Encoder()
  encoded = [encode(tokens.rouge(t)) for t in texts]
  # 3,000 tokens: more than there are bits.
  encoded.append(encode([str(i) for i in range(3000)]))
  rows = near.describe(encoded)
  common = rouge_l.common_matrix(encoded, encoded)
  assert (near.most_common(rows, rows) >= common).all()


def test_seeds(shared):
  path = shared / "instructions" / "self_instruct_seed_tasks.jsonl"
  seeds = [
    json.loads(line)["instruction"] for line in path.read_text().splitlines()
  ]
  pairs = overlap.near_pairs(seeds)
  assert len(pairs) == 2
  assert sorted(pairs.score.round(4)) == [0.75, 0.8235]
  scores = brute(seeds)
  assert scores.max() == pairs.score.max()
  assert (np.triu(scores, 1) > 0.7).sum() == 2
  assert sum(v.novel for v in overlap.Pool().admit(seeds)) == 173


@pytest.mark.parametrize(
  "text", ["It's A-1, naïve\tÜber_x", "", "İstanbul ﬁne K", "用Python写诗"]
)
def test_rouge_tokens_are_rouge_scores(text):
  from rouge_score import tokenizers

  expected = tokenizers.DefaultTokenizer().tokenize(text)
  assert tokens.rouge(text) == expected


def test_chinese():
  texts = ["请写一首关于春天的诗。", "请写一首关于秋天的诗。", "列出三种水果。"]
  pairs = overlap.near_pairs(texts, tokenizer="characters")
  assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [1])
  assert pairs.score.tolist() == [2 * 0.9 * 0.9 / 1.8]
  pool = overlap.Pool(texts[:1], tokenizer="characters")
  assert [v.novel for v in pool.admit(texts[1:])] == [False, True]
  with pytest.raises(UserError, match="3 of 3 texts.*tokenizer='characters'"):
    overlap.near_pairs(texts)
  with pytest.raises(UserError, match="finds no token in 1 of 1 texts"):
    overlap.Pool().admit(texts[:1])
  many = overlap.Pool(made(30, 5))
  assert many.admit(texts[:1])[0].novel


@pytest.mark.parametrize("texts", [[], [""], ["!", "?", "!"], ["one"]])
def test_nothing_to_compare(texts):
  assert len(overlap.near_pairs(texts)) == 0
  for nearest in (0, 3):
    verdicts = overlap.Pool(texts).admit(["", "one two"], nearest=nearest)
    assert [v.novel for v in verdicts] == [True, True]


def test_user_mistakes():
  with pytest.raises(UserError, match="threshold is 0; it must be above 0"):
    rouge_l.Limit(0)
  with pytest.raises(UserError, match=r"threshold is 1; .* and below 1"):
    rouge_l.Limit(1)
  with pytest.raises(UserError, match="threshold is nan"):
    rouge_l.Limit(float("nan"))
  with pytest.raises(UserError, match="'char'.*nearest is 'characters'"):
    overlap.Pool(tokenizer="char")
  with pytest.raises(UserError, match="texts is one string, 'Name'"):
    overlap.near_pairs("Name")
  with pytest.raises(UserError, match="Text 1 is of type NoneType"):
    overlap.Pool(["a", None])
  with pytest.raises(UserError, match="workers is 0"):
    overlap.Pool(workers=0)
  with pytest.raises(UserError, match="nearest is -1"):
    overlap.Pool().admit([], nearest=-1)
  with pytest.raises(UserError, match="More than 5 pairs of the 4 texts"):
    overlap.near_pairs(["a b c"] * 4, most_pairs=5)


def test_neither_jax_nor_tensorflow():
  code = (
    "import sys, flan_jax.curation.overlap;"
    " print([m for m in ('jax', 'tensorflow') if m in sys.modules])"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == "[]"
