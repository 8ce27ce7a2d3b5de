"""Benchmarks, never tests: one table, and the same as JSON.

  python -m tests.benchmarks [NAME ...] [--json OUT.json]

Each module of this folder has `run()`, which measures our side and its peer in
the same run and returns rows with `job, ours, peer, unit, ratio, runs, note`;
`ratio` is ours over the peer's, of medians.
"""

import argparse
import difflib
import importlib
import json
import os
import pathlib
import platform
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

COLUMNS = ("job", "ours", "peer", "unit", "ratio", "runs", "note")


def names() -> list[str]:
  """Benchmarks there are: the modules beside this one."""
  folder = pathlib.Path(__file__).parent
  return sorted(p.stem for p in folder.glob("[a-z]*.py"))


def machine() -> str:
  model = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    lines = [x for x in info.read_text().splitlines() if "model name" in x]
    model = lines[0].partition(":")[2].strip() if lines else model
  return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def _cell(value) -> str:
  if value is None:
    return "-"
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
  parser.add_argument("names", nargs="*")
  parser.add_argument("--json")
  args = parser.parse_args(argv)
  known = names()
  for name in args.names:
    if name not in known:
      near = difflib.get_close_matches(name, known, 1, 0.0)
      parser.error(f"no benchmark {name!r}; the nearest is {near[0]!r}.")
  rows = []
  for name in args.names or known:
    module = importlib.import_module(f"tests.benchmarks.{name}")
    rows += [{"benchmark": name, **row} for row in module.run()]
  table = [("benchmark", *COLUMNS)] + [
    (row["benchmark"], *(_cell(row.get(c)) for c in COLUMNS)) for row in rows
  ]
  widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
  for row in table:
    print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)))
  print(f"machine: {machine()}")
  if args.json:
    pathlib.Path(args.json).write_text(
      json.dumps({"machine": machine(), "rows": rows}, indent=2)
    )
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
