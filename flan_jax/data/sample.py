"""The embedded sample: a few rows of each dataset, written as real TFDS data.

The package holds two or three dozen rows of every dataset of the catalogue,
written for this project (`tasks/sample/<builder>/<config>/<version>.jsonl`).
`write_sample` has the *registered* TFDS builder write them, so that name,
version, features and metadata are the published ones and only the rows differ.
From there on the sample takes the path of real data.
"""

import contextlib
import hashlib
import importlib.resources
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from flan_jax.data import cot, sample_rows
from flan_jax.data.spec import Cot, Task, Tfds
from flan_jax.errors import UserError

# Part of every fingerprint: raise it when the written form changes.
_FORM = 1
_MARK = "flan_jax_sample.json"


def cache_directory() -> pathlib.Path:
  """Where written samples are kept.

  `$FLAN_JAX_CACHE`, else `$XDG_CACHE_HOME/flan_jax`, else `~/.cache/flan_jax`.
  """
  if own := os.environ.get("FLAN_JAX_CACHE"):
    return pathlib.Path(own).expanduser()
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(base).expanduser() / "flan_jax"


def copies_directory() -> pathlib.Path:
  """Where copies of checkpoints and caches of buckets are kept."""
  return cache_directory() / "copies"


def embedded_folder():
  """The folder of embedded JSON lines, inside the installed package."""
  return importlib.resources.files("flan_jax.tasks") / "sample"


def embedded(folder=None) -> dict[str, Any]:
  """Every embedded file by its TFDS name.

  >>> sorted(embedded())[:2]  # doctest: +SKIP
  ['ag_news_subset:1.0.0', 'anli/r1:0.1.0']
  """
  found = {}

  def walk(node, parts):
    for child in sorted(node.iterdir(), key=lambda c: c.name):
      if child.is_dir():
        walk(child, (*parts, child.name))
      elif child.name.endswith(".jsonl"):
        found["/".join(parts) + ":" + child.name.removesuffix(".jsonl")] = child

  root = embedded_folder() if folder is None else folder
  if root.is_dir():
    walk(root, ())
  return found


def write_sample(
  sources: Iterable[Task | Tfds],
  directory: str | os.PathLike | None = None,
  *,
  embedded_in=None,
) -> pathlib.Path:
  """Writes the embedded rows of `sources` as a TFDS data directory.

  >>> directory = write_sample([rte.TASK])  # doctest: +SKIP
  >>> len(tfds.load("super_glue/rte", split="train",
  ...               data_dir=directory))  # doctest: +SKIP
  24

  A second call finds everything in place. Each dataset appears by one rename,
  so that two processes may write at once and a killed one leaves nothing half
  done. Rows come in TFDS's order, which follows a hash of the row number.

  Args:
    sources: tasks (those that read their own JSON lines are passed over) or
      their TFDS sources; several may share a dataset.
    directory: data directory to write into; default a folder of
      `cache_directory()` named by the fingerprint of all embedded rows.
    embedded_in: folder to read instead of the package's (tests).

  Returns:
    The data directory.

  Raises:
    UserError: a dataset has no embedded sample, a row does not fit the
      dataset's features (file, line and feature are named), the folder cannot
      be written or holds a dataset of the same name that is not this sample.
  """
  sources = tuple(sources)
  files = embedded(embedded_in)
  wanted = _wanted(sources, files)
  texts = _cot_files(embedded_in)
  default = directory is None
  if default:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
      digest.update(_fingerprint(name, file.read_bytes()).encode())
    for name, content in texts.items():
      digest.update(name.encode() + content)
    root = cache_directory() / "sample" / digest.hexdigest()[:16]
  else:
    root = pathlib.Path(directory).expanduser()
  try:
    root.mkdir(parents=True, exist_ok=True)
    for name, tasks in wanted.items():
      _write_dataset(root, name, files[name], tasks)
    for source in sources:
      origin = source.source if isinstance(source, Task) else None
      if isinstance(origin, Cot):
        _write_cot(root / cot.FOLDER / origin.file, texts[origin.file])
  except OSError as e:
    way_out = (
      "set FLAN_JAX_CACHE to a folder that can be written"
      if default
      else "choose another directory"
    )
    raise UserError(
      f"The sample data cannot be written to {root}: {e}; {way_out}."
    ) from e
  return root


