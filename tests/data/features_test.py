"""Packing and batching: what a model is given, and what waste remains."""

import doctest
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from flan_jax.data import features, layouts, packing
from flan_jax.errors import UserError

LENGTHS = {"inputs": 24, "targets": 10}


def example(rng, shape=(24, 10)):
  """Random tokens from 2 on, ending with EOS; lengths skewed to short."""
  sizes = [1 + int((n - 1) * rng.random() ** 2) for n in shape]
  inputs, targets = (
    np.append(rng.integers(2, 500, n - 1), 1).astype(np.int32) for n in sizes
  )
  return {"inputs": inputs, "targets": targets}


def examples(count, seed=0, shape=(24, 10)):
  rng = np.random.default_rng(seed)
  return [example(rng, shape) for _ in range(count)]


def unpack(batch):
  """The examples of a packed batch, read from its segment ids."""
  for b in range(len(batch["encoder_segment_ids"])):
    source, target = (
      batch[f"{side}_segment_ids"][b] for side in ("encoder", "decoder")
    )
    assert set(source) - {0} == set(target) - {0}
    for segment in range(1, source.max() + 1):
      yield (
        tuple(batch["encoder_input_tokens"][b][source == segment].tolist()),
        tuple(batch["decoder_target_tokens"][b][target == segment].tolist()),
      )


def keys(items):
  return sorted(
    (tuple(e["inputs"].tolist()), tuple(e["targets"].tolist())) for e in items
  )


