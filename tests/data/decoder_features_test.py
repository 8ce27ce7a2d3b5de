"""Decoder-only batches: seqio's own converter is the reference."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from flan_jax.data import features
from flan_jax.errors import UserError

LENGTHS = {"inputs": 12, "targets": 8}
NAMES = (
  "decoder_input_tokens",
  "decoder_target_tokens",
  "decoder_loss_weights",
  "decoder_causal_attention",
)


def examples(count, seed=0, low=2):
  random = np.random.default_rng(seed)
  return [
    {
      "inputs": random.integers(low, 99, random.integers(1, 13)),
      "targets": random.integers(low, 99, random.integers(1, 9)),
    }
    for _ in range(count)
  ]


def seqio_batch(given, pack):
  rows = tf.data.Dataset.from_generator(
    lambda: iter(given),
    output_signature={
      n: tf.TensorSpec([None], tf.int32) for n in ("inputs", "targets")
    },
  )
  converter = seqio.PrefixLMFeatureConverter(pack=pack)
  made = list(converter(rows, LENGTHS).as_numpy_iterator())
  return {name: np.stack([row[name] for row in made]) for name in made[0]}


def test_one_example_a_row_is_as_seqio_has_it():
  given = examples(50)
  (ours,) = features.decoder_only_batches(
    given, lengths=LENGTHS, batch_size=50, pack=False, begin_id=0
  )
  theirs = seqio_batch(given, pack=False)
  real = ours["decoder_segment_ids"] > 0
  assert (real == (theirs["decoder_target_tokens"] > 0)).all()
  for name in NAMES:
    np.testing.assert_array_equal(ours[name][real], theirs[name][real], name)
  assert not ours["decoder_loss_weights"][~real].any()


def test_packed_rows_are_as_seqio_has_them():
  """Two examples that fit one row, in every pair of a sample."""
  given = [e for e in examples(16, seed=1) if sum(map(len, e.values())) <= 9]
  for pair in zip(given[::2], given[1::2], strict=False):
    (ours,) = features.decoder_only_batches(
      pair, lengths=LENGTHS, batch_size=1, begin_id=0
    )
    theirs = seqio_batch(list(pair), pack=True)
    for name in ours:
      if name != "decoder_causal_attention":  # seqio has none when it packs
        np.testing.assert_array_equal(ours[name], theirs[name], name)


@pytest.mark.parametrize("begin_id", [None, 0, 7])
def test_every_token_is_there_once_and_only_targets_count(begin_id):
  """Ids 0 and 1 are tokens like any other."""
  given = examples(300, seed=2, low=0)
  found = []
  for batch in features.decoder_only_batches(
    given, lengths=LENGTHS, batch_size=4, begin_id=begin_id
  ):
    for b in range(4):
      row = {name: value[b] for name, value in batch.items()}
      for segment in range(1, row["decoder_segment_ids"].max() + 1):
        at = row["decoder_segment_ids"] == segment
        read, said, weights, prefix, positions = (
          row[name][at]
          for name in (
            "decoder_input_tokens",
            "decoder_target_tokens",
            "decoder_loss_weights",
            "decoder_causal_attention",
            "decoder_positions",
          )
        )
        assert positions.tolist() == list(range(at.sum()))
        assert read[1:].tolist() == said[:-1].tolist()
        n = int(weights.sum())
        assert weights.tolist() == [0] * (len(said) - n) + [1] * n
        assert prefix.tolist() == [1] * (len(said) - n + 1) + [0] * (n - 1)
        whole = [*said] if begin_id is not None else [read[0], *said]
        if begin_id is not None:
          assert read[0] == begin_id
        found.append((tuple(whole[:-n]), tuple(whole[-n:])))
  expected = [(tuple(e["inputs"]), tuple(e["targets"])) for e in given]
  assert sorted(found) == sorted(expected)


def test_padding_is_told_by_segments_alone():
  (batch,) = features.decoder_only_batches(
    [{"inputs": [0, 0], "targets": [0]}],
    lengths=LENGTHS,
    batch_size=2,
    begin_id=None,
  )
  assert batch["decoder_segment_ids"].sum() == 2
  assert batch["decoder_loss_weights"].tolist()[0][:3] == [0, 1, 0]
  assert features.token_waste([batch]) == {"targets": 0.95, "total": 0.95}


@pytest.mark.parametrize(
  ("example", "message"),
  [
    ({"inputs": [], "targets": [1]}, "inputs are empty"),
    ({"inputs": [1] * 13, "targets": [1]}, "13 tokens, the limit is 12"),
    ({"inputs": [1], "targets": [1] * 9}, "9 tokens, the limit is 8"),
  ],
)
def test_bad_examples_are_named(example, message):
  with pytest.raises(UserError, match=f"Example 0.*{message}"):
    list(
      features.decoder_only_batches([example], lengths=LENGTHS, batch_size=1)
    )


def test_kinds():
  with pytest.raises(ValueError, match="neither"):
    features.batches_for("encoder")
  made = features.batches_for("decoder_only", begin_id=3)
  batch = next(
    made([{"inputs": [5], "targets": [6]}], lengths=LENGTHS, batch_size=1)
  )
  assert batch["decoder_input_tokens"][0, :2].tolist() == [3, 5]
