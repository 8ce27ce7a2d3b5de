"""Strict tests: warnings of our modules are errors, no promotion of ranks.

`tasks/` imports as `flan_jax.tasks`, so the package must be installed:
`pip install -e '.[test]'`, or `bash launch/test.sh`, which does that.
"""

import os
import pathlib
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """The folder of real data beside the checkout, where there is one."""
  if not SHARED.is_dir():
    pytest.skip("needs the real data in ../shared, which is not here")
  return SHARED


@pytest.fixture(scope="session")
def real_tfds(shared) -> pathlib.Path:
  """A TFDS data directory with real rows of 22 FLAN datasets."""
  return shared / "tfds"


@pytest.fixture(scope="session")
def t5x_fixtures(shared) -> pathlib.Path:
  """Checkpoints, batches and logits made by the real T5X."""
  return shared / "fixtures" / "t5x"


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory) -> pathlib.Path:
  """The embedded sample of every task, written as TFDS data."""
  from flan_jax.data import catalogue, flan_2022, sample

  tasks = {**catalogue.load(), **flan_2022.load()}
  return sample.write_sample(
    tuple(tasks.values()), tmp_path_factory.mktemp("sample")
  )


@pytest.fixture
def sample_data(sample_dir):
  """seqio reads the embedded sample."""
  yield from _read_by_seqio(sample_dir)


@pytest.fixture
def real_data(real_tfds):
  """seqio reads the real data."""
  yield from _read_by_seqio(real_tfds)


@pytest.fixture(scope="module")
def sample_cache(tmp_path_factory):
  """The embedded sample is written once for all runs of a module."""
  folder = tmp_path_factory.mktemp("cache")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("FLAN_JAX_CACHE", str(folder))
    patch.delenv("TFDS_DATA_DIR", raising=False)
    yield folder


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open():
  """What a job leaves in its process does not reach the next file's tests."""
  yield
  if "seqio" in sys.modules:
    sys.modules["seqio"].set_tfds_data_dir_override(None)
  if "flan_jax.training.compilation" in sys.modules:
    sys.modules["flan_jax.training.compilation"].Compilations.close_left()


def _read_by_seqio(folder):
  import seqio

  seqio.set_tfds_data_dir_override(str(folder))
  yield folder
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
  """The GGUF file of SmolLM2-135M-Instruct, once launch/smollm2.sh has run."""
  given = os.environ.get("FLAN_JAX_SMOLLM2")
  folder = pathlib.Path(given or ROOT / "checkpoints" / "smollm2_135m")
  files = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
  if not files:
    pytest.skip(
      f"no *.gguf in {folder}: run launch/smollm2.sh, or set FLAN_JAX_SMOLLM2"
      " to its folder"
    )
  return files[0]


@pytest.fixture(scope="session")
def promptsource() -> pathlib.Path:
  """PromptSource's templates, once launch/p3.sh has run."""
  from flan_jax.data import p3_prompts
  from flan_jax.errors import UserError

  given = os.environ.get("FLAN_JAX_PROMPTSOURCE")
  try:
    return p3_prompts.folder(given or ROOT / p3_prompts.DEFAULT_FOLDER)
  except UserError:
    pytest.skip(
      "no PromptSource templates: run launch/p3.sh, or set"
      " FLAN_JAX_PROMPTSOURCE to their folder"
    )


@pytest.fixture(autouse=True, scope="module")
def _drop_compiled_programs():
  """A long pytest process keeps every compiled program otherwise."""
  yield
  import sys

  if "jax" in sys.modules:
    sys.modules["jax"].clear_caches()
