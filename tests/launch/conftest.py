"""A machine with fake commands for every test."""

import pytest

from tests.launch import fakes


@pytest.fixture
def machine(tmp_path):
  return fakes.Machine(tmp_path)
