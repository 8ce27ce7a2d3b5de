"""Zarr arrays in a folder: what T5X, Orbax and our own checkpoints hold.

T5X's own format has one zarr (version 2) folder an array; Orbax keeps the same
arrays as entries of one OCDBT store. Both are read here through TensorStore's
key-value stores, one array at a time, and the former is written.
"""

import dataclasses
import functools
import gzip
import itertools
import json
import math
import pathlib
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from flan_jax.errors import UserError

# T5X's limit: an array is written in chunks of at most this many bytes.
CHUNK_BYTES = 64 * 1024 * 1024
GZIP = {"id": "gzip", "level": 1}
ZSTD = {"id": "zstd", "level": 1}
# What TensorStore and the decompressors raise about damaged data.
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, KeyError, zlib.error)


@dataclasses.dataclass(frozen=True)
class Stored:
  """What `.zarray` says of one array."""

  shape: tuple[int, ...]
  dtype: np.dtype
  chunks: tuple[int, ...]
  compressor: str | None
  separator: str
  plain: bool  # C order, little-endian, no filters

  def grid(self) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """The key and the region of every chunk."""
    for index, region in regions(self.shape, self.chunks):
      yield self.separator.join(map(str, index)) or "0", region


class ArrayFolder:
  """The arrays of one folder, by their dotted names, without reading one.

      arrays = ArrayFolder(checkpoint)
      arrays.names                                  # ("target.decoder...", ..)
      arrays.stored("target.decoder.decoder_norm.scale").shape
      arrays.read("target.decoder.decoder_norm.scale")

  Raises:
    UserError: the folder's OCDBT store cannot be read.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    base = f"{folder}/"
    self.in_files = not (folder / "manifest.ocdbt").is_file()
    if self.in_files:
      self._kvstore = {"driver": "file", "path": base}
    else:
      self._kvstore = {
        "driver": "ocdbt",
        "base": {"driver": "file", "path": base},
      }
    # One chunk in memory at a time, none kept.
    self._stored: dict[str, Stored] = {}
    self._context = ts.Context(
      {
        "cache_pool": {"total_bytes_limit": 0},
        "file_io_concurrency": {"limit": 2},
        "data_copy_concurrency": {"limit": 2},
      }
    )
    try:
      self._open = ts.KvStore.open(self._kvstore, context=self._context)
      self._open = self._open.result()
      self._keys = {key.decode() for key in self._open.list().result()}
    except _DAMAGE as error:
      raise UserError(
        f"the arrays in {folder} cannot be read: {first_line(error)}"
      ) from None
    if any(key.endswith("/zarr.json") for key in self._keys):
      raise UserError(
        f"{folder} holds zarr version 3 arrays; version 2 is read. Save it"
        " again with use_zarr3=False."
      )

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    end = "/.zarray"
    return tuple(
      sorted(key[: -len(end)] for key in self._keys if key.endswith(end))
    )

  def stored(self, name: str) -> Stored:
    """Shape, type and chunks of an array.

    Raises:
      UserError: it is not there, its `.zarray` is damaged, or a chunk of it
        is missing; the array and the folder are named.
    """
    if name in self._stored:
      return self._stored[name]
    if f"{name}/.zarray" not in self._keys:
      raise UserError(f"array {name} is missing in {self.folder}.")
    try:
      text = self._open.read(f"{name}/.zarray").result().value
      meta = json.loads(text)
      code = str(meta["dtype"])
      out = Stored(
        shape=tuple(map(int, meta["shape"])),
        dtype=jnp.dtype(code),
        chunks=tuple(map(int, meta["chunks"])),
        compressor=(meta["compressor"] or {}).get("id"),
        separator=meta.get("dimension_separator", "."),
        plain=meta["order"] == "C"
        and not meta.get("filters")
        and not code.startswith(">"),
      )
      missing = [k for k, _ in out.grid() if f"{name}/{k}" not in self._keys]
    except (*_DAMAGE, TypeError, AttributeError, ZeroDivisionError) as error:
      raise UserError(
        f"array {name} in {self.folder}: its .zarray cannot be read"
        f" ({first_line(error)})."
      ) from None
    if missing:
      raise UserError(
        f"array {name} in {self.folder}: {len(missing)} of its"
        f" {len(list(out.grid()))} chunks are missing, the first is"
        f" {name}/{missing[0]}."
      )
    self._stored[name] = out
    return out

  def read(self, name: str) -> np.ndarray:
    """One array, in the type that is stored.

    Beyond the array, memory for a chunk is needed; none for gzip files whose
    chunks are whole rows, as T5X writes them.

    Raises:
      UserError: as `stored`, or a chunk is truncated or damaged.
    """
    stored = self.stored(name)
    try:
      if self.in_files and stored.compressor == "gzip" and stored.plain:
        return self._read_gzip(name, stored)
      return self._read_chunks(name, stored)
    except _DAMAGE as error:
      raise UserError(
        f"array {name} in {self.folder} cannot be read; it is truncated or"
        f" damaged: {first_line(error)}"
      ) from None

  def _read_gzip(self, name, stored):
    out = np.empty(stored.shape, stored.dtype)
    for key, region in stored.grid():
      view = out[region or ...]
      whole = view.shape == stored.chunks and view.flags.c_contiguous
      into = view if whole else np.empty(stored.chunks, stored.dtype)
      left = memoryview(into.reshape(-1).view(np.uint8))
      with gzip.open(self.folder / name / key) as file:
        while left and (count := file.readinto(left)):
          left = left[count:]
        if left or file.read(1):
          raise ValueError(
            f"chunk {key} has {'fewer' if left else 'more'} bytes than its"
            " shape needs"
          )
      if not whole:
        view[...] = into[tuple(slice(0, n) for n in view.shape)]
    return out

  def _read_chunks(self, name, stored):
    array = ts.open(
      {"driver": "zarr", "kvstore": {**self._kvstore, **self._path(name)}},
      open=True,
      read=True,
      context=self._context,
    ).result()
    if math.prod(stored.chunks) >= math.prod(stored.shape):
      return array.read().result()
    out = np.empty(stored.shape, stored.dtype)
    for _, region in stored.grid():
      out[region] = array[region].read().result()
    return out

  def _path(self, name):
    if self.in_files:
      return {"path": f"{self.folder}/{name}/"}
    return {"path": f"{name}/"}


class ArrayWriter:
  """One array on its way to disk, a region at a time.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   writer = ArrayWriter(pathlib.Path(folder), "a.b", (4, 3), "bfloat16")
  ...   writer.write(np.arange(12.0).reshape(4, 3))
  ...   ArrayFolder(pathlib.Path(folder)).read("a.b")[1].tolist()
  [3.0, 4.0, 5.0]

  Args:
    folder: that holds the array's own folder `name`.
    name: dotted.
    shape: of the array.
    dtype: as stored; what is written is cast to it.
    compressor: GZIP or ZSTD.
    layers: the first axis is layers: no chunk holds more than one, so that
      layers are written, and read, one by one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    compressor: Mapping[str, Any] | None = None,
    *,
    layers: bool = False,
  ):
    self.name = name
    self.dtype = jnp.dtype(dtype)
    inner = chunk_shape(shape[layers:], self.dtype)
    self.chunks = (1,) * layers + inner
    self.shape = tuple(shape)
    self.compressor = dict(compressor or GZIP)
    opening = ts.open(
      {
        "driver": "zarr",
        "dtype": self.dtype.name,
        "kvstore": {"driver": "file", "path": f"{folder / name}/"},
        "metadata": {
          "chunks": list(self.chunks),
          "compressor": self.compressor,
          "shape": list(self.shape),
        },
      },
      create=True,
      context=ts.Context({"cache_pool": {"total_bytes_limit": 0}}),
    )
    self._array = _written(opening)

  def write(self, array: np.ndarray, layer: int | None = None) -> None:
    """The whole array, or that of one layer; cast and copied by chunk."""
    shape = self.shape if layer is None else self.shape[1:]
    if array.shape != shape:
      raise ValueError(f"{self.name}: {array.shape} is not {shape}")
    chunks = self.chunks if layer is None else self.chunks[1:]
    there = self._array if layer is None else self._array[layer]
    for _, region in regions(shape, chunks):
      part = np.asarray(array[region or ...], self.dtype, order="C")
      _written(
        there[region].write(part, can_reference_source_data_indefinitely=True)
      )


