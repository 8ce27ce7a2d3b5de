"""Which TFDS data directory a run reads: the user's, or the embedded sample."""

import dataclasses
import os
import pathlib

import seqio

from flan_jax.data import collection as collection_lib
from flan_jax.data import remote, sample
from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Directory:
  """A TFDS data directory.

  Attributes:
    path: the folder.
    embedded: whether it holds the sample data that ships with flan_jax.
    files: what is read instead, where a collection has files of its own.
  """

  path: pathlib.Path
  embedded: bool
  files: str = ""

  @property
  def source(self) -> str:
    """As a run's record names it."""
    if self.files:
      return self.files
    return "sample" if self.embedded else _resolved(self.path)

  @property
  def label(self) -> str:
    """How tables and reports name it."""
    if self.files:
      return self.files
    if self.embedded:
      return "the embedded sample data (small; numbers mean nothing)"
    return f"TFDS_DATA_DIR={self.path}"


def _resolved(path) -> str:
  return str(path if remote.is_remote(path) else path.resolve())


def choose(
  tfds_data_dir: str | None,
  collection: collection_lib.Collection | None = None,
) -> Directory:
  """Points seqio at a data directory and says which.

  Args:
    tfds_data_dir: a folder, which may be in a bucket (gs://); None takes
      $TFDS_DATA_DIR, and where that is not set writes the embedded sample of
      all tasks to the cache folder.
    collection: what is registered beside the catalogue. Where it has files of
      its own, these are what the run's record names.

  Raises:
    UserError: the folder does not exist.
  """
  given = tfds_data_dir or os.environ.get("TFDS_DATA_DIR")
  if given:
    path = pathlib.Path(given).expanduser()
    if remote.is_remote(given):
      path = remote.as_path(given)
    if not remote.is_dir(path):
      raise UserError(
        f"TFDS_DATA_DIR {given!r} is not a folder. Prepare datasets there with"
        " `tfds build --data_dir=...`, or leave it out to use the embedded"
        " sample data."
      )
    directory = Directory(path, embedded=False)
  else:
    tasks = collection_lib.known(collection)
    directory = Directory(
      sample.write_sample(tuple(tasks.values())), embedded=True
    )
  seqio.set_tfds_data_dir_override(str(directory.path))
  files = "" if collection is None else collection.own_files
  return dataclasses.replace(directory, files=files)
