"""Token waste and speed of packing, beside seqio's, on the same examples.

The examples are those of `flan_holdout_nli_train`: real rows where
TFDS_DATA_DIR or ../shared/tfds has them, the embedded sample elsewhere. The
stream is cycled, as in training, so that no last row counts.
"""

import itertools
import os
import pathlib
import statistics
import time

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import catalogue, directory, features, mixtures, packing

MIXTURE = "flan_holdout_nli_train"
EXAMPLES = 6_000
BATCH_SIZE = 16
RUNS = 3
# The paper's, the same with targets that match the mixture, and two smaller.
LENGTHS = ((1024, 256), (1024, 272), (768, 208), (512, 144), (256, 64))
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "tfds"


def _resolved() -> tuple[mixtures.Resolved, str]:
  given = os.environ.get("TFDS_DATA_DIR")
  if given is None and SHARED.is_dir():
    given = str(SHARED)
  data = directory.choose(given)
  catalogue.register()
  resolved = mixtures.resolve(MIXTURE, missing="skip")
  kind = "embedded sample" if data.embedded else "real rows"
  return resolved, f"{kind} of {len(resolved.present)} datasets"


def _take(batches, count: int) -> list[features.Batch]:
  return list(itertools.islice(batches, count))


def _ours(examples, lengths, count: int) -> list[features.Batch]:
  batches = features.encoder_decoder_batches(
    itertools.cycle(examples), lengths=lengths, batch_size=BATCH_SIZE
  )
  return _take(batches, count)


def _peer(examples, lengths, count: int) -> list[features.Batch]:
  def pairs():
    for example in itertools.cycle(examples):
      yield {name: example[name] for name in lengths}

  signature = {name: tf.TensorSpec([None], tf.int32) for name in lengths}
  dataset = tf.data.Dataset.from_generator(pairs, output_signature=signature)
  rows = seqio.EncDecFeatureConverter(pack=True)(dataset, lengths)
  batches = rows.batch(BATCH_SIZE, drop_remainder=True)
  return _take(batches.as_numpy_iterator(), count)


def _timed(make, *args) -> tuple[list[features.Batch], float]:
  """Batches of the last run, and the median of examples a second."""
  speeds = []
  for _ in range(RUNS):
    start = time.perf_counter()
    batches = make(*args)
    seconds = time.perf_counter() - start
    placed = sum(int(b["encoder_segment_ids"].max(1).sum()) for b in batches)
    speeds.append(placed / seconds)
  return batches, statistics.median(speeds)


def run() -> list[dict]:
  """Rows of the table: waste as a share of all slots, examples a second."""
  resolved, source = _resolved()
  out = []
  for shape in LENGTHS:
    lengths = dict(zip(("inputs", "targets"), shape, strict=True))
    stream = mixtures.examples(resolved, lengths, seed=0, passthrough=())
    examples = list(itertools.islice(stream, EXAMPLES))
    sizes = [(len(e["inputs"]), len(e["targets"])) for e in examples]
    least = packing.least_waste(sizes, shape)
    share = np.array(sizes).sum(0) / shape
    count = max(1, int(share.max() / BATCH_SIZE))
    ours, our_speed = _timed(_ours, examples, lengths, count)
    peer, peer_speed = _timed(_peer, examples, lengths, count)
    our_waste, peer_waste = map(features.token_waste, (ours, peer))
    name = f"{shape[0]}/{shape[1]}"
    for side in ("inputs", "targets", "total"):
      out.append(
        {
          "job": f"token waste {name}, {side}",
          "ours": our_waste[side],
          "peer": peer_waste[side],
          "unit": "share",
          "ratio": our_waste[side] / peer_waste[side],
          "runs": 1,
          "note": f"no packing below {least[side]:.3f}; {source}",
        }
      )
    out.append(
      {
        "job": f"packing speed {name}",
        "ours": our_speed,
        "peer": peer_speed,
        "unit": "examples/s",
        "ratio": our_speed / peer_speed,
        "runs": RUNS,
        "note": "tokenised examples to batches; peer: seqio, pack=True",
      }
    )
  return out
