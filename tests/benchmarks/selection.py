"""Greedy k-centre of 1,000 among 52,000 vectors of 384 numbers.

The peer is the usual form: after each pick one product of all rows with it in
float32, and a minimum. Processor time, which other work on the machine moves
little. Memory is what the search holds at most beside the vectors.
"""

import time
import tracemalloc

import numpy as np

from flan_jax.curation import k_center

ROWS, SIZE, PICKS = 52_000, 384, 1_000


def made(clusters: int | None, seed: int = 0) -> np.ndarray:
  """Unit vectors in clusters, or in all directions alike."""
  rng = np.random.default_rng(seed)
  x_ND = rng.standard_normal((ROWS, SIZE), np.float32)
  if clusters:
    centres = rng.standard_normal((clusters, SIZE), np.float32)
    x_ND = 0.8 * x_ND + centres[rng.integers(clusters, size=ROWS)]
  return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def plain(x_ND: np.ndarray, count: int, first: int) -> list[int]:
  """The peer: squared distances of unit vectors are 2 - 2 cosine."""
  rows, nearest = [first], 2 - 2 * (x_ND @ x_ND[first])
  while len(rows) < count:
    rows.append(int(np.argmax(nearest)))
    nearest = np.minimum(nearest, 2 - 2 * (x_ND @ x_ND[rows[-1]]))
  return rows


def run() -> list[dict]:
  """Rows of the table: processor seconds of both, and their ratio."""
  out = []
  for name, clusters in (("300 clusters", 300), ("no clusters", None)):
    x_ND = made(clusters)
    tracemalloc.start()
    start, wall = time.process_time(), time.monotonic()
    picks = k_center.pick(x_ND, PICKS)
    ours, wall = time.process_time() - start, time.monotonic() - wall
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    start = time.process_time()
    rows = plain(x_ND, PICKS, int(picks.rows[0]))
    peer = time.process_time() - start
    same = sum(a == b for a, b in zip(picks.rows.tolist(), rows, strict=True))
    out.append(
      {
        "job": f"greedy k-centre, {PICKS:,} of {ROWS:,} x {SIZE}, {name}",
        "ours": ours,
        "peer": peer,
        "unit": "CPU s",
        "ratio": ours / peer,
        "runs": 1,
        "note": f"{wall:.1f} s on the clock, {memory / 2**20:.0f} MiB beside the"
        f" vectors; {same:,} picks in the same place, ours exact in"
        " float64; peer: a float32 product a pick",
      }
    )
  return out
