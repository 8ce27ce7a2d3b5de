"""Fixtures of the tests that read descriptions of datasets without data."""

import pytest
import seqio

from flan_jax.data import catalogue
from tests.tasks import schemas


@pytest.fixture(scope="session")
def described(tmp_path_factory):
  """A data directory that describes every dataset and has no rows."""
  folder = tmp_path_factory.mktemp("described")
  for task in catalogue.load().values():
    schemas.write(folder, task)
  return folder


@pytest.fixture
def made_up(described):
  """seqio reads rows that are made up, of datasets of the published sizes."""
  seqio.set_tfds_data_dir_override(str(described))
  with schemas.made_rows(described):
    yield described
  seqio.set_tfds_data_dir_override(None)
