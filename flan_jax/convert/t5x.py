"""T5X's own ("legacy") checkpoints: a msgpack index and zarr arrays.

    checkpoint_4/
      checkpoint                           {version, optimizer: {state, target}}
      target.encoder.encoder_norm.scale/   .zarray and chunks
      state.param_states...v/              the same, of the optimiser

A leaf of the index is an array or, for one in a folder of its own, a
TensorStore spec with a path relative to the checkpoint. Names are ours, since
ours are T5X's. Source: T5X, `t5x/checkpoints.py`, version 3 of the format.
"""

import pathlib
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
from flax import serialization

from flan_jax.convert import arrays as arrays_lib
from flan_jax.convert import drafts, trees
from flan_jax.errors import UserError

INDEX = "checkpoint"
_VERSION = 3
# Version 3 stores bfloat16 as such; before, its bits were stored as uint16.
_NATIVE_BFLOAT16 = 3
# How the text file begins that TensorFlow puts beside its checkpoints.
_TENSORFLOW = b"model_checkpoint_path:"
_DRIVERS = ("file", "gfile", "gcs")
# Names of T5X's prompt tuning, and ours.
PROMPTS = {
  f"{side}/prompt/prompt/prompt": f"soft_prompt/{side}/prompt"
  for side in ("encoder", "decoder")
}


class T5xSource:
  """A `checkpoint_N` folder of T5X as named tensors (`source.TensorSource`).

      source = T5xSource(pathlib.Path("checkpoint_1100000"))
      source.shapes["token_embedder/embedding"]    # float32[32128, 512]
      source.read("token_embedder/embedding")
      source.state()["step"]                       # 1100000

  Attributes:
    config: None: T5X says nothing of the model.
    step: that the checkpoint was saved at; None where it does not say.
    left_out: what is in the checkpoint besides parameters, in words.
    adapter: `SoftPrompt.described` of T5X's prompt tuning; None: no prompt.

  Raises:
    UserError: the index is missing, truncated or no T5X index; arrays that it
      names are missing or differ from what it says: all are named.
  """

  format = "t5x"
  config = None

  def __init__(self, path: pathlib.Path):
    self.path = pathlib.Path(path)
    self.version, content = _read_index(self.path)
    self._target = trees.flatten(content["target"], _is_leaf)
    self._state = trees.flatten(content.get("state", {}), _is_leaf)
    self._arrays = arrays_lib.ArrayFolder(self.path)
    # T5X's prompt tuning keeps its prompt among the parameters.
    self._target = {PROMPTS.get(n, n): x for n, x in self._target.items()}
    self.shapes = self._check(self._target, "target")
    self.adapter = soft_prompt_of(self.shapes)
    step = self._state.get("step")
    self.step = None if step is None or _is_spec(step) else int(step)
    slots = any(name.startswith("param_states/") for name in self._state)
    self.left_out = ("the optimiser's state",) if slots else ()
    self.tokenizer_files = drafts.tokenizer_files(self.path)

  def read(self, name: str) -> np.ndarray:
    """One parameter, in the type that is stored."""
    return self._read(self._target[name])

  def state(self) -> dict[str, Any]:
    """T5X's `state` tree, read: `step` and, where saved, `param_states`.

    Raises:
      UserError: an array of it is missing or damaged.
    """
    self._check(self._state, "state")
    return trees.unflatten(
      {name: self._read(leaf) for name, leaf in self._state.items()}
    )

  def _check(self, leaves, what):
    shapes, faults = {}, []
    for name, leaf in leaves.items():
      if not _is_spec(leaf):
        shapes[name] = jax.ShapeDtypeStruct(
          np.shape(leaf), self._type(jnp.asarray(leaf).dtype)
        )
        continue
      try:
        stored = self._arrays.stored(_folder(leaf))
        shape = tuple(leaf["metadata"]["shape"])
        if shape != stored.shape:
          raise UserError(
            f"the index says {list(shape)}, .zarray {list(stored.shape)}"
          )
        shapes[name] = jax.ShapeDtypeStruct(
          stored.shape, self._type(stored.dtype)
        )
      except (UserError, KeyError, TypeError) as error:
        faults.append(f"  {what}/{name}: {arrays_lib.first_line(error)}")
    if faults:
      raise UserError(
        f"{self.path} is not a whole T5X checkpoint; {len(faults)} of its"
        f" {len(leaves)} arrays cannot be used:\n" + "\n".join(faults)
      )
    return shapes

  def _type(self, dtype):
    if dtype == np.uint16 and self.version < _NATIVE_BFLOAT16:
      return jnp.dtype("bfloat16")
    return dtype

  def _read(self, leaf):
    if _is_spec(leaf):
      array = self._arrays.read(_folder(leaf))
    else:
      array = np.asarray(leaf)
    return array.view(self._type(array.dtype))


def soft_prompt_of(
  shapes: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, Any] | None:
  """What `SoftPrompt.described` is of prompts among parameters, if any.

  >>> prompt = jax.ShapeDtypeStruct((5, 32), "float32")
  >>> soft_prompt_of({"soft_prompt/encoder/prompt": prompt})["length"]
  5
  """
  found = [n for n in PROMPTS.values() if n in shapes]
  if not found:
    return None
  return {
    "kind": "soft_prompt",
    "length": shapes[found[0]].shape[0],
    "names": ["prompt"],
    "side": "both" if len(found) == 2 else found[0].split("/")[1],
    "reparameterisation": 0,
  }


