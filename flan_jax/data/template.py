r"""Templates: from prepared rows to the texts a model reads, on batches.

  source row → prepared row (fields, label, choices | target, references)
             → template index per row → inputs and targets text

A template is compiled once to a table: its literal texts and, between them,
the fields they surround. All templates of all tasks then render by the same
four graph ops (gather the texts of each row's template, gather its fields,
interleave, join), so a graph is as small for ten templates as for one.

Dimensions: B rows, F fields, T templates, P fields in the longest template.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from flan_jax.data import forms, row_checks, spec
from flan_jax.data.row_checks import INDEX as INDEX
from flan_jax.data.row_checks import DataError as DataError
from flan_jax.data.row_checks import fail_if as fail_if
from flan_jax.data.row_checks import user_errors as user_errors

Row = Mapping[str, Any]

# Features of a rendered example that a task's own fields may not be called.
LABEL, CHOICES, REFERENCES = "label", "choices", "references"
# What rows that a metric takes together share.
GROUP = "group"
# Which prompt type of FLAN 2022 an example is of (`prompt_types.py`).
PROMPT_TYPE = "prompt_type"
# How many exemplars stand before a prompt; a feature of few-shot examples.
SHOTS = "shots"
# The field that holds them.
EXEMPLARS = "exemplars"
RESERVED = frozenset(
  (
    INDEX,
    LABEL,
    CHOICES,
    REFERENCES,
    GROUP,
    "inputs",
    "inputs_pretokenized",
    "targets",
    "targets_pretokenized",
    "template",
    "trimmed",
    SHOTS,
    PROMPT_TYPE,
  )
)


@dataclasses.dataclass(frozen=True)
class Wrapper:
  """What surrounds every prompt of a mixture.

  >>> FLAN_CUE.prefix + "Is it so?" + FLAN_CUE.suffix
  '0 Is it so? X 1 FLAN'

  Attributes:
    prefix, suffix: text before and after the prompt.
    eos: whether EOS follows. Wei et al., 2022 (arXiv 2109.01652), section 2.4:
      inputs and targets are separated by it. A chat form says with its suffix
      that the answer begins.
    answer: text between the prompt and the answer of an exemplar.
    separator: text after each exemplar.
    shot_tokens: tokens of exemplars and prompt together, at most.
  """

  prefix: str = ""
  suffix: str = ""
  eos: bool = True
  answer: str = "\n"
  separator: str = "\n\n"
  shot_tokens: int = 960


PLAIN = Wrapper()
# The form of the released code (google-research/FLAN).
FLAN_CUE = Wrapper("0 ", " X 1 FLAN", answer=" X 1 ", separator=" X ")


class Tables(NamedTuple):
  """A task's templates as tensors; the same structure for every task.

  Attributes:
    task: its name, for messages.
    template_T: the index each row of the tables has in the task.
    input_text_TP, target_text_TP: literal texts, one more than slots.
    input_slot_TP, target_slot_TP: the field that follows each literal text.
    uses_TF: how often each field occurs in `inputs`; 0 for options and
      answer, which trimming never cuts.
  """

  task: Any
  template_T: Any
  input_text_TP: Any
  input_slot_TP: Any
  target_text_TP: Any
  target_slot_TP: Any
  uses_TF: Any


def tables(
  task: spec.Task,
  templates: Sequence[int] = range(spec.NUM_TEMPLATES),
  wrapper: Wrapper = PLAIN,
  *,
  shown: bool = False,
  solved: bool = False,
) -> Tables:
  r"""The tables of `templates`, as tuples of Python values.

  >>> tables(rte, [0], FLAN_CUE).input_text_TP  # doctest: +SKIP
  (('0 ', '\n\nIs it true that ', '?\n\n', ' X 1 FLAN'),)

  Args:
    task: whose templates.
    templates: their numbers.
    wrapper: what surrounds them.
    shown: whether exemplars stand before the prompt, as one more field
      (`with_exemplars`), which is never cut.
    solved: whether the answer follows the prompt, as in an exemplar.

  Raises:
    spec.SpecError: a field has the name of a feature of rendered examples.
    UserError: a template index is out of range.
  """
  taken = sorted(RESERVED & set(task.inputs))
  if taken:
    raise spec.SpecError(
      f"task {task.name!r}: inputs may not name a field {taken[0]!r}; rendered"
      " examples have a feature of that name. Taken are"
      f" {', '.join(sorted(RESERVED))}."
    )
  chosen = [forms.template(task, number) for number in templates]
  names = (*task.fields, EXEMPLARS) if shown else task.fields
  before = "{" + EXEMPLARS + "}" if shown else ""
  inputs = [
    wrapper.prefix + t.inputs + wrapper.answer + t.targets + wrapper.separator
    if solved
    else before + wrapper.prefix + t.inputs + wrapper.suffix
    for t in chosen
  ]
  input_text, input_slot = _table(inputs, names)
  target_text, target_slot = _table([t.targets for t in chosen], names)
  cuttable = {*task.inputs, spec.TARGET}
  uses = tuple(
    tuple(
      t.input_fields.count(field) if field in cuttable else 0
      for field in (*names, "")
    )
    for t in chosen
  )
  return Tables(
    task.name,
    tuple(templates),
    input_text,
    input_slot,
    target_text,
    target_slot,
    uses,
  )


def _table(texts: Sequence[str], fields: Sequence[str]):
  """Texts split at their fields; short ones end in the empty field."""
  parts = [re.split(r"\{([^{}]*)\}", text) for text in texts]
  width = max(len(p) // 2 for p in parts)
  empty = len(fields)
  literals = tuple(tuple(p[0::2] + [""] * (width - len(p) // 2)) for p in parts)
  slots = tuple(
    tuple([fields.index(f) for f in p[1::2]] + [empty] * (width - len(p) // 2))
    for p in parts
  )
  return literals, slots


def tensors(t: Tables) -> Tables:
  """The tables as tensors (constants of the graph being built)."""
  text, ints = tf.string, tf.int32
  dtypes = (text, ints, text, ints, text, ints, ints)
  return Tables(*(tf.constant(v, d) for v, d in zip(t, dtypes, strict=True)))


def join(text_TP, slot_TP, fields_BF, row_template_B):
  """One text per row, from the tables' row `row_template_B`: string [B]."""
  text_BP = tf.gather(text_TP, row_template_B)
  slot_BP = tf.gather(slot_TP, row_template_B)
  value_BP = tf.gather(fields_BF, slot_BP, batch_dims=1)
  tail_B = tf.strings.reduce_join(
    tf.strings.join([value_BP, text_BP[:, 1:]]), axis=1
  )
  return tf.strings.join([text_BP[:, 0], tail_B])


