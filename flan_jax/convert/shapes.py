"""Which tensors a model has, by its config alone."""

import dataclasses
from typing import Any

import jax

from flan_jax.convert import trees
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder
from flan_jax.models.t5_network import T5Config


def model_of(config: T5Config | DecoderConfig) -> EncoderDecoder | DecoderOnly:
  """The model of a config."""
  if isinstance(config, DecoderConfig):
    return DecoderOnly(config)
  return EncoderDecoder(config)


def parameter_shapes(
  config: T5Config | DecoderConfig,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Our unscanned names -> shapes, float32, in order; nothing is computed.

  >>> shapes = parameter_shapes(DecoderConfig(vocab_size=128, emb_dim=32))
  >>> shapes["decoder/layers_7/mlp/wo/kernel"].shape
  (1408, 32)

  One layer is traced, however many there are.
  """
  one = dataclasses.replace(config, scan_layers=True)
  tree = jax.eval_shape(model_of(one).init, jax.random.key(0))
  shapes: dict[str, Any] = {}
  for name, leaf in trees.flatten(tree).items():
    if not trees.is_stacked(name):
      shapes[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
      continue
    for i in range(leaf.shape[0]):
      shapes[trees.unstacked(name, i)] = jax.ShapeDtypeStruct(
        leaf.shape[1:], leaf.dtype
      )
  return dict(sorted(shapes.items(), key=lambda item: _order(item[0])))


def _order(name):
  # layers_2 before layers_10; the embedding first.
  layer = trees.stacked(name)[1]
  first = "embedder" in name
  return name.split("/")[0], not first, layer is None, layer or 0, name
