"""Rows of nested features, as SQuAD and others have them."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flan_jax.data import sample_rows
from flan_jax.errors import UserError

FEATURES = tfds.features.FeaturesDict(
  {
    "id": tfds.features.Text(),
    "pairs": tfds.features.Sequence({"key": np.str_, "number": np.int32}),
    "inner": {"en": tfds.features.Text()},
  }
)


def read(**row):
  line = json.dumps({"split": "train", **row})
  return sample_rows.read(line, "file", FEATURES)["train"][0]


def test_sequences_of_records_in_both_forms():
  records = [{"key": "a", "number": 1}, {"key": "b", "number": 2}]
  columns = {"key": ["a", "b"], "number": [1, 2]}
  assert read(pairs=records, inner={"en": "x"})["pairs"] == records
  assert read(pairs=columns, inner={"en": "x"})["pairs"] == columns


def test_nested_features_that_no_line_gives():
  row = read(id="7")
  assert row["pairs"] == {"key": [], "number": []}
  assert row["inner"] == {"en": ""}


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"pairs": [{"key": "a"}]}, "an object with key, number is needed"),
    ({"pairs": [{"key": "a", "number": "1"}]}, "a number is needed"),
    ({"pairs": "a"}, "a list is needed"),
    ({"inner": {"de": "x"}}, "an object with en is needed"),
    ({"inner": {"en": 3}}, "a text is needed"),
  ],
)
def test_what_does_not_fit_is_said(row, message):
  with pytest.raises(UserError, match=f"(?s)line 1, feature .*{message}"):
    read(**row)
