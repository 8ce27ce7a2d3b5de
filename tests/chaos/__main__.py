"""The long form of the test: many kills, and how many of them were survived.

  python -m tests.chaos [--kills 100] [--seed N] [--minutes M]
"""

import argparse
import collections
import pathlib
import sys
import tempfile
import time

from tests.chaos import killing


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(prog="python -m tests.chaos")
  parser.add_argument("--kills", type=int, default=100)
  parser.add_argument("--seed", type=int, default=None)
  parser.add_argument("--minutes", type=float, default=None)
  args = parser.parse_args(argv)
  seed = int(time.time()) if args.seed is None else args.seed
  seconds = None if args.minutes is None else 60 * args.minutes

  def say(kill):
    print(
      f"{kill.kind:6} at step {kill.reached}, checkpoint {kill.whole}",
      flush=True,
    )

  began = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    outcome = killing.tried(
      pathlib.Path(folder), args.kills, seed, seconds, say
    )
  tried = collections.Counter(kill.kind for kill in outcome.kills)
  well = collections.Counter(k.kind for k in outcome.kills if k.survived)
  for kind in killing.KINDS:
    print(f"{kind:6} survived {well[kind]}/{tried[kind]}")
  if outcome.differing:
    print(f"differing: {', '.join(outcome.differing)}")
  print(
    f"survived {outcome.survived}/{len(outcome.kills)} kills, seed {seed},"
    f" {time.monotonic() - began:.0f} s; parameters and optimiser"
    f" {'differ' if outcome.differing else 'have the same bits'}, losses"
    f" {'are the same' if outcome.same_curve else 'differ'}"
  )
  return 0 if outcome.survived == len(outcome.kills) > 0 else 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
