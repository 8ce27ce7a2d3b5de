"""ROUGE-L over 52,000 made instructions, beside `rouge_score` on a sample.

The peer is the published pipelines' way: texts cut into tokens once, then one
call for each pair in 16 processes. Its time is extrapolated: the rate of one
process on a sample, times 16 as if processes cost nothing and there were 16
cores. Both sides count processor time of this process, so that other work on
the machine matters little; ours is one thread.
"""

import random
import resource
import time

from rouge_score import rouge_scorer

from flan_jax.curation import overlap, tokens

TEXTS = 52_000
SAMPLE = 4_000
PROCESSES = 16
VOCABULARY = 20_000


def made(count: int = TEXTS, seed: int = 0) -> list[str]:
  """Instructions; one in ten is an earlier one with words replaced."""
  rng = random.Random(seed)

  def word() -> str:
    # The most frequent word is one in 16, as in English.
    return f"w{min(int(15 * rng.paretovariate(1)), VOCABULARY)}"

  out: list[list[str]] = []
  for _ in range(count):
    if out and rng.random() < 0.1:
      words = list(rng.choice(out))
      for _ in range(rng.randint(1, 4)):
        words[rng.randrange(len(words))] = word()
    else:
      size = min(40, max(4, round(rng.gammavariate(4, 3.2))))
      words = [word() for _ in range(size)]
    out.append(words)
  return [" ".join(words) for words in out]


def _peer_seconds(texts: list[str], pairs: int) -> float:
  """Processor seconds of one process for this many pairs, extrapolated."""
  rng = random.Random(1)
  cut = [tokens.rouge(text) for text in texts]
  sample = [(rng.choice(cut), rng.choice(cut)) for _ in range(SAMPLE)]
  start = time.process_time()
  for first, second in sample:
    rouge_scorer._score_lcs(first, second)
  return (time.process_time() - start) * pairs / SAMPLE


def run() -> list[dict]:
  """Rows of the table: seconds of both, and their ratio."""
  texts = made()
  every = TEXTS * (TEXTS - 1) // 2
  jobs = {
    "all near pairs": lambda: len(overlap.near_pairs(texts)),
    "novelty filter, decisions": lambda: _admit(texts, 0),
    "novelty filter, mean and 10 nearest": lambda: _admit(texts, 10),
  }
  out = []
  for name, job in jobs.items():
    start = time.process_time()
    found = job()
    ours = time.process_time() - start
    pairs = every
    if name != "all near pairs":
      # Against kept texts alone: the mean pool size over all of them.
      pairs = every * found // TEXTS
    peer = _peer_seconds(texts, pairs) / PROCESSES
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out.append(
      {
        "job": f"{name}, {TEXTS:,} made texts",
        "ours": ours,
        "peer": peer,
        "unit": "s",
        "ratio": ours / peer,
        "runs": 1,
        "note": f"{found:,} found or kept; 1 thread, peak {memory:.2f} GiB;"
        f" peer: {PROCESSES} processes of rouge_score, extrapolated from"
        f" {SAMPLE:,} pairs in one",
      }
    )
  return out


def _admit(texts: list[str], nearest: int) -> int:
  pool = overlap.Pool()
  pool.admit(texts, nearest=nearest)
  return len(pool)
