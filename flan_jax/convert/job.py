"""Converts a checkpoint from any format we read to one that we write.

  python launch/run.py --gin_file=gin/convert.gin \
      --gin.INPUT_PATH=flan_t5_small --gin.OUTPUT_PATH=checkpoint_0 \
      --gin.OUTPUT_FORMAT=t5x

Tensors go from disk to disk one at a time.
"""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import rich.progress

from flan_jax.convert import (
  drafts,
  hf,
  load,
  merged,
  native,
  peft,
  prompts,
  shapes,
  t5x,
)
from flan_jax.convert.source import TensorSource, open_source
from flan_jax.errors import UserError, check_known
from flan_jax.training import progress

FORMATS = ("hf", "t5x", "flan_jax", "peft", "npy")
DTYPES = ("float32", "bfloat16", "float16")


def convert(
  *,
  input_path: str,
  output_path: str,
  output_format: str,
  base_path: str | None = None,
  output_dtype: str | None = None,
  scan_layers: bool = False,
  overwrite: bool = False,
  model: Any = None,
) -> pathlib.Path:
  """Writes the parameters of one checkpoint as another.

      convert(input_path="flan_t5_small", output_path="checkpoint_0",
              output_format="t5x")

  Nothing is at `output_path` before all of it is. Optimiser state is not
  converted; what is left out is said. A LoRA adapter is merged into its base,
  or written alone as "peft".

  Args:
    input_path: a checkpoint of any format in `convert/source.py`.
    output_path: the folder to be made.
    output_format: "hf", "t5x" or "flan_jax"; for an adapter alone "peft", or
      "npy" for a soft prompt as T5X's prompt tuning reads it.
    base_path: for an adapter in PEFT's layout: its base, where the folder does
      not name it by a path that is there.
    output_dtype: "float32" or "bfloat16"; "float16" for "hf" alone, which
      nothing trains from; None: as stored, but float32 for "hf" where the
      tensors are of several types and for the others where one is float16.
    scan_layers: for "flan_jax": layers are stored stacked, as a MODEL with
      scan_layers trains them. (Either kind of MODEL reads both.)
    overwrite: whether a folder at `output_path` is replaced.
    model: the model, for a checkpoint that does not say it (T5X, Orbax) and
      an output that must ("hf"). Where the checkpoint says it, it is compared.

  Returns:
    output_path.

  Raises:
    UserError: an unknown format or type; an option without effect; the folder
      exists; what reading finds wrong with the checkpoint, or with its fit to
      `model`; no room to write.
  """
  check_known("OUTPUT_FORMAT", output_format, FORMATS)
  if output_dtype is not None:
    check_known("OUTPUT_DTYPE", output_dtype, DTYPES)
  if scan_layers and output_format != "flan_jax":
    raise UserError(
      f"SCAN_LAYERS=True has no effect with OUTPUT_FORMAT={output_format!r},"
      " whose layers are never stacked: remove one of the two."
    )
  if output_dtype == "float16" and output_format != "hf":
    raise UserError(
      f"OUTPUT_DTYPE='float16' with OUTPUT_FORMAT={output_format!r}: parameters"
      " to train from are 'float32' or 'bfloat16'; give one of these."
    )
  if output_dtype is not None and output_format in ("peft", "npy"):
    raise UserError(
      f"OUTPUT_DTYPE={output_dtype!r} has no effect with OUTPUT_FORMAT="
      f"{output_format!r}, whose arrays are float32: remove one of the two."
    )
  if output_format != "npy":
    drafts.check_free(output_path, overwrite=overwrite)
  source = _opened(input_path, base_path)
  if output_format == "peft":
    written = peft.write(source, output_path, overwrite=overwrite)
    progress.Display().say(f"wrote {written}: {len(source.own)} tensors")
    return written
  if output_format == "npy":
    written = prompts.write_source(source, output_path, overwrite=overwrite)
    progress.Display().say(f"wrote {written}")
    return written
  source = merged.whole(source)
  config = _config(source, model, output_format)
  display = progress.Display()
  display.say(f"reading {source.path} ({source.format})")
  before = _inode(output_path)
  try:
    with _bar(display, source) as bar:
      _write(
        source,
        bar,
        pathlib.Path(output_path),
        output_format=output_format,
        config=config,
        dtype=output_dtype,
        scan_layers=scan_layers,
        overwrite=overwrite,
      )
  except OSError as error:
    raise UserError(
      f"OUTPUT_PATH={output_path} cannot be written:"
      f" {error.strerror or error}. Nothing was left there."
    ) from error
  except KeyboardInterrupt:
    said = f"stopped; nothing was written to {output_path}."
    if _inode(output_path) != before:
      said = f"stopped, after all of {output_path} was written."
    raise KeyboardInterrupt(said) from None
  _report(display, source, pathlib.Path(output_path))
  return pathlib.Path(output_path)


