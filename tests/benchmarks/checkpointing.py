"""What saving every 50 steps costs the steps: in the background, or waited for.

  python -m tests.benchmarks checkpointing

A T5 of 3.4M parameters with Adafactor, 8 rows of 128/32 tokens; windows of 50
steps with one save each, in turn with windows without, in one process. Ours is
`training/checkpoint.py` as the trainer calls it: the state is copied, and
written, synced and checksummed in a thread. The peer is the same window with
the save waited for.
"""

import functools
import pathlib
import statistics
import tempfile
import time

PERIOD = 50
RUNS = 5
ROWS, INPUTS, TARGETS, VOCABULARY = 8, 128, 32, 4096


def _step():
  import jax
  import numpy as np

  from flan_jax.models import t5
  from flan_jax.training import optimiser, state, step
  from flan_jax.training.loss import LossConfig

  model = t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=VOCABULARY,
      emb_dim=192,
      num_heads=4,
      head_dim=48,
      mlp_dim=384,
      num_encoder_layers=3,
      num_decoder_layers=3,
      dropout_rate=0.0,
    )
  )
  adafactor = optimiser.adafactor(1e-3)
  random = np.random.default_rng(0)
  targets_BT = random.integers(2, VOCABULARY, (ROWS, TARGETS)).astype(np.int32)
  batch = {
    "encoder_input_tokens": random.integers(
      2, VOCABULARY, (ROWS, INPUTS)
    ).astype(np.int32),
    "decoder_input_tokens": np.pad(targets_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": targets_BT,
    "decoder_loss_weights": np.ones(targets_BT.shape, np.float32),
  }
  take = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimiser=adafactor,
      loss_config=LossConfig(),
    ),
    donate_argnums=0,
  )
  current = state.create(model.init(jax.random.key(0)), adafactor)
  return take, current, batch


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`."""
  import jax

  from flan_jax.training import checkpoint

  take, current, batch = _step()
  number = sum(x.size for x in jax.tree.leaves(current.params))
  seconds: dict[str, list[float]] = {"none": [], "ours": [], "peer": []}
  cpu: dict[str, list[float]] = {"none": [], "ours": [], "peer": []}
  held: list[float] = []
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = checkpoint.Checkpoints(pathlib.Path(folder), keep=2)
    at = 0

    def window(kind: str):
      nonlocal current, at
      began, busy = time.perf_counter(), time.process_time()
      for number in range(PERIOD):
        current, metrics = take(current, batch)
        if number == 0 and kind != "none":
          at += 1
          # Metrics are fetched before a save, so the step is done by then.
          jax.block_until_ready(metrics)
          before = time.perf_counter()
          checkpoints.save(at, current, {"step": at})
          if kind == "peer":
            checkpoints.wait()
          else:
            held.append(time.perf_counter() - before)
      jax.block_until_ready(current)
      return time.perf_counter() - began, time.process_time() - busy

    for kind in seconds:
      window(kind)
    checkpoints.wait()
    held.clear()
    for _ in range(RUNS):
      for kind in seconds:
        wall, busy = window(kind)
        checkpoints.wait()
        seconds[kind].append(wall)
        cpu[kind].append(busy)
    checkpoints.close()
  middle = {kind: statistics.median(x) for kind, x in seconds.items()}
  busy = {kind: statistics.median(x) for kind, x in cpu.items()}
  return [
    {
      "job": f"50 steps and a save, T5 v1.1 {number / 1e6:.1f}M, one process",
      "ours": middle["ours"],
      "peer": middle["peer"],
      "unit": "s",
      "ratio": middle["ours"] / middle["peer"],
      "runs": RUNS,
      "note": (
        f"peer: the save waited for; without a save {middle['none']:.2f} s:"
        f" ours costs {100 * (middle['ours'] / middle['none'] - 1):.1f} % of"
        f" the loop ({100 * (busy['ours'] / busy['none'] - 1):.1f} % CPU time),"
        f" waited for {100 * (middle['peer'] / middle['none'] - 1):.1f} %; the"
        f" loop stands still {1000 * statistics.median(held):.0f} ms"
      ),
    }
  ]