@pytest.mark.parametrize("module", [features, packing])
def test_docstrings(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("pool", [1, 16, 512])
def test_every_example_appears_exactly_once(count, pool):
  given = examples(count)
  batches = list(
    features.encoder_decoder_batches(
      given, lengths=LENGTHS, batch_size=4, pool=pool
    )
  )
  assert sorted(x for b in batches for x in unpack(b)) == keys(given)


def test_positions_masks_and_shifted_targets():
  given = examples(200, seed=1)
  for batch in features.encoder_decoder_batches(
    given, lengths=LENGTHS, batch_size=4
  ):
    assert {n: (v.shape, v.dtype) for n, v in batch.items()} == {
      "encoder_input_tokens": ((4, 24), np.int32),
      "encoder_segment_ids": ((4, 24), np.int32),
      "encoder_positions": ((4, 24), np.int32),
      "decoder_target_tokens": ((4, 10), np.int32),
      "decoder_input_tokens": ((4, 10), np.int32),
      "decoder_loss_weights": ((4, 10), np.float32),
      "decoder_segment_ids": ((4, 10), np.int32),
      "decoder_positions": ((4, 10), np.int32),
    }
    np.testing.assert_array_equal(
      batch["decoder_loss_weights"], batch["decoder_target_tokens"] != 0
    )
    for side, tokens in (
      ("encoder", "encoder_input_tokens"),
      ("decoder", "decoder_target_tokens"),
    ):
      segments = batch[f"{side}_segment_ids"]
      positions = batch[f"{side}_positions"]
      np.testing.assert_array_equal(segments != 0, batch[tokens] != 0)
      assert (positions[segments == 0] == 0).all()
      for row_segments, row_positions in zip(segments, positions, strict=True):
        for _, group in itertools.groupby(
          zip(row_segments, row_positions, strict=True), lambda x: x[0]
        ):
          group = list(group)
          if group[0][0]:
            assert [p for _, p in group] == list(range(len(group)))
    starts = batch["decoder_positions"] == 0
    shifted = np.roll(batch["decoder_target_tokens"], 1, axis=1)
    np.testing.assert_array_equal(
      batch["decoder_input_tokens"], np.where(starts, 0, shifted)
    )


def test_the_layout_is_that_of_t5x(t5x_fixtures):
  reference = np.load(t5x_fixtures / "t5_1_1" / "batch.npz")
  packed = {
    name.removeprefix("packed/"): reference[name]
    for name in reference
    if name.startswith("packed/")
  }
  shape = [packed[f"{s}_segment_ids"].shape[1] for s in ("encoder", "decoder")]
  for b in range(len(packed["encoder_segment_ids"])):
    row = {n: v[b : b + 1] for n, v in packed.items() if v.ndim == 2}
    given = [{"inputs": s, "targets": t} for s, t in unpack(row)]
    layout = layouts.EncoderDecoder(*shape)
    ours = layout.empty(1)
    layout.fill(
      {n: v[0] for n, v in ours.items()},
      [tuple(map(np.array, e.values())) for e in given],
    )
    for name, value in ours.items():
      np.testing.assert_array_equal(value, row[name], err_msg=name)


@pytest.mark.parametrize("pack", [True, False])
def test_rows_are_those_of_seqio(pack):
  given = examples(3, shape=(8, 3))
  data = tf.data.Dataset.from_generator(
    lambda: iter(given),
    output_signature={
      n: tf.TensorSpec([None], tf.int32) for n in ("inputs", "targets")
    },
  )
  converted = seqio.EncDecFeatureConverter(pack=pack)(data, LENGTHS)
  rows = list(converted.as_numpy_iterator())
  batch = next(
    features.encoder_decoder_batches(
      given, lengths=LENGTHS, batch_size=len(rows), pack=pack, pool=3
    )
  )
  assert set(batch) == set(rows[0])
  if pack:
    assert len(rows) == 1
    assert sorted(unpack(batch)) == sorted(
      unpack({n: v[None] for n, v in rows[0].items()})
    )
  else:
    for name, value in batch.items():
      np.testing.assert_array_equal(value, [row[name] for row in rows], name)


def test_the_last_batch_is_filled_with_empty_rows():
  for pack in (True, False):
    given = examples(5, shape=(24, 10))
    *_, last = features.encoder_decoder_batches(
      given[:1], lengths=LENGTHS, batch_size=4, pack=pack
    )
    for value in last.values():
      assert len(value) == 4
      assert not value[1:].any()
    assert last["decoder_loss_weights"][0].any()


def test_one_example_a_row_keeps_the_order():
  given = examples(10)
  batches = features.encoder_decoder_batches(
    given, lengths=LENGTHS, batch_size=4, pack=False
  )
  rows = np.concatenate([b["encoder_input_tokens"] for b in batches])
  for row, e in zip(rows, given, strict=False):
    assert row[row != 0].tolist() == e["inputs"].tolist()


def test_the_same_examples_give_the_same_batches():
  first, second = (
    list(
      features.encoder_decoder_batches(
        examples(400, seed=3), lengths=LENGTHS, batch_size=4
      )
    )
    for _ in range(2)
  )
  for a, b in zip(first, second, strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_it_reads_no_further_ahead_than_said():
  read = 0

  def endless():
    nonlocal read
    rng = np.random.default_rng(0)
    while True:
      read += 1
      yield example(rng)

  batches = features.encoder_decoder_batches(
    endless(), lengths=LENGTHS, batch_size=1, pool=20
  )
  assert read == 0
  placed = 0
  for batch in itertools.islice(batches, 50):
    assert read - placed == 20
    placed += batch["encoder_segment_ids"].max()


def test_no_example_waits_longer_than_the_pool():
  rng = np.random.default_rng(0)
  sizes = [(int(s), int(t)) for s, t in rng.integers(1, (24, 10), (2000, 2))]
  for number, row in enumerate(packing.rows(sizes, (24, 10), pool=32)):
    # Example i is read when at most i + 32 others are, in row i or before, and
    # from then on every row places an older one or the example itself.
    assert number <= min(row) + 32


def test_waste_is_near_what_is_possible():
  rng = np.random.default_rng(0)
  # Half long questions with one-word answers, half short ones with long ones.
  sizes = [
    (int(rng.integers(60, 200)), int(rng.integers(2, 5)))
    if rng.random() < 0.5
    else (int(rng.integers(20, 60)), int(rng.integers(20, 80)))
    for _ in range(4000)
  ]
  totals = np.array(sizes).sum(0)
  shape = (1024, int(1024 * totals[1] / totals[0]))
  rows = list(packing.rows(sizes, shape))
  used = np.array([np.array(sizes)[r].sum(0) for r in rows[:-60]])
  assert (used <= shape).all()
  waste = 1 - used.mean(0) / shape
  assert (waste < 0.03).all(), waste


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"inputs": [5] * 25}, r"Example 1 \(template 3\).* inputs are 25 tokens"),
    ({"targets": [5] * 11}, r"targets are 11 tokens, the limit is 10"),
    ({"targets": []}, "targets are empty"),
    ({"inputs": [5, 0, 1]}, "inputs hold id 0 at position 1"),
    ({"inputs": [[5], [1]]}, r"inputs have shape \(2, 1\)"),
  ],
)
@pytest.mark.parametrize("pack", [True, False])
def test_a_wrong_example_is_named(changes, message, pack):
  good = {"inputs": [5, 1], "targets": [6, 1], "template": 3}
  batches = features.encoder_decoder_batches(
    [good, good | changes], lengths=LENGTHS, batch_size=2, pack=pack
  )
  with pytest.raises(UserError, match=message):
    list(batches)


def test_the_text_of_a_wrong_example_is_shown():
  wrong = {
    "inputs": [5] * 30,
    "targets": [1],
    "inputs_pretokenized": "Is it raining?",
  }
  with pytest.raises(UserError, match="Example 0, 'Is it raining"):
    list(
      features.encoder_decoder_batches([wrong], lengths=LENGTHS, batch_size=1)
    )


@pytest.mark.parametrize("pack", [True, False])
def test_no_example_is_an_error(pack):
  with pytest.raises(UserError, match="Not one usable example"):
    list(
      features.encoder_decoder_batches(
        [], lengths=LENGTHS, batch_size=2, pack=pack
      )
    )


@pytest.mark.parametrize(
  ("lengths", "batch_size", "message"),
  [
    ({"inputs": 8}, 1, "needs exactly inputs and targets"),
    ({"inputs": 8, "targets": 0}, 1, r"lengths\['targets'\] is 0"),
    ({"inputs": 8, "targets": 4}, 0, "batch_size is 0"),
  ],
)
def test_bad_arguments_are_refused_at_once(lengths, batch_size, message):
  with pytest.raises(UserError, match=message):
    features.encoder_decoder_batches([], lengths=lengths, batch_size=batch_size)
