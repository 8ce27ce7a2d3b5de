"""Cached input beside streaming, on the same mixture; and what packing wastes.

  python -m tests.benchmarks cached

`flan_holdout_nli_train`: real rows where TFDS_DATA_DIR or ../shared/tfds has
them, the embedded sample elsewhere. Rows are examples in packed batches, per
second of CPU time, all threads together, and per second that passes. Streaming
renders, tokenises, mixes and packs; the cache was written before, which is the
last row. The share of waiting is the default job's, after its first step, for
which it compiles.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MIXTURE = "flan_holdout_nli_train"
LENGTHS = {"inputs": 256, "targets": 64}
BATCH_SIZE = 16
RUNS = 3
# Batches before counting, and counted in each run.
WARM, COUNTED = 10, 150
# Lengths at which the waste is measured, over two windows.
WASTE = (
  ("decoder_only", {"inputs": 1024, "targets": 256}),
  ("decoder_only", {"inputs": 256, "targets": 64}),
  ("encoder_decoder", {"inputs": 1024, "targets": 256}),
  ("encoder_decoder", {"inputs": 256, "targets": 64}),
)
STEPS = 60
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "tfds"


def run() -> list[dict]:
  given = os.environ.get("TFDS_DATA_DIR")
  if given is None and SHARED.is_dir():
    given = str(SHARED)
  with tempfile.TemporaryDirectory() as folder:
    return _rows(folder, given)


def _rows(folder: str, data: str | None) -> list[dict]:
  from flan_jax import cache
  from flan_jax.data import cached, mixtures, vocabulary

  written = {}
  for lengths in {tuple(x.items()): x for _, x in WASTE}.values():
    cpu, wall = time.process_time(), time.perf_counter()
    cache.cache(
      mixture_or_task_name=MIXTURE,
      cache_dir=folder,
      task_feature_lengths=lengths,
      vocabulary=vocabulary.load(),
      tfds_data_dir=data,
      missing_datasets="skip",
      parallel=1,
    )
    resolved = mixtures.resolve(MIXTURE, "skip")
    found = cached.find(folder, resolved, lengths=lengths)
    written[tuple(lengths.items())] = found
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
  found = written[tuple(LENGTHS.items())]
  streams = {
    "cached": _cached(found),
    "streaming": _streaming(resolved),
  }
  rates = {name: [] for name in streams}
  for stream in streams.values():
    _rate(stream, WARM)
  for _ in range(RUNS):
    for name, stream in streams.items():
      rates[name].append(_rate(stream, COUNTED))
  streams["cached"].close()
  ours, peer = ([r[0] for r in rates[n]] for n in ("cached", "streaming"))
  of_clock = [[r[1] for r in rates[n]] for n in ("cached", "streaming")]
  kind = f"{'real rows' if data else 'sample'} of {len(found.tasks)} datasets"
  out = [
    _row("batches from the cache", ours, peer, "rows/CPU s", kind),
    _row("the same, two cores", *of_clock, "rows/s", "time that passes"),
  ]
  for model, lengths in WASTE:
    out.append(_waste(written[tuple(lengths.items())], model, lengths))
  out.append(_waiting(folder, data))
  examples = sum(int(t.draws().sum()) for t in found.tasks)
  out.append(
    _row(
      "writing, one process",
      [examples / cpu],
      None,
      "rows/CPU s",
      f"{examples:,} rows in {wall:.0f} s, Beam's start included",
    )
  )
  return out


def _cached(found):
  from flan_jax.data import cached_batches, features

  layout = features.layout_for("encoder_decoder", LENGTHS)
  return cached_batches.batches(
    cached_batches.Steps(found, layout, batch_size=BATCH_SIZE, seed=0)
  )


def _streaming(resolved):
  from flan_jax.data import features
  from flan_jax.training import input as input_lib

  return input_lib.training_batches(
    resolved,
    convert=features.encoder_decoder_batches,
    lengths=LENGTHS,
    batch_size=BATCH_SIZE,
    seed=0,
  )


def _rate(stream, count: int) -> tuple[float, float]:
  """Examples per second of CPU time, and of time that passes."""
  cpu, wall, rows = time.process_time(), time.perf_counter(), 0
  for _ in range(count):
    rows += int(next(stream)["encoder_segment_ids"].max(axis=1).sum())
  cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
  return rows / cpu, rows / wall


def _waste(found, model: str, lengths) -> dict:
  """Padding of the scarcer side, of batches from the cache."""
  from flan_jax.data import cached_batches, features, packing

  layout = features.layout_for(model, lengths, begin_id=0)
  steps = cached_batches.Steps(found, layout, batch_size=BATCH_SIZE, seed=0)
  # Packing alone decides, so records need not be read.
  used = slots = 0
  packed = []
  windows = steps.windows
  for window in range(2):
    tasks, records = windows.examples(window)
    windows.row(window * windows.rows_per_window)
    sizes = windows._sizes_of(tasks, records)
    used = used + sizes.sum(axis=0)
    packed += sizes.tolist()
    slots += windows.rows_per_window
  waste = 100 * (1 - (used / layout.room).max() / slots)
  least = packing.least_waste(packed, layout.room)
  least = 100 * min(least["inputs"], least["targets"])
  name = f"{lengths['inputs']}/{lengths['targets']}"
  return {
    "job": f"waste, {model}, {name}",
    "ours": float(waste),
    "peer": None,
    "unit": "%",
    "ratio": None,
    "runs": 1,
    "note": (
      f"of the side that is full, no packing below {least:.1f};"
      f" {windows.left} examples left over"
    ),
  }


def _waiting(folder: str, data: str | None) -> dict:
  """Waiting for input as a share of the default job's time after step 1."""
  shares = []
  with tempfile.TemporaryDirectory() as runs:
    flags = {
      "CACHE_DIR": folder,
      "MODEL_DIR": f"{runs}/run",
      "EVAL_MIXTURE_OR_TASK_NAME": None,
      "TRAIN_STEPS": STEPS,
      "LOG_PERIOD": 1,
      **({"TFDS_DATA_DIR": data} if data else {}),
    }
    job = subprocess.run(
      [
        sys.executable,
        "launch/run.py",
        "--gin_file=gin/flan_holdout_nli.gin",
        *(f"--gin.{name}={value!r}" for name, value in flags.items()),
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    if job.returncode:
      raise RuntimeError(job.stderr[-2000:])
    lines = pathlib.Path(runs, "run", "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [r for r in rows if "time/input" in r]
    spent = [
      {k: v for k, v in r.items() if k.startswith("time/")} for r in rows
    ]
    wait = spent[-1]["time/input"] - spent[0]["time/input"]
    total = sum(spent[-1].values()) - sum(spent[0].values())
    shares.append(100 * wait / total)
  return {
    "job": "waiting for input, default job",
    "ours": shares[0],
    "peer": None,
    "unit": "% of the time",
    "ratio": None,
    "runs": 1,
    "note": f"{STEPS} steps of {BATCH_SIZE} rows",
  }


def _row(job, ours, peer, unit, note) -> dict:
  mine = statistics.median(ours)
  theirs = statistics.median(peer) if peer else None
  return {
    "job": job,
    "ours": mine,
    "peer": theirs,
    "unit": unit,
    "ratio": mine / theirs if theirs else None,
    "runs": len(ours),
    "note": note,
  }
