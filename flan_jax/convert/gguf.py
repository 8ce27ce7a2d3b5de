"""GGUF files, llama.cpp's format: quantised weights and a tokenizer.

A tensor is dequantised when it is read, some rows at a time, straight into
our layout; the file itself is mapped from disk.

Source: the GGUF specification and block formats (ggml); dequantisation is that
of the `gguf` package.
"""

import os
import pathlib
import tempfile

import gguf
import jax
import ml_dtypes
import numpy as np

from flan_jax.convert import gguf_config, gguf_tables
from flan_jax.data import gguf_file, gguf_tokenizer
from flan_jax.errors import UserError

# What a tensor is read as; every other type is dequantised to float32.
_PLAIN = {
  gguf.GGMLQuantizationType.F32: np.dtype(np.float32),
  gguf.GGMLQuantizationType.F16: np.dtype(np.float16),
  gguf.GGMLQuantizationType.BF16: np.dtype(ml_dtypes.bfloat16),
}
# Numbers dequantised at once: the library's own working memory is several
# times its result.
_AT_ONCE = 1 << 20


class GgufSource:
  """A GGUF file as a `source.TensorSource`.

  >>> source = GgufSource("model.gguf")  # doctest: +SKIP
  >>> source.config.num_layers  # doctest: +SKIP
  30
  >>> source.read("decoder/decoder_norm/scale").shape  # doctest: +SKIP
  (576,)

  Attributes:
    details: what config.json says beside `config`, for `hf.write_hf`.

  Args:
    path: the file, or a folder with one.

  Raises:
    UserError: not a whole GGUF file, an architecture or a quantisation that we
      cannot read, or a tensor that we have no place for; each is named.
  """

  format = "gguf"

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    file = self.path
    if file.is_dir():
      files = sorted(file.glob("*.gguf"))
      if len(files) != 1:
        raise UserError(
          f"Folder {file} holds {len(files)} GGUF files; name the one:"
          f" {', '.join(f.name for f in files[:8]) or 'there is none'}."
        )
      file = files[0]
    self._reader = gguf_file.open_gguf(file)
    self.config = gguf_config.decoder_config(self._reader)
    architecture = gguf_file.metadata(self._reader, "general.architecture")
    self._architecture = gguf_tables.ARCHITECTURES[architecture]
    context = gguf_file.metadata(self._reader, f"{architecture}.context_length")
    self.details = {"max_position_embeddings": context} if context else {}
    self._tensors, self.shapes, unknown = {}, {}, []
    for tensor in self._reader.tensors:
      found = gguf_tables.ours(tensor.name)
      if found is None:
        if tensor.name != gguf_tables.ROPE_FREQS:
          unknown.append(tensor.name)
        continue
      name, rule = found
      self._check_type(tensor)
      shape = tuple(int(n) for n in reversed(tensor.shape))
      if rule.transposed:
        shape = shape[::-1]
      self._tensors[name] = (tensor, rule)
      dtype = self._dtype(tensor, rule)
      self.shapes[name] = jax.ShapeDtypeStruct(shape, dtype)
    if unknown:
      more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
      raise UserError(
        f"{file}: no place in a model of architecture {architecture!r} for"
        f" {', '.join(unknown[:8])}{more}."
      )
    self._folder = None

  @property
  def tokenizer_files(self) -> tuple[pathlib.Path, ...]:
    """The tokenizer in the file, written where it stays while this object is.

    Raises:
      UserError: see `gguf_tokenizer.read`.
    """
    if gguf_file.metadata(self._reader, "tokenizer.ggml.model") is None:
      return ()
    if self._folder is None:
      self._folder = tempfile.TemporaryDirectory(prefix="tokenizer_")
      self._files = gguf_tokenizer.write(self._reader, self._folder.name)
    return self._files

  def read(self, name: str) -> np.ndarray:
    """One tensor, in our layout; float32 unless stored as F16 or BF16."""
    tensor, rule = self._tensors[name]
    shape, dtype = self.shapes[name].shape, self.shapes[name].dtype
    out = np.empty(shape, dtype)
    width = int(tensor.shape[0])
    stored = tensor.data.reshape(-1, tensor.data.shape[-1])
    if len(shape) == 1:  # a row's numbers, or each its own row
      stored, width = tensor.data.reshape(out.size, -1), 1
    # Rows in our order; a view of `out` with their rows first.
    order = self._order(rule, len(stored))
    by_row = out.T if rule.transposed else out
    step = max(1, _AT_ONCE // width)
    for start in range(0, len(order), step):
      rows = stored[order[start : start + step]]
      values = self._values(tensor, rows)
      if rule.norm and self._one_plus:
        values = values.astype(np.float32) - np.float32(1.0)
      part = by_row[start : start + step]
      part[...] = values.reshape(part.shape)
    return out

  @property
  def _one_plus(self) -> bool:
    return self.config.norm == "rms_one_plus"

  def _dtype(self, tensor, rule) -> np.dtype:
    if rule.norm and self._one_plus:
      return np.dtype(np.float32)
    return _PLAIN.get(tensor.tensor_type, np.dtype(np.float32))

  def _values(self, tensor, rows: np.ndarray) -> np.ndarray:
    plain = _PLAIN.get(tensor.tensor_type)
    if plain is not None:
      return np.ascontiguousarray(rows).view(plain)
    return gguf.dequantize(rows, tensor.tensor_type)

  def _order(self, rule: gguf_tables.Tensor, rows: int) -> np.ndarray:
    """Their row for each of ours: heads' halves lie interleaved in theirs."""
    order = np.arange(rows)
    if rule.heads is None or not self._architecture.interleaved:
      return order
    pairs = order.reshape(-1, self.config.head_dim // 2, 2)
    return pairs.swapaxes(1, 2).reshape(-1)

  def _check_type(self, tensor):
    kind = tensor.tensor_type
    if kind in _PLAIN:
      return
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
      gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
      raise UserError(
        f"{self.path}: tensor {tensor.name} is quantised as {kind.name}, which"
        " cannot be read. Use a file quantised as F32, F16, BF16, Q8_0, Q4_0,"
        " Q4_1, Q5_0, Q5_1 or a K type (Q2_K to Q6_K)."
      ) from None
