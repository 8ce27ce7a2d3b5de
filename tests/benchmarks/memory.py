"""Peak temporary memory of a training step, beside the plain form of its loss.

  python -m tests.benchmarks memory

Of the compiled step, as XLA states it; nothing is run. The plain form makes
all logits, and jax differentiates it. Parameters, optimiser state and batch
are not counted: both steps have the same. Where the embedding is the head too,
its gradient is one more array of its size.
"""

import functools

# Rows, tokens of inputs and of targets; ids as many as mT5's and Gemma's.
ROWS, INPUTS, TARGETS = 8, 256, 256
VOCABULARY = 256_000


def _models():
  from flan_jax.models import decoder, t5

  sizes = {
    "vocab_size": VOCABULARY,
    "emb_dim": 256,
    "num_heads": 4,
    "mlp_dim": 512,
    "dropout_rate": 0.0,
  }
  encoder_decoder = {"num_encoder_layers": 2, "num_decoder_layers": 2}
  yield "T5", t5.EncoderDecoder(t5.T5Config(**sizes, **encoder_decoder))
  for tied in (False, True):
    config = decoder.DecoderConfig(
      **sizes, num_layers=2, logits_via_embedding=tied
    )
    name = f"decoder, {'tied' if tied else 'untied'}"
    yield name, decoder.DecoderOnly(config)


def temporary_bytes(model, cross_entropy=None) -> int:
  """Of one step with our loss or another, compiled for this machine."""
  import unittest.mock

  import jax
  import jax.numpy as jnp

  from flan_jax.training import optimiser, state, step, vocabulary_loss
  from flan_jax.training.loss import LossConfig

  adafactor = optimiser.adafactor(1e-3)
  shapes = {"encoder_input_tokens": (ROWS, INPUTS)}
  if model.kind == "decoder_only":
    shapes = {"decoder_segment_ids": (ROWS, TARGETS)}
  for name in ("decoder_input_tokens", "decoder_target_tokens"):
    shapes[name] = (ROWS, TARGETS)
  batch = {k: jax.ShapeDtypeStruct(v, jnp.int32) for k, v in shapes.items()}
  batch["decoder_loss_weights"] = jax.ShapeDtypeStruct(
    (ROWS, TARGETS), jnp.float32
  )
  take = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimiser=adafactor,
      loss_config=LossConfig(),
    ),
    donate_argnums=0,
  )
  train_state = jax.eval_shape(
    lambda: state.create(model.init(jax.random.key(0)), adafactor)
  )
  used = cross_entropy or vocabulary_loss.cross_entropy
  with unittest.mock.patch.object(vocabulary_loss, "cross_entropy", used):
    compiled = take.lower(train_state, batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def _plain(*args, **options):
  from flan_jax.training.loss import LossSums
  from tests.training import plain_loss

  return LossSums(*plain_loss.cross_entropy(*args, **options))


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio < 1: less."""
  rows = []
  for name, model in _models():
    ours, plain = temporary_bytes(model), temporary_bytes(model, _plain)
    table = 4 * VOCABULARY * model.config.emb_dim
    rows.append(
      {
        "job": f"step's temporaries, {name}, {ROWS} x {TARGETS}, V {VOCABULARY}",
        "ours": ours / 2**20,
        "peer": plain / 2**20,
        "unit": "MB",
        "ratio": ours / plain,
        "runs": 1,
        "note": f"peer: all logits at once; a kernel is {table / 2**20:.0f} MB",
      }
    )
  return rows