def _wanted(sources, files) -> dict[str, list[Task]]:
  wanted: dict[str, list[Task]] = {}
  missing = []
  for source in sources:
    task = source if isinstance(source, Task) else None
    origin = task.source if task else source
    if not isinstance(origin, Tfds):
      if task:
        continue
      raise UserError(
        f"write_sample takes tasks or tfds(...) sources, not {source!r}."
      )
    if origin.spec not in files:
      missing.append(origin.spec)
      continue
    tasks = wanted.setdefault(origin.spec, [])
    if task:
      tasks.append(task)
  if missing:
    raise UserError(
      f"No embedded sample for {', '.join(sorted(set(missing)))}; there is one"
      f" for {', '.join(sorted(files)) or 'no dataset'}. Set TFDS_DATA_DIR to"
      " a folder in which TFDS has prepared the dataset."
    )
  return wanted


def _cot_files(embedded_in) -> dict[str, bytes]:
  """The embedded chain-of-thought files, by name."""
  root = embedded_folder() if embedded_in is None else embedded_in
  folder = root / cot.FOLDER
  if not folder.is_dir():
    return {}
  files = sorted(folder.iterdir(), key=lambda file: file.name)
  return {file.name: file.read_bytes() for file in files}


def _write_cot(path: pathlib.Path, content: bytes):
  """A chain-of-thought file beside the TFDS datasets, by one rename."""
  if path.is_file():
    if path.read_bytes() != content:
      raise UserError(
        f"{path} is not the embedded sample as it is now; nothing was changed."
        " Remove it or choose another directory."
      )
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  draft, name = tempfile.mkstemp(dir=path.parent)
  with os.fdopen(draft, "wb") as out:
    out.write(content)
  os.replace(name, path)


def _fingerprint(name: str, content: bytes) -> str:
  head = f"{_FORM} {name} {tfds.__version__}\n".encode()
  return hashlib.sha256(head + content).hexdigest()


def _write_dataset(root: pathlib.Path, name: str, file, tasks: list[Task]):
  content = file.read_bytes()
  fingerprint = _fingerprint(name, content)
  folder, version = name.split(":")
  final = root / folder / version
  if final.is_dir():
    _check_same(final, fingerprint, name)
    return
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=".incomplete-", dir=root))
  try:
    builder = _builder(name, temporary, file)
    rows = sample_rows.read(
      content.decode("utf-8"), str(file), builder.info.features
    )
    sample_rows.check_used(rows, tasks, str(file))
    _prepare(builder, rows)
    made = temporary / folder / version
    (made / _MARK).write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
    final.parent.mkdir(parents=True, exist_ok=True)
    _move_config(temporary, root, folder)
    try:
      made.rename(final)
    except OSError:
      # Another process was first (a folder that is not empty is never
      # replaced); anything else is a real error.
      if not final.is_dir():
        raise
      _check_same(final, fingerprint, name)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _check_same(final: pathlib.Path, fingerprint: str, name: str):
  mark = final / _MARK
  held = None
  if mark.is_file():
    with contextlib.suppress(ValueError):
      held = json.loads(mark.read_text()).get("fingerprint")
  if held != fingerprint:
    raise UserError(
      f"{final} already holds {name}, and it is not the embedded sample as it"
      " is now; nothing was changed. Remove that folder or choose another"
      " directory."
    )


def _builder(name: str, directory: pathlib.Path, file):
  try:
    return tfds.builder(name, data_dir=directory)
  except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as e:
    raise UserError(
      f"{file}: TFDS {tfds.__version__} has no dataset {name}"
      f" ({str(e).splitlines()[0] if str(e) else type(e).__name__})."
    ) from e


def _prepare(builder, rows: Mapping[str, list[dict[str, Any]]]):
  """Runs the builder with its rows replaced: no download, no statistics."""

  def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from enumerate(rows[split])

  def splits(*_, **__) -> dict[str, Iterator]:
    return {split: examples(split) for split in rows}

  builder._split_generators = splits
  config = tfds.download.DownloadConfig(
    compute_stats=tfds.download.ComputeStatsMode.SKIP,
    try_download_gcs=False,
    # One small file a split: shards and checksums have nothing to gain.
    num_shards=1,
  )
  # TFDS prints a banner and draws a bar for every split of every dataset.
  with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    builder.download_and_prepare(
      download_config=config,
      download_dir=builder.data_path.parent / "downloads",
      file_format="tfrecord",
    )


def _move_config(temporary: pathlib.Path, root: pathlib.Path, folder: str):
  """The name of the default config, which TFDS keeps beside the configs."""
  builder = folder.split("/")[0]
  made = temporary / builder / ".config"
  if made.is_dir() and not (root / builder / ".config").is_dir():
    with contextlib.suppress(OSError):  # another process was first
      made.rename(root / builder / ".config")
