"""Instruction data as seqio's tasks: rows to train on, rows held out.

Rows are shuffled as numbers in the graph; Python looks a batch of them up,
renders and tokenises it. Conversations that do not fit are left out and counted
(`SftTask.count`).
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  features,
  forms,
  pipeline,
  row_checks,
  sft_examples,
  sources,
  spec,
  template,
)
from flan_jax.data.collection import CollectionTask
from flan_jax.data.evaluation import EvalExample
from flan_jax.data.sft_files import FileCounts
from flan_jax.data.sft_records import Record
from flan_jax.errors import UserError

BATCH = 64
# Rows held for shuffling; they are numbers.
SHUFFLE_ROWS = 100_000
# Rows that are looked at for counts.
MOST_LOOKED_AT = 100_000

_log = logging.getLogger(__name__)

# Split of ours -> its conversations.
Rows = Mapping[str, Sequence[Record]]


@dataclasses.dataclass(frozen=True, eq=False)
class SftTask(CollectionTask):
  """Conversations to train on, or held-out ones.

  Attributes:
    name: in tables and records.
    testing: whether it has the held-out rows as a test split; else it has rows
      to train on, and the held-out ones for validation.
    rows: called for the conversations of each split; reads the files.
    files: called for what became of their lines.
    maker: (vocabulary, lengths, inputs_eos) -> `sft_examples.Maker`.
    described: what decides the examples, but the data.
    split: what decides which rows are held out, but the data.
  """

  name: str
  testing: bool
  rows: Callable[[], Rows]
  files: Callable[[], Sequence[FileCounts]]
  maker: Callable[..., sft_examples.Maker]
  described: str
  split: str

  paper_name = "instruction data"
  cluster = "instruction data"
  kind = "generation"
  family = None
  metrics = ("rouge",)
  templates = ("conversation",)

  @property
  def splits(self) -> spec.Splits:
    if self.testing:
      return spec.Splits(None, "test", train=None)
    return spec.Splits("validation", None, max_train_examples=10**9)

  def fingerprint(self) -> str:
    return hashlib.sha256(self.described.encode()).hexdigest()[:12]

  def texts(self) -> list[str]:
    """What a format says around a conversation without words."""
    return []

  def scored_templates(self, form: forms.Form) -> tuple[int, ...]:
    del form  # there is one
    return (0,)

  def lines(self) -> list[dict[str, Any]]:
    """For each file: lines, how many were read, and why others were not."""
    return [dataclasses.asdict(one) for one in self.files()]

  def count(
    self,
    task: seqio.Task,
    split: str,
    lengths: Mapping[str, int] | None = None,
  ) -> tuple[int, int, int, int, int]:
    rows = self.rows()[split][:MOST_LOOKED_AT]
    maker = self.maker(
      task.output_features["targets"].vocabulary,
      lengths or {},
      task.flan_jax_wrapper.eos,
    )
    sums: collections.Counter[str] = collections.Counter()
    for start in range(0, len(rows), BATCH):
      found = maker.examples(rows[start : start + BATCH])
      sums.update(sft_examples.counted(found))
    reasons = (sums[name] for name in ("ended", "empty", "too_long", "turns"))
    return len(rows), *reasons

  def evaluation_examples(
    self,
    split: str,
    *,
    vocabulary: seqio.Vocabulary,
    lengths: Mapping[str, int] | None,
    templates: Sequence[int],
    max_examples: int | None,
    wrapper: template.Wrapper,
    shots: int,
  ) -> list[EvalExample]:
    """Held-out conversations, to be answered; the data's answer is expected.

    Those whose prompt does not fit are left out with a warning in the log.

    Raises:
      UserError: exemplars are asked for.
    """
    del templates
    if shots:
      raise UserError(f"{self.name}: there is no few-shot form.")
    maker = self.maker(vocabulary, lengths or {}, wrapper.eos)
    rows, out, long = self.rows()[split], [], 0
    for start in range(0, len(rows), BATCH):
      if max_examples is not None and len(out) >= max_examples:
        break
      part = rows[start : start + BATCH]
      for index, example in enumerate(maker.prompts(part), start):
        if isinstance(example, str):
          long += 1
          continue
        out.append(
          EvalExample(
            task=self.name,
            template=0,
            index=index,
            inputs=example.inputs,
            inputs_text=example.inputs_text,
            choices=(),
            choices_text=(),
            label=-1,
            targets=example.targets,
            targets_text=example.targets_text,
            references=(example.targets_text,),
          )
        )
    if long:
      _log.warning(
        "%s: the prompts of %d of the first %d rows are longer than"
        " TASK_FEATURE_LENGTHS['inputs'] = %s and are not evaluated.",
        self.name,
        long,
        min(start + BATCH, len(rows)),
        (lengths or {}).get("inputs"),
      )
    return out[:max_examples]


class SftSource(sources.Source):
  """Numbers of the conversations of a task."""

  def __init__(self, name: str, task: SftTask):
    self.sft = task
    super().__init__(name, task.splits)

  def __repr__(self):
    return f"SftSource({', '.join(c.file for c in self.sft.files())})"

  def sizes(self) -> Mapping[str, int]:
    rows = self.sft.rows()
    return {split: len(rows[split]) for split in self.sft.splits.names}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices({"row": np.arange(start, stop)})

  @functools.cached_property
  def _fingerprint(self) -> str:
    digest = hashlib.sha256()
    for one in self.sft.files():
      with open(one.file, "rb") as file:
        while block := file.read(1 << 20):
          digest.update(block)
    return digest.hexdigest()[:8]

  def fingerprint(self) -> str:
    """Eight hex digits of what the files hold."""
    return self._fingerprint


class SftSeqioTask(pipeline.RowTask):
  """A `RowTask` of rows that fit already, each as a whole."""

  def get_dataset(
    self, *args, shuffle_buffer_size=None, trim_output_features=True, **kwargs
  ):
    del trim_output_features  # inputs and targets share one limit
    return super().get_dataset(
      *args,
      shuffle_buffer_size=shuffle_buffer_size or SHUFFLE_ROWS,
      trim_output_features=False,
      **kwargs,
    )


def seqio_task(
  task: SftTask,
  vocabulary: seqio.Vocabulary,
  wrapper: template.Wrapper = template.PLAIN,
  *,
  weighted: bool = True,
) -> seqio.Task:
  """The task as one of seqio's; nothing is registered or read.

  Its examples have `inputs`, `targets` (int32), both as text
  (`*_pretokenized`), `example_index`, and if they are weighted (decoder-only)
  `targets_weights`, 1 for each target token that is in the loss.
  """
  made = SftSeqioTask(
    task.name,
    source=SftSource(task.name, task),
    output_features={
      "inputs": seqio.Feature(vocabulary, add_eos=False),
      "targets": seqio.Feature(vocabulary, add_eos=False),
    },
    preprocessors=[
      seqio.CacheDatasetPlaceholder(required=False),
      _render_rows(task, wrapper, weighted),
    ],
  )
  made.flan_jax_task = task
  made.flan_jax_wrapper = wrapper
  made.flan_jax_form = forms.Form("", (0,))
  # Kept where seqio mixes tasks (`mixtures.examples`).
  made.flan_jax_passthrough = (features.WEIGHTS,) if weighted else ()
  return made


def _render_rows(task: SftTask, wrapper: template.Wrapper, weighted: bool):
  def render(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
  ) -> tf.data.Dataset:
    vocabulary = output_features["targets"].vocabulary
    maker = task.maker(vocabulary, sequence_length or {}, wrapper.eos)

    def in_python(training, numbers, indices):
      split = "test"
      if not task.testing:
        split = "train" if training[0] else "validation"
      try:
        rows = task.rows()[split]
        return _columns(maker, [rows[n] for n in numbers], indices)
      except UserError as e:
        raise row_checks.for_graph(e) from None

    @tf.autograph.experimental.do_not_convert
    def batch(rows):
      found = tf.numpy_function(
        in_python,
        [rows[spec.TRAINING], rows["row"], rows[template.INDEX]],
        [tf.int32] * 3 + [tf.int64] * 2 + [tf.string] * 2 + [tf.int64],
      )
      for value in found:
        value.set_shape([None])
      ids, target_ids, weights, sizes, target_sizes, text, target, index = found
      ragged = tf.RaggedTensor.from_row_lengths
      return {
        "inputs": ragged(ids, sizes),
        "targets": ragged(target_ids, target_sizes),
        "inputs_pretokenized": text,
        "targets_pretokenized": target,
        template.INDEX: index,
        **(
          {features.WEIGHTS: ragged(weights, target_sizes)} if weighted else {}
        ),
      }

    return dataset.batch(BATCH).map(batch).unbatch()

  return render


def _columns(maker, records, indices):
  """Columns of a batch of examples; those that do not fit are left out."""
  pairs = zip(maker.examples(records), indices, strict=True)
  kept = [(e, index) for e, index in pairs if not isinstance(e, str)]
  examples = [e for e, _ in kept]

  def flat(arrays):
    return np.fromiter(itertools.chain.from_iterable(arrays), np.int32)

  def texts(values):
    return np.array([v.encode() for v in values], dtype=object)

  return (
    flat(e.inputs for e in examples),
    flat(e.targets for e in examples),
    flat(e.weights for e in examples),
    np.array([len(e.inputs) for e in examples], np.int64),
    np.array([len(e.targets) for e in examples], np.int64),
    texts([e.inputs_text for e in examples]),
    texts([e.targets_text for e in examples]),
    np.array([index for _, index in kept], np.int64),
  )
