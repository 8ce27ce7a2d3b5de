"""Checkpoints of our own trainer as a source, and written from one.

    MODEL_DIR/
      vocabulary/           of the run (`data/vocabulary_files.py`)
      checkpoints/
        checkpoint_200/
          state/            arrays params.encoder...., as Orbax writes them
          manifest.json     step, names, checksums; the model (`describe`) and
                            details of what it was trained from

Layers may be stored one by one or stacked (`scan_layers`); both are read under
unscanned names.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from flan_jax.convert import arrays as arrays_lib
from flan_jax.convert import drafts, trees
from flan_jax.errors import UserError
from flan_jax.models.decoder_config import DecoderConfig
from flan_jax.models.rope import RopeScaling
from flan_jax.models.t5_network import T5Config
from flan_jax.training import integrity, restore

# In a MODEL_DIR, the folder of its vocabulary.
VOCABULARY = "vocabulary"
_PARAMS = "params/"
_CONFIGS = {kind.__name__: kind for kind in (T5Config, DecoderConfig)}


class NativeSource:
  """A checkpoint of this trainer as named tensors (`source.TensorSource`).

      source = NativeSource(pathlib.Path("runs/mine"))
      source.step                                  # 200, the newest
      source.read("encoder/layers_0/mlp/wo/kernel")

  Of layers that are stored stacked, the last stack that was read is kept, so
  reading in the order of `shapes` reads each once.

  Attributes:
    config: of the model that was trained; None in checkpoints that were made
      before they held it.
    step: that it was saved at.
    details: what the checkpoint that the run began from says beside `config`,
      as an HfSource has it; empty where it began from none.
    left_out: what is there besides parameters, in words.
    extra: what the checkpoint was saved with.

  Raises:
    UserError: there is no whole checkpoint, or its model has fields that this
      version does not know.
  """

  format = "flan_jax"

  def __init__(self, path: pathlib.Path):
    self.path, manifest = restore.find(path)
    self.step = int(manifest["step"])
    self.extra = manifest["extra"]
    self.config = recalled(manifest["extra"].get("model"), self.path)
    self.details = dict(manifest["extra"].get("details") or {})
    self._arrays = arrays_lib.ArrayFolder(self.path / restore.STATE)
    self._kept: tuple[str, np.ndarray] | None = None
    # Our name -> the array's name and the layer in it.
    self._where: dict[str, tuple[str, int | None]] = {}
    self.shapes = {}
    names = [n for n in manifest["arrays"] if n.startswith(_PARAMS)]
    for full in names:
      stored = self._arrays.stored(full.replace("/", "."))
      name = full.removeprefix(_PARAMS)
      layers = range(stored.shape[0]) if trees.is_stacked(name) else (None,)
      for layer in layers:
        mine = name if layer is None else trees.unstacked(name, layer)
        shape = stored.shape if layer is None else stored.shape[1:]
        self._where[mine] = (full.replace("/", "."), layer)
        self.shapes[mine] = jax.ShapeDtypeStruct(shape, stored.dtype)
    others = len(manifest["arrays"]) - len(names)
    self.left_out = (f"{others} arrays besides the parameters",) * bool(others)
    self.tokenizer_files = drafts.tokenizer_files(self.path)
    if not self.tokenizer_files and self.path.parent.name == "checkpoints":
      run = self.path.parent.parent
      self.tokenizer_files = drafts.tokenizer_files(run / VOCABULARY)

  def read(self, name: str) -> np.ndarray:
    """One parameter of one layer, in the type that is stored."""
    stored, layer = self._where[name]
    if layer is None:
      return self._arrays.read(stored)
    if self._kept is None or self._kept[0] != stored:
      self._kept = None  # frees it before the next is read
      self._kept = (stored, self._arrays.read(stored))
    return self._kept[1][layer]


def write_native(
  folder: str | pathlib.Path,
  shapes: Mapping[str, jax.ShapeDtypeStruct],
  parameters: Iterable[tuple[str, np.ndarray]],
  *,
  step: int = 0,
  config: Any = None,
  details: Mapping[str, Any] | None = None,
  scan_layers: bool = False,
  dtype: str | None = None,
  tokenizer_files: Iterable[pathlib.Path] = (),
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a checkpoint with parameters alone, tensor by tensor.

  Args:
    folder: to be made; INITIAL_CHECKPOINT_PATH of a run.
    shapes: our unscanned name -> shape and type, of all `parameters`.
    parameters: unscanned names and arrays, taken one at a time.
    step: that is noted.
    config: of the model, noted for later conversions; None if not known.
    details: of the source that they come from, noted too.
    scan_layers: whether layers are stored stacked.
    dtype: "float32" or "bfloat16"; None keeps each one's.
    tokenizer_files: copied into the folder.
    overwrite: whether a folder that is there is replaced.

  Raises:
    UserError: the folder exists or cannot be written, or layers that are to
      be stacked have different shapes.
  """
  counts = trees.layer_counts(shapes) if scan_layers else {}
  with drafts.folder(folder, overwrite=overwrite) as draft:
    state = draft / restore.STATE
    writers: dict[str, arrays_lib.ArrayWriter] = {}
    for name, array in parameters:
      stored, layer = trees.stacked(name) if scan_layers else (name, None)
      if stored not in writers:
        shape = array.shape
        if layer is not None:
          shape = (counts[stored], *shape)
        writers[stored] = arrays_lib.ArrayWriter(
          state,
          f"{_PARAMS}{stored}".replace("/", "."),
          shape,
          dtype or array.dtype,
          arrays_lib.ZSTD,
          layers=layer is not None,
        )
      writers[stored].write(array, layer)
    _write_metadata(state, writers)
    drafts.copy(tokenizer_files, draft)
    content = {
      "step": step,
      "arrays": {
        f"{_PARAMS}{name}": {
          "shape": list(writer.shape),
          "dtype": writer.dtype.name,
        }
        for name, writer in sorted(writers.items())
      },
      "metrics": {},
      "extra": extra_of(config, details),
    }
    integrity.commit(draft, content)
  return pathlib.Path(folder)


