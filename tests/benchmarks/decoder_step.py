"""Our training step beside HF transformers' PyTorch Llama, same model and batch.

  python -m tests.benchmarks decoder_step

Llama's shape, emb 384, 6 heads x 64, mlp 1024, 6 layers, vocabulary 32,000
untied, 16 rows of 320 tokens, float32, no dropout, Adafactor, 2 threads on a
side; transformers with `scaled_dot_product_attention`. As in `step.py`, two
processes take steps in turn, ours with z-loss, accuracy and norms.
"""

import sys

from tests.benchmarks import step as step_benchmark

ROWS, LENGTH, VOCABULARY = 16, 320, 32_000
WIDTH, HEADS, LAYERS, MLP = 384, 6, 6, 1024
PARAMETERS = 35_197_824


def _tokens():
  import numpy as np

  return np.random.default_rng(0).integers(2, VOCABULARY, (ROWS, LENGTH))


def _model():
  from flan_jax.models import decoder

  return decoder.DecoderOnly(
    decoder.DecoderConfig(
      vocab_size=VOCABULARY,
      emb_dim=WIDTH,
      num_heads=HEADS,
      head_dim=WIDTH // HEADS,
      num_layers=LAYERS,
      mlp_dim=MLP,
    )
  )


def ours():
  """A function that takes one step and returns its loss."""
  import functools

  from flan_jax.training import allocator

  allocator.keep_freed_memory()
  import jax
  import numpy as np

  from flan_jax.training import optimiser, state, step
  from flan_jax.training.loss import LossConfig

  tokens_BT = _tokens().astype(np.int32)
  ones_BT = np.ones_like(tokens_BT)
  batch = {
    "decoder_input_tokens": np.pad(tokens_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": tokens_BT,
    "decoder_loss_weights": ones_BT.astype(np.float32),
    "decoder_segment_ids": ones_BT,
    "decoder_positions": ones_BT * np.arange(LENGTH, dtype=np.int32),
  }
  model, adafactor = _model(), optimiser.adafactor(1e-3)
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

  torch.set_num_threads(step_benchmark.THREADS)
  config = transformers.LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=HEADS,
    tie_word_embeddings=False,
    attn_implementation="sdpa",
    use_cache=False,
  )
  model = transformers.LlamaForCausalLM(config).train()
  assert sum(p.numel() for p in model.parameters()) == PARAMETERS
  optimiser = Adafactor(
    model.parameters(), lr=1e-3, relative_step=False, scale_parameter=True
  )
  tokens_BT = torch.tensor(_tokens())

  def run():
    optimiser.zero_grad()
    out = model(input_ids=tokens_BT, labels=tokens_BT)
    out.loss.backward()
    optimiser.step()
    return out.loss.item()

  return run


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio < 1: faster."""
  flops = _model().model_flops({"decoder_input_tokens": (ROWS, LENGTH)})
  job = "training step, Llama 35.2M, 16 x 320, float32"
  return step_benchmark.compared("tests.benchmarks.decoder_step", job, flops)


if __name__ == "__main__":
  step_benchmark.worker({"ours": ours, "peer": peer}[sys.argv[1]]())
