"""A bfloat16 training step on a GPU: tokens a second, and model FLOP/s.

  python -m tests.benchmarks gpu_step

T5-XL's shape and a Llama of 1B, scanned layers, remat "minimal", Adafactor.
MFU is the model's FLOPs a second (`model_flops`, recomputation not counted)
over the device's bfloat16 peak without sparsity. Skipped, and says so, where
jax sees no GPU.
"""

import functools
import statistics
import time

WARM_UP, RUNS = 3, 10
# Dense bfloat16 FLOP/s by what the device's name contains, as NVIDIA states.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}


def _jobs():
  from flan_jax.models import decoder, t5

  common = {
    "dtype": "bfloat16",
    "scan_layers": True,
    "remat_policy": "minimal",
    "dropout_rate": 0.0,
  }
  xl = t5.T5Config(
    vocab_size=32_128,
    emb_dim=2048,
    num_heads=32,
    head_dim=64,
    mlp_dim=5120,
    num_encoder_layers=24,
    num_decoder_layers=24,
    **common,
  )
  shapes = {
    "encoder_input_tokens": (16, 1024),
    "decoder_input_tokens": (16, 256),
  }
  yield "T5-XL, 16 x 1024/256", t5.EncoderDecoder(xl), shapes
  llama = decoder.DecoderConfig(
    vocab_size=128_256,
    emb_dim=2048,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    mlp_dim=8192,
    num_layers=16,
    logits_via_embedding=True,
    rope_theta=500_000.0,
    **common,
  )
  shapes = {"decoder_input_tokens": (8, 2048)}
  yield "Llama 1B, 8 x 2048", decoder.DecoderOnly(llama), shapes


def batch_of(model, shapes) -> dict:
  """Random tokens, every row full, every target with loss."""
  import numpy as np

  random = np.random.default_rng(0)
  batch = {
    name: random.integers(2, model.config.vocab_size, shape, np.int32)
    for name, shape in shapes.items()
  }
  targets = batch["decoder_input_tokens"]
  batch["decoder_target_tokens"] = np.roll(targets, -1, axis=1)
  batch["decoder_loss_weights"] = np.ones(targets.shape, np.float32)
  if model.kind == "decoder_only":
    batch["decoder_segment_ids"] = np.ones_like(targets)
  return batch


def seconds_of(model, batch, runs: int = RUNS) -> list[float]:
  """Of each step after `WARM_UP` that are not counted."""
  import jax

  from flan_jax.training import optimiser, state, step
  from flan_jax.training.loss import LossConfig

  adafactor = optimiser.adafactor(1e-3)
  current = state.create(model.init(jax.random.key(0)), adafactor)
  take = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimiser=adafactor,
      loss_config=LossConfig(),
    ),
    donate_argnums=0,
  )
  batch = jax.device_put(batch)
  seconds = []
  for _ in range(WARM_UP + runs):
    start = time.perf_counter()
    current, metrics = take(current, batch)
    jax.block_until_ready((current, metrics))
    seconds.append(time.perf_counter() - start)
  return seconds[WARM_UP:]


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; no peer."""
  import jax

  device = jax.devices()[0]
  if device.platform != "gpu":
    print(f"gpu_step: skipped, since jax's device is {device.platform}.")
    return []
  kinds = [name for name in PEAKS if name in device.device_kind]
  rows = []
  for job, model, shapes in _jobs():
    seconds = statistics.median(seconds_of(model, batch_of(model, shapes)))
    tokens = sum(b * t for b, t in shapes.values())
    rate = model.model_flops(shapes) / seconds
    note = f"{device.device_kind}, {rate / 1e12:.0f} TFLOP/s"
    if kinds:
      note += f", MFU {rate / PEAKS[kinds[0]]:.2f}"
    rows.append(
      {
        "job": f"training step, {job}, bfloat16",
        "ours": tokens / seconds,
        "peer": None,
        "unit": "tokens/s",
        "ratio": None,
        "runs": RUNS,
        "note": note,
      }
    )
  return rows