def describe(config: Any) -> dict[str, Any]:
  """A model's config as JSON, for a checkpoint's `extra`.

  >>> describe(T5Config(vocab_size=128, emb_dim=32))["emb_dim"]
  32
  """
  values = dataclasses.asdict(config)
  return json.loads(json.dumps({"config": type(config).__name__, **values}))


def extra_of(
  config: Any, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """What a checkpoint's `extra` says of its model, as NativeSource reads it.

  >>> extra_of(None, {"max_position_embeddings": 2048})
  {'details': {'max_position_embeddings': 2048}}
  """
  out: dict[str, Any] = {}
  if config is not None:
    out["model"] = describe(config)
  if details:
    out["details"] = dict(details)
  return out


def recalled(described: Mapping[str, Any] | None, where: Any) -> Any:
  """The inverse of `describe`; None of None.

  >>> config = T5Config(vocab_size=128, emb_dim=32)
  >>> recalled(describe(config), "x") == config
  True

  Raises:
    UserError: a kind or a field of another version; they are named.
  """
  if described is None:
    return None
  values = dict(described)
  kind = _CONFIGS.get(values.pop("config", None))
  known = {f.name for f in dataclasses.fields(kind)} if kind else set()
  if kind is None or set(values) - known:
    raise UserError(
      f"{where} was written by another version: its model has"
      f" {', '.join(sorted(set(values) - known)) or described}, which this one"
      " does not know."
    )
  if isinstance(values.get("rope_scaling"), Mapping):
    scaling = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values["rope_scaling"].items()
    }
    values["rope_scaling"] = RopeScaling(**scaling)
  return kind(**values)


def _write_metadata(state, writers):
  """What Orbax keeps beside its arrays, so that it reads ours as its own."""
  tree = {}
  for name, writer in sorted(writers.items()):
    key = tuple(f"{_PARAMS}{name}".split("/"))
    tree[str(key)] = {
      "key_metadata": [{"key": part, "key_type": 2} for part in key],
      "value_metadata": {
        "value_type": "jax.Array",
        "skip_deserialize": False,
        "write_shape": list(writer.shape),
      },
    }
  content = {
    "tree_metadata": tree,
    "use_ocdbt": False,
    "use_zarr3": False,
    "store_array_data_equal_to_fill_value": True,
    "custom_metadata": None,
  }
  (state / "_METADATA").write_text(json.dumps(content))