def write_t5x(
  folder: str | pathlib.Path,
  parameters: Iterable[tuple[str, np.ndarray]],
  *,
  step: int = 0,
  dtype: str | None = None,
  param_states: Iterable[tuple[str, np.ndarray]] | None = None,
  tokenizer_files: Iterable[pathlib.Path] = (),
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a checkpoint that T5X reads, tensor by tensor.

      write_t5x("checkpoint_0", ((n, source.read(n)) for n in source.shapes))

  The folder appears when it is whole; T5X itself wants it to be named
  `checkpoint_<step>`.

  Args:
    folder: to be made.
    parameters: our unscanned names and arrays; taken one at a time.
    step: steps trained.
    dtype: of the parameters, "float32" or "bfloat16"; None keeps each one's.
    param_states: name and array of the optimiser's slots,
      `token_embedder/embedding/v_row`; never cast, as T5X never does. None:
      without optimiser state, as T5X saves for inference.
    tokenizer_files: copied into the folder.
    overwrite: whether a folder that is there is replaced.

  Raises:
    UserError: the folder exists, or cannot be written.
  """
  with drafts.folder(folder, overwrite=overwrite) as draft:
    target = {
      name: _write_array(draft, f"target/{name}", array, dtype)
      for name, array in parameters
    }
    state: dict[str, Any] = {"step": np.asarray(step, np.int32)}
    if param_states is not None:
      # Row and column means and unused slots stand in the index itself.
      slots = {
        name: np.asarray(array)
        if name.endswith(("/v_row", "/v_col")) or array.shape == (1,)
        else _write_array(draft, f"state/param_states/{name}", array, None)
        for name, array in param_states
      }
      state = {"param_states": trees.unflatten(slots), **state}
    content = {
      "version": _VERSION,
      "optimizer": {"state": state, "target": trees.unflatten(target)},
    }
    (draft / INDEX).write_bytes(
      serialization.msgpack_serialize(content, in_place=True)
    )
    drafts.copy(tokenizer_files, draft)
  return pathlib.Path(folder)


def _write_array(draft, name, array, dtype):
  """Writes one array; its spec for the index."""
  dotted = name.replace("/", ".")
  writer = arrays_lib.ArrayWriter(
    draft, dotted, array.shape, dtype or array.dtype
  )
  writer.write(array)
  return {
    "driver": "zarr",
    "dtype": writer.dtype.name,
    "kvstore": {"driver": "file", "path": f"{dotted}/"},
    "metadata": {
      "chunks": list(writer.chunks),
      "compressor": writer.compressor,
      "shape": list(writer.shape),
    },
  }


def _read_index(path):
  """Version and the tree {state, target} of the file `checkpoint`."""
  file = path / INDEX
  if not file.is_file():
    raise UserError(
      f"{path} is half a T5X checkpoint: it has arrays target.*, but not the"
      f" file {INDEX!r} that lists them. Copy the whole folder."
    )
  content = file.read_bytes()
  if content.startswith(_TENSORFLOW):
    raise UserError(
      f"{path} is a checkpoint of TensorFlow, as T5's first code base"
      " (mesh-TensorFlow) wrote them: its file 'checkpoint' is text. Convert it"
      " to T5X's format first (t5x/scripts/convert_tf_checkpoint.py of T5X), or"
      " fetch the same model as T5X or Hugging Face has it."
    )
  try:
    tree = serialization.msgpack_restore(content)
  except (
    msgpack.UnpackException,
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
  ) as error:
    raise UserError(
      f"{file} is truncated or no msgpack:"
      f" {arrays_lib.first_line(error) or 'unexpected end'}"
    ) from None
  content = tree.get("optimizer") if isinstance(tree, dict) else None
  if not isinstance(content, dict) or not isinstance(
    content.get("target"), dict
  ):
    found = ", ".join(map(str, tree)) if isinstance(tree, dict) else "no tree"
    raise UserError(
      f"{file} is no T5X checkpoint: it needs optimizer/target, and has"
      f" {found}."
    )
  version = tree.get("version", 0)
  if not isinstance(version, int) or version > _VERSION:
    raise UserError(
      f"{file} has version {version!r} of T5X's format; up to {_VERSION} is"
      " read."
    )
  return version, content


def _is_spec(leaf) -> bool:
  return isinstance(leaf, Mapping)


def _is_leaf(node) -> bool:
  return not isinstance(node, Mapping) or {"driver", "kvstore"} <= set(node)


def _folder(spec) -> str:
  """The folder of an array in its checkpoint.

  Of the spec only this is used, so nothing outside the checkpoint is read.
  """
  store = spec["kvstore"]
  if spec["driver"] != "zarr" or store.get("driver") not in _DRIVERS:
    raise UserError(
      f"it is stored with {spec['driver']!r} on {store.get('driver')!r}; zarr"
      f" on {', '.join(_DRIVERS)} is read"
    )
  # Before TensorStore 0.1.14 the path stood beside the kvstore.
  path = store.get("path") or spec.get("path") or ""
  name = posixpath.normpath(path)
  if name.startswith(("/", "..")) or name == ".":
    raise UserError(f"its path {path!r} is not inside the checkpoint")
  return name
