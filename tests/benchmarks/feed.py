"""What it takes to feed a training run with all of `flan_all`.

  python -m tests.benchmarks feed

The whole mixture on the embedded sample, drawn, rendered, tokenised and packed
as a training run has it. Tokens are those of inputs and targets that are no
padding; they are counted per second of CPU time, all threads together, which
is what one core feeds. Each run is a process of its own, so that its peak
memory is the feeding's alone. The peer is seqio's own `Task` in our `RowTask`'s
place: it shuffles a thousand rendered examples of every task.
"""

import json
import statistics
import subprocess
import sys

RUNS = 3
MIXTURE = "flan_all_train"
LENGTHS = {"inputs": 1024, "targets": 256}
BATCH_SIZE = 16
# Batches drawn before tokens are counted, and counted.
WARM, COUNTED = 4, 60


def measure(plain: bool) -> dict[str, float]:
  """One run, in this process."""
  import resource
  import time

  import seqio
  import tensorflow as tf

  from flan_jax.data import catalogue, features, mixtures, pipeline, sample
  from flan_jax.training import input as input_lib

  # As launch/run.py does.
  tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
  folder = sample.write_sample(catalogue.load().values())
  seqio.set_tfds_data_dir_override(str(folder))
  if plain:
    pipeline.RowTask.get_dataset = seqio.Task.get_dataset
  catalogue.register()
  wall, cpu = time.perf_counter(), time.process_time()
  resolved = mixtures.resolve(MIXTURE)
  batches = input_lib.training_batches(
    resolved,
    convert=features.encoder_decoder_batches,
    lengths=LENGTHS,
    batch_size=BATCH_SIZE,
    seed=0,
  )
  next(batches)
  first = time.perf_counter() - wall, time.process_time() - cpu
  for _ in range(WARM):
    next(batches)
  cpu, tokens = time.process_time(), 0
  for _ in range(COUNTED):
    batch = next(batches)
    tokens += int((batch["encoder_segment_ids"] > 0).sum())
    tokens += int((batch["decoder_segment_ids"] > 0).sum())
  rate = tokens / (time.process_time() - cpu)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {
    "tokens": rate,
    "first": first[0],
    "first_cpu": first[1],
    "peak": peak,
    "tasks": len(resolved.present),
  }


def _measured(plain: bool) -> dict[str, float]:
  code = (
    "import json; from tests.benchmarks import feed;"
    f" print(json.dumps(feed.measure({plain})))"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    timeout=1200,
  ).stdout
  return json.loads(out.splitlines()[-1])


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`."""
  ours, peers = [], []
  for _ in range(RUNS):
    ours.append(_measured(False))
    peers.append(_measured(True))
  tasks = int(ours[0]["tasks"])
  jobs = (
    ("tokens", "fed, packed to 1024/256", "tokens/CPU s", "at least 20,000"),
    ("first", "first batch", "s", "at most 60 s"),
    ("first_cpu", "first batch, CPU time", "CPU s", ""),
    ("peak", "peak memory", "MB", "at most 4000 MB"),
  )
  rows = []
  for key, job, unit, limit in jobs:
    own = statistics.median(r[key] for r in ours)
    other = statistics.median(r[key] for r in peers)
    note = "peer: seqio's own Task, the same preprocessors"
    rows.append(
      {
        "job": f"{job}, {tasks} tasks",
        "ours": own,
        "peer": other,
        "unit": unit,
        "ratio": own / other,
        "runs": RUNS,
        "note": f"{limit}; {note}" if limit else note,
      }
    )
  return rows
