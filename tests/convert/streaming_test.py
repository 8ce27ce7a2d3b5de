"""Conversions hold one tensor at a time, however many there are.

What is measured: anonymous memory, `RssAnon` of /proc/self/status, sampled
every few milliseconds by a thread of the converting process, beyond what it
was before the conversion (Python, jax and the libraries). Pages of mapped
files are not counted: the kernel drops them when it needs the room. What is
allowed: 1.3 x the largest tensor, and a constant for chunks on their way
(compressed, decompressed, and the allocator's rests).
"""

import json
import pathlib
import subprocess
import sys

import pytest

MB = 1 << 20
KERNEL = 4 * MB
# Chunks of 64 MB on their way: one as it is in memory, one compressed, and
# what the allocator keeps.
CONSTANT = 3 * 64 * MB

# A checkpoint of T5's names: an embedding, the largest tensor, and kernels by
# the number of layers; numbers that compress as badly as weights.
CONFIG = """
import json, sys, threading, time
import numpy as np
from flan_jax.convert import hf, job, native, shapes, source, t5x
from flan_jax.models.t5_network import T5Config
layers, largest, D = int(sys.argv[1]), int(sys.argv[2]), 1024
config = T5Config(vocab_size=largest // 4 // D, emb_dim=D, num_heads=16,
  head_dim=64, mlp_dim={KERNEL} // 4 // D, mlp_activations=("relu",),
  num_encoder_layers=layers, num_decoder_layers=1, logits_via_embedding=True)
""".replace("{KERNEL}", str(KERNEL))

WRITE = """
kind, path = sys.argv[3:]
random = np.random.default_rng(0)
noise = random.standard_normal(1 << 22).astype(np.float32)
all_shapes = shapes.parameter_shapes(config)
tensors = ((n, np.resize(noise, s.shape)) for n, s in all_shapes.items())
if kind == "hf":
  hf.write_hf(path, config, tensors)
elif kind == "t5x":
  t5x.write_t5x(path, tensors)
else:
  native.write_native(path, all_shapes, tensors, config=config,
    scan_layers=kind == "stacked")
"""

CONVERT = """
start, end, target, dtype = sys.argv[3:]
# Readers and their libraries are loaded.
said = source.open_source(start).config

def anonymous():
  with open("/proc/self/status") as file:
    line = next(x for x in file if x.startswith("RssAnon"))
  return int(line.split()[1]) * 1024

before = anonymous()
peak, done = [before], threading.Event()

def sample():
  while not done.is_set():
    peak.append(max(peak.pop(), anonymous()))
    time.sleep(0.002)

thread = threading.Thread(target=sample, daemon=True)
thread.start()
job.convert(input_path=start, output_path=end, output_format=target,
  output_dtype=None if dtype == "same" else dtype,
  model=shapes.model_of(config) if said is None else None,
  **({"scan_layers": True} if target == "flan_jax" else {}))
done.set()
thread.join()
print(json.dumps({"before": before, "peak": peak[0]}))
"""


def python(code, *args):
  if not pathlib.Path("/proc/self/status").exists():
    pytest.skip("RssAnon is in Linux's /proc only")
  result = subprocess.run(
    [sys.executable, "-c", CONFIG + code, *map(str, args)],
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.splitlines()


def needed(folder, layers, largest, kind, target, dtype):
  """Bytes of anonymous memory that a conversion needs at its peak."""
  start, end = folder / f"in_{layers}", folder / f"out_{layers}"
  python(WRITE, layers, largest, kind, start)
  said = python(CONVERT, layers, largest, start, end, target, dtype)[-1]
  said = json.loads(said)
  bytes_ = said["peak"] - said["before"]
  print(f"{kind} -> {target}, {dtype}, {layers} layers: {bytes_ // MB} MB")
  return bytes_


CASES = pytest.mark.parametrize(
  ("kind", "target", "dtype"),
  [
    ("hf", "t5x", "same"),
    ("hf", "flan_jax", "bfloat16"),
    ("t5x", "hf", "bfloat16"),
    ("unstacked", "hf", "same"),
    ("stacked", "t5x", "same"),
  ],
)


@pytest.mark.slow
@CASES
def test_peak_is_the_largest_tensor(tmp_path, kind, target, dtype):
  largest = 384 * MB
  peak = needed(tmp_path, 1, largest, kind, target, dtype)
  assert peak > 0.9 * largest  # it did hold it
  assert peak < 1.3 * largest + CONSTANT


@pytest.mark.slow
@CASES
def test_peak_does_not_grow_with_the_tensors(tmp_path, kind, target, dtype):
  """15 kernels of 4 MB, then 105: 360 MB more in the files."""
  largest = 32 * MB
  few = needed(tmp_path, 1, largest, kind, target, dtype)
  many = needed(tmp_path, 16, largest, kind, target, dtype)
  # A stack is a tensor as large as its layers.
  stacks = 16 * KERNEL if kind == "stacked" else 0
  assert many - few < 48 * MB + 2 * stacks
