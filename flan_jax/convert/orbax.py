"""Orbax folders: what newer T5X writes, and others who save with Orbax.

    checkpoint_4/
      _CHECKPOINT_METADATA
      state/            _METADATA, manifest.ocdbt (or one folder an array)

The parameters are T5X's `target`, or `params` of other programs, or all that
is there. Names are ours where they are T5X's.
"""

import json
import pathlib
from typing import Any

import numpy as np

from flan_jax.convert import arrays as arrays_lib
from flan_jax.convert import drafts, trees
from flan_jax.errors import UserError

# Where parameters are looked for, in this order.
_SCOPES = ("target/", "params/params/", "params/", "")
_UNFINISHED = ".orbax-checkpoint-tmp"


class OrbaxSource:
  """An Orbax folder as named tensors (`source.TensorSource`).

      source = OrbaxSource(pathlib.Path("checkpoint_4"))
      source.read("token_embedder/embedding")

  Attributes:
    config: None: Orbax says nothing of the model.
    step: that T5X saved at; None where the folder does not say.
    left_out: what is there besides parameters, in words.

  Raises:
    UserError: the save was not finished, there are no arrays, or some that
      `_METADATA` lists are missing: all are named.
  """

  format = "orbax"
  config = None

  def __init__(self, path: pathlib.Path):
    self.path = pathlib.Path(path)
    if _UNFINISHED in self.path.name:
      raise UserError(
        f"{path} is a save that Orbax did not finish; take another step."
      )
    folder = self.path
    for name in ("state", "default"):
      if (self.path / name).is_dir():
        folder = self.path / name
        break
    self._arrays = arrays_lib.ArrayFolder(folder)
    self._dotted = _names(folder, self._arrays)
    if not self._dotted:
      raise UserError(f"{folder} holds no array: it is half a checkpoint.")
    self._scope = next(
      scope
      for scope in _SCOPES
      if any(name.startswith(scope) for name in self._dotted)
    )
    mine = [n for n in self._dotted if n.startswith(self._scope)]
    stored = _stored(folder, self._arrays, self._dotted, mine)
    self.shapes = {
      name.removeprefix(self._scope): arrays_lib.abstract(stored[name])
      for name in mine
    }
    others = len(self._dotted) - len(mine)
    self.left_out = (f"{others} arrays besides the parameters",) * bool(others)
    self.step = None
    if self._scope == "target/" and "state/step" in self._dotted:
      self.step = int(self._read("state/step"))
    self.tokenizer_files = drafts.tokenizer_files(self.path)

  def read(self, name: str) -> np.ndarray:
    """One parameter, in the type that is stored."""
    return self._read(f"{self._scope}{name}")

  def state(self) -> dict[str, Any]:
    """T5X's `state` tree, read: `step` and `param_states`.

    Raises:
      UserError: an array of it is missing or damaged.
    """
    names = [name for name in self._dotted if name.startswith("state/")]
    _stored(self._arrays.folder, self._arrays, self._dotted, names)
    return trees.unflatten(
      {name.removeprefix("state/"): self._read(name) for name in names}
    )

  def _read(self, name):
    return self._arrays.read(self._dotted[name])


def _names(folder, arrays) -> dict[str, str]:
  """Name with `/` -> dotted name, of every array."""
  try:
    tree = json.loads((folder / "_METADATA").read_text())["tree_metadata"]
    keys = [
      tuple(str(key["key"]) for key in entry["key_metadata"])
      for entry in tree.values()
      if _is_array(entry["value_metadata"])
    ]
    return {"/".join(key): ".".join(key) for key in keys}
  except FileNotFoundError:
    # Written by an Orbax before it had the file.
    return {name.replace(".", "/"): name for name in arrays.names}
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{folder / '_METADATA'} cannot be read: {arrays_lib.first_line(error)}"
    ) from None


def _is_array(value) -> bool:
  # Strings and empty nodes have no array of their own.
  return not value.get("skip_deserialize") and value["value_type"] not in (
    "None",
    "Dict",
    "List",
    "Tuple",
    "string",
    "NamedTuple",
  )


def _stored(folder, arrays, dotted, names) -> dict[str, arrays_lib.Stored]:
  out: dict[str, arrays_lib.Stored] = {}
  faults = []
  for name in names:
    try:
      out[name] = arrays.stored(dotted[name])
    except UserError as error:
      faults.append(f"  {name}: {error}")
  if faults:
    raise UserError(
      f"{folder} is half a checkpoint; {len(faults)} of its {len(names)}"
      " arrays cannot be used:\n" + "\n".join(faults)
    )
  return out
