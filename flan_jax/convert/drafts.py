"""Folders that appear when they are whole, or not at all."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from flan_jax.errors import UserError

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
)


@contextlib.contextmanager
def folder(
  path: str | pathlib.Path, *, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """A draft beside `path`, renamed to it at the end.

      with drafts.folder("export") as draft:
        (draft / "config.json").write_text(text)

  After an error or an interrupt the draft is gone and `path` is as it was.

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
    made = tempfile.mkdtemp(".draft", f".{path.name}.", path.parent)
    draft = pathlib.Path(made)
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
