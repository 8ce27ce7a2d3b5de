r"""Prompt types: zero-shot or few-shot, with options or without, by example.

FLAN 2022 has every dataset in up to four types. Here one task draws the type
anew for each row, then a template, and for few-shot types a layout and how
many exemplars:

  zs_opt     templates that list the options, in a drawn format (`formats.py`)
  zs_noopt   templates that do not
  fs_opt     as zs_opt, options in the plain format, after exemplars
  fs_noopt   as zs_noopt, after exemplars

That is the same mixture as a task for each type at equal rates, from a fourth
of the pipelines. Of a task without choices all templates are in each type.
Inversions (`Task.inversions`) are drawn `inverted` times as often as the rest.

The line of a table that a row draws says all but the number of exemplars:
type, template, layout.

Source: Longpre et al., 2023 (arXiv 2301.13688), sections 2 and 3, and the code
released with it, which draws no number of exemplars: its few-shot prompts have
two or three, or five, before what does not fit is cut.

Dimensions: B rows, R lines of the table, C choices.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  few_shot,
  formats,
  forms,
  preprocessors,
  spec,
  template,
  trimming,
)

# Rows in one call of a graph: fewer than `preprocessors.BATCH`, as each brings
# exemplars with it, and a mixture renders this many of every task at first.
BATCH = 64
# Batches that draw their exemplars from the same training rows.
BATCHES_A_POOL = 4
# A few-shot prompt has 1 to so many exemplars, each number equally often.
MAX_SHOTS = 8

# How exemplars and the question are told apart, where the run's own wrapper
# says nothing (`PLAIN`). Of a layout with names a prompt that ends in a blank
# or a colon has no need.
_NAMED = (
  ("Q: ", "A:"),
  ("Question: ", "Answer:"),
  ("Input: ", "Output:"),
  ("[Q] ", "[A]"),
  ("Task: ", "Solution:"),
)
LAYOUTS: tuple[template.Wrapper, ...] = (
  template.Wrapper(answer="\n", separator="\n\n"),
  template.Wrapper(answer="\n\n", separator="\n\n\n"),
  template.Wrapper(answer="\n", separator="\n\n\n"),
  *(
    template.Wrapper(
      prefix=asked,
      suffix=f"\n{replied}",
      answer=f"\n{replied} ",
      separator="\n\n",
    )
    for asked, replied in _NAMED
  ),
)


@dataclasses.dataclass(frozen=True)
class PromptType:
  """One of the four.

  Attributes:
    name: the feature `prompt_type` of its examples; inverted ones have
      `_inverted` after it.
    options: whether its templates list the options.
    few_shot: whether exemplars stand before the prompt.
  """

  name: str
  options: bool
  few_shot: bool


ZS_OPT = PromptType("zs_opt", options=True, few_shot=False)
ZS_NOOPT = PromptType("zs_noopt", options=False, few_shot=False)
FS_OPT = PromptType("fs_opt", options=True, few_shot=True)
FS_NOOPT = PromptType("fs_noopt", options=False, few_shot=True)
ALL = (ZS_OPT, FS_OPT, ZS_NOOPT, FS_NOOPT)


@dataclasses.dataclass(frozen=True)
class Line:
  """One way to ask: what a row of a task draws.

  Attributes:
    type: the prompt type's name.
    template: its number.
    wrapper: what surrounds the prompt and the exemplars.
    weight: how often it is drawn; those of a task sum to 1.
    few_shot: whether exemplars stand before it.
    formatted: whether its options, or its dialog, are in a drawn format.
    chosen: whether its answer is then the mark of an option.
  """

  type: str
  template: int
  wrapper: template.Wrapper
  weight: float
  few_shot: bool
  formatted: bool
  chosen: bool


def lines(
  task: spec.Task,
  types: Sequence[PromptType] = ALL,
  *,
  inverted: float = 0.0,
  wrapper: template.Wrapper = template.PLAIN,
) -> tuple[Line, ...]:
  """Every way in which a task asks, with the share of examples it has.

  A type of which a task has no template is left out, and its others have its
  share.

  >>> {line.type for line in lines(rte, [ZS_OPT])}  # doctest: +SKIP
  {'zs_opt'}

  Args:
    task: whose templates.
    types: the prompt types it is in, equally often.
    inverted: inversions drawn for each prompt that is none.
    wrapper: of the run; few-shot layouts vary where it says nothing.
  """
  out: list[Line] = []
  for kind in types:
    out += _of_type(task, kind, wrapper)
    if inverted and task.inversions:
      out += _inversions(task, kind, wrapper, inverted)
  total = sum(line.weight for line in out)
  return tuple(
    dataclasses.replace(line, weight=line.weight / total) for line in out
  )


def _of_type(task, kind, wrapper):
  turned, asking = [], []
  for number, t in enumerate(task.templates):
    if t.turned_around:
      # In both zero-shot types, but not with options in the one without.
      if not kind.few_shot and (kind.options or not t.shows_options):
        turned.append(number)
    elif not task.choices or t.shows_options == kind.options:
      asking.append(number)
  if not asking:
    return
  # Turned-around templates are as frequent as among the ten.
  share = len(turned) / len(task.templates)
  for number in turned:
    yield from _lines(task, kind, number, wrapper, share / len(turned))
  for number in asking:
    yield from _lines(task, kind, number, wrapper, (1 - share) / len(asking))


def _inversions(task, kind, wrapper, weight):
  first = len(task.templates)
  named = dataclasses.replace(kind, name=kind.name + "_inverted")
  for i in range(len(task.inversions)):
    each = weight / len(task.inversions)
    yield from _lines(task, named, first + i, wrapper, each)


def _lines(task, kind, number, wrapper, weight):
  shown = forms.template(task, number)
  layouts = _layouts(shown, wrapper) if kind.few_shot else (wrapper,)
  with_format = kind.options and not kind.few_shot
  for layout in layouts:
    yield Line(
      type=kind.name,
      template=number,
      wrapper=layout,
      weight=weight / len(layouts),
      few_shot=kind.few_shot,
      formatted=with_format
      and (
        shown.shows_options
        or (task.turns is not None and spec.DIALOG in shown.input_fields)
      ),
      chosen=with_format and shown.shows_options and not shown.turned_around,
    )


def _layouts(shown: spec.Template, wrapper: template.Wrapper):
  plain = template.PLAIN
  own = (wrapper.prefix, wrapper.suffix, wrapper.answer, wrapper.separator)
  if own != (plain.prefix, plain.suffix, plain.answer, plain.separator):
    return (wrapper,)
  asks = not shown.inputs.endswith((":", "_", "="))
  return tuple(
    dataclasses.replace(one, eos=wrapper.eos, shot_tokens=wrapper.shot_tokens)
    for one in LAYOUTS
    if asks or not one.prefix
  )


def render_rows(
  task: spec.Task,
  ways: Sequence[Line],
  *,
  train: Callable[[], tf.data.Dataset],
):
  """Preprocessor of seqio's: prepared rows to tokenised, trimmed examples.

  As `preprocessors.render_rows`, with `prompt_type` and `shots`. A row whose
  own options are longer than the inputs is left out when it draws a line that
  lists them.

  Args:
    task: whose rows.
    ways: from `lines`.
    train: gives the training rows, from which exemplars are drawn.
  """
  shown = _tables(task, ways, shown=True)
  solved = _tables(task, ways, solved=True)
  # Tasks of a mixture have one seed: without this they would all draw the same
  # types and formats at the same time, and those that read the same rows, as
  # both MNLIs do, the same examples.
  salt = zlib.crc32(task.name.encode()) % 2**31
  total_R = np.cumsum([way.weight for way in ways])
  shots = any(way.few_shot for way in ways)
  formatted = any(way.formatted for way in ways)

  def render(
    dataset: tf.data.Dataset,
    output_features,
    sequence_length=None,
  ) -> tf.data.Dataset:
    encoder = trimming.encoder(output_features, sequence_length)
    trimming.check_fits(task, shown, encoder)
    room = encoder.inputs_length - encoder.inputs_eos
    budget = min(ways[0].wrapper.shot_tokens, room)
    if shots:
      tight = trimming.within(encoder, budget)
      trimming.check_fits(task, shown, tight, "FEW_SHOT_TOKENS")

    def examples(rows, seeds, pool=None):
      seeds = [
        tf.bitwise.bitwise_xor(seed, tf.cast([salt, salt], seed.dtype))
        for seed in map(tf.stack, tf.unstack(seeds))
      ]
      fields_BF = template.fields(task, rows)
      count = tf.size(rows[template.INDEX])
      uniform_B = tf.random.stateless_uniform(
        tf.reshape(count, [1]), tf.stack(seeds[0])
      )
      line_B = tf.searchsorted(
        tf.constant(total_R, tf.float32), uniform_B, side="right"
      )
      line_B = tf.minimum(line_B, len(ways) - 1)

      def of_line(name, dtype):
        values = [getattr(way, name) for way in ways]
        return tf.gather(tf.constant(values, dtype), line_B)

      if formatted:
        fields_BF = _formatted(
          task,
          rows,
          fields_BF,
          of_line("formatted", tf.bool),
          of_line("chosen", tf.bool),
          seeds[1],
        )
      text_B, got_B = tf.fill([count], ""), tf.zeros([count], tf.int32)
      if pool is not None:
        number_B = tf.random.stateless_uniform(
          tf.reshape(count, [1]),
          tf.stack(seeds[2]),
          1,
          MAX_SHOTS + 1,
          tf.int32,
        )
        text_B, got_B = few_shot.draw(
          task,
          shown,
          solved,
          encoder,
          budget,
          rows,
          template.with_exemplars(fields_BF, text_B),
          pool,
          line_B,
          tf.where(of_line("few_shot", tf.bool), number_B, 0),
          seeds[3],
          most=MAX_SHOTS,
        )
      carried = {
        **rows,
        template.SHOTS: got_B,
        template.PROMPT_TYPE: of_line("type", tf.string),
      }
      out, over_B = preprocessors.rendered(
        template.tensors(shown),
        encoder.encode,
        carried,
        template.with_exemplars(fields_BF, text_B),
        line_B,
      )
      return preprocessors.gather(out, over_B == 0)

    batches = dataset.ragged_batch(BATCH)
    if not shots:

      @tf.autograph.experimental.do_not_convert
      def batch(rows, seeds):
        return examples(rows, seeds)

      rendered = seqio.map_over_dataset(batch, num_seeds=2)(batches)
      return rendered.unbatch()

    @tf.autograph.experimental.do_not_convert
    def few_shot_batch(pair, seeds):
      return examples(pair["rows"], seeds, pair["pool"])

    pool = few_shot.pools(preprocessors.prepare_rows(task)(train())).flat_map(
      lambda rows: tf.data.Dataset.from_tensors(rows).repeat(BATCHES_A_POOL)
    )
    pairs = tf.data.Dataset.zip({"rows": batches, "pool": pool})
    return seqio.map_over_dataset(few_shot_batch, num_seeds=4)(pairs).unbatch()

  return render


def _formatted(task, rows, fields_BF, formatted_B, chosen_B, seed):
  """Fields with options or dialog in drawn formats, where a line has them."""
  columns = tf.unstack(fields_BF, axis=1)
  if task.choices is not None:
    label_B = rows[template.LABEL]
    if isinstance(task.choices, tuple):
      choices_BC = template.ragged(
        tf.tile([list(task.choices)], [tf.size(label_B), 1])
      )
    else:
      choices_BC = template.ragged(rows[template.CHOICES])
    text_B, mark_B = formats.options(choices_BC, label_B, seed)
    answer, options = len(task.inputs), len(task.inputs) + 1
    columns[options] = tf.where(formatted_B, text_B, columns[options])
    marked_B = chosen_B & (mark_B != "")
    columns[answer] = tf.where(marked_B, mark_B, columns[answer])
  if task.turns is not None:
    at = list(task.inputs).index(spec.DIALOG)
    text_B = formats.dialog(template.ragged(rows[task.turns]), seed)
    columns[at] = tf.where(formatted_B, text_B, columns[at])
  return tf.stack(columns, axis=1)


def _tables(task, ways: Sequence[Line], **kwargs) -> template.Tables:
  """The tables of all lines, one row each."""
  made = functools.cache(
    lambda number, wrapper: template.tables(task, [number], wrapper, **kwargs)
  )
  parts = [made(way.template, way.wrapper) for way in ways]
  empty = len(parts[0].uses_TF[0]) - 1  # the field that fills short rows

  def padded(name, fill):
    width = max(len(getattr(p, name)[0]) for p in parts)
    return tuple(
      row + (fill,) * (width - len(row))
      for p in parts
      for row in getattr(p, name)
    )

  return template.Tables(
    task.name,
    tuple(way.template for way in ways),
    padded("input_text_TP", ""),
    padded("input_slot_TP", empty),
    padded("target_text_TP", ""),
    padded("target_slot_TP", empty),
    tuple(p.uses_TF[0] for p in parts),
  )
