"""A base with its adapter taken into the kernels, as one checkpoint.

Of LoRA W + (alpha / r) A B of every kernel that is adapted (Hu et al. 2021,
section 4.1), of (IA)3 its rows or columns times the vector, so that nothing is
left to do when the model runs.
"""

from typing import Any

import jax
import numpy as np

from flan_jax.convert import fingerprint, part
from flan_jax.errors import UserError
from flan_jax.models import ia3, lora, quantised

# Kinds of adapters that are part of kernels -> how their options are read.
KINDS = {lora.KEY: lora.Lora.of, ia3.KEY: ia3.Ia3.of}


class MergedSource:
  """A `source.TensorSource` of the model that base and adapter make.

      merged = MergedSource(open_source("runs/lora"))
      merged.read("decoder/layers_0/self_attention/query/kernel")

  Of a base that was trained on in 4 or 8 bits, kernels are as it had them:
  quantised and back, and A B added; its embedding and head are rounded as it
  had them. What is changed is float32.

  Raises:
    UserError: the base is another than the adapter was trained on.
  """

  def __init__(self, source: part.PartSource):
    self._source = source
    self._options = KINDS[source.adapter["kind"]](source.adapter)
    self.format, self.path, self.step = source.format, source.path, source.step
    self.config, self.details = source.config, source.details
    self.left_out = source.left_out
    self.tokenizer_files = source.tokenizer_files
    base = source.base
    source.check(
      fingerprint.combined(
        x for name in base.shapes for x in fingerprint.of(name, base.read(name))
      )
    )
    self.shapes = {
      name: jax.ShapeDtypeStruct(x.shape, np.float32)
      if self._is_changed(name)
      else x
      for name, x in base.shapes.items()
    }

  def _is_changed(self, name):
    kind, rest = self._options.base_type, self._options.base_rest
    adapted = any(full in self._source.own for full in _own(name).values())
    return adapted or (
      kind is not None
      and (quantised.is_kernel(name) or quantised.is_rest(name, rest))
    )

  def read(self, name: str) -> np.ndarray:
    array = self._source.base.read(name)
    if not self._is_changed(name):
      return array
    kernel, o = np.asarray(array, np.float32), self._options
    if o.base_type is not None:
      stored = quantised.one(name, kernel, o.base_type, o.base_rest)
      if isinstance(stored, dict):
        stored = quantised.dequantise(stored)
      kernel = np.asarray(stored).astype(np.float32)
    return self._with_adapter(name, kernel)

  def _with_adapter(self, name, kernel):
    own = {
      side: self._source.read(full).astype(np.float64)
      for side, full in _own(name).items()
      if full in self._source.own
    }
    if "lora_a" in own:
      product = own["lora_a"] @ own["lora_b"]
      kernel = kernel + self._options.scale * product
    if "ia3_input" in own:
      kernel = kernel * own["ia3_input"][:, None]
    if "ia3_output" in own:
      kernel = kernel * own["ia3_output"]
    return kernel.astype(np.float32)


def whole(source: Any) -> Any:
  """The source with its adapter merged; one without an adapter as it is.

  Raises:
    UserError: the adapter is no part of kernels, so that it cannot be merged.
  """
  described = getattr(source, "adapter", None)
  if described is None:
    return source
  if described["kind"] not in KINDS:
    raise UserError(
      f"{source.path} holds an adapter of kind {described['kind']!r}, which is"
      " no part of any tensor of its base: give OUTPUT_FORMAT='peft', or the"
      f" base {getattr(getattr(source, 'base', source), 'path', '')} itself."
    )
  return MergedSource(source)


def _own(name):
  """What a checkpoint may hold for a kernel -> its whole name."""
  scope = name.removesuffix("/kernel")
  sides = {lora.KEY: ("lora_a", "lora_b"), ia3.KEY: ia3.SIDES}
  return {
    side: f"{key}/{scope}/{side}" for key, own in sides.items() for side in own
  }
