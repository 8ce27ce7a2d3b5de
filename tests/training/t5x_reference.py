"""T5X's arrays as trees, for the tests that compare with them."""

import pathlib

import jax.numpy as jnp
import numpy as np

from flan_jax.models.t5 import EncoderDecoder, T5Config

# The optimiser's options of each fixture; both at learning rate 0.01.
OPTIMISERS = {
  "t5_1_1": {},
  "t5_1_1_factored": {"min_dim_size_to_factor": 16, "beta1": 0.9},
}


def model() -> EncoderDecoder:
  return EncoderDecoder(
    T5Config(
      vocab_size=128,
      emb_dim=32,
      num_heads=4,
      head_dim=8,
      mlp_dim=64,
      num_encoder_layers=2,
      num_decoder_layers=2,
      dropout_rate=0.0,
    )
  )


def flat(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path) as arrays:
    return {name: arrays[name] for name in arrays.files}


def tree(path: pathlib.Path):
  out = {}
  for name, value in flat(path).items():
    *scopes, last = name.split("/")
    node = out
    for scope in scopes:
      node = node.setdefault(scope, {})
    node[last] = jnp.asarray(value)
  return out


def batch(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The batch that T5X trained on (unpacked)."""
  names = ("encoder_", "decoder_")
  return {k: v for k, v in flat(path).items() if k.startswith(names)}


def relative_error(ours, theirs) -> float:
  """Norm of the difference over the norm, of one tensor."""
  theirs = np.asarray(theirs, np.float64)
  difference = np.linalg.norm(np.asarray(ours, np.float64) - theirs)
  return float(difference / max(np.linalg.norm(theirs), 1e-30))
