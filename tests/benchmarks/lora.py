"""LoRA and QLoRA: memory and time of a step, beside full tuning and PEFT.

  python -m tests.benchmarks lora

`decoder_step.py`'s Llama of 35.2M parameters with 2 rows of 320 tokens. LoRA
has rank 8 on every kernel of a layer. Steps are taken in turn in one process,
but for PEFT's (transformers, PyTorch), which has its own. What a step holds
(parameters, gradients, slots, activations) XLA says of the compiled program;
it is of Llama 3.2 1B's shape, where layers and not the vocabulary are most of
the model. Nothing of that is computed.

Where qwix is installed, its arrays and its product take the place of ours in
the same model, with blocks as large; its own adapters and its wrapper of
models are not used.
"""

import contextlib
import importlib.util
import statistics
import sys
import time
from unittest import mock

from tests.benchmarks import decoder_step
from tests.benchmarks import step as step_benchmark

ROWS, LENGTH, RANK = 2, decoder_step.LENGTH, 8
TARGETS = r".*layers_\d+/.*kernel"
WARM_UP, RUNS = 1, 5


def _batch():
  import numpy as np

  tokens_BT = decoder_step._tokens()[:ROWS].astype(np.int32)
  ones_BT = np.ones_like(tokens_BT)
  return {
    "decoder_input_tokens": np.pad(tokens_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": tokens_BT,
    "decoder_loss_weights": ones_BT.astype(np.float32),
    "decoder_segment_ids": ones_BT,
    "decoder_positions": ones_BT * np.arange(LENGTH, dtype=np.int32),
  }


def _adapted(base, base_type=None):
  from flan_jax.models import lora

  rest = "float32" if base_type is None else "bfloat16"
  options = lora.Lora(RANK, targets=TARGETS, base_type=base_type,
                      base_rest=rest)
  return options.on(base)


def _sides(base):
  """What is compared: a name -> the model whose step is taken."""
  return {
    "full": base,
    "LoRA": _adapted(base),
    "nf4": _adapted(base, "nf4"),
    "int8": _adapted(base, "int8"),
  }


def _large():
  from flan_jax.models import decoder

  return decoder.DecoderOnly(
    decoder.DecoderConfig(
      vocab_size=128_256,
      emb_dim=2048,
      num_heads=32,
      num_kv_heads=8,
      head_dim=64,
      num_layers=16,
      mlp_dim=8192,
      logits_via_embedding=True,
      scan_layers=True,
      remat_policy="full",
    )
  )


def _program(model):
  """A step as the trainer takes it, compiled, and the shapes that it takes."""
  import jax

  from flan_jax.training import compiled, optimiser, sharding, trainable
  from flan_jax.training.loss import LossConfig

  adam = optimiser.adamw(1e-4)
  partition = sharding.Partition.of(sharding.Layout(), jax.devices()[:1])
  shapes, regex, frozen = partition.abstract_params(model), None, None
  if hasattr(model, "key"):
    regex = model.trainable
    _, frozen = trainable.split(shapes, regex)
  state = partition.abstract_state(model, adam, regex)
  take = compiled.train_step(
    partition, state, model=model, optimiser=adam, loss_config=LossConfig(),
    dropout_seed=0, frozen=frozen is not None,
  )  # fmt: skip
  batch = partition.abstract_batch(_batch())
  between = () if frozen is None else (frozen,)
  return take.lower(state, *between, batch).compile(), frozen or shapes


def _held(model):
  """Bytes that a step holds, and bytes of a number of the base."""
  from flan_jax.models import quantised

  program, base = _program(model)
  sizes = program.memory_analysis()
  held = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
  return held, _bytes(base) / quantised.numbers(base)


def _bytes(tree):
  """What arrays take; `nbytes` counts a byte for a number of 4 bits."""
  import jax

  bits = jax.dtypes.itemsize_bits
  return sum(x.size * bits(x.dtype) / 8 for x in jax.tree.leaves(tree))


def _stepping(model):
  """A function that takes one step and returns its loss."""
  import jax

  from flan_jax.training import optimiser, trainable
  from flan_jax.training import state as state_lib

  program, _ = _program(model)
  params, between = model.init(jax.random.key(0)), ()
  if hasattr(model, "key"):
    params, frozen = trainable.split(params, model.trainable)
    between = (frozen,)
  state = state_lib.create(params, optimiser.adamw(1e-4))
  batch = _batch()

  def run():
    nonlocal state
    state, metrics = program(state, *between, batch)
    jax.block_until_ready(state)
    return float(metrics["loss"])

  return run


def ours():
  """A step of LoRA, for `step.compared`."""
  return _stepping(_adapted(decoder_step._model()))


def peer():
  """The same through PEFT and PyTorch, with AdamW."""
  import peft
  import torch
  import transformers

  torch.set_num_threads(step_benchmark.THREADS)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=decoder_step.VOCABULARY,
      hidden_size=decoder_step.WIDTH,
      intermediate_size=decoder_step.MLP,
      num_hidden_layers=decoder_step.LAYERS,
      num_attention_heads=decoder_step.HEADS,
      num_key_value_heads=decoder_step.HEADS,
      tie_word_embeddings=False,
      attn_implementation="sdpa",
      use_cache=False,
    )
  )
  config = peft.LoraConfig(
    r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
  )
  model = peft.get_peft_model(model, config).train()
  trained = [p for p in model.parameters() if p.requires_grad]
  optimiser = torch.optim.AdamW(trained, lr=1e-4)
  tokens_BT = torch.tensor(decoder_step._tokens()[:ROWS])

  def run():
    optimiser.zero_grad()
    out = model(input_ids=tokens_BT, labels=tokens_BT)
    out.loss.backward()
    optimiser.step()
    return out.loss.item()

  return run


