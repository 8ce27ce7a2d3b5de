"""A file system that is full, or read-only, for real: a tmpfs of its own size.

Mounting takes the right to; where it is missing, tests that need one skip, and
those with RLIMIT_FSIZE, which needs none, are left.
"""

import contextlib
import pathlib
import subprocess

import pytest


class Disk:
  """A mounted tmpfs."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self._filler = folder / "filler"

  def fill(self):
    """Until not one byte more fits."""
    with (
      contextlib.suppress(OSError),
      self._filler.open("ab", buffering=0) as file,
    ):
      while True:
        file.write(b"x" * 4096)

  def free(self):
    self._filler.unlink()


def _run(*words: str) -> bool:
  try:
    return subprocess.run(words, capture_output=True).returncode == 0
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def mounted(folder: pathlib.Path, kib: int):
  folder.mkdir()
  if not _run("mount", "-t", "tmpfs", "-o", f"size={kib}k", "t", str(folder)):
    pytest.skip("may not mount a tmpfs here")
  try:
    yield Disk(folder)
  finally:
    _run("umount", "-l", str(folder))


class ReadOnly:
  """A folder that can be made read-only, for root too: mounted over itself."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.on = False

  def begin(self):
    folder = str(self.folder)
    if not _run("mount", "--bind", folder, folder):
      pytest.skip("may not mount a folder here")
    self.on = True
    assert _run("mount", "-o", "remount,ro,bind", folder)

  def end(self):
    if self.on:
      assert _run("umount", "-l", str(self.folder))
      self.on = False


@pytest.fixture
def full_disk(tmp_path):
  """A tmpfs of 64 KiB."""
  with mounted(tmp_path / "disk", 64) as disk:
    yield disk