def draw(seed, num_templates: int, rows):
  """One template per row, uniform: int32 [rows], from one seed pair."""
  return tf.random.stateless_uniform(
    tf.reshape(rows, [1]), tf.stack(seed), 0, num_templates, tf.int32
  )


# ----------------------------------------------------------- prepared rows


def canonical(task: spec.Task, batch: Row) -> tuple[dict[str, Any], Any]:
  """A batch of prepared rows as the templates need them, and which are used.

  The result holds every field of `task.inputs` as text [B]; `label` int64 [B]
  and, where choices differ from row to row, `choices` [B, (C)]; or `target`
  [B] and `references` [B, (R)]; and `example_index`, the row's number in its
  split. `group` is text [B] where the task has one. Other features that are
  one value or one sequence a row are carried along under their own names.

  Rows are not used in which a field or the target is empty or white space: a
  template that asks for it would teach to answer with nothing.

  Raises:
    spec.SpecError: rows have no such feature, or a sequence for a text.
  """
  consumed = {INDEX}

  def feature(name: str, rank: int):
    value = _feature(task, batch, name)
    if value.shape.rank != rank + 1:
      raise spec.SpecError(
        f"task {task.name!r}: feature {name!r} has rank {value.shape.rank - 1}"
        f" in a row, not {rank}; "
        + ("join it in prepare." if rank == 0 else "make it a sequence.")
      )
    consumed.add(name)
    return value

  out = {f: _text(feature(name, 0)) for f, name in task.inputs.items()}
  must_speak = list(out.values())
  if task.choices is None:
    out[spec.TARGET] = _text(feature(task.target, 0))
    must_speak.append(out[spec.TARGET])
    if task.references:
      out[REFERENCES] = ragged(feature(task.references, 1))
    else:
      out[REFERENCES] = ragged(out[spec.TARGET][:, None])
  else:
    out[LABEL] = tf.cast(feature(task.label, 0), tf.int64)
    if isinstance(task.choices, spec.Features):
      names = task.choices.names
      if len(names) == 1:
        out[CHOICES] = ragged(feature(names[0], 1))
      else:
        texts = [_text(feature(n, 0)) for n in names]
        out[CHOICES] = ragged(tf.stack(texts, axis=1))
      if task.references:
        out[REFERENCES] = ragged(feature(task.references, 1))
  if task.group:
    out[GROUP] = _text(feature(task.group, 0))
  out[INDEX] = tf.cast(batch[INDEX], tf.int64)
  stripped = tf.strings.strip(tf.stack(must_speak))
  used_B = tf.reduce_all(tf.not_equal(stripped, ""), axis=0)
  for name, value in batch.items():
    new = name not in consumed and name not in out and name not in RESERVED
    if new and not isinstance(value, Mapping) and value.shape.rank in (1, 2):
      out[name] = value
  return out, used_B


