"""Adapters in the folder layout of Hugging Face's PEFT.

    FOLDER/
      adapter_config.json        its kind (`peft_type`), base and options
      adapter_model.safetensors  tensors by their torch names

A kind is read and written by its own module, see KINDS. Ours are written with
the fingerprint of their base in the file's metadata, which PEFT does not read.
"""

import difflib
import importlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from flan_jax.convert import drafts, part, shards
from flan_jax.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# In the metadata of WEIGHTS.
FINGERPRINT = "base_fingerprint"
PREFIX = "base_model.model."

# peft_type -> the module that reads and writes it, and our kind of adapter.
KINDS: Mapping[str, tuple[str, str]] = {
  "LORA": ("flan_jax.convert.peft_lora", "lora"),
  "IA3": ("flan_jax.convert.peft_ia3", "ia3"),
  "PREFIX_TUNING": ("flan_jax.convert.peft_prefix", "prefix"),
  "PROMPT_TUNING": ("flan_jax.convert.peft_prompt", "soft_prompt"),
}


class Folder(NamedTuple):
  """What a folder of PEFT holds.

  Attributes:
    path: of the folder.
    config: adapter_config.json.
    arrays: by the names in the file.
    fingerprint: of the base, where this project wrote the folder.
  """

  path: pathlib.Path
  config: dict[str, Any]
  arrays: dict[str, np.ndarray]
  fingerprint: str | None


def is_folder(path: str | pathlib.Path) -> bool:
  """Whether a path is a folder of PEFT."""
  return (pathlib.Path(path) / CONFIG).is_file()


def read_folder(path: str | pathlib.Path) -> Folder:
  """The config and the tensors of a folder.

  Raises:
    UserError: a file is missing or cut short, pickled weights, or a `peft_type`
      that we do not know (the known ones are named).
  """
  path = pathlib.Path(path)
  config = shards.read_json(path / CONFIG)
  module_of(config.get("peft_type"), str(path / CONFIG))
  if not (path / WEIGHTS).is_file():
    pickled = sorted(p.name for p in path.glob("*.bin"))
    if pickled:
      shards.refuse_pickle(path, pickled[0])
    raise UserError(
      f"{path} has {CONFIG} but no {WEIGHTS}; fetch the whole adapter."
    )
  found = shards.open_shards(path)
  with safetensors.safe_open(path / WEIGHTS, "numpy") as file:
    metadata = file.metadata() or {}
  arrays = {name: found.read(name) for name in found.shapes}
  return Folder(path, config, arrays, metadata.get(FINGERPRINT))


def write_folder(
  path: str | pathlib.Path,
  config: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  *,
  fingerprint: str | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """A folder that PEFT loads; it appears when it is whole.

  Args:
    path: to be made.
    config: of adapter_config.json.
    arrays: by PEFT's names, float32.
    fingerprint: of the base.
    overwrite: whether a folder that is there is replaced.

  Raises:
    UserError: the folder exists or cannot be written.
  """
  metadata = {"format": "pt"}
  if fingerprint is not None:
    metadata[FINGERPRINT] = fingerprint
  with drafts.folder(path, overwrite=overwrite) as draft:
    text = json.dumps(dict(config), indent=2, sort_keys=True)
    (draft / CONFIG).write_text(text + "\n")
    contiguous = {n: np.ascontiguousarray(x) for n, x in arrays.items()}
    safetensors.numpy.save_file(contiguous, draft / WEIGHTS, metadata)
  return pathlib.Path(path)


def module_of(peft_type: Any, where: str) -> Any:
  """The module of a kind.

  Raises:
    UserError: a kind that we do not know; the known ones are named.
  """
  if peft_type not in KINDS:
    near = difflib.get_close_matches(str(peft_type), KINDS, 1, 0.0)[0]
    raise UserError(
      f"{where} is of the peft_type {peft_type!r}, which we do not know; known"
      f" are {', '.join(KINDS)} (the nearest is {near!r})."
    )
  return importlib.import_module(KINDS[peft_type][0])


class PeftSource(part.PartSource):
  """A folder of PEFT and its base, as one `source.TensorSource`.

      source = PeftSource("adapter", base="checkpoints/smollm2_135m")
      source.adapter["rank"]
      source.read("lora/decoder/layers_0/self_attention/query/lora_a")

  A module of KINDS has `read(folder, base) -> (described, arrays)`: what
  `Adapted.described` says of it, and its parameters by our unscanned names.

  Args:
    path: the folder.
    base: the checkpoint of the model underneath; None: the config's
      base_model_name_or_path, if that is a path.

  Raises:
    UserError: what `read_folder` finds; there is no base; an option or tensor
      that the kind does not know.
  """

  format = "peft"

  def __init__(
    self, path: str | pathlib.Path, base: str | pathlib.Path | None = None
  ):
    from flan_jax.convert.source import open_source

    folder = read_folder(path)
    self.path = pathlib.Path(path).absolute()
    said = folder.config.get("base_model_name_or_path")
    base = base or said
    if not base or not pathlib.Path(base).exists():
      raise UserError(
        f"{self.path} is an adapter of {said!r}, and its base is not there"
        f" ({CONFIG}: base_model_name_or_path). Give the folder of the model,"
        " BASE_PATH, or write it into the config."
      )
    self.base = open_source(base)
    self.fingerprint = folder.fingerprint
    module = module_of(folder.config["peft_type"], str(self.path))
    self.adapter, self._arrays = module.read(folder, self.base)
    self.own = frozenset(self._arrays)
    self.config = self.base.config
    self.details = getattr(self.base, "details", {})
    self.step, self.left_out = 0, ()
    self.shapes = {
      **self.base.shapes,
      **{
        name: jax.ShapeDtypeStruct(x.shape, x.dtype)
        for name, x in self._arrays.items()
      },
    }
    self.tokenizer_files = (
      drafts.tokenizer_files(self.path) or self.base.tokenizer_files
    )

  def read(self, name: str) -> np.ndarray:
    if name in self.own:
      return self._arrays[name]
    return self.base.read(name)

  def check(self, fingerprint: str) -> None:
    """As of a PartSource; a folder that PEFT wrote does not say its base."""
    if self.fingerprint is not None:
      super().check(fingerprint)


def write(
  source: part.PartSource, path: str | pathlib.Path, *, overwrite: bool = False
) -> pathlib.Path:
  """What was trained on top of a base, as a folder of PEFT.

  A module of KINDS has `write(source) -> (config, arrays)`.

  Raises:
    UserError: the checkpoint holds no adapter of a kind that PEFT has.
  """
  described = getattr(source, "adapter", None)
  names = {ours: theirs for theirs, (_, ours) in KINDS.items()}
  if described is None or described["kind"] not in names:
    what = "no adapter" if described is None else repr(described["kind"])
    raise UserError(
      f"{source.path} holds {what}; OUTPUT_FORMAT='peft' writes"
      f" {', '.join(names)}. Give the folder of a run with such an ADAPTER."
    )
  peft_type = names[described["kind"]]
  module = module_of(peft_type, str(source.path))
  config, arrays = module.write(source)
  config = {
    "peft_type": peft_type,
    "base_model_name_or_path": str(source.base.path),
    "inference_mode": True,
    **config,
  }
  return write_folder(
    path, config, arrays, fingerprint=source.fingerprint, overwrite=overwrite
  )
