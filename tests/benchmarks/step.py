"""Our training step beside HF transformers' PyTorch T5, same model and batch.

  python -m tests.benchmarks step

T5 v1.1, emb 256, 8 heads x 32, mlp 1024, 4+4 layers, vocabulary 32,128 untied,
16 rows of 256/64 tokens, float32, no dropout, Adafactor, 2 threads on a side.
The two sides are two processes that take steps in turn, so that whatever else
the machine does falls on both. Ours is `training/step.py: train_step`, as the
trainer compiles it, with z-loss, accuracy and norms; the peer does the update
alone.
"""

import os
import statistics
import subprocess
import sys
import time

ROWS, INPUTS, TARGETS, VOCABULARY = 16, 256, 64, 32128
PARAMETERS = 25_892_864
THREADS = 2
WARM_UP, RUNS = 2, 9


def _tokens():
  import numpy as np

  random = np.random.default_rng(0)
  return (
    random.integers(2, 32_000, (ROWS, INPUTS)),
    random.integers(2, 32_000, (ROWS, TARGETS)),
  )


def _config():
  from flan_jax.models import t5

  return t5.T5Config(
    vocab_size=VOCABULARY,
    emb_dim=256,
    num_heads=8,
    head_dim=32,
    mlp_dim=1024,
    num_encoder_layers=4,
    num_decoder_layers=4,
    dropout_rate=0.0,
  )


def ours():
  """A function that takes one step and returns its loss."""
  import functools

  from flan_jax.training import allocator

  allocator.keep_freed_memory()
  import jax
  import numpy as np

  from flan_jax.models import t5
  from flan_jax.training import optimiser, state, step
  from flan_jax.training.loss import LossConfig

  inputs_BS, targets_BT = (x.astype(np.int32) for x in _tokens())
  batch = {
    "encoder_input_tokens": inputs_BS,
    "decoder_input_tokens": np.pad(targets_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": targets_BT,
    "decoder_loss_weights": np.ones(targets_BT.shape, np.float32),
  }
  model = t5.EncoderDecoder(_config())
  adafactor = optimiser.adafactor(1e-3)
  params = model.init(jax.random.key(0))
  assert sum(p.size for p in jax.tree.leaves(params)) == PARAMETERS
  current = state.create(params, adafactor)
  take = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimiser=adafactor,
      loss_config=LossConfig(),
    ),
    donate_argnums=0,
  )

  def run():
    nonlocal current
    current, metrics = take(current, batch)
    jax.block_until_ready(current)
    return float(metrics["loss"])

  return run


def peer():
  """The same with PyTorch."""
  import torch
  import transformers
  from transformers.optimization import Adafactor

  torch.set_num_threads(THREADS)
  config = transformers.T5Config(
    vocab_size=VOCABULARY,
    d_model=256,
    d_kv=32,
    num_heads=8,
    d_ff=1024,
    num_layers=4,
    num_decoder_layers=4,
    feed_forward_proj="gated-gelu",
    dropout_rate=0.0,
    decoder_start_token_id=0,
  )
  model = transformers.T5ForConditionalGeneration(config).train()
  # transformers 5 ties T5's head whatever the configuration says, and then
  # scales the decoder's output as T5 v1.0 does.
  model.config.scale_decoder_outputs = False
  model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 256) / 16)
  assert sum(p.numel() for p in model.parameters()) == PARAMETERS
  optimiser = Adafactor(
    model.parameters(), lr=1e-3, relative_step=False, scale_parameter=True
  )
  inputs_BS, targets_BT = (torch.tensor(x) for x in _tokens())
  mask_BS = torch.ones_like(inputs_BS)

  def run():
    optimiser.zero_grad()
    out = model(input_ids=inputs_BS, attention_mask=mask_BS, labels=targets_BT)
    out.loss.backward()
    optimiser.step()
    return out.loss.item()

  return run


def worker(step):
  """Takes a step for each line that comes in, and prints how long it took."""
  print("ready", flush=True)
  for _ in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    value = step()
    elapsed = time.perf_counter() - start
    print(elapsed, time.process_time() - cpu, value, flush=True)


def _start(module: str, side: str) -> subprocess.Popen:
  # A virtual environment of its own for PyTorch can be named.
  peer_python = os.environ.get("PEER_PYTHON", sys.executable)
  return subprocess.Popen(
    [
      peer_python if side == "peer" else sys.executable,
      "-m",
      module,
      side,
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
  )


def compared(module: str, job: str, flops: float) -> list[dict]:
  """The row of a module that is a worker when given a side's name.

  Args:
    module: its name.
    job: for the table.
    flops: of a step, by the model's `model_flops`.
  """
  sides = {side: _start(module, side) for side in ("ours", "peer")}
  seconds: dict[str, list[float]] = {side: [] for side in sides}
  cpu: dict[str, list[float]] = {side: [] for side in sides}
  try:
    for side, process in sides.items():
      if process.stdout.readline().strip() != "ready":
        raise RuntimeError(
          f"the {side} side of the step benchmark did not start; PyTorch and"
          " transformers are in the extra `test`, or name the Python of"
          " another environment in PEER_PYTHON."
        )
    for i in range(WARM_UP + RUNS):
      for side, process in sides.items():
        process.stdin.write("step\n")
        process.stdin.flush()
        elapsed, busy, _ = map(float, process.stdout.readline().split())
        if i >= WARM_UP:
          seconds[side].append(elapsed)
          cpu[side].append(busy)
  finally:
    for process in sides.values():
      process.stdin.close()
      process.wait()
  median = {side: statistics.median(x) for side, x in seconds.items()}
  fastest = {side: min(x) for side, x in seconds.items()}
  busy = {side: statistics.median(x) for side, x in cpu.items()}
  return [
    {
      "job": job,
      "ours": median["ours"],
      "peer": median["peer"],
      "unit": "s",
      "ratio": median["ours"] / median["peer"],
      "runs": RUNS,
      "note": (
        "transformers, PyTorch; ratio of fastest"
        f" {fastest['ours'] / fastest['peer']:.2f}, of CPU time"
        f" {busy['ours'] / busy['peer']:.2f}; {flops / 1e9:.0f} GFLOP,"
        f" {flops / 1e9 / median['ours']:.0f} a second"
      ),
    }
  ]


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio < 1: faster."""
  from flan_jax.models import t5

  flops = t5.EncoderDecoder(_config()).model_flops(
    {
      "encoder_input_tokens": (ROWS, INPUTS),
      "decoder_input_tokens": (ROWS, TARGETS),
    }
  )
  job = "training step, T5 v1.1 25.9M, 16 x 256/64, float32"
  return compared("tests.benchmarks.step", job, flops)


if __name__ == "__main__":
  worker({"ours": ours, "peer": peer}[sys.argv[1]]())
