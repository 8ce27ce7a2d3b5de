"""Evaluation examples: every row under every template, rendered at once.

The same tables, joining, tokenising and trimming as in training (one
`tf.function`), run eagerly on rows x templates; no graph is built per template.

Source: Wei et al., 2022 (arXiv 2109.01652), sections 2.3 and 3: results are
reported over all ten templates.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  few_shot,
  forms,
  preprocessors,
  sources,
  spec,
  template,
  trimming,
)
from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class EvalExample:
  """One row under one template.

  Attributes:
    task: name in the catalogue.
    template: 0 to 9.
    index: the row's number in its split.
    inputs: tokens, with EOS if the wrapper says so, int32 [S'].
    inputs_text: what they were made from.
    choices: tokens of each choice with EOS, int32 [C][T']; () where the
      template is answered by generation (also if turned around).
    choices_text: their texts.
    label: index of the right choice; -1 for generation.
    targets: tokens with EOS, int32 [T'].
    targets_text: what they were made from.
    references: all accepted answers.
    group: what the rows share that a metric takes together; "" without.
    shots: exemplars that stand before the prompt, of those asked for.
  """

  task: str
  template: int
  index: int
  inputs: np.ndarray
  inputs_text: str
  choices: tuple[np.ndarray, ...]
  choices_text: tuple[str, ...]
  label: int
  targets: np.ndarray
  targets_text: str
  references: tuple[str, ...]
  shots: int = 0
  group: str = ""


def evaluation_examples(
  task: spec.Task,
  split: str,
  *,
  vocabulary: seqio.Vocabulary,
  lengths: Mapping[str, int] | None,
  templates: Sequence[int] = range(spec.NUM_TEMPLATES),
  max_examples: int | None = None,
  wrapper: template.Wrapper = template.PLAIN,
  shots: int = 0,
) -> list[EvalExample]:
  """Rows of `split` under each of `templates`; row by row, then by template.

  >>> examples = evaluation_examples(rte, "test", vocabulary=vocabulary,
  ...   lengths={"inputs": 256, "targets": 64})  # doctest: +SKIP
  >>> len(examples), examples[3].template  # doctest: +SKIP
  (2770, 3)

  Args:
    task: from the catalogue.
    split: "validation" or "test" (or "train").
    vocabulary: of inputs and targets.
    lengths: of inputs and targets in tokens, EOS included; None: no limit.
    templates: which; the result of `task.rankable_templates`, for example.
    max_examples: at most this many rows, the first ones that are usable.
    wrapper: what surrounds every prompt.
    shots: exemplars before every prompt, at most, from the training split and
      the same for every call; then no template may be turned around.

  Raises:
    sources.NotPreparedError: the dataset is not on this machine.
    UserError: not one usable row, or a prompt that is too long without any of
      its fields.
    template.DataError: a row that templates cannot be applied to.
  """
  templates = tuple(templates)
  rows = _rows(task, split, max_examples)
  features = {
    "inputs": seqio.Feature(vocabulary, add_eos=wrapper.eos),
    "targets": seqio.Feature(vocabulary),
  }
  encoder = trimming.encoder(features, lengths)
  table = template.tables(task, templates, wrapper, shown=shots > 0)
  count = int(tf.size(rows[template.INDEX]))
  # Row r under template t stands at r * T + t.
  row_B = tf.repeat(tf.range(count), len(templates))
  repeated = {k: tf.gather(v, row_B) for k, v in rows.items()}
  drawn_B = tf.tile(tf.range(len(templates)), [count])
  trimming.check_fits(task, table, encoder)
  shown = None
  if shots:
    solved = few_shot.Exemplars(task, templates, wrapper, encoder, shots)
    shown = _exemplars(solved, repeated, drawn_B)
  ((out, over_B),) = template.user_errors(
    preprocessors.apply(
      task, template.tensors(table), encoder.encode, repeated, drawn_B, shown
    )
    for _ in range(1)
  )
  _check_fit(task, split, over_B.numpy(), out, encoder)
  choices = _choices(task, rows, count, encoder)
  return _assemble(task, templates, rows, out, choices, count)


# Rows that draw exemplars at once: each has a number for every row of the pool.
_DRAWN_AT_ONCE = 1024


def _exemplars(solved: few_shot.Exemplars, rows, drawn_B):
  """Exemplars of every row, from one pool of training rows."""
  source = sources.source(solved.task)
  train = preprocessors.prepare_rows(solved.task)(source.get_dataset("train"))
  (pool,) = template.user_errors(few_shot.pools(train).take(1))
  size = int(tf.size(drawn_B))
  parts = []
  for start in range(0, size, _DRAWN_AT_ONCE):
    part = tf.range(start, min(start + _DRAWN_AT_ONCE, size))
    chosen = {k: tf.gather(v, part) for k, v in rows.items()}
    drawn = tf.gather(drawn_B, part)
    parts.append(solved.draw(chosen, pool, drawn, (0, start)))
  texts, counts = zip(*parts, strict=True)
  return tf.concat(texts, 0), tf.concat(counts, 0)


def _rows(task: spec.Task, split: str, max_examples: int | None):
  """All usable rows of a split as one canonical batch."""
  source = sources.source(task)
  prepared = preprocessors.prepare_rows(task)(source.get_dataset(split))
  limit = source.rows(split) if max_examples is None else max_examples
  batch = list(template.user_errors(prepared.ragged_batch(limit).take(1)))
  if not batch:
    raise UserError(
      f"task {task.name!r}: split {split!r} has {source.rows(split)} rows, but"
      " not one is usable: all are dropped by keep= or have an empty field."
    )
  return batch[0]


def _check_fit(task, split, over_B, out, encoder):
  """No row may be missing from an evaluation: the longest is named."""
  worst = int(over_B.argmax())
  if over_B[worst] > 0:
    raise UserError(
      f"task {task.name!r}, split {split!r}: with its options and without any"
      f" of its fields, row {int(out[template.INDEX][worst])} is"
      f" {encoder.inputs_length + over_B[worst]} tokens long under template"
      f" {int(out['template'][worst])}, but inputs are cut to"
      f" {encoder.inputs_length}. Raise TASK_FEATURE_LENGTHS['inputs'] to the"
      " former."
    )


def _choices(task, rows, count: int, encoder: trimming.Encoder):
  """For each row, the tokens and the texts of its choices."""
  if task.choices is None:
    return [((), ())] * count
  if isinstance(task.choices, tuple):
    tokens = tuple(_lists(encoder.choices(tf.constant(task.choices))))
    return [(tokens, task.choices)] * count
  ragged = template.ragged(rows[template.CHOICES])
  tokens = _lists(encoder.choices(ragged.flat_values))
  texts = _texts(ragged.flat_values)
  ends = ragged.row_splits.numpy()
  return [
    (tuple(tokens[a:b]), tuple(texts[a:b])) for a, b in itertools.pairwise(ends)
  ]


def _assemble(task, templates, rows, out, choices, count: int):
  inputs, targets = _lists(out["inputs"]), _lists(out["targets"])
  inputs_text = _texts(out["inputs_pretokenized"])
  targets_text = _texts(out["targets_pretokenized"])
  index = rows[template.INDEX].numpy().tolist()
  labels = [-1] * count
  if task.choices is not None:
    labels = rows[template.LABEL].numpy().tolist()
  shots = [0] * (count * len(templates))
  if template.SHOTS in out:
    shots = out[template.SHOTS].numpy().tolist()
  groups = [""] * count
  if template.GROUP in rows:
    groups = _texts(rows[template.GROUP])
  references = None
  if template.REFERENCES in rows:
    ragged = template.ragged(rows[template.REFERENCES])
    flat, ends = _texts(ragged.flat_values), ragged.row_splits.numpy()
    references = [tuple(flat[a:b]) for a, b in itertools.pairwise(ends)]
  examples = []
  for r in range(count):
    for t, number in enumerate(templates):
      at = r * len(templates) + t
      ranked = forms.rankable(task, number)
      asks = not forms.template(task, number).turned_around
      direct = references and asks
      examples.append(
        EvalExample(
          task=task.name,
          template=number,
          index=index[r],
          inputs=inputs[at],
          inputs_text=inputs_text[at],
          choices=choices[r][0] if ranked else (),
          choices_text=choices[r][1] if ranked else (),
          label=labels[r] if ranked else -1,
          targets=targets[at],
          targets_text=targets_text[at],
          references=references[r] if direct else (targets_text[at],),
          shots=shots[at],
          group=groups[r],
        )
      )
  return examples


def _lists(ragged) -> list[np.ndarray]:
  """The rows of ragged token ids."""
  flat, ends = ragged.flat_values.numpy(), ragged.row_splits.numpy()
  return [flat[a:b] for a, b in itertools.pairwise(ends)]


def _texts(strings) -> list[str]:
  return [s.decode("utf-8", "replace") for s in strings.numpy().tolist()]
