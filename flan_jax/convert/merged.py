"""A base with its LoRA adapter added into the kernels, as one checkpoint.

W + (alpha / r) A B of every kernel that is adapted (Hu et al. 2021, section
4.1), so that nothing is left to add when the model runs.
"""

from typing import Any

import jax
import numpy as np

from flan_jax.convert import fingerprint, part
from flan_jax.errors import UserError
from flan_jax.models import lora, quantised


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
    self._options = lora.options_of(source.adapter)
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
    return _own(name, "a") in self._source.own or (
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
    if _own(name, "a") not in self._source.own:
      return kernel
    a, b = (
      self._source.read(_own(name, side)).astype(np.float64) for side in "ab"
    )
    return (kernel + o.scale * (a @ b)).astype(np.float32)


def whole(source: Any) -> Any:
  """The source with its adapter merged; one without an adapter as it is.

  Raises:
    UserError: the adapter is no part of kernels, so that it cannot be merged.
  """
  described = getattr(source, "adapter", None)
  if described is None:
    return source
  if described["kind"] != lora.KEY:
    raise UserError(
      f"{source.path} holds an adapter of kind {described['kind']!r}, which is"
      " no part of any tensor of its base: give OUTPUT_FORMAT='peft', or the"
      f" base {getattr(getattr(source, 'base', source), 'path', '')} itself."
    )
  return MergedSource(source)


def _own(name, side):
  return f"{lora.KEY}/{name.removesuffix('/kernel')}/lora_{side}"
