"""The short form: one kill of each kind. `python -m tests.chaos` is the long."""

import os
import time

import pytest

from tests.chaos import killing


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  seed = int(os.environ.get("KILL_SEED", time.time()))
  outcome = killing.tried(tmp_path, len(killing.KINDS), seed)
  said = f"KILL_SEED={seed}: {outcome}"
  print(f"survived {outcome.survived}/{len(outcome.kills)}")
  assert len(outcome.kills) >= len(killing.KINDS) - 1, said
  assert outcome.survived == len(outcome.kills), said
