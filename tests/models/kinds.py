"""A tiny model of either kind, and its plain next-token log-probabilities."""

import functools

import jax
import numpy as np

from flan_jax.models import decoder, t5

KINDS = ("encoder_decoder", "decoder_only")


@functools.cache
def tiny(kind, *, vocab_size=32, seed=3, scan=False):
  """(model, parameters), the latter spread out so that few tokens tie."""
  if kind == "encoder_decoder":
    model = t5.EncoderDecoder(
      t5.T5Config(
        vocab_size=vocab_size, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32,
        num_encoder_layers=1, num_decoder_layers=2, dropout_rate=0.0,
        scan_layers=scan,
      )
    )
  else:
    model = decoder.DecoderOnly(
      decoder.DecoderConfig(
        vocab_size=vocab_size, emb_dim=16, num_heads=4, num_kv_heads=2,
        num_layers=2, head_dim=8, mlp_dim=32, logits_via_embedding=True,
        scan_layers=scan,
      )
    )
  params = model.init(jax.random.key(seed))
  keys = iter(jax.random.split(jax.random.key(seed + 1), 99))
  params = jax.tree.map(
    lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params
  )
  return model, params


def plain(model, params, room=128):
  """f(inputs, said): log p of the token after them, [V]; nothing is cached.

  One row through `model.logits`, padded to one length, so compiled once.
  """
  logits = jax.jit(model.logits)

  def next_log_probs(inputs, said):
    inputs, said = list(map(int, inputs)), list(map(int, said))
    if model.kind == "encoder_decoder":
      batch = {
        "encoder_input_tokens": _row(inputs, room),
        "decoder_input_tokens": _row([0, *said], 32),
        "decoder_target_tokens": np.ones((1, 32), np.int32),
      }
      place = len(said)
    else:
      tokens = [*inputs, *said]
      batch = {
        "decoder_input_tokens": _row(tokens, room + 32),
        "decoder_segment_ids": _row([1] * len(tokens), room + 32),
        "decoder_positions": _row(range(len(tokens)), room + 32),
      }
      place = len(tokens) - 1
    logits_V = np.asarray(logits(params, batch))[0, place].astype(np.float64)
    return logits_V - np.logaddexp.reduce(logits_V)

  return next_log_probs


def _row(values, length):
  out = np.zeros((1, length), np.int32)
  out[0, : len(values)] = values
  return out
