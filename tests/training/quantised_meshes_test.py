"""A base in 4 or 8 bits on a mesh: the numbers of one device, in parts."""

import pytest

from tests.training import sharding_test


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_one_device():
  found = sharding_test.on_eight_devices(
    module="tests.training.quantised_meshes"
  )
  assert set(found) == {"nf4", "int8"}
  for kind, one in found.items():
    assert one["loss"] < 1e-5, kind
    assert one["gradients"] < 1e-5, kind
    assert one["codes"] == 0.0, kind
    # Every device has a part of its own.
    assert one["parts"] == 8, kind
