"""Folders that appear when they are whole, or not at all."""

import contextlib
import fcntl
import glob
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from flan_jax.errors import UserError

_log = logging.getLogger(__name__)
# What belongs to a tokenizer in the folders of other programs.
TOKENIZER_NAMES = (
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "spiece.model",
  "sentencepiece.model",
  "vocab.json",
  "merges.txt",
  # The ids that end a text: of no use without its tokenizer.
  "generation_config.json",
)


@contextlib.contextmanager
def folder(
  path: str | pathlib.Path, *, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """A draft beside `path`, renamed to it at the end.

      with drafts.folder("export") as draft:
        (draft / "config.json").write_text(text)

  After an error or an interrupt the draft is gone and `path` is as it was.
  After a kill the draft stays, until the next one for the same `path` removes
  it and says so: a draft that is being written is locked.

  Args:
    path: to be made; its parents too.
    overwrite: whether what is there is replaced, once the draft is whole.

  Raises:
    UserError: `path` exists and is kept, or cannot be written.
  """
  path = pathlib.Path(path).absolute()
  check_free(path, overwrite=overwrite)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    made = tempfile.mkdtemp(".draft", f".{path.name}.", path.parent)
    draft = pathlib.Path(made)
    lock = _locked(draft)
    draft.chmod(0o755)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written: {error.strerror}. Choose another folder or"
      " change its permissions."
    ) from None
  old = draft.with_suffix(".old")
  try:
    yield draft
    if path.exists():
      path.rename(old)
    try:
      draft.rename(path)
    except BaseException:
      if old.exists():
        old.rename(path)
      raise
  finally:
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    if lock is not None:
      os.close(lock)


def _remove_left(path: pathlib.Path) -> None:
  """Removes drafts for `path` whose processes were killed."""
  # The eight letters are tempfile's.
  for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}.draft"):
    lock = _locked(left)
    if lock is None:
      continue
    shutil.rmtree(left, ignore_errors=True)
    os.close(lock)
    _log.warning("Removed %s, which a conversion that was killed left.", left)


def _locked(folder: pathlib.Path) -> int | None:
  """An open descriptor that holds a folder's lock as long as its process lives.

  None where another process has it, or the file system has no locks.
  """
  try:
    descriptor = os.open(folder, os.O_RDONLY)
  except OSError:
    return None
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    os.close(descriptor)
    return None
  return descriptor


def check_free(path: str | pathlib.Path, *, overwrite: bool) -> None:
  """Raises UserError if something is at `path` that must stay."""
  path = pathlib.Path(path).absolute()
  if path.is_file():
    raise UserError(f"OUTPUT_PATH={path} is a file; give a folder to be made.")
  if path.exists() and not overwrite and any(path.iterdir()):
    raise UserError(
      f"OUTPUT_PATH={path} exists and is kept. Give another folder, or"
      " OVERWRITE=True to replace it."
    )


def tokenizer_files(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The files of a tokenizer in a folder."""
  return tuple(path / n for n in TOKENIZER_NAMES if (path / n).is_file())


def copy(files: Iterable[pathlib.Path], to: pathlib.Path) -> None:
  for file in files:
    shutil.copyfile(file, to / file.name)
