"""A GGUF file: opened, its metadata, and what is wrong with it.

Source: the GGUF specification (ggml, docs/gguf.md).
"""

import os
import pathlib
from typing import Any

import gguf

from flan_jax.errors import UserError


def open_gguf(path: str | os.PathLike) -> gguf.GGUFReader:
  """The file's metadata and tensors, mapped from disk and not yet read.

  >>> reader = open_gguf("model.gguf")  # doctest: +SKIP
  >>> metadata(reader, "general.architecture")  # doctest: +SKIP
  'llama'

  Raises:
    UserError: no such file, not GGUF, cut short, or one part of several.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise UserError(f"GGUF file {path} does not exist.")
  with path.open("rb") as file:
    magic = file.read(4)
  if magic != b"GGUF":
    raise UserError(f"{path} is not a GGUF file: it begins with {magic!r}.")
  try:
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
      # A slice past the end of a mapped file is short, not an error.
      if tensor.data.nbytes != tensor.n_bytes:
        raise ValueError(f"tensor {tensor.name} ends early")
  # What the reader raises for bytes that are not there or make no sense.
  except (ValueError, IndexError, KeyError, OverflowError, TypeError) as e:
    raise UserError(
      f"{path} ({path.stat().st_size:,} bytes) is cut short or damaged"
      f" ({str(e).splitlines()[0] if str(e) else type(e).__name__}). Copy it"
      " again."
    ) from e
  if reader.byte_order == "S":
    raise UserError(
      f"{path} was written for the other byte order; convert it with"
      " `gguf-convert-endian`."
    )
  parts = metadata(reader, "split.count", 1)
  if parts > 1:
    number = metadata(reader, "split.no", 0) + 1
    raise UserError(
      f"{path} is part {number} of {parts}. Merge the parts into one file"
      " (`llama-gguf-split --merge`) and name that."
    )
  return reader


def metadata(reader: gguf.GGUFReader, key: str, default: Any = None) -> Any:
  """The value of a key as Python has it, or `default` where it is absent."""
  field = reader.get_field(key)
  return default if field is None else field.contents()
