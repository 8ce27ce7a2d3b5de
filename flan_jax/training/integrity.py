"""Whether a checkpoint on disk is whole: its manifest, written last.

A checkpoint counts once `manifest.json` is in it. The manifest names every
file with size and CRC-32, so that a file that was truncated, changed or lost
afterwards is found and named before anything is read from it. (A CRC finds
accidents, not forgeries.) In a bucket there is no rename; there an object is
whole or not there, and the manifest as good a mark.

    checkpoint_200/
      state/...        written by Orbax
      manifest.json    {"crc32": of what follows, "manifest": {"step": 200,
                        "arrays": {name: shape, dtype}, "files": {path: bytes,
                        crc32}, "metrics": {...}, "extra": {...}}}
"""

import json
import logging
import os
import zlib
from typing import Any

from flan_jax.data import remote

MANIFEST = "manifest.json"
_FORMAT = 1
_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 22


class Torn(Exception):
  """A checkpoint that cannot be used.

  Attributes:
    path: of the checkpoint.
    fault: the file and what is wrong with it.
    finished: it was once whole, so something was lost; else its save was
      interrupted, and nothing was ever promised.
  """

  def __init__(self, path: remote.Path, fault: str, *, finished: bool):
    super().__init__(f"{path.name}: {fault}")
    self.path = path
    self.fault = fault
    self.finished = finished


def commit(directory: remote.Path, content: dict[str, Any]) -> None:
  """Write the manifest of `directory`: from now on the checkpoint counts.

  Every file is on the disk before the manifest gets its name, so neither a
  kill nor a power cut leaves a manifest of files that are not there.

  Args:
    directory: whose files are complete.
    content: JSON values, stored beside the list of files.

  Raises:
    OSError: reading or writing failed; the checkpoint does not count.
  """
  files = {}
  for name, path in _files(directory).items():
    _sync(path)
    files[name] = {"bytes": remote.size(path), "crc32": _crc32(path)}
  text = json.dumps({"format": _FORMAT, **content, "files": files}, indent=1)
  body = {"crc32": _checksum(text.encode()), "manifest": json.loads(text)}
  text = json.dumps(body, indent=1)
  if remote.is_remote(directory):
    (directory / MANIFEST).write_text(text)
    return
  for path in (*directory.rglob("*"), directory):
    if path.is_dir():
      _sync(path)
  unfinished = directory / f"{MANIFEST}.unfinished"
  unfinished.write_text(text)
  _sync(unfinished)
  unfinished.replace(directory / MANIFEST)
  _sync(directory)
  _sync(directory.parent)


def read(directory: remote.Path) -> dict[str, Any]:
  """The manifest of a checkpoint; its files are not looked at.

  Raises:
    Torn: it has none, or one that is damaged.
  """
  try:
    text = (directory / MANIFEST).read_bytes()
  except FileNotFoundError:
    raise Torn(
      directory,
      f"it has no {MANIFEST}, so its save was interrupted",
      finished=False,
    ) from None
  except OSError as error:
    raise Torn(
      directory,
      f"{MANIFEST} cannot be read ({error.strerror})",
      finished=True,
    ) from None
  try:
    body = json.loads(text)
    manifest, expected = body["manifest"], body["crc32"]
  except (ValueError, KeyError, TypeError):
    raise Torn(
      directory, f"{MANIFEST} is not readable", finished=True
    ) from None
  if _checksum(json.dumps(manifest, indent=1).encode()) != expected:
    raise Torn(
      directory, f"{MANIFEST} differs from its checksum", finished=True
    )
  return manifest


def check(directory: remote.Path) -> dict[str, Any]:
  """The manifest of a checkpoint all of whose files are as they were written.

  Raises:
    Torn: naming the first file that is missing, of another size or changed.
  """
  manifest = read(directory)
  for name, expected in manifest["files"].items():
    path = directory / name
    try:
      size = remote.size(path)
      if size != expected["bytes"]:
        fault = f"{name} has {size} bytes instead of {expected['bytes']}"
      elif _crc32(path) != expected["crc32"]:
        fault = f"{name} differs from its checksum"
      else:
        continue
    except FileNotFoundError:
      fault = f"{name} is missing"
    except OSError as error:
      fault = f"{name} cannot be read ({error.strerror})"
    raise Torn(directory, fault, finished=True)
  return manifest


def is_whole(directory: remote.Path) -> bool:
  """Whether `check` has nothing to say."""
  try:
    check(directory)
  except Torn:
    return False
  return True


def set_aside(torn: Torn) -> None:
  """Rename `checkpoint_N` to `checkpoint_N.torn` and say so, once.

  One that was whole is kept whatever happens. Of interrupted saves the latest
  is: a run that is preempted often would fill the disk with them.
  """
  path, kept = torn.path, torn.path
  try:
    suffixes = (".torn", *(f".torn{number}" for number in range(2, 1000)))
    free = (path.with_name(path.name + suffix) for suffix in suffixes)
    kept = path.rename(next(p for p in free if not p.exists()))
    if not torn.finished:
      for other in path.parent.glob("checkpoint_*.torn*"):
        if other != kept and not (other / MANIFEST).exists():
          remove(other)
  except OSError as error:
    _log.warning("%s could not be set aside: %s", path, error)
  _log.warning(
    "%s is torn and not used: %s. Kept as %s%s; the checkpoint before it is"
    " used if there is one.",
    path,
    torn.fault,
    kept.name,
    "" if torn.finished else " until the next interrupted save",
  )


def remove(directory: remote.Path) -> None:
  """Delete a checkpoint; interrupted, it leaves no torn one behind."""
  if remote.is_remote(directory):
    # Renaming would copy it; without its manifest it counts for nothing.
    (directory / MANIFEST).unlink(missing_ok=True)
    gone = directory
  else:
    gone = directory.with_name(f"{directory.name}.deleting")
    directory.rename(gone)
  remote.remove_tree(gone)


def _files(directory):
  """Every file of a checkpoint but the manifest, by its name in it."""
  if remote.is_remote(directory):
    found = {name: directory / name for name in remote.files(directory)}
  else:
    found = {
      path.relative_to(directory).as_posix(): path
      for path in directory.rglob("*")
      if path.is_file()
    }
  return {name: found[name] for name in sorted(found) if name != MANIFEST}


def _crc32(path):
  crc = 0
  with path.open("rb") as file:
    while chunk := file.read(_CHUNK_BYTES):
      crc = zlib.crc32(chunk, crc)
  return f"{crc:08x}"


def _checksum(text):
  return f"{zlib.crc32(text):08x}"


def _sync(path):
  if remote.is_remote(path):
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
