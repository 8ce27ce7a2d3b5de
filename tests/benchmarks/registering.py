"""Seconds and memory of registering every task and mixture.

  python -m tests.benchmarks registering

Each run is a process of its own. What the libraries take that flan_jax stands
on (seqio, TFDS, TensorFlow) is measured beside it, in the same way; it is
most of the time and nearly all of the memory.
"""

import json
import statistics
import subprocess
import sys

RUNS = 3

_OURS = """
from flan_jax import tasks
tasks.register()
import seqio
count = len(list(seqio.TaskRegistry.names()))
count += len(list(seqio.MixtureRegistry.names()))
"""
_LIBRARIES = """
import seqio
import tensorflow_datasets
count = 0
"""
_MEASURE = """
import json, resource, time
wall, cpu = time.perf_counter(), time.process_time()
{code}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([
  time.perf_counter() - wall, time.process_time() - cpu, peak, count
]))
"""


def _measured(code: str) -> list[float]:
  """Seconds, seconds of CPU time, peak MB, and names registered."""
  out = subprocess.run(
    [sys.executable, "-c", _MEASURE.format(code=code)],
    capture_output=True,
    text=True,
    check=True,
    timeout=600,
  ).stdout
  return json.loads(out.splitlines()[-1])


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`."""
  ours, libraries = [], []
  for _ in range(RUNS):
    libraries.append(_measured(_LIBRARIES))
    ours.append(_measured(_OURS))
  names = int(ours[0][3])
  jobs = (
    ("import and register", "s", "at most 10 s"),
    ("import and register, CPU time", "CPU s", "at most 10 s"),
    ("import and register, peak memory", "MB", "at most 1000 MB"),
  )
  rows = []
  for i, (job, unit, limit) in enumerate(jobs):
    own = statistics.median(r[i] for r in ours)
    other = statistics.median(r[i] for r in libraries)
    rows.append(
      {
        "job": f"{job}, {names} names",
        "ours": own,
        "peer": other,
        "unit": unit,
        "ratio": own / other,
        "runs": RUNS,
        "note": f"{limit}; peer: import of seqio and TFDS alone",
      }
    )
  return rows
