"""Parameters and batches made by other implementations of T5."""

import functools
import pathlib

import numpy as np
from flax import traverse_util

from flan_jax.models import t5

GOLDEN = pathlib.Path(__file__).parent.parent / "testdata" / "t5"
VARIANTS = {
  "t5_1_1": {},
  "t5_1_1_factored": {},
  "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
}


def unflatten(arrays, prefix=""):
  names = [n for n in arrays if n.startswith(prefix)]
  return traverse_util.unflatten_dict(
    {tuple(n.removeprefix(prefix).split("/")): arrays[n] for n in names}
  )


def flatten(tree):
  return traverse_util.flatten_dict(tree, sep="/")


def load(path):
  with np.load(path) as arrays:
    return dict(arrays)


def relative_error(ours, theirs):
  return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def t5x_config(name, **changes):
  return t5.T5Config(
    vocab_size=128,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    dropout_rate=0.0,
    **VARIANTS[name],
    **changes,
  )


class T5X:
  """A folder of `../shared/fixtures/t5x`: what the real T5X computed."""

  def __init__(self, folder):
    self.model = t5.EncoderDecoder(t5x_config(folder.name))
    self.params = unflatten(load(folder / "params_step4.npz"))
    self.grads = load(folder / "grads_step4.npz")
    arrays = load(folder / "batch.npz")
    self.packed = {
      n.removeprefix("packed/"): a
      for n, a in arrays.items()
      if n.startswith("packed/")
    }
    self.arrays = {
      n: a for n, a in arrays.items() if not n.startswith("packed/")
    }


@functools.cache
def golden():
  """(model, parameters, arrays) of tests/testdata/t5: PyTorch's T5."""
  config = t5.T5Config(
    vocab_size=48,
    emb_dim=16,
    num_heads=3,
    head_dim=6,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.0,
  )
  arrays = load(GOLDEN / "t5_v1_1.npz")
  return t5.EncoderDecoder(config), unflatten(arrays, "params/"), arrays


def batch_of(arrays):
  names = ("encoder_input_tokens", "decoder_input_tokens")
  return {n: arrays[n] for n in (*names, "decoder_target_tokens")}


def packed_pair():
  """Two examples in one row of each side, and the same two apart.

  Returns:
    packed [1, S], apart [2, S]: batches; the second example's tokens are the
    first's neighbours in the pack.
  """
  packed = {
    "encoder_input_tokens": [[7, 9, 4, 1, 30, 31, 32, 33, 1, 0]],
    "encoder_segment_ids": [[1, 1, 1, 1, 2, 2, 2, 2, 2, 0]],
    "encoder_positions": [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0]],
    "decoder_input_tokens": [[0, 11, 12, 0, 40, 41, 0]],
    "decoder_target_tokens": [[11, 12, 1, 40, 41, 1, 0]],
    "decoder_segment_ids": [[1, 1, 1, 2, 2, 2, 0]],
    "decoder_positions": [[0, 1, 2, 0, 1, 2, 0]],
  }
  apart = {
    "encoder_input_tokens": [[7, 9, 4, 1, 0], [30, 31, 32, 33, 1]],
    "decoder_input_tokens": [[0, 11, 12], [0, 40, 41]],
    "decoder_target_tokens": [[11, 12, 1], [40, 41, 1]],
  }
  return tuple(
    {n: np.array(a, np.int32) for n, a in batch.items()}
    for batch in (packed, apart)
  )