def _feature(task: spec.Task, batch: Row, name: str):
  value = batch
  for part in name.split("/") if name not in batch else (name,):
    if not isinstance(value, Mapping) or part not in value:
      raise spec.SpecError(
        f"task {task.name!r}: its rows have no feature {name!r}, only"
        f" {', '.join(sorted(batch))}."
      )
    value = value[part]
  return value


def _text(value):
  return value if value.dtype == tf.string else tf.strings.as_string(value)


# ------------------------------------------------------------------ fields


def fields(task: spec.Task, batch: Row):
  """The text of every field of every canonical row: string [B, F + 1].

  The last column is empty: it fills the slots of short templates.

  Raises (when the graph runs, as one sentence; see `user_errors`):
    DataError: a label outside its choices, fewer than two choices, an empty
      or repeated choice, a text that is not UTF-8. Names task, row and label.
  """
  columns = [batch[f] for f in task.inputs]
  own = isinstance(task.choices, spec.Features)
  choices_BC = ragged(batch[CHOICES]) if own else None
  check = row_checks.check_utf8(task, batch, choices_BC)
  with tf.control_dependencies([check]):
    columns[0] = tf.identity(columns[0])
  empty_B = tf.zeros_like(columns[0])
  if task.choices is None:
    return tf.stack([*columns, batch[spec.TARGET], empty_B], axis=1)
  label_B = batch[LABEL]
  if isinstance(task.choices, tuple):
    size = tf.constant(len(task.choices), tf.int64)
    check = row_checks.check_labels(task, batch, label_B, size)
    with tf.control_dependencies([check]):
      answer_B = tf.gather(tf.constant(task.choices), label_B)
    options_B = tf.fill(tf.shape(answer_B), options(task.choices))
  else:
    sizes_B = choices_BC.row_lengths()
    checks = [
      row_checks.check_labels(task, batch, label_B, sizes_B),
      row_checks.check_choices(task, batch, choices_BC),
    ]
    with tf.control_dependencies(checks):
      answer_B = tf.gather(
        choices_BC.flat_values, choices_BC.row_starts() + label_B
      )
    options_B = tf.strings.join(
      [
        _OPTIONS_HEAD,
        tf.strings.reduce_join(choices_BC, axis=1, separator=_OPTIONS_LINE),
      ]
    )
  return tf.stack([*columns, answer_B, options_B, empty_B], axis=1)


def with_exemplars(fields_BF, text_B):
  """`fields` with the text before each prompt, for tables that show it."""
  return tf.concat(
    [fields_BF[:, :-1], text_B[:, None], fields_BF[:, -1:]], axis=1
  )


_OPTIONS_LINE = "\n- "
_OPTIONS_HEAD = "OPTIONS:" + _OPTIONS_LINE


def options(choices: Sequence[str]) -> str:
  r"""The options as the paper shows them (Wei et al., section 2.4, fig. 1).

  >>> options(["yes", "no"])
  'OPTIONS:\n- yes\n- no'
  """
  return _OPTIONS_HEAD + _OPTIONS_LINE.join(choices)


def ragged(value):
  """`value` as a ragged tensor: [B, C] of one length is [B, (C)]."""
  if isinstance(value, tf.RaggedTensor):
    return value
  return tf.RaggedTensor.from_tensor(value)
