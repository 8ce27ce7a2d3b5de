"""Strict tests: warnings of our modules are errors, no promotion of ranks.

`tasks/` imports as `flan_jax.tasks`, so the package must be installed:
`pip install -e '.[test]'`, or `bash launch/test.sh`, which does that.
"""

import os
import pathlib

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


@pytest.fixture(autouse=True, scope="module")
def _drop_compiled_programs():
  """A long pytest process keeps every compiled program otherwise."""
  yield
  import sys

  if "jax" in sys.modules:
    sys.modules["jax"].clear_caches()
