"""Rows rendered per second: ours on batches, its peer row by row.

The peer is the usual way in tf.data: one `tf.switch_case` over ten functions
that join one row's texts. Both draw a template per row, carry the fields along
and read the same rows from memory; neither tokenises. The last rows of the
table add what our pipeline does besides: tokenising and trimming.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROWS = 20_000
RUNS = 5
LENGTHS = {"inputs": 256, "targets": 64}


def run() -> list[dict]:
  import tensorflow as tf

  from flan_jax.data import template, vocabulary
  from tests.data import made

  task = made.nli()
  columns = _columns()
  source = tf.data.Dataset.from_tensor_slices(columns).cache()
  source.reduce(0, lambda n, row: n + 1)

  ours = _rates(_batched(task, source))
  peer = _rates(_row_by_row(task, source, template))
  bare = _rates(source)
  seqio_task = made.seqio_task(task, columns, vocabulary.load())
  whole = {
    name: _rates(
      seqio_task.get_dataset(lengths, split="train", shuffle=False, seed=0)
    )
    for name, lengths in (
      ("no limit", None),
      ("256/64", LENGTHS),
      ("64/64, most rows trimmed", {"inputs": 64, "targets": 64}),
    )
  }
  rows = [
    _row("render", ours, peer, "peer: switch_case per row"),
    _row("read only", bare, None, "the source both start from"),
  ]
  rows += [
    _row(f"render, tokenise, trim ({name})", rates, None, "whole seqio task")
    for name, rates in whole.items()
  ]
  return rows


def _columns() -> dict[str, list]:
  import random

  draw = random.Random(0)
  words = [f"word{i}" for i in range(500)]
  return {
    "premise": [" ".join(draw.choices(words, k=25)) for _ in range(ROWS)],
    "hypothesis": [" ".join(draw.choices(words, k=8)) for _ in range(ROWS)],
    "label": [draw.randrange(2) for _ in range(ROWS)],
  }


def _batched(task, source):
  """What `preprocessors` does, up to the texts."""
  import tensorflow as tf

  from flan_jax.data import preprocessors, template

  tables = template.tables(task)

  @tf.autograph.experimental.do_not_convert
  def batch(index, rows):
    t = template.tensors(tables)
    rows, _ = template.canonical(
      task, {**rows, template.INDEX: index}
    )
    fields_BF = template.fields(task, rows)
    drawn_B = template.draw(
      (index[0], tf.constant(1, tf.int64)), 10, tf.size(index)
    )
    return {
      **rows,
      "inputs": template.join(
        t.input_text_TP, t.input_slot_TP, fields_BF, drawn_B
      ),
      "targets": template.join(
        t.target_text_TP, t.target_slot_TP, fields_BF, drawn_B
      ),
      "template": drawn_B,
    }

  batches = source.enumerate().ragged_batch(preprocessors.BATCH)
  return batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def _row_by_row(task, source, template):
  import tensorflow as tf

  choices = tf.constant(task.choices)
  options = template.options(task.choices)

  def joined(text, values):
    table, slots = template._table([text], task.fields)
    parts = [table[0][0]]
    for slot, literal in zip(slots[0], table[0][1:], strict=True):
      parts += [values[task.fields[slot]], literal]
    return tf.strings.join(parts)

  @tf.autograph.experimental.do_not_convert
  def one(index, row):
    values = {
      **row, "answer": tf.gather(choices, row["label"]), "options": options
    }
    drawn = tf.random.stateless_uniform(
      [], [index, 1], 0, 10, tf.int32
    )
    branches = [
      lambda t=t: (joined(t.inputs, values), joined(t.targets, values))
      for t in task.templates
    ]
    inputs, targets = tf.switch_case(drawn, branches)
    return {
      **row, "example_index": index, "template": drawn,
      "inputs": inputs, "targets": targets,
    }

  return source.enumerate().map(one, num_parallel_calls=tf.data.AUTOTUNE)


def _rates(dataset) -> list[float]:
  """Rows a second of each run, after one that is not counted."""
  rates = []
  for _ in range(RUNS + 1):
    start = time.perf_counter()
    count = int(dataset.reduce(0, lambda n, row: n + 1))
    rates.append(count / (time.perf_counter() - start))
  return rates[1:]


def _row(job, ours, peer, note) -> dict:
  own = statistics.median(ours)
  other = statistics.median(peer) if peer else None
  return {
    "job": job,
    "ours": own,
    "peer": other,
    "unit": "rows/s",
    "ratio": own / other if other else None,
    "runs": RUNS,
    "note": note,
  }
