"""Alpaca's growth to 52,000 tasks, against an endpoint on loopback.

The endpoint answers at once, in Alpaca's form, with made instructions of which
one in ten is near an earlier one. What is compared is a round of the loop
without the search for overlap: of the last rounds beside the first ones, since
it must not cost more the more is kept. Seconds on the clock.
"""

import functools
import itertools
import pathlib
import resource
import statistics
import tempfile
import time

from flan_jax.curation import alpaca, asking, decisions, growth, overlap, seeds
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.journal import Journal
from tests.benchmarks.overlap import made
from tests.curation import fake_endpoint

TARGET = 52_000
COMPARED = 50  # rounds


class _Timed:
  """A function and the seconds spent in it."""

  def __init__(self, function):
    self.function, self.seconds = function, 0.0

  def __call__(self, *args, **kinds):
    began = time.perf_counter()
    try:
      return self.function(*args, **kinds)
    finally:
      self.seconds += time.perf_counter() - began


def _answers(options: alpaca.Alpaca):
  """Replies with the tasks that are asked for, each a new text."""
  texts = iter(made(2 * TARGET))

  def behave(prompt, times):
    first = options.in_context + 1
    parts = []
    for k in range(first, options.tasks + 1):
      head = "" if k == first else f"{k}. Instruction:"
      parts.append(
        f"{head} {next(texts)}\n{k}. Input:\n<noinput>\n{k}. Output:\nFine.\n"
      )
    return fake_endpoint.Say("###\n".join(parts))

  return behave


def run() -> list[dict]:
  """Rows of the table: a round without and with the search, last and first."""
  options = alpaca.Alpaca()
  known = seeds.read(None)
  search = _Timed(overlap.Pool.admit)
  # (when a round ended, seconds of search so far); the last says why it stops.
  marks = [(time.perf_counter(), 0.0)]
  with (
    tempfile.TemporaryDirectory() as name,
    fake_endpoint.serving(_answers(options)) as server,
    Journal(pathlib.Path(name) / "journal.jsonl") as journal,
    decisions.Decisions(name) as decided,
  ):
    plain, overlap.Pool.admit = overlap.Pool.admit, lambda *a: search(*a)
    try:
      grown = growth.grow(
        growth.Growth(target=TARGET),
        [s.instruction for s in known],
        functools.partial(alpaca.ask, seeds=known, options=options, seed=0),
        functools.partial(alpaca.read, options=options),
        asker=asking.Asker(
          Endpoint(server.url, "maker", api="completions"), journal
        ),
        decisions=decided,
        method="alpaca",
        say=lambda text: marks.append((time.perf_counter(), search.seconds)),
      )
    finally:
      overlap.Pool.admit = plain
  rounds = [
    (end - start, after - before)
    for (start, before), (end, after) in itertools.pairwise(marks[:-1])
  ]
  whole = [w for w, _ in rounds]
  rest = [w - s for w, s in rounds]
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  note = (
    f"last and first {COMPARED} of {len(rounds):,} rounds of 5 requests;"
    f" {len(grown.admitted):,} kept in {sum(whole):.0f} s, of them"
    f" {search.seconds:.0f} s in the search; peak {memory:.2f} GiB with the"
    " endpoint and the program's libraries"
  )
  return [
    {
      "job": f"growth to {TARGET:,}, a round {what}",
      "ours": statistics.median(seconds[-COMPARED:]),
      "peer": statistics.median(seconds[:COMPARED]),
      "unit": "s",
      "ratio": statistics.median(seconds[-COMPARED:])
      / statistics.median(seconds[:COMPARED]),
      "runs": 1,
      "note": note,
    }
    for what, seconds in (
      ("without the search for overlap", rest), ("with it", whole)
    )
  ]  # fmt: skip
