"""EvaluationSet: held-out rows, rendered, tokenised and batched once.

All tasks go through the same batches of a few shapes, so the number of
compilations does not grow with the number of tasks; and before and after
tuning it is the same rows in the same batches.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.data import (
  catalogue,
  collection,
  forms,
  options,
  spec,
  template,
)
from flan_jax.data import evaluation as evaluation_data
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import generation, protocol, rank_plan

SPLITS = ("validation", "test")
# None: choices are ranked, all else is generated.
ANSWER_BY = (None, "rank", "generate")
KINDS = ("encoder_decoder", "decoder_only")


@dataclasses.dataclass
class EvaluationSet:
  """Rendered, tokenised, batched examples of several tasks; see `prepare`.

  Attributes:
    tasks: in the order given.
    cluster_of: task name -> cluster.
    examples: split -> examples of all tasks and their scored templates.
    vocabulary: decodes generated answers.
    lengths: limits in tokens; of `inputs` with the begin id.
    batch_size: inputs per batch.
    kind: of the models that the inputs are for.
    end_ids: tokens that end a generated answer.
    answer_by: how tasks are answered, see `prepare`.
    options_shown: whether prompts list the options.
    unconditional: tokens of the prompt that calibrated scores are relative to,
      see `prepare`; None: there are no such scores.
  """

  tasks: tuple[spec.Task, ...]
  cluster_of: Mapping[str, str]
  examples: Mapping[str, list[evaluation_data.EvalExample]]
  vocabulary: Any
  lengths: Mapping[str, int]
  batch_size: int
  kind: str = "encoder_decoder"
  end_ids: tuple[int, ...] = (1,)
  answer_by: str | None = None
  options_shown: bool = True
  unconditional: np.ndarray | None = None
  _plans: dict[tuple[str, ...], tuple[rank_plan.Plan, generation.Plan]] = (
    dataclasses.field(default_factory=dict, repr=False)
  )

  @classmethod
  def prepare(
    cls,
    tasks: Iterable[spec.Task],
    *,
    vocabulary: Any,
    lengths: Mapping[str, int],
    batch_size: int,
    max_examples: int | None = None,
    splits: Sequence[str] = SPLITS,
    wrapper: template.Wrapper = template.PLAIN,
    cluster_of: Mapping[str, str] | None = None,
    form_of: Mapping[str, forms.Form] | None = None,
    kind: str = "encoder_decoder",
    answer_by: str | None = None,
    options_shown: bool = True,
  ) -> "EvaluationSet":
    """Reads and renders every task's rows with all its scored templates.

    The unconditional prompt of calibrated scores (`rank.py`) is what the
    wrapper leaves of a prompt without text: begin id, prefix and suffix, EOS;
    and EOS alone where that is nothing.

    Args:
      tasks: at least one, each prepared in the data folder.
      vocabulary: tokenises prompts and choices, decodes answers.
      lengths: `inputs` and `targets`, limits in tokens.
      batch_size: inputs per batch.
      max_examples: rows per task and split; None is all.
      splits: what to read: `validation`, `test` or both. A task without
        validation rows has none; the last split, which is reported, it must
        have.
      wrapper: text around each prompt, as in the training mixture.
      cluster_of: task name -> cluster; default: `tasks/clusters.py`.
      form_of: task name -> form (templates and exemplars), of tasks that are
        not evaluated with all ten templates.
      answer_by: None ranks the choices of tasks that have some and generates
        the answers of others; "rank" takes only tasks with choices;
        "generate" generates all answers and reads a choice from the text.
      options_shown: whether prompts list the options, as templates have it;
        False leaves them out of every prompt, exemplars included.
      kind: `kind` of the models to evaluate. The inputs of a decoder-only
        model begin with the vocabulary's begin id, where it has one; choices
        and answers go on from the inputs' last token.

    Raises:
      UserError: no task, a task given twice, an unknown split or kind, no
        rows; tasks that cannot be answered in that way; options that are not
        shown in any case.
    """
    tasks = tuple(tasks)
    names = [t.name for t in tasks]
    if not tasks or len(set(names)) != len(names):
      raise UserError(f"evaluation needs tasks, each once; got {names}.")
    if not splits or set(splits) - set(SPLITS):
      raise UserError(f"evaluation splits {splits}: use some of {SPLITS}.")
    if kind not in KINDS:
      raise UserError(f"kind {kind!r} of a model: use one of {KINDS}.")
    if cluster_of is None:
      cluster_of = _cluster_of(tasks)
    # A misspelt metric is said before a model has answered everything.
    for task in tasks:
      for metric in task.metrics:
        protocol.metric_of(task, metric)
    _check_answer_by(tasks, answer_by)
    if not options_shown:
      tasks = _without_options(tasks)
    begin = _begin(vocabulary, kind)
    examples: dict[str, list] = {}
    for split in splits:
      examples[split] = []
      for task in tasks:
        if split not in task.splits.names and split != splits[-1]:
          continue
        form = (form_of or {}).get(task.name, forms.PLAIN)
        rows = _examples_of(task)(
          split,
          vocabulary=vocabulary,
          lengths=lengths,
          templates=protocol.scored_templates(task, form),
          max_examples=max_examples,
          wrapper=wrapper,
          shots=form.shots,
        )
        if not rows:
          raise UserError(
            f"task {task.name!r}: split {split!r} has no row to evaluate;"
            " prepare a copy with more rows or leave the task out."
          )
        examples[split] += [_begun(example, begin) for example in rows]
    return cls(
      tasks,
      cluster_of,
      examples,
      vocabulary,
      {**lengths, "inputs": lengths["inputs"] + len(begin)},
      batch_size,
      kind,
      vocabulary_lib.end_ids(vocabulary),
      answer_by,
      options_shown,
      _unconditional(vocabulary, begin, wrapper),
    )

  @property
  def rows(self) -> dict[str, dict[str, int]]:
    """Distinct rows by task and split: `{"rte": {"test": 277}}`."""
    out: dict[str, dict[str, set]] = {}
    for split, examples in self.examples.items():
      for e in examples:
        out.setdefault(e.task, {}).setdefault(split, set()).add(e.index)
    return {
      task: {split: len(rows) for split, rows in by.items()}
      for task, by in out.items()
    }

  def plans(
    self, splits: Sequence[str]
  ) -> tuple[rank_plan.Plan, generation.Plan]:
    """Batches for `splits`, made on the first call."""
    splits = tuple(splits)
    if splits not in self._plans:
      free = {
        t.name
        for t in self.tasks
        if self.answer_by == "generate" or t.kind == "generation"
      }
      pool = [e for split in splits for e in self.examples[split]]
      size = {"batch_size": self.batch_size, "lengths": self.lengths}
      self._plans[splits] = (
        rank_plan.plan(
          [e for e in pool if e.task not in free],
          unconditional=self.unconditional,
          **size,
        ),
        generation.plan([e for e in pool if e.task in free], **size),
      )
    return self._plans[splits]


def _begin(vocabulary, kind: str) -> np.ndarray:
  """What stands before every input: one id or none."""
  begin_id = None
  if kind == "decoder_only":
    begin_id = vocabulary_lib.begin_id(vocabulary)
  return np.array([] if begin_id is None else [begin_id], np.int32)


def _begun(example: evaluation_data.EvalExample, begin: np.ndarray):
  inputs = np.concatenate([begin, example.inputs])
  return dataclasses.replace(example, inputs=inputs)


def _unconditional(vocabulary, begin, wrapper: template.Wrapper) -> np.ndarray:
  """The prompt without a question: what the wrapper leaves."""
  text = wrapper.prefix + wrapper.suffix
  ids = list(vocabulary_lib.encode_batch(vocabulary, [text])[0]) if text else []
  end = vocabulary_lib.end_ids(vocabulary)[:1]
  tokens = [*begin, *ids, *(end if wrapper.eos else ())]
  return np.array(tokens or end, np.int32)


def _check_answer_by(tasks, answer_by: str | None):
  if answer_by not in ANSWER_BY:
    raise UserError(
      f"ANSWER_BY is {answer_by!r}; write 'rank' or 'generate', or None for"
      " ranking where there are choices and generating elsewhere."
    )
  without = [t.name for t in tasks if t.kind == "generation"]
  if answer_by == "rank" and without:
    raise UserError(
      "ANSWER_BY is 'rank', but these tasks have no set of choices to rank:"
      f" {', '.join(without)}. They can be answered by generation: leave"
      " ANSWER_BY out, or set it to 'generate' for all tasks; or leave the"
      " tasks out of the mixture."
    )
  if answer_by == "generate" and len(without) == len(tasks):
    raise UserError(
      "ANSWER_BY='generate' has no effect: no task has choices to rank. Leave"
      " it out."
    )


def _without_options(tasks) -> tuple:
  """The tasks with prompts that show no options."""
  others = [t.name for t in tasks if not isinstance(t, spec.Task)]
  if others:
    raise UserError(
      "OPTIONS_SHOWN=False is for tasks of the catalogue, whose templates say"
      f" where options stand, not for {', '.join(others)}. Leave it out."
    )
  if not any(t.shows_options for task in tasks for t in task.templates):
    raise UserError(
      "OPTIONS_SHOWN=False has no effect: no template of"
      f" {', '.join(t.name for t in tasks)} shows options. Leave it out."
    )
  return tuple(options.hidden(task) for task in tasks)


def _examples_of(task):
  if isinstance(task, collection.CollectionTask):
    return task.evaluation_examples
  return functools.partial(evaluation_data.evaluation_examples, task)


def _cluster_of(tasks) -> dict[str, str]:
  named = {
    task: cluster
    for cluster, tasks in catalogue.clusters().items()
    for task in tasks
  }
  others = (t for t in tasks if isinstance(t, collection.CollectionTask))
  return named | {t.name: t.cluster for t in others}
