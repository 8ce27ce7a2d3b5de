"""A trace is refused where libtpu's tracer would end the process."""

import importlib.util

import jax
import pytest

from flan_jax.errors import UserError
from flan_jax.training import profile


def test_libtpu_without_a_tpu_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  before = jax.config.jax_platforms
  try:
    jax.config.update("jax_platforms", None)
    with pytest.raises(UserError, match="PROFILE_STEPS.*JAX_PLATFORMS=cpu"):
      profile.Profile((1, 2), tmp_path)
    profile.Profile(None, tmp_path)
    jax.config.update("jax_platforms", "cpu")
    profile.Profile((1, 2), tmp_path)
  finally:
    jax.config.update("jax_platforms", before)
