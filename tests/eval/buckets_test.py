import doctest

import numpy as np
import pytest

from flan_jax.eval import buckets


def test_docstrings():
  assert doctest.testmod(buckets).failed == 0


def test_a_length_over_every_bucket_is_refused():
  with pytest.raises(ValueError, match="length 300 is over the largest.*256"):
    buckets.fit(300, (64, 256))


def test_group_keeps_every_row_once_and_only_moves_up():
  rng = np.random.default_rng(0)
  shapes = [tuple(2 ** rng.integers(1, 5, size=3)) for _ in range(200)]
  groups = buckets.group([(s, i) for i, s in enumerate(shapes)], at_least=8)
  assert sorted(r for rows in groups.values() for r in rows) == list(range(200))
  for shape, rows in groups.items():
    assert rows == sorted(rows)
    for row in rows:
      assert all(a <= b for a, b in zip(shapes[row], shape, strict=True))


def test_group_is_smaller_than_the_grid():
  rows = [((64, 2), 0)] * 20 + [((128, 2), 1)] * 3 + [((256, 2), 2)] * 20
  assert list(buckets.group(rows, at_least=8)) == [(64, 2), (256, 2)]


@pytest.mark.parametrize(
  ("lengths", "batch_size"),
  [({"inputs": 8}, 4), ({"inputs": 8, "targets": 8}, 0)],
)
def test_check_lengths(lengths, batch_size):
  with pytest.raises(ValueError, match="inputs and targets"):
    buckets.check_lengths(lengths, batch_size)
