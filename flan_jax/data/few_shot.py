"""Few-shot prompts: solved examples of the same task before the question.

  exemplar 1, exemplar 2, …, prompt   →   answer

Exemplars come from the training split alone, under the template of the
prompt, which is never a turned-around one; a row that reads like the one that
is asked about is never among them, nor is one of its group. As many whole
exemplars stay as fit the budget with the prompt; how many, the feature `shots`
says.

Every batch of rows draws its exemplars from a pool, the next so many rows of
the training split, by stateless random numbers: nothing is held but the pool,
and the same seed gives the same prompts.

Source: Wei et al., 2022 (arXiv 2109.01652), section 4.4: up to 16 exemplars,
less than 960 tokens in all. The code released with it draws templates for
exemplars and prompt apart, turned-around ones too, and may show a row to
itself.

Dimensions: B rows, P pool, K exemplars, F fields.
"""

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

from flan_jax.data import forms, spec, template, trimming
from flan_jax.errors import UserError

# Training rows that a batch draws from: enough that 16 are never the same few.
POOL = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Exemplars:
  """Draws exemplars for batches of one task's rows.

  Attributes:
    task: whose rows they are.
    templates: numbers of the templates that prompts draw from.
    wrapper: what surrounds prompts, between them, and the budget.
    encoder: counts tokens.
    shots: K, exemplars at most.
  """

  task: spec.Task
  templates: Sequence[int]
  wrapper: template.Wrapper
  encoder: trimming.Encoder
  shots: int

  def __post_init__(self):
    if not 1 <= self.shots <= forms.MAX_SHOTS:
      raise UserError(
        f"{self.shots} exemplars: 1 to {forms.MAX_SHOTS} are possible."
      )
    for number in self.templates:
      if forms.template(self.task, number).turned_around:
        raise UserError(
          f"task {self.task.name!r}: template {number} is turned around; with"
          " exemplars a prompt asks for the answer."
        )
    tight = trimming.within(self.encoder, self.budget)
    trimming.check_fits(self.task, self.query, tight, "FEW_SHOT_TOKENS")

  @property
  def budget(self) -> int:
    """Tokens of exemplars and prompt together, EOS not counted."""
    room = self.encoder.inputs_length - self.encoder.inputs_eos
    return min(self.wrapper.shot_tokens, room)

  @functools.cached_property
  def query(self) -> template.Tables:
    """Tables of the prompt alone."""
    return template.tables(self.task, self.templates, self.wrapper)

  @functools.cached_property
  def solved(self) -> template.Tables:
    """Tables of a prompt with its answer, as an exemplar has them."""
    return template.tables(self.task, self.templates, self.wrapper, solved=True)

  def draw(self, rows, pool, row_template_B, seed):
    """Text of each row's exemplars [B], and how many they are, int32 [B].

    Args:
      rows: a batch of prepared rows.
      pool: prepared rows of the training split.
      row_template_B: which of `templates` each row has.
      seed: a pair of integers.
    """
    query_BF = template.fields(self.task, rows)
    return draw(
      self.task,
      self.query,
      self.solved,
      self.encoder,
      self.budget,
      rows,
      query_BF,
      pool,
      row_template_B,
      tf.fill(tf.shape(row_template_B), self.shots),
      seed,
      most=self.shots,
    )


def draw(
  task: spec.Task,
  query: template.Tables,
  solved: template.Tables,
  encoder: trimming.Encoder,
  budget: int,
  rows,
  query_BF,
  pool,
  row_template_B,
  shots_B,
  seed,
  *,
  most: int,
):
  """Text of each row's exemplars [B], and how many they are, int32 [B].

  Args:
    task: whose rows they are.
    query, solved: tables of prompts and of exemplars, row by row the same
      templates.
    encoder: counts tokens.
    budget: tokens of exemplars and prompt together.
    rows: a batch of prepared rows, which are asked about.
    query_BF: their fields, as `query` takes them.
    pool: prepared rows of the training split.
    row_template_B: which row of the tables each prompt has.
    shots_B: exemplars at most, of each row.
    seed: a pair of integers.
    most: K, the largest of `shots_B`.
  """
  pool_PF = template.fields(task, pool)
  key_B, key_P = (_key(task, x) for x in (query_BF, pool_PF))
  size = tf.size(key_P)
  score_BP = tf.random.stateless_uniform(
    tf.stack([tf.size(key_B), size]), tf.stack(seed)
  )
  # A row that reads the same is not drawn, be it the row itself.
  same_BP = key_B[:, None] == key_P[None]
  if task.group:
    # Nor is one of its group: a later turn of a dialog tells the reply.
    groups = rows[template.GROUP], pool[template.GROUP]
    same_BP |= groups[0][:, None] == groups[1][None]
  score_BP = tf.where(same_BP, -1.0, score_BP)
  score_BK, index_BK = tf.math.top_k(score_BP, tf.minimum(most, size))
  shape = tf.shape(index_BK)
  wanted_BK = (score_BK >= 0) & (tf.range(shape[1])[None] < shots_B[:, None])
  place_N2 = tf.where(wanted_BK)
  text_N = _join(
    solved,
    tf.gather(pool_PF, tf.gather_nd(index_BK, place_N2)),
    tf.gather(row_template_B, place_N2[:, 0]),
  )
  text_BK = tf.tensor_scatter_nd_update(tf.fill(shape, ""), place_N2, text_N)
  length_BK = tf.tensor_scatter_nd_update(
    tf.fill(shape, budget + 1), place_N2, _lengths(encoder, text_N)
  )
  asked_B = _lengths(encoder, _join(query, query_BF, row_template_B))
  fits_BK = asked_B[:, None] + tf.cumsum(length_BK, axis=1) <= budget
  text_B = tf.strings.reduce_join(tf.where(fits_BK, text_BK, ""), axis=1)
  return text_B, tf.reduce_sum(tf.cast(fits_BK, tf.int32), axis=1)


def _key(task, fields_BF):
  """A hash of the fields that prompts show when they ask for the answer."""
  names = tuple(task.inputs)
  columns = [names.index(field) for field in forms.plain_fields(task)]
  text_B = tf.strings.reduce_join(
    tf.gather(fields_BF, columns, axis=1), axis=1, separator="\x1e"
  )
  return tf.strings.to_hash_bucket_fast(text_B, 2**62)


def _join(tables, fields_BF, row_template_B):
  t = template.tensors(tables)
  return template.join(
    t.input_text_TP, t.input_slot_TP, fields_BF, row_template_B
  )


def _lengths(encoder, text_B):
  tokens = trimming.encode_batch(encoder.vocabulary, text_B)
  return tf.cast(tokens.row_lengths(), tf.int32)


def pools(rows: tf.data.Dataset) -> tf.data.Dataset:
  """Endless pools of prepared training rows, each of `POOL` or more.

  A training split of fewer rows is one pool, again and again, so that no row
  is twice in one.
  """
  few = rows.ragged_batch(2 * POOL).take(1)
  # Of a split that one pool cannot hold, the rest that fills none is skipped.
  many = rows.skip(2 * POOL).ragged_batch(POOL, drop_remainder=True)
  return few.concatenate(many).repeat()
