"""Buckets: gs://, s3:// and az:// paths, and what of them can be used.

Prepared TFDS data is read where it lies, by TensorFlow. A checkpoint to begin
from is copied to this machine once and read here, by whichever of our readers.
A training run and what other jobs write may live in a bucket of Cloud Storage
(`training/mirror.py`), and cached input too, of which every host reads a copy.
All other files are appended to and renamed, which a bucket cannot do; mounted
(Cloud Storage FUSE), it can.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Iterator

from etils import epath

from flan_jax.errors import UserError

Path = pathlib.Path | epath.Path
SCHEMES = ("gs://", "s3://", "az://")
# Of the buckets that a run can live in; checkpoints are written by TensorStore.
RUN_SCHEME = "gs://"
_INDEX = "copied.json"
_COPIED_BYTES = 1 << 24


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


def run_folder(path: str | os.PathLike, option: str = "MODEL_DIR") -> Path:
  """MODEL_DIR or OUTPUT_DIR as a path: of Cloud Storage, or a file system.

  >>> str(run_folder("gs://bucket/run") / "checkpoints")
  'gs://bucket/run/checkpoints'

  Raises:
    UserError: it is of another bucket.
  """
  if os.fspath(path).startswith(RUN_SCHEME):
    return epath.Path(path)
  check_folder(path, option)
  return pathlib.Path(path)


def as_path(path: str | os.PathLike) -> Path:
  """A path that can be looked at: of a bucket, or absolute on this machine.

  >>> str(as_path("gs://bucket/run") / "run.json")
  'gs://bucket/run/run.json'
  """
  if is_remote(path):
    return epath.Path(path)
  return pathlib.Path(path).expanduser().absolute()


@contextlib.contextmanager
def own_errors(path: str | os.PathLike) -> Iterator[None]:
  """Inside, errors of a bucket are OSErrors, as those of a file system are.

  Each kind of bucket has its own, of permission, network and quota.

  >>> with own_errors("gs://bucket/run"):
  ...   raise Exception("403 for you")
  Traceback (most recent call last):
  OSError: [Errno 5] Exception: 403 for you: 'gs://bucket/run'
  """
  try:
    yield
  except (OSError, UserError):
    raise
  except Exception as error:
    if not is_remote(path):
      raise
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    raise OSError(errno.EIO, said, str(path)) from error


@contextlib.contextmanager
def looked_at(path: str | os.PathLike) -> Iterator[None]:
  """Inside, a path that cannot be read is a UserError that names it."""
  try:
    with own_errors(path):
      yield
  except OSError as error:
    raise UserError(
      f"{path} cannot be looked at: {_said(error)}. Look at the path and at who"
      " may read it."
    ) from error


def is_dir(path: Path) -> bool:
  """Whether a folder is there.

  Raises:
    UserError: the bucket cannot be asked.
  """
  with looked_at(path):
    if not is_remote(path):
      return path.is_dir()
    try:
      # TensorFlow's `isdir` is False too where it could not ask.
      return path.stat().is_directory
    except FileNotFoundError:
      return False


def size(path: Path) -> int:
  """Bytes of a file."""
  return path.stat().length if is_remote(path) else path.stat().st_size


def local_copy(
  path: str | os.PathLike,
  folder: pathlib.Path,
  leave_out: Collection[str] = (),
) -> pathlib.Path:
  """A file or folder of a bucket as one of this machine; others as they are.

      local_copy("gs://bucket/checkpoint_1000", cache)  # cache/9c1f.../...

  A file that is there already with the size and time that it has in the bucket
  is not copied again, so that a second start copies nothing. Several processes
  of one machine may do it at once.

  Args:
    path: of a checkpoint.
    folder: under which copies are kept.
    leave_out: as of `files`.

  Raises:
    UserError: nothing is there, it cannot be read, or there is no room.
  """
  if not is_remote(path):
    return pathlib.Path(path)
  path = epath.Path(path)
  target = place(path, folder)
  index = target.parent / _INDEX
  try:
    with own_errors(path):
      found = files(path, leave_out)
      if not found:
        raise UserError(f"there is nothing at {path}.")
      had = json.loads(index.read_text()) if index.exists() else {}
      wanted = {n: [file.length, file.mtime] for n, file in found.items()}
      new = [n for n in wanted if had.get(n) != wanted[n]]
      new += [n for n in wanted if n not in new and not (target / n).exists()]
      if not new and had.keys() == wanted.keys():
        return target
      _check_room(path, sum(wanted[n][0] for n in new), target.parent)
      for name in had.keys() - wanted.keys():
        (target / name).unlink(missing_ok=True)
      _copy(path, target, new)
      draft = index.with_suffix(f".{os.getpid()}")
      draft.write_text(json.dumps(wanted))
      draft.replace(index)
  except OSError as error:
    raise UserError(
      f"{path} cannot be copied to {target}: {_said(error)}. Look at the path"
      " and at who may read it, or copy it to this machine yourself."
    ) from error
  return target


def fetch(
  path: Path, target: pathlib.Path, leave_out: Collection[str] = ()
) -> None:
  """Copies a folder's files, where it is there, and makes `target`.

  Args:
    path: of a bucket.
    target: a folder of this machine.
    leave_out: names in the folder that are not copied.

  Raises:
    OSError: one cannot be read or written.
    UserError: there is no room.
  """
  target.mkdir(parents=True, exist_ok=True)
  found = files(path, leave_out)
  _check_room(path, sum(file.length for file in found.values()), target)
  _copy(path, target, found)


def place(path: Path, folder: pathlib.Path) -> pathlib.Path:
  """Where below a folder of this machine the copy of a path is kept."""
  key = hashlib.sha256(str(path).encode()).hexdigest()[:12]
  return folder / key / path.name


def files(
  path: Path, leave_out: Collection[str] = (), within: str = ""
) -> dict:
  """Name below `path` -> size and time; "" is `path` itself, if it is a file.

  Args:
    path: of a bucket; nothing need be there.
    leave_out: what is passed over, `checkpoints` or `checkpoints/checkpoint_2`.
    within: what of these names leads to `path`: `checkpoints/`, or nothing.
  """
  try:
    stat = path.stat()
  except FileNotFoundError:
    return {}
  if not stat.is_directory:
    return {"": stat}
  found = {}
  for inner in path.iterdir():
    own = within + inner.name
    if own not in leave_out:
      for name, file in files(inner, leave_out, f"{own}/").items():
        found[f"{inner.name}/{name}" if name else inner.name] = file
  return found


def writable(folder: Path) -> Path:
  """MODEL_DIR, or a folder in it, made and tried; absolute.

  Raises:
    UserError: nothing can be written there.
  """
  try:
    if is_remote(folder):
      mark = folder / f".can_write_{os.getpid()}"
      with own_errors(folder):
        mark.write_text("")
        mark.unlink()
      return folder
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".can_write_"):
      pass
  except OSError as error:
    raise UserError(
      f"MODEL_DIR={folder} cannot be written: {_said(error)}. Choose another"
      " folder or change its permissions."
    ) from error
  return folder


def move(path: pathlib.Path, target: Path) -> None:
  """Gives a file of this machine its name, or copies it to a bucket."""
  if not is_remote(target):
    os.replace(path, target)
    return
  with path.open("rb") as file, target.open("wb") as out:
    shutil.copyfileobj(file, out, _COPIED_BYTES)
  path.unlink()


def remove_tree(path: Path) -> None:
  """Deletes a folder as far as that is possible."""
  if is_remote(path):
    with contextlib.suppress(OSError), own_errors(path):
      path.rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)


def _copy(path: Path, target: pathlib.Path, names: Collection[str]):
  for name in names:
    source = path / name if name else path
    copy = target / name if name else target
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    try:
      with source.open("rb") as file, draft.open("wb") as out:
        shutil.copyfileobj(file, out, _COPIED_BYTES)
      draft.replace(copy)
    finally:
      draft.unlink(missing_ok=True)


def _said(error: OSError) -> str:
  return error.strerror or str(error)


def _check_room(path, needed: int, folder: pathlib.Path):
  folder.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f"{path} has {needed / 1e9:,.1f} GB, and {folder}, where it is copied to,"
      f" has room for {free / 1e9:,.1f} GB. Set FLAN_JAX_CACHE to a folder with"
      " more."
    )
