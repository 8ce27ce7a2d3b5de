"""TaskSet: tasks of Super-NaturalInstructions that one pipeline reads.

Hundreds of tasks to train on are one seqio task: its rows are numbers, and
`super_ni_pipeline.py` looks up what they stand for. No task file is opened
before rows are counted or read.

Source: Wang et al., 2022 (arXiv 2204.07705), sections 4 and 5.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  forms,
  sources,
  spec,
  super_ni_files,
  super_ni_pipeline,
  super_ni_prompts,
  template,
)
from flan_jax.data.collection import CollectionTask
from flan_jax.data.evaluation import EvalExample
from flan_jax.errors import UserError

# Rows that are looked at for counts.
MOST_LOOKED_AT = 20_000
# The paper has no validation rows; these are left out of training for the
# curve of the loss, and at most a tenth of a task's instances.
VALIDATION = 10


class Row(NamedTuple):
  """One instance with its task as the file has it."""

  task: Mapping[str, Any]
  input: str
  outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskSet(CollectionTask):
  """Tasks of a track, for training or for testing.

  Attributes:
    name: in tables and records.
    checkout: where the files are.
    members: names of the tasks.
    testing: whether it has the first instances as a test split; else it has a
      sample of each task to train on, and a few more for validation.
    instances: of a task, at most; None: all.
    templates: `super_ni_prompts.Encoding`s; one is drawn for each instance.
    seed: of the sample.
  """

  name: str
  checkout: super_ni_files.Checkout
  members: tuple[str, ...]
  testing: bool
  instances: int | None
  templates: tuple[super_ni_prompts.Encoding, ...]
  seed: int = 0

  kind = "generation"
  family = None
  references = "output"

  @property
  def paper_name(self) -> str:
    return self.name

  @property
  def metrics(self) -> tuple[str, ...]:
    english = self.checkout.track == "default"
    return ("super_ni" if english else "super_ni_characters",)

  @property
  def cluster(self) -> str:
    """The category of a single task."""
    if len(self.members) > 1:
      return "Super-NaturalInstructions"
    return self.read[0].value["Categories"][0]

  @property
  def splits(self) -> spec.Splits:
    if self.testing:
      return spec.Splits(None, "test", train=None)
    # Resolved by the source below, which has no test split.
    return spec.Splits("validation", None, max_train_examples=10**9)

  @functools.cached_property
  def read(self) -> tuple["_Read", ...]:
    """Every task of the set, its file read and cut to what is used.

    Raises:
      UserError: see `super_ni_files.read`.
    """
    return tuple(map(self._read, self.members))

  def _read(self, name: str) -> "_Read":
    value = super_ni_files.read(self.checkout.folder / "tasks", name)
    found = value.pop("Instances")
    if self.testing:
      return _Read(value, {"test": _rows(found[: self.instances])})
    order = random.Random(f"{self.seed}/{name}").sample(found, len(found))
    held = min(VALIDATION, len(order) // 10)
    most = len(order) if self.instances is None else self.instances
    parts = {
      "train": order[held : held + most],
      "validation": order[:held],
    }
    return _Read(value, {split: _rows(part) for split, part in parts.items()})

  @functools.cached_property
  def starts(self) -> dict[str, list[int]]:
    """For each split the number of each task's first row, and of all rows."""
    return {
      split: [0, *itertools.accumulate(len(r.rows[split]) for r in self.read)]
      for split in self.splits.names
    }

  def row(self, split: str, number: int) -> Row:
    starts = self.starts[split]
    at = bisect.bisect_right(starts, number) - 1
    one = self.read[at]
    return Row(one.value, *one.rows[split][number - starts[at]])

  def order(self, split: str) -> np.ndarray:
    """Numbers of a split's rows: tasks mixed to train on, else in order."""
    count = self.starts[split][-1]
    if self.testing:
      return np.arange(count)
    return np.random.RandomState(self.seed).permutation(count)

  # ------------------------------------------------------ CollectionTask

  def fingerprint(self) -> str:
    parts = (
      self.checkout.track,
      self.members,
      self.testing,
      self.instances,
      self.templates,
      self.seed,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

  def texts(self) -> list[str]:
    empty = {"input": "", "output": "", "explanation": "x"}
    return [
      super_ni_prompts.heading(""),
      super_ni_prompts.query(""),
      *(
        super_ni_prompts.example(kind, 1, empty, True)
        for kind in ("Positive", "Negative")
      ),
      *(one.value["Definition"] for one in self.read),
      *(
        super_ni_prompts.title(one.value["Name"])
        for one in self.read
        if any(how.name for how in self.templates)
      ),
    ]

  def scored_templates(self, form: forms.Form) -> tuple[int, ...]:
    del form  # a test task has one
    return tuple(range(len(self.templates)))

  def count(
    self,
    task: seqio.Task,
    split: str,
    lengths: Mapping[str, int] | None = None,
  ) -> tuple[int, int, int, int]:
    rows = [self.row(split, n) for n in self.order(split)[:MOST_LOOKED_AT]]
    writer = super_ni_pipeline.Writer(
      task.output_features["inputs"].vocabulary,
      task.flan_jax_wrapper,
      lengths or {},
    )
    too_long, batch = 0, super_ni_pipeline.BATCH
    for how in self.templates:
      bare = dataclasses.replace(how, positives=0, negatives=0)
      for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        parts = [super_ni_prompts.parts(r.task, r.input, bare) for r in part]
        too_long += writer.texts(parts).count(None)
    return len(rows), 0, 0, too_long

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
    """The first instances of a test task, with all their references.

    Raises:
      UserError: exemplars are asked for, or an instance is longer than the
        inputs even without examples; names task, instance and limit.
    """
    if shots:
      raise UserError(
        f"{self.name}: there is no few-shot form; SUPER_NI_EVAL_ENCODING says"
        " which examples are in a prompt."
      )
    writer = super_ni_pipeline.Writer(vocabulary, wrapper, lengths or {})
    count = self.starts[split][-1]
    rows = [self.row(split, n) for n in range(count)][:max_examples]
    out: dict[tuple[int, int], EvalExample] = {}
    for number in templates:
      how = self.templates[number]
      texts = writer.texts(
        [super_ni_prompts.parts(r.task, r.input, how) for r in rows]
      )
      if None in texts:
        raise UserError(
          f"{self.name}: instance {texts.index(None)} is longer than"
          f" TASK_FEATURE_LENGTHS['inputs'] = {writer.limit} without any"
          " example. Raise it; an instance is never cut."
        )
      targets = [r.outputs[0] for r in rows]
      inputs, wanted, _ = writer.tokens(texts, targets)
      for index, row in enumerate(rows):
        out[index, number] = EvalExample(
          task=self.name,
          template=number,
          index=index,
          inputs=np.array(inputs[index], np.int32),
          inputs_text=writer.around(texts[index]),
          choices=(),
          choices_text=(),
          label=-1,
          targets=np.array(wanted[index], np.int32),
          targets_text=row.outputs[0],
          references=row.outputs,
        )
    return [out[key] for key in sorted(out)]


class _Read(NamedTuple):
  value: Mapping[str, Any]
  rows: Mapping[str, list[tuple[str, tuple[str, ...]]]]


def _rows(instances) -> list[tuple[str, tuple[str, ...]]]:
  return [(one["input"], tuple(one["output"])) for one in instances]


class SuperNiSource(sources.Source):
  """Numbers of the rows of a `TaskSet`, in its order."""

  def __init__(self, task: str, tasks: TaskSet):
    self.tasks = tasks
    super().__init__(task, tasks.splits)

  def __repr__(self):
    folder = self.tasks.checkout.folder
    return f"SuperNiSource({folder}, {len(self.tasks.members)} tasks)"

  def sizes(self) -> Mapping[str, int]:
    return {split: s[-1] for split, s in self.tasks.starts.items()}

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    numbers = self.tasks.order(split)[start:stop]
    return tf.data.Dataset.from_tensor_slices({"row": numbers})

  def fingerprint(self) -> str:
    """Eight hex digits of the files' names and sizes."""
    paths = map(self.tasks.checkout.path, self.tasks.members)
    found = [(p.name, p.stat().st_size) for p in paths]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:8]


def seqio_task(
  name: str,
  tasks: TaskSet,
  vocabulary: seqio.Vocabulary,
  wrapper: template.Wrapper = template.PLAIN,
) -> seqio.Task:
  """The tasks as one of seqio's; nothing is registered or read.

  Its examples have `inputs`, `targets` (int32), both as text
  (`*_pretokenized`), `template` (which encoding was drawn), `trimmed` (tokens
  that the target lost) and `example_index`.
  """
  task = super_ni_pipeline.SuperNiTask(
    name,
    source=SuperNiSource(name, tasks),
    output_features={
      "inputs": seqio.Feature(vocabulary, add_eos=wrapper.eos),
      "targets": seqio.Feature(vocabulary),
    },
    preprocessors=[
      seqio.CacheDatasetPlaceholder(required=False),
      super_ni_pipeline.render_rows(tasks, wrapper),
    ],
  )
  task.flan_jax_task = tasks
  task.flan_jax_wrapper = wrapper
  task.flan_jax_form = forms.Form("", tuple(range(len(tasks.templates))))
  return task
