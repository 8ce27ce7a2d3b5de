"""A checkpoint on disk as named tensors of our models, whatever its format."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from flan_jax.data import remote
from flan_jax.errors import UserError


@runtime_checkable
class TensorSource(Protocol):
  """What a reader of one format gives; tensors are read when asked for.

  Attributes:
    format: "hf", "t5x", "orbax", "gguf", "flan_jax" or "peft".
    path: of the checkpoint.
    config: a T5Config or DecoderConfig, what the checkpoint says of its model;
      None where the format does not say.
    shapes: our unscanned name (`decoder/layers_0/mlp/wo/kernel`) -> shape and
      type as stored, of every parameter, without reading one.
    tokenizer_files: to be copied beside an export.
  """

  format: str
  path: pathlib.Path
  config: Any
  shapes: Mapping[str, jax.ShapeDtypeStruct]
  tokenizer_files: tuple[pathlib.Path, ...]

  def read(self, name: str) -> np.ndarray:
    """One tensor in our layout, in the type that is stored."""
    ...


class Format(NamedTuple):
  """One format: how a path of it is known, and its reader."""

  name: str
  what: str
  matches: Callable[[pathlib.Path], bool]
  reader: Callable[[], Callable[[pathlib.Path], TensorSource]]


def open_source(path: str | pathlib.Path) -> TensorSource:
  """The checkpoint at `path`, its format told from its files.

      source = open_source("checkpoints/smollm2_135m")
      source.config.num_layers                      # 30
      source.shapes["decoder/decoder_norm/scale"]   # float32[576]
      source.read("decoder/decoder_norm/scale")     # only now from disk

  Args:
    path: a folder or a file of any format in FORMATS; one of a bucket (gs://)
      is copied to this machine first, of a run the newest checkpoints. Of a
      folder with one GGUF file and no other weights, that file.

  Raises:
    UserError: nothing is there, or nothing that we know (the known formats are
      listed), or what the format's reader finds wrong.
  """
  if remote.is_remote(path):
    from flan_jax.data import sample  # with TensorFlow

    older = _older(remote.as_path(path))
    path = remote.local_copy(path, sample.copies_directory(), older)
  path = pathlib.Path(path).absolute()
  if not path.exists():
    raise UserError(f"The checkpoint {path} does not exist.")
  for known in FORMATS:
    if known.matches(path):
      return known.reader()(path)
  inside = ""
  if path.is_dir():
    names = sorted(p.name for p in path.iterdir())
    more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
    inside = f" It holds {', '.join(names[:8] + more) or 'nothing'}."
  raise UserError(
    f"{path} is no checkpoint of a known format.{inside} Known are:\n"
    + "\n".join(f"  {known.name}: {known.what}" for known in FORMATS)
  )


def _older(run: remote.Path, kept: int = 2) -> list[str]:
  """A run's checkpoints but the newest, and the one before should that be torn.

  A run that is going on may remove one while it is looked at.
  """
  from flan_jax.training import restore  # with Orbax

  folder = run / "checkpoints"
  with remote.looked_at(folder):
    found = restore.checkpoints_in(folder)
  steps = sorted(found)[:-kept]
  return [f"{folder.name}/{found[step].name}" for step in steps]


_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")


def _is_hf(path):
  # A GGUF file often stands beside the config.json of the model it is made of.
  if _is_gguf(path) and not any(any(path.glob(p)) for p in _WEIGHTS):
    return False
  return path.suffix in (".safetensors", ".bin") or (
    path.is_dir()
    and any(
      next(path.glob(pattern), None) for pattern in ("config.json", *_WEIGHTS)
    )
  )


def _is_native(path):
  def checkpoint(folder):
    return (folder / "manifest.json").is_file() or (
      # A save that was interrupted: the reader says so.
      (folder / "state").is_dir() and not _is_orbax_step(folder)
    )

  folders = [path, *path.glob("checkpoint_*")]
  folders += path.glob("checkpoints/checkpoint_*")
  return any(map(checkpoint, folders))


def _is_orbax_step(path):
  return (path / "_CHECKPOINT_METADATA").is_file()


def _is_orbax(path):
  return _is_orbax_step(path) or any(
    (path / name).is_file() for name in ("_METADATA", "manifest.ocdbt")
  )


def _is_t5x(path):
  # Without its file `checkpoint` it is half of one: the reader says so.
  return (path / "checkpoint").is_file() or bool(
    next(path.glob("target.*"), None)
  )


def _is_gguf(path):
  return path.suffix == ".gguf" or any(path.glob("*.gguf"))


# Imported when asked for, so that a reader's libraries load only if used.


def _hf():
  from flan_jax.convert.hf import HfSource

  return HfSource


def _is_peft(path):
  return (path / "adapter_config.json").is_file() and not (
    path / "config.json"
  ).is_file()


def _peft():
  from flan_jax.convert.peft import PeftSource

  return PeftSource


def _native():
  from flan_jax.convert.part import open_native

  return open_native


def _t5x():
  from flan_jax.convert.t5x import T5xSource

  return T5xSource


def _orbax():
  from flan_jax.convert.orbax import OrbaxSource

  return OrbaxSource


def _gguf():
  from flan_jax.convert.gguf import GgufSource

  return GgufSource


FORMATS = (
  Format(
    "peft",
    "an adapter of PEFT: adapter_config.json and adapter_model.safetensors",
    _is_peft,
    _peft,
  ),
  Format(
    "hf",
    "a Hugging Face folder: config.json and *.safetensors",
    _is_hf,
    _hf,
  ),
  Format(
    "flan_jax",
    "a checkpoint_N folder of this trainer, or a MODEL_DIR with some",
    _is_native,
    _native,
  ),
  Format(
    "t5x",
    "a checkpoint_N folder of T5X: the file `checkpoint` and target.* arrays",
    _is_t5x,
    _t5x,
  ),
  Format("orbax", "an Orbax folder, as newer T5X writes", _is_orbax, _orbax),
  Format("gguf", "a .gguf file, or a folder with one", _is_gguf, _gguf),
)
