import doctest

import pytest

from flan_jax.data import slices
from flan_jax.data.slices import Splits, first, last
from flan_jax.errors import SpecError


def test_docstrings():
  assert doctest.testmod(slices).failed == 0


# ParaCrawl's one split, cut as the released code cuts it for three tasks.
@pytest.mark.parametrize(
  ("splits", "expected"),
  [
    (
      Splits(
        train=first("train", 30_000),
        validation=first("train", 200, 30_000),
        test=last("train", 3000),
      ),
      ("train[:30000]", "train[30000:30200]", "train[597000:600000]"),
    ),
    (
      Splits(
        train=first("train", 30_000, 30_200),
        validation=first("train", 200, 60_200),
        test=last("train", 3000),
      ),
      ("train[30200:60200]", "train[60200:60400]", "train[597000:600000]"),
    ),
    (
      Splits(validation=last("train", 100, 500), test=last("train", 500)),
      ("train[:30000]", "train[599400:599500]", "train[599500:600000]"),
    ),
  ],
)
def test_published_positions(splits, expected):
  assert tuple(splits.resolve({"train": 600_000}, "t").values()) == expected


def test_idebate_is_cut_600_rows_short():
  splits = Splits(validation=last("train", 100, 500), test=last("train", 500))
  assert splits.resolve({"train": 2259}, "t") == {
    "train": "train[:1659]",
    "validation": "train[1659:1759]",
    "test": "train[1759:2259]",
  }


@pytest.mark.parametrize("size", [8, 9, 31, 48, 400, 4000, 62_000, 63_399])
@pytest.mark.parametrize(
  "splits",
  [
    Splits(
      train=first("train", 30_000, 30_200),
      validation=first("train", 200, 60_200),
      test=last("train", 3000),
    ),
    Splits(validation=last("train", 200, 1000), test=last("train", 1000)),
    Splits(validation=first("train", 200), test=last("train", 1000)),
  ],
)
def test_small_copies_share_no_row(splits, size):
  resolved = splits.resolve({"train": size}, "t")
  rows = []
  for text in resolved.values():
    start, stop = text.removeprefix("train[").removesuffix("]").split(":")
    rows += range(int(start or 0), int(stop))
  assert len(rows) == len(set(rows))
  assert all(0 <= row < size for row in rows)


def test_rows_of_another_split_are_limited_to_it():
  splits = Splits(validation=last("dev", 200, 10), test=first("dev", 10, 3))
  assert splits.resolve({"train": 10, "dev": 12}, "t") == {
    "train": "train[:10]",
    "validation": "dev[:2]",
    "test": "dev[3:12]",
  }


def test_rows_counted_twice_are_refused():
  splits = Splits(validation=last("train", 200), test=last("train", 1000))
  message = "task 't': validation and test are both cut from the last rows of"
  with pytest.raises(SpecError, match=message + ".*a skip of at least 200"):
    splits.resolve({"train": 50_000}, "t")
  splits = Splits(
    train=first("train", 30_000), validation=first("train", 200, 2), test="test"
  )
  with pytest.raises(SpecError, match="train and validation are both cut"):
    splits.resolve({"train": 50_000, "test": 3}, "t")


def test_empty_and_missing_splits_are_named():
  splits = Splits(validation=last("train", 200), test="test")
  with pytest.raises(SpecError, match="split 'validation' is empty.* 3 rows"):
    splits.resolve({"train": 3, "test": 3}, "t")
  with pytest.raises(SpecError, match="no split 'test', only train"):
    splits.resolve({"train": 30}, "t")


def test_a_test_split_alone():
  splits = Splits(train=None, validation=None, test="test")
  assert splits.names == ("test",)
  assert splits.resolve({"test": 273}, "wsc") == {"test": "test[:273]"}
