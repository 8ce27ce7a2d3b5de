"""safetensors files, read and written one tensor at a time.

Read through the safetensors library. Its writer wants all tensors of a file at
once; here the header is written first, since shapes are known, and each tensor
to its place when it comes, a few megabytes at a time.

Format: https://huggingface.co/docs/safetensors: eight bytes of length, a JSON
header, the tensors' bytes without holes.
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Container, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors

from flan_jax.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Elements that are cast and written at once.
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Shards:
  """The tensors of one or several files, by name.

  Attributes:
    files: name -> file.
    shapes: name -> shape and type as stored.
    stored: name -> name in the file, where it is another.
  """

  files: Mapping[str, pathlib.Path]
  shapes: Mapping[str, jax.ShapeDtypeStruct]
  stored: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def read(self, name: str) -> np.ndarray:
    """One tensor, from disk, as stored."""
    with _opened(self.files[name]) as file:
      return file.get_tensor(self.stored.get(name, name))

  def within(
    self, prefixes: Sequence[tuple[str, str]], rest: tuple[str, ...]
  ) -> "tuple[Shards, list[str]]":
    """The tensors of a part under the part's own names; names of the rest."""
    stored, left = {}, []
    for name in self.files:
      if name.startswith(rest):
        left.append(name)
        continue
      old, new = next(
        (pair for pair in prefixes if name.startswith(pair[0])), ("", "")
      )
      stored[new + name.removeprefix(old)] = name
    files = {new: self.files[name] for new, name in stored.items()}
    shapes = {new: self.shapes[name] for new, name in stored.items()}
    return Shards(files, shapes, stored), left

  def differ(self, one: str, other: str) -> bool:
    """Whether two tensors differ in a bit; some rows of both are held."""
    a, b = self.shapes[one], self.shapes[other]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
      return True
    rows = _rows_at_once(a.shape)
    with (
      _opened(self.files[one]) as file_one,
      _opened(self.files[other]) as file_other,
    ):
      x = file_one.get_slice(self.stored.get(one, one))
      y = file_other.get_slice(self.stored.get(other, other))
      # A slice of these must end inside the tensor.
      return any(
        x[i : min(i + rows, count)].tobytes()
        != y[i : min(i + rows, count)].tobytes()
        for count in a.shape[:1]
        for i in range(0, count, rows)
      )


