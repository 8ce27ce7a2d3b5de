"""A checkpoint that holds what was trained alone, and the base it is of.

    runs/prompt/checkpoints/checkpoint_200/
      state/            params.soft_prompt.encoder.prompt, and its optimiser
      manifest.json     extra: model, adapter, trainable, and
                        base: {path, fingerprint}

The base's parameters are read from where they were, and are refused where they
are others by now.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flan_jax.convert.native import NativeSource
from flan_jax.errors import UserError


class PartSource:
  """The base and what was trained on it, as one `source.TensorSource`.

  Attributes:
    base: the source of the base.
    fingerprint: of the base's parameters, when they were trained on.
    own: names of the parameters that this checkpoint holds.
    adapter: `Adapted.described` of the model; None: a part of the base itself
      was trained.
  """

  format = "flan_jax"

  def __init__(self, own: NativeSource):
    from flan_jax.convert.source import open_source

    self._own = own
    self.path, self.step, self.config = own.path, own.step, own.config
    self.details, self.left_out = own.details, own.left_out
    self.adapter = own.extra.get("adapter")
    said = own.extra["base"]
    self.fingerprint = said["fingerprint"]
    where = pathlib.Path(said["path"])
    if not where.exists():
      raise UserError(
        f"{own.path} holds what was trained alone"
        f" ({own.extra.get('trainable')}), on top of the checkpoint {where}"
        f" (fingerprint {self.fingerprint}), which is not there. Put that"
        " checkpoint back, or a link to where it is now."
      )
    self.base = open_source(where)
    self.own = frozenset(own.shapes)
    self.shapes: Mapping[str, jax.ShapeDtypeStruct] = {
      **self.base.shapes,
      **own.shapes,
    }
    self.tokenizer_files = own.tokenizer_files or self.base.tokenizer_files

  def read(self, name: str) -> np.ndarray:
    return (self._own if name in self.own else self.base).read(name)

  def check(self, fingerprint: str) -> None:
    """Raises UserError unless the base that was read is the one trained on."""
    if fingerprint != self.fingerprint:
      raise UserError(
        f"{self.path} was trained on top of a checkpoint with the fingerprint"
        f" {self.fingerprint}; {self.base.path} has {fingerprint}, so that it"
        " is another one. Put the checkpoint back that it was trained on."
      )


def open_native(path: pathlib.Path) -> Any:
  """A checkpoint of this trainer, whole or with its base."""
  own = NativeSource(path)
  return PartSource(own) if own.extra.get("base") else own


def extra_of(
  path: str | pathlib.Path, fingerprint: str, trainable: str, adapter: Any
) -> dict[str, Any]:
  """What such a checkpoint's `extra` says besides `native.extra_of`.

  Args:
    path: of the base.
    fingerprint: of the base's parameters.
    trainable: the regex of what is trained.
    adapter: `Adapted.described`, or None.
  """
  out: dict[str, Any] = {
    "base": {"path": str(path), "fingerprint": fingerprint},
    "trainable": trainable,
  }
  if adapter is not None:
    out["adapter"] = adapter
  return out
