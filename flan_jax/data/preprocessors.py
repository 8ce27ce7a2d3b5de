"""The two steps of a task's seqio pipeline, before and after its cache.

  source rows → prepare_rows → [CacheDatasetPlaceholder] → render_rows

seqio repeats after the placeholder, so every epoch draws templates anew and a
cache holds prepared rows, not one epoch's prompts.

Only a task's own `prepare` and `keep` run row by row; everything else runs on
batches, which are taken apart again: a map over single rows costs more than
all that is done in it.
"""

from collections.abc import Callable, Mapping, Sequence

import seqio
import tensorflow as tf

from flan_jax.data import few_shot, forms, spec, template, trimming

# Rows in one call of a graph. Larger is hardly faster, and a mixture renders
# this many of every task before its first example.
BATCH = 256

# What sources add to a row.
_MARKS = (template.INDEX, spec.TRAINING)
_KEPT = "kept"  # beside `row` while `keep` has spoken and rows are not dropped

# Graph functions here are written in graph ops; rewriting their Python would
# only take time.
_plain = tf.autograph.experimental.do_not_convert


def prepare_rows(task: spec.Task):
  """Preprocessor of seqio's: source rows to the prepared rows that are used.

  See `template.canonical` for what a row holds then. A source that numbers
  its rows does so under `example_index`; otherwise they are numbered as they
  come.
  """

  @_plain
  def used(rows, kept_B, complete_B):
    return gather(rows, kept_B & complete_B)

  def prepare(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return examine(task, dataset, used).unbatch()

  return prepare


def examine(
  task: spec.Task, dataset: tf.data.Dataset, then: Callable | None = None
) -> tf.data.Dataset:
  """Batches of (canonical rows, kept [B], complete [B]) of source rows.

  `kept` is what `task.keep` says, `complete` that no text is missing. With
  `then`, what it makes of the three, in the same call of a graph.
  """
  if template.INDEX not in dataset.element_spec:
    dataset = number(dataset)

  @_plain
  def one(row):
    index = row[template.INDEX]
    training = row.get(spec.TRAINING, tf.constant(True))
    row = {k: v for k, v in row.items() if k not in _MARKS}
    if task.prepare:
      row = dict(_called(task, "prepare", row))
    kept = tf.constant(True)
    if task.keep:
      kept = _called(task, "keep", {**row, spec.TRAINING: training})
    return {"row": {**row, template.INDEX: index}, _KEPT: kept}

  @_plain
  def many(batch):
    if _KEPT in batch:
      rows, kept_B = batch["row"], batch[_KEPT]
    else:
      rows = {k: v for k, v in batch.items() if k != spec.TRAINING}
      kept_B = tf.fill(tf.shape(batch[template.INDEX]), True)
    rows, complete_B = template.canonical(task, rows)
    examined = rows, kept_B, complete_B
    return then(*examined) if then else examined

  if task.prepare or task.keep:
    dataset = dataset.map(one, num_parallel_calls=tf.data.AUTOTUNE)
  return dataset.ragged_batch(BATCH).map(many)


def _called(task: spec.Task, name: str, row):
  """What the task's own `prepare` or `keep` makes of a row."""
  try:
    return getattr(task, name)(row)
  except KeyError as e:
    raise spec.SpecError(
      f"task {task.name!r}: {name} reads a feature {e.args[0]!r}, which its"
      f" rows have not; they have {', '.join(_names(row))}."
    ) from None


def _names(row, above: str = "") -> list[str]:
  """Features of a row, those within others as `answers/text`."""
  out = []
  for name, value in sorted(row.items()):
    inside = isinstance(value, Mapping)
    out += _names(value, f"{above}{name}/") if inside else [above + name]
  return out


def number(dataset: tf.data.Dataset, training: bool = True) -> tf.data.Dataset:
  """Rows with their position as `example_index`, and whether they train."""

  @_plain
  def one(index, row):
    marks = {template.INDEX: index, spec.TRAINING: tf.constant(training)}
    return {**row, **marks}

  return dataset.enumerate().map(one)


def render_rows(
  task: spec.Task,
  templates: Sequence[int] = range(spec.NUM_TEMPLATES),
  wrapper: template.Wrapper = template.PLAIN,
  *,
  shots: int = 0,
  train: Callable[[], tf.data.Dataset] | None = None,
):
  """Preprocessor of seqio's: prepared rows to tokenised, trimmed examples.

  Each row draws one of `templates`; a batch of rows draws from one seed pair,
  which seqio's seed management gives. With `shots`, so many exemplars at most
  of the rows that `train` gives stand before each prompt (`few_shot.py`).

  A row whose own options are longer than the inputs is left out when it draws
  a template that shows them (`counts.count` counts such rows); where
  options are the task's, that would be every row, and is an error.
  """
  table = template.tables(task, templates, wrapper, shown=shots > 0)

  def render(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
  ) -> tf.data.Dataset:
    encoder = trimming.encoder(output_features, sequence_length)
    trimming.check_fits(task, table, encoder)

    def examples(rows, drawn_B, shown=None):
      out, over_B = apply(
        task, template.tensors(table), encoder.encode, rows, drawn_B, shown
      )
      if not isinstance(task.choices, spec.Features):
        return out
      return gather(out, over_B == 0)

    def draw(seed, rows):
      count = tf.size(rows[template.INDEX])
      return template.draw(seed, len(table.template_T), count)

    @_plain
    def batch(rows, seed):
      return examples(rows, draw(seed, rows))

    @_plain
    def few_shot_batch(pair, seeds):
      rows, drawn_B = pair["rows"], draw(seeds[0], pair["rows"])
      shown = solved.draw(rows, pair["pool"], drawn_B, seeds[1])
      return examples(rows, drawn_B, shown)

    batches = dataset.ragged_batch(BATCH)
    if not shots:
      return seqio.map_over_dataset(batch, num_seeds=1)(batches).unbatch()
    solved = few_shot.Exemplars(task, templates, wrapper, encoder, shots)
    pool = few_shot.pools(prepare_rows(task)(train()))
    pairs = tf.data.Dataset.zip({"rows": batches, "pool": pool})
    return seqio.map_over_dataset(few_shot_batch, num_seeds=2)(pairs).unbatch()

  return render


def apply(task, tables, encode, rows, row_template_B, shown=None):
  """A batch of prepared rows rendered, its fields carried along.

  `shown` is what `few_shot.Exemplars.draw` gave, for tables that show it.

  Returns:
    The examples, and by how many tokens each is too long all the same
    (`trimming.Encoded.over_B`).
  """
  fields_BF = template.fields(task, rows)
  carried = dict(rows)
  if shown is not None:
    text_B, carried[template.SHOTS] = shown
    fields_BF = template.with_exemplars(fields_BF, text_B)
  return rendered(tables, encode, carried, fields_BF, row_template_B)


def rendered(tables, encode, carried, fields_BF, row_template_B):
  """As `apply`, from fields that are there; `carried` goes along."""
  encoded = encode(tables, fields_BF, row_template_B)
  out = {
    **carried,
    "inputs": encoded.inputs_BS,
    "targets": encoded.targets_BT,
    "inputs_pretokenized": encoded.inputs_text_B,
    "targets_pretokenized": encoded.targets_text_B,
    "template": tf.gather(tables.template_T, row_template_B),
    "trimmed": encoded.trimmed_B,
  }
  return out, encoded.over_B


def too_long(
  task: spec.Task,
  encoder: trimming.Encoder,
  rows,
  templates: Sequence[int] = forms.PLAIN.templates,
) -> int:
  """How many (row, template) pairs do not fit even without any field.

  `rows` is a batch of prepared rows, and only options that differ from row to
  row can make it more than 0.
  """
  tables = template.tensors(template.tables(task, templates))
  fields_BF = template.fields(task, rows).numpy()
  fields_BF[:, : len(task.inputs)] = b""
  count = 0
  for index, number in enumerate(templates):
    shown = forms.template(task, number)
    if shown.shows_options or spec.ANSWER in shown.input_fields:
      drawn_B = tf.fill([len(fields_BF)], index)
      over_B = encoder.encode(tables, tf.constant(fields_BF), drawn_B).over_B
      count += int(tf.math.count_nonzero(over_B))
  return count


def gather(rows, mask_B):
  """The rows of a batch for which the mask is true."""
  kept = tf.where(mask_B)[:, 0]
  return {k: tf.gather(v, kept) for k, v in rows.items()}