def _inode(path: str | os.PathLike) -> int | None:
  """What tells a folder from another one of its name; None: there is none."""
  try:
    return os.stat(path).st_ino
  except OSError:
    return None


def _write(
  source, bar, path, *, output_format, config, dtype, scan_layers, overwrite
):
  common: dict[str, Any] = {
    "tokenizer_files": source.tokenizer_files,
    "overwrite": overwrite,
  }
  details = getattr(source, "details", None)
  step = getattr(source, "step", None) or 0
  tensors = bar.tensors(source)
  stored = {x.dtype.name for x in source.shapes.values()}
  if dtype is None and output_format != "hf" and "float16" in stored:
    dtype = "float32"
  if output_format == "hf":
    same = stored.pop() if len(stored) == 1 else "float32"
    hf.write_hf(
      path, config, tensors, dtype=dtype or same, details=details, **common
    )
  elif output_format == "t5x":
    t5x.write_t5x(path, tensors, step=step, dtype=dtype, **common)
  else:
    native.write_native(
      path,
      source.shapes,
      tensors,
      step=step,
      config=config,
      details=details,
      scan_layers=scan_layers,
      dtype=dtype,
      **common,
    )


def _opened(path, base_path):
  if base_path is None:
    return open_source(path)
  if not peft.is_folder(path):
    raise UserError(
      f"BASE_PATH={base_path} has no effect: INPUT_PATH={path} is no adapter in"
      f" PEFT's layout (a folder with {peft.CONFIG}). Leave BASE_PATH None."
    )
  return peft.PeftSource(path, base_path)


def _config(source: TensorSource, model: Any, output_format: str) -> Any:
  """The config of the model, checked where it is said twice."""
  if model is None:
    if source.config is None and output_format == "hf":
      raise UserError(
        f"{source.path} ({source.format}) does not say what model it is, and"
        " OUTPUT_FORMAT='hf' must. Add its MODEL:"
        " --gin_file=gin/models/t5_1_1_small.gin --gin.DROPOUT_RATE=0.1, say."
      )
    return source.config
  load.check_config(source.config, model.config, str(source.path))
  load.check_fit(source, shapes.parameter_shapes(model.config))
  return model.config if source.config is None else source.config


class _bar:
  """A progress bar over the bytes of a source."""

  def __init__(self, display: progress.Display, source: TensorSource):
    self._bytes = {
      name: math.prod(x.shape) * x.dtype.itemsize
      for name, x in source.shapes.items()
    }
    self._progress = rich.progress.Progress(
      rich.progress.BarColumn(bar_width=30),
      rich.progress.DownloadColumn(),
      rich.progress.TransferSpeedColumn(),
      rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
      rich.progress.TextColumn("{task.fields[tensor]}"),
      console=display.console,
      disable=not display.console.is_terminal,
    )
    total = sum(self._bytes.values())
    self._task = self._progress.add_task("", total=total, tensor="")

  def __enter__(self):
    self._progress.start()
    return self

  def __exit__(self, *_):
    self._progress.stop()

  def tensors(self, source: TensorSource) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array one at a time; counted when the next is asked for."""
    for name in source.shapes:
      self._progress.update(self._task, tensor=name)
      yield name, source.read(name)
      self._progress.update(self._task, advance=self._bytes[name])
    self._progress.update(self._task, tensor="")


def _report(display, source, path):
  count = sum(math.prod(x.shape) for x in source.shapes.values())
  files = [p for p in path.rglob("*") if p.is_file()]
  size = sum(p.stat().st_size for p in files)
  display.say(
    f"wrote {path}: {len(source.shapes)} tensors, {count:,} parameters,"
    f" {len(files)} files, {size / 1e6:,.1f} MB"
  )
  copied = [p.name for p in source.tokenizer_files]
  display.say(f"tokenizer: {', '.join(copied) or 'none beside the checkpoint'}")
  left_out = getattr(source, "left_out", ())
  if left_out:
    display.say(f"left out: {', '.join(left_out)}")
