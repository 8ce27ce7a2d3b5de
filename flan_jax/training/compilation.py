"""Compiled programs kept between runs: the next start does not compile again.

JAX has the cache; it writes an entry in place, so a process that is killed
meanwhile, or two that write the same, leave a damaged one for good. Here every
process has a folder of its own, which starts with links to the shared entries;
whole new entries are linked back under their names, which either happens or
does not.

    <cache>/compiled/<key>-cache           shared, always whole
    <cache>/compiled/process-<host>-<pid>/ of a process; removed with it
"""

import contextlib
import os
import pathlib
import shutil
import socket
import time

import jax
from jax.experimental.compilation_cache import compilation_cache

from flan_jax.data import sample

DEFAULT = "default"
# Programs that compile faster are not worth a file.
MIN_COMPILE_SECONDS = 0.3
# Of all entries; the oldest go first.
MAX_BYTES = 4 * 2**30
_DAY = 86_400.0
_OPTIONS = (
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
  # XLA's own caches lie in the folder too, whose name would be part of the key
  # of every program.
  "jax_persistent_cache_enable_xla_caches",
)


def folder(option: str | None) -> pathlib.Path | None:
  """The folder that COMPILATION_CACHE means.

  >>> folder("/var/compiled").name, folder(None)
  ('compiled', None)

  Args:
    option: a path; "default" is `compiled` in flan_jax's cache folder
      (`$FLAN_JAX_CACHE`, else `~/.cache/flan_jax`); None keeps nothing.
  """
  if option is None:
    return None
  if option == DEFAULT:
    return sample.cache_directory() / "compiled"
  return pathlib.Path(option).expanduser()


class Compilations:
  """JAX's persistent compilation cache, in `directory` while this is open.

  One at a time: a job that ended with an error leaves its own open, and the
  next one closes it first.
  """

  _open: "Compilations | None" = None

  def __init__(self, directory: str | os.PathLike | None):
    """Begins to use the cache.

    Args:
      directory: shared by all runs of this machine; None keeps nothing. Where
        the user has set JAX_COMPILATION_CACHE_DIR, that is used as it is.
    """
    self.close_left()
    self.directory = None
    self._own = None
    if directory is None or jax.config.jax_compilation_cache_dir is not None:
      return
    try:
      shared = pathlib.Path(directory).absolute()
      own = shared / f"process-{socket.gethostname()}-{os.getpid()}"
      shared.mkdir(parents=True, exist_ok=True)
      _tidy(shared)
      shutil.rmtree(own, ignore_errors=True)
      own.mkdir()
      for entry in shared.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # Tidied by another.
          os.link(entry, own / entry.name)
    except OSError:
      # A full disk or a read-only home: then this run compiles for itself.
      return
    self.directory, self._own = shared, own
    self._before = {name: getattr(jax.config, name) for name in _OPTIONS}
    values = (str(own), MIN_COMPILE_SECONDS, "none")
    for name, value in zip(_OPTIONS, values, strict=True):
      jax.config.update(name, value)
    # JAX looks at the setting once, at its first compilation.
    compilation_cache.reset_cache()
    Compilations._open = self

  @classmethod
  def close_left(cls) -> None:
    """Closes what this process has open, if anything."""
    if cls._open is not None:
      cls._open.close()

  def publish(self) -> int:
    """Gives the new entries to other processes; returns how many."""
    new = 0
    for entry in self._own.glob("*-cache") if self._own else ():
      shared = self.directory / entry.name
      if shared.exists():
        continue
      with contextlib.suppress(OSError):
        with entry.open("rb") as file:
          os.fsync(file.fileno())
        os.link(entry, shared)
        new += 1
    return new

  def close(self) -> None:
    """Publishes, and leaves JAX as it was."""
    if self._own is None:
      return
    self.publish()
    for name, value in self._before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    shutil.rmtree(self._own, ignore_errors=True)
    self._own = None
    Compilations._open = None


def _tidy(shared: pathlib.Path) -> None:
  """Removes folders of processes that are gone, and entries above the size."""
  here = socket.gethostname()
  for own in shared.glob("process-*"):
    host, _, pid = own.name.removeprefix("process-").rpartition("-")
    with contextlib.suppress(OSError):
      old = time.time() - own.stat().st_mtime > _DAY
      gone = not _alive(int(pid)) if host == here and pid.isdigit() else old
      if gone:
        shutil.rmtree(own, ignore_errors=True)
  entries = []
  for entry in shared.glob("*-cache"):
    with contextlib.suppress(OSError):
      stat = entry.stat()
      entries.append((stat.st_mtime, stat.st_size, entry))
  room = MAX_BYTES
  for _, size, entry in sorted(entries, reverse=True):
    room -= size
    if room < 0:
      entry.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True