def _written(future: ts.Future) -> Any:
  """Its result; after an interrupt too, nothing is still on its way to disk.

  Else a folder that is being removed would get files again.
  """
  try:
    return future.result()
  except BaseException:
    while not future.done():
      time.sleep(0.01)
    raise


def regions(
  shape: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
  """Index and region of every chunk of an array, in C order.

  >>> [region for _, region in regions((5,), (3,))]
  [(slice(0, 3, None),), (slice(3, 5, None),)]
  """
  sizes = list(zip(shape, chunks, strict=True))
  for index in itertools.product(*(range(math.ceil(n / c)) for n, c in sizes)):
    yield (
      index,
      tuple(
        slice(i * c, min((i + 1) * c, n))
        for i, (n, c) in zip(index, sizes, strict=True)
      ),
    )


def chunk_shape(shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
  """T5X's rule: chunks divide the shape; the longest axis is cut first.

  >>> chunk_shape((32128, 4096), "float32")
  (4016, 4096)
  >>> chunk_shape((512, 512), "float32")
  (512, 512)
  """
  limit = CHUNK_BYTES // jnp.dtype(dtype).itemsize
  chunks = list(shape)
  while math.prod(chunks) > limit:
    axis = max(range(len(chunks)), key=chunks.__getitem__)
    smaller = range(chunks[axis] - 1, 0, -1)
    chunks[axis] = next(n for n in smaller if shape[axis] % n == 0)
  return tuple(chunks)


def abstract(stored: Stored) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(stored.shape, stored.dtype)


def first_line(error: BaseException) -> str:
  text = str(error) or type(error).__name__
  # TensorStore appends where in its sources it happened.
  return text.splitlines()[0].split(" [source locations")[0][:300]
