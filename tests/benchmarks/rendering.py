"""Rows rendered per second under ten templates: ours on batches, two peers.

  switch_case   the usual way in tf.data: row by row, one `tf.switch_case` over
                ten functions that join the row's texts
  batch and zip the form of the code released with FLAN: ten rows are batched
                and taken apart, the i-th is formatted by template i, they are
                stacked and unbatched, and zipped with the rows as they were

All carry the fields along and read the same rows from memory; none tokenises,
and none checks its rows but ours (labels, UTF-8). The last rows of the table
add what our pipeline does besides: tokenising and trimming. Rates are rows per
second of CPU time, all threads together, so that a busy machine changes them
little.
"""

import os
import re
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROWS = 20_000
RUNS = 5
LENGTHS = {"inputs": 256, "targets": 64}


def run() -> list[dict]:
  import tensorflow as tf

  from flan_jax.data import vocabulary
  from tests.data import made

  task = made.nli()
  columns = _columns()
  source = tf.data.Dataset.from_tensor_slices(columns).cache()
  source.reduce(0, lambda n, row: n + 1)

  forms = {
    "ours": _batched(task, source),
    "switch_case": _row_by_row(task, source),
    "batch and zip": _batch_and_zip(task, source),
    "bare": source,
  }
  _check_equal(task, forms)
  rates = {name: [] for name in forms}
  # In turns, so that what else the machine does meets all of them.
  for _ in range(RUNS):
    for name, dataset in forms.items():
      rates[name].append(_rate(dataset))
  seqio_task = made.seqio_task(task, columns, vocabulary.load())
  whole = {
    name: [
      _rate(
        seqio_task.get_dataset(lengths, split="train", shuffle=False, seed=0)
      )
      for _ in range(RUNS)
    ]
    for name, lengths in (
      ("no limit", None),
      ("256/64", LENGTHS),
      ("64/64, most rows trimmed", {"inputs": 64, "targets": 64}),
    )
  }
  rows = [
    _row("render", rates["ours"], rates[peer], f"peer: {peer}")
    for peer in ("switch_case", "batch and zip")
  ]
  rows.append(_row("read only", rates["bare"], None, "where all start from"))
  rows += [
    _row(f"render, tokenise, trim ({name})", measured, None, "whole seqio task")
    for name, measured in whole.items()
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
    rows, _ = template.canonical(task, {**rows, template.INDEX: index})
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


def _joined(text: str, values):
  """One template's text over the fields of one row."""
  import tensorflow as tf

  parts = re.split(r"\{([^{}]*)\}", text)
  return tf.strings.join(
    [values[p] if i % 2 else p for i, p in enumerate(parts) if p]
  )


def _values(task, row):
  """Fields of one row, the answer and the options with them."""
  import tensorflow as tf

  from flan_jax.data import template

  return {
    **row,
    "answer": tf.gather(tf.constant(task.choices), row["label"]),
    "options": tf.constant(template.options(task.choices)),
  }


def _row_by_row(task, source):
  import tensorflow as tf

  @tf.autograph.experimental.do_not_convert
  def one(index, row):
    values = _values(task, row)
    drawn = tf.random.stateless_uniform([], [index, 1], 0, 10, tf.int32)
    branches = [
      lambda t=t: (_joined(t.inputs, values), _joined(t.targets, values))
      for t in task.templates
    ]
    inputs, targets = tf.switch_case(drawn, branches)
    return {
      **row,
      "example_index": index,
      "template": drawn,
      "inputs": inputs,
      "targets": targets,
    }

  return source.enumerate().map(one, num_parallel_calls=tf.data.AUTOTUNE)


def _batch_and_zip(task, source):
  import tensorflow as tf

  @tf.autograph.experimental.do_not_convert
  def one(index, row):
    return {"example_index": index, **_values(task, row)}

  @tf.autograph.experimental.do_not_convert
  def ten(batch):
    made = [
      {
        "template": tf.constant(i),
        "inputs": _joined(t.inputs, row),
        "targets": _joined(t.targets, row),
        **row,
      }
      for i, t in enumerate(task.templates)
      for row in [{k: v[i] for k, v in batch.items()}]
    ]
    return {k: tf.stack([row[k] for row in made]) for k in made[0]}

  @tf.autograph.experimental.do_not_convert
  def together(before, after):
    return {**before, **after}

  parallel = {"num_parallel_calls": tf.data.AUTOTUNE}
  rows = source.enumerate().map(one, **parallel)
  after = rows.batch(len(task.templates), drop_remainder=True)
  after = after.map(ten, **parallel).unbatch()
  return tf.data.Dataset.zip((rows, after)).map(together, **parallel)


def _check_equal(task, forms):
  """That each form makes of a row what its template says."""
  columns = ("premise", "hypothesis", "label")
  from flan_jax.data import template

  for name in ("ours", "switch_case", "batch and zip"):
    for row in forms[name].take(50).as_numpy_iterator():
      values = {c: row[c] for c in columns[:2]}
      values = {k: v.decode() for k, v in values.items()}
      values["answer"] = task.choices[row["label"]]
      values["options"] = template.options(task.choices)
      chosen = task.templates[row["template"]]
      assert row["inputs"].decode() == chosen.inputs.format(**values), name
      assert row["targets"].decode() == chosen.targets.format(**values), name


def _rate(dataset) -> float:
  """Rows per second of CPU time."""
  start = time.process_time()
  count = int(dataset.reduce(0, lambda n, row: n + 1))
  return count / (time.process_time() - start)


def _row(job, ours, peer, note) -> dict:
  own = statistics.median(ours)
  other = statistics.median(peer) if peer else None
  return {
    "job": job,
    "ours": own,
    "peer": other,
    "unit": "rows/CPU s",
    "ratio": own / other if other else None,
    "runs": RUNS,
    "note": note,
  }
