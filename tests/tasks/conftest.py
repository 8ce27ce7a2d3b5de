import pytest
import seqio

from flan_jax.data import catalogue, sample


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory):
  """The embedded sample of every task as a TFDS data directory."""
  folder = tmp_path_factory.mktemp("sample")
  return sample.write_sample(tuple(catalogue.load().values()), folder)


@pytest.fixture
def sample_data(sample_dir):
  """seqio reads the embedded sample."""
  seqio.set_tfds_data_dir_override(str(sample_dir))
  yield sample_dir
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture
def real_data(real_tfds):
  """seqio reads the real data."""
  seqio.set_tfds_data_dir_override(str(real_tfds))
  yield real_tfds
  seqio.set_tfds_data_dir_override(None)
