"""Buckets: gs://, s3:// and az:// paths, and what of them can be used.

Prepared TFDS data is read where it lies, by TensorFlow. A checkpoint is copied
to this machine once and read here, by whichever of our readers. A run's own
folder has to be a folder: its log is appended to and its checkpoints are
renamed, which a bucket cannot do. Mounted (Cloud Storage FUSE), it can.
"""

import hashlib
import json
import os
import pathlib
import shutil

from etils import epath

from flan_jax.errors import UserError

SCHEMES = ("gs://", "s3://", "az://")
_INDEX = "copied.json"


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is one of a bucket.

  >>> is_remote("gs://bucket/run"), is_remote("/runs/mine")
  (True, False)
  """
  return os.fspath(path).startswith(SCHEMES)


def check_folder(path: str | os.PathLike, option: str) -> None:
  """Raises UserError where a path that is written to is one of a bucket."""
  if is_remote(path):
    raise UserError(
      f"{option} is {os.fspath(path)!r}: files in it are appended to and"
      " renamed, which a bucket cannot do. Mount the bucket (Cloud Storage"
      " FUSE) and give that folder."
    )


def as_path(path: str | os.PathLike) -> pathlib.Path | epath.Path:
  """A path that can be looked at: of a bucket, or absolute on this machine.

  >>> str(as_path("gs://bucket/run") / "run.json")
  'gs://bucket/run/run.json'
  """
  if is_remote(path):
    return epath.Path(path)
  return pathlib.Path(path).expanduser().absolute()


def is_dir(path: pathlib.Path | epath.Path) -> bool:
  """Whether a folder is there.

  Raises:
    UserError: the bucket cannot be asked.
  """
  try:
    return path.is_dir()
  except Exception as error:
    # Each kind of bucket has its own errors, of permission and of network.
    raise UserError(
      f"{path} cannot be looked at: {type(error).__name__}:"
      f" {' '.join(str(error).split())[:300]}. Look at the path and at who may"
      " read it."
    ) from error


def size(path: pathlib.Path | epath.Path) -> int:
  """Bytes of a file."""
  return path.stat().length if is_remote(path) else path.stat().st_size


def local_copy(path: str | os.PathLike, folder: pathlib.Path) -> pathlib.Path:
  """A file or folder of a bucket as one of this machine; others as they are.

      local_copy("gs://bucket/checkpoint_1000", cache)  # cache/9c1f.../...

  A file that is there already with the size and time that it has in the bucket
  is not copied again, so that a second start copies nothing. Several processes
  of one machine may do it at once.

  Args:
    path: of a checkpoint.
    folder: under which copies are kept.

  Raises:
    UserError: nothing is there, it cannot be read, or there is no room.
  """
  if not is_remote(path):
    return pathlib.Path(path)
  path = epath.Path(path)
  key = hashlib.sha256(str(path).encode()).hexdigest()[:12]
  target = folder / key / path.name
  try:
    files = _files(path)
    if not files:
      raise UserError(f"there is nothing at {path}.")
    index = folder / key / _INDEX
    had = json.loads(index.read_text()) if index.exists() else {}
    wanted = {name: [file.length, file.mtime] for name, file in files.items()}
    new = [name for name in files if had.get(name) != wanted[name]]
    new += [n for n in files if n not in new and not (target / n).exists()]
    if not new and had.keys() == wanted.keys():
      return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_room(path, sum(files[name].length for name in new), target.parent)
    for name in had.keys() - wanted.keys():
      (target / name).unlink(missing_ok=True)
    for name in new:
      _copy(path / name if name else path, target / name if name else target)
    draft = index.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(wanted))
    draft.replace(index)
  except UserError:
    raise
  except Exception as error:
    # Each kind of bucket has its own errors, of permission and of network.
    raise UserError(
      f"{path} cannot be copied to {target}: {type(error).__name__}:"
      f" {' '.join(str(error).split())[:300]}. Look at the path and at who may"
      " read it, or copy it to this machine yourself."
    ) from error
  return target


def _files(path):
  """Name below `path` -> its size and time; "" is `path` itself."""
  if not path.exists():
    return {}
  if not path.is_dir():
    return {"": path.stat()}
  found = {}
  for inner in path.iterdir():
    for name, stat in _files(inner).items():
      found[f"{inner.name}/{name}" if name else inner.name] = stat
  return found


def _copy(path, target: pathlib.Path):
  target.parent.mkdir(parents=True, exist_ok=True)
  draft = target.with_name(f"{target.name}.{os.getpid()}.part")
  try:
    with path.open("rb") as source, draft.open("wb") as file:
      shutil.copyfileobj(source, file, 1 << 24)
    draft.replace(target)
  finally:
    draft.unlink(missing_ok=True)


def _check_room(path, needed: int, folder: pathlib.Path):
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f"{path} has {needed / 1e9:,.1f} GB, and {folder}, where it is copied to,"
      f" has room for {free / 1e9:,.1f} GB. Set FLAN_JAX_CACHE to a folder with"
      " more."
    )
