"""A run in a bucket: its files are written here and kept there.

    mirror = Mirror("gs://my-bucket/runs/nli")   # what is there is fetched
    (mirror.folder / "metrics.jsonl").open("a")  # a folder of this machine
    mirror.push()                                # what changed is there too
    with mirror:                                 # and whatever else happens
      ...

A log is appended to and a record replaced by a rename, and a bucket does
neither: its objects are written whole. So a run whose MODEL_DIR is in one keeps
its files in a folder of this machine, and before each checkpoint counts, what
changed since the one before is written to the bucket. The checkpoints
themselves go there directly, each process its own shards. The bucket is what a
start goes by: on another machine, or on this one after a kill, it fetches the
files anew, which are at least as new as the newest checkpoint (other processes'
logs may be older).
"""

import contextlib
import logging
import os
import pathlib
import shutil
import threading

from flan_jax.data import remote, sample
from flan_jax.errors import UserError

_log = logging.getLogger(__name__)
# In a run's folder, what is not of this process, or written without a copy.
_APART = ("checkpoints", "processes")


class Mirror:
  """The files of one process of a run, here and where they are kept.

  >>> mirror = Mirror("runs/mine")  # of no bucket: here is where they are kept
  >>> mirror.folder.as_posix()
  'runs/mine'
  >>> mirror.push()

  Attributes:
    home: where they are kept.
    folder: of this machine, where they are written.
  """

  def __init__(self, home: remote.Path, option: str = "MODEL_DIR"):
    """Fetches what is kept.

    Args:
      home: a folder, which may be in a bucket.
      option: what messages call it.

    Raises:
      UserError: the bucket cannot be read, or there is no room here.
    """
    self.home, self._option = home, option
    self._kept: dict[str, tuple[int, int]] = {}
    self._lock = threading.Lock()
    if not remote.is_remote(home):
      self.folder = pathlib.Path(home)
      return
    self.folder = remote.place(home, sample.cache_directory() / "runs")
    try:
      shutil.rmtree(self.folder, ignore_errors=True)
      with remote.own_errors(home):
        remote.fetch(home, self.folder, leave_out=_APART)
    except OSError as error:
      raise UserError(
        f"{option} {home} cannot be fetched to {self.folder}:"
        f" {error.strerror or error}. Look at the path, at who may read it and"
        " at the room here (FLAN_JAX_CACHE)."
      ) from error
    self._kept = self._here()

  def __enter__(self) -> "Mirror":
    return self

  def __exit__(self, *_):
    try:
      self.push()
    except OSError as error:
      # What ends the run is said, not this; and the last one is `finish`'s.
      _log.warning("%s could not be written: %s", self.home, error)

  def finish(self) -> None:
    """The last `push` of a run.

    Raises:
      UserError: the bucket cannot be written.
    """
    try:
      self.push()
    except OSError as error:
      raise UserError(
        f"{self._option} {self.home} cannot be written:"
        f" {error.strerror or error}. All of it is in {self.folder} too, until"
        " the same command fetches the bucket's again."
      ) from error

  def push(self) -> None:
    """Writes what changed here to where it is kept, each file whole.

    Raises:
      OSError: the bucket cannot be written.
    """
    if not remote.is_remote(self.home):
      return
    # A save that goes on in the background ends by this too.
    with self._lock, remote.own_errors(self.home):
      here = self._here()
      for name, state in here.items():
        if self._kept.get(name) == state:
          continue
        try:
          content = (self.folder / name).read_bytes()
        except FileNotFoundError:
          continue  # Gone meanwhile; missing from the next list.
        (self.home / name).write_bytes(content)
        self._kept[name] = state
      for name in self._kept.keys() - here.keys():
        (self.home / name).unlink(missing_ok=True)
        del self._kept[name]

  def _here(self) -> dict[str, tuple[int, int]]:
    """Every file's bytes and time, by its name below the folder."""
    found = {}
    for parent, folders, files in os.walk(self.folder):
      if parent == str(self.folder):
        folders[:] = [f for f in folders if f not in _APART]
      for name in files:
        path = pathlib.Path(parent, name)
        if not _is_draft(path):
          with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            key = path.relative_to(self.folder).as_posix()
            found[key] = stat.st_size, stat.st_mtime_ns
    return found


def _is_draft(path: pathlib.Path) -> bool:
  """Whether a file gets its name when it is whole."""
  return path.suffix == ".tmp" or path.name.startswith(".")