def _in_turn(sides):
  """Median seconds of CPU of each side's steps, taken in turn."""
  seconds = {name: [] for name in sides}
  for i in range(WARM_UP + RUNS):
    for name, take in sides.items():
      start = time.process_time()
      take()
      if i >= WARM_UP:
        seconds[name].append(time.process_time() - start)
  return {name: statistics.median(each) for name, each in seconds.items()}


def _has_qwix():
  return importlib.util.find_spec("qwix") is not None


def _qwix_array(kernel, kind):
  import jax.numpy as jnp
  import qwix

  from flan_jax.models import quantised

  if kind == "int8":
    return qwix.quantize(kernel, jnp.int8, channelwise_axes=[1])
  tiles = {0: quantised.BLOCK}
  return qwix.quantize(kernel, kind, channelwise_axes=[1], tiled_axes=tiles)


@contextlib.contextmanager
def _by_qwix(kind):
  """Models that are traced in here have qwix's arrays for quantised kernels."""
  import qwix

  from flan_jax.models import quantised

  def quantise(kernel, kind):
    array = _qwix_array(kernel, kind)
    # Named as an array [d, f] is, for the axes of a mesh.
    return {"int8": array.qvalue, "scale": array.scale}

  def project(stored, x, axes=()):
    qtype = kind if kind == "nf4" else stored["int8"].dtype
    array = qwix.QArray(stored["int8"], stored["scale"], qtype=qtype)
    return qwix.dot_general(x, array, (((x.ndim - 1,), (0,)), ((), ())))

  with mock.patch.multiple(quantised, quantise=quantise, project=project):
    yield


def _storage_row(kernel, kind):
  """Bytes and error of a stored number, ours and qwix's."""
  import numpy as np

  from flan_jax.models import quantised

  def error(x):
    gap = np.asarray(x, np.float32) - kernel
    return float(np.sqrt(np.mean(gap**2)) / kernel.std())

  stored = quantised.quantise(kernel, kind)
  size = _bytes(stored) / kernel.size
  note = f"error {error(quantised.dequantise(stored)):.4f} of the deviation"
  row = {"job": f"bytes of a number in {kind}", "ours": size, "unit": "B",
         "runs": 1, "note": f"{note}; qwix is not installed"}
  if not _has_qwix():
    return row
  import qwix

  array = _qwix_array(kernel, kind)
  its = _bytes(array) / kernel.size
  return row | {
    "peer": its,
    "ratio": size / its,
    "note": f"{note}, qwix {error(qwix.dequantize(array)):.4f}",
  }


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio < 1: less."""
  import jax
  import numpy as np

  from flan_jax.models import quantised

  base = decoder_step._model()
  steps = {n: _stepping(x) for n, x in _sides(base).items()}
  held = {n: _held(x) for n, x in _sides(_large()).items()}
  pairs = [("LoRA", "full"), ("nf4", "LoRA"), ("int8", "LoRA")]
  for kind in quantised.KINDS if _has_qwix() else ():
    pairs.append((kind, f"{kind} by qwix"))
    with _by_qwix(kind):
      steps[pairs[-1][1]] = _stepping(_adapted(base, kind))
      held[pairs[-1][1]] = _held(_adapted(_large(), kind))
  seconds = _in_turn(steps)
  rows = []
  for name, against in pairs:
    ours, peer = held[name][0], held[against][0]
    rows += [
      {
        "job": f"step, {name} base against {against}",
        "ours": 1e3 * seconds[name],
        "peer": 1e3 * seconds[against],
        "unit": "ms of CPU",
        "ratio": seconds[name] / seconds[against],
        "runs": RUNS,
        "note": f"{ROWS} x {LENGTH} tokens, rank {RANK}, AdamW",
      },
      {
        "job": f"memory of a step, Llama of 1.24B, {name} against {against}",
        "ours": ours / 2**20,
        "peer": peer / 2**20,
        "unit": "MiB",
        "ratio": ours / peer,
        "runs": 1,
        "note": f"base {held[name][1]:.3f} B a number",
      },
    ]
  kernel = 0.02 * jax.random.normal(jax.random.key(0), (1536, 576))
  rows += [_storage_row(np.asarray(kernel), k) for k in quantised.KINDS]
  flops = _adapted(base).model_flops({"decoder_input_tokens": (ROWS, LENGTH)})
  job = "step of LoRA against PEFT's, Llama 35.2M, 2 x 320, float32"
  return rows + step_benchmark.compared("tests.benchmarks.lora", job, flops)


if __name__ == "__main__":
  step_benchmark.worker({"ours": ours, "peer": peer}[sys.argv[1]]())