def open_shards(folder: pathlib.Path, without: Container[str] = ()) -> Shards:
  """What the safetensors files of a folder hold, from their headers.

  Args:
    folder: of the files.
    without: tensors that are passed over.

  Raises:
    UserError: there are none, only pickled weights, a shard is missing or cut
      short (named), or a tensor has a type that we do not read (named).
  """
  index = folder / INDEX
  wanted = None
  if index.is_file():
    wanted = read_json(index).get("weight_map")
    if not isinstance(wanted, dict) or not wanted:
      raise UserError(f"{index} has no weight_map; fetch the file again.")
    paths = [folder / name for name in sorted(set(wanted.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
      raise UserError(
        f"{folder} lacks {', '.join(missing)}, which {INDEX} names. Fetch"
        " what is missing; the checkpoint has"
        f" {len(paths)} files."
      )
  else:
    paths = [_only_file(folder)]
  files, shapes = {}, {}
  for path in paths:
    with _opened(path) as file:
      for name in file.keys():  # noqa: SIM118 - no mapping
        if name in without:
          continue
        part = file.get_slice(name)
        dtype = DTYPES.get(part.get_dtype())
        if dtype is None:
          raise UserError(
            f"{path}: tensor {name} has the type {part.get_dtype()}; we read"
            f" {', '.join(DTYPES)}. Save the model in one of these (quantised"
            " weights must be dequantised first)."
          )
        files[name] = path
        shapes[name] = jax.ShapeDtypeStruct(tuple(part.get_shape()), dtype)
  lost = [name for name in wanted or () if name not in files]
  if lost:
    raise UserError(
      f"{folder}: {INDEX} names {_some(lost)}, which"
      f" {wanted[lost[0]]} does not hold. Index and files are of different"
      " checkpoints."
    )
  return Shards(files, shapes)


def _only_file(folder):
  if (folder / SINGLE).is_file():
    return folder / SINGLE
  found = sorted(folder.glob("*.safetensors"))
  if len(found) == 1 and "-of-" not in found[0].name:
    return found[0]
  if found:
    raise UserError(
      f"{folder} has {_some([p.name for p in found])}, but no {INDEX} that says"
      " which tensors they hold. Fetch it too."
    )
  pickled = sorted(p.name for p in folder.glob("*.bin"))
  if pickled:
    refuse_pickle(folder, pickled[0])
  raise UserError(
    f"{folder} has no weights: neither {SINGLE} nor {INDEX} is there. Fetch the"
    " whole checkpoint."
  )


def refuse_pickle(path: pathlib.Path, name: str):
  """Raises UserError: pickles run code when they are loaded."""
  raise UserError(
    f"{path} holds pickled weights ({name}), which can run any code and are"
    " never loaded. Where you trust them, convert them with\n"
    "  model = transformers.AutoModelForCausalLM.from_pretrained(IN)\n"
    "  model.save_pretrained(OUT, safe_serialization=True)\n"
    "(AutoModelForSeq2SeqLM for T5) and give OUT."
  )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object in a file.

  Raises:
    UserError: it is missing, or no JSON object (cut short, say).
  """
  try:
    value = json.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    raise UserError(f"{path} is missing; fetch the whole checkpoint.") from None
  except ValueError as error:
    raise UserError(f"{path} is no JSON ({error}); fetch it again.") from None
  if not isinstance(value, dict):
    raise UserError(f"{path} holds no JSON object; fetch it again.")
  return value


def _opened(path):
  try:
    return safetensors.safe_open(path, framework="numpy")
  except (safetensors.SafetensorError, OSError) as error:
    raise UserError(
      f"{path} is no whole safetensors file of {path.stat().st_size} bytes"
      f" ({error}). Fetch it again."
    ) from None


def _some(names):
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return ", ".join(names[:5]) + more


def _rows_at_once(shape):
  return max(1, _CHUNK // max(1, math.prod(shape[1:])))


class ShardWriter:
  """Files of tensors whose shapes are known, filled in any order.

  Args:
    folder: that exists.
    shapes: name -> shape, in the order of the files.
    dtype: of every tensor in the files.
    max_shard_bytes: of one file; a larger tensor has a file of its own.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    max_shard_bytes: int,
  ):
    self._code, self._dtype = next(
      (code, known) for code, known in DTYPES.items() if known.name == dtype
    )
    self._shapes = dict(shapes)
    self._places: dict[str, tuple[pathlib.Path, int]] = {}
    groups: list[list[str]] = [[]]
    used = 0
    for name in shapes:
      size = self._bytes(name)
      if groups[-1] and used + size > max_shard_bytes:
        groups.append([])
        used = 0
      groups[-1].append(name)
      used += size
    for i, group in enumerate(groups, 1):
      file = f"model-{i:05}-of-{len(groups):05}.safetensors"
      self._begin(folder / (file if len(groups) > 1 else SINGLE), group)
    if len(groups) > 1:
      self._write_index(folder)

  def _bytes(self, name):
    return math.prod(self._shapes[name]) * self._dtype.itemsize

  def _begin(self, path, names):
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
      start, end = end, end + self._bytes(name)
      header[name] = {
        "dtype": self._code,
        "shape": list(self._shapes[name]),
        "data_offsets": [start, end],
      }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    for name in names:
      place = 8 + len(text) + header[name]["data_offsets"][0]
      self._places[name] = path, place
    with open(path, "wb") as file:
      file.write(struct.pack("<Q", len(text)) + text)
      file.truncate(8 + len(text) + end)

  def _write_index(self, folder):
    total = sum(map(self._bytes, self._shapes))
    weight_map = {name: path.name for name, (path, _) in self._places.items()}
    index = {
      "metadata": {"total_size": total},
      "weight_map": dict(sorted(weight_map.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

  def write(self, name: str, array: np.ndarray) -> None:
    """One tensor to its place, cast to the files' type.

    Raises:
      UserError: it has numbers that float16 cannot hold.
    """
    path, place = self._places[name]
    array = np.atleast_1d(array)
    with open(path, "r+b") as file:
      file.seek(place)
      rows = _rows_at_once(array.shape)
      for i in range(0, array.shape[0], rows):
        part = array[i : i + rows]
        with np.errstate(over="ignore"):
          cast = np.ascontiguousarray(part, dtype=self._dtype)
        if self._code == "F16" and not np.array_equal(
          np.isfinite(part), np.isfinite(cast)
        ):
          raise UserError(
            f"{name} has numbers beyond 65504, the largest of float16. Write"
            " bfloat16 or float32."
          )
        file.write(cast.view(np.uint8).data)
      file.flush()
      os.fsync(file.fileno())
