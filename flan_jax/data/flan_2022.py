"""FLAN 2022: five sub-mixtures at given shares, prompt types drawn by example.

`tasks/flan_2022.py` is the table. A job takes it as its TASK_COLLECTION:

  flan_2022_train                 all five
  flan_2022_<sub-mixture>_train   one of them: flan, cot, dialog, …
  flan_2022_no_cot_train          the paper's ablations: without chains of
  flan_2022_no_few_shot_train     thought, exemplars, inversions, or shares
  flan_2022_no_inversions_train   (every task at its own capped rate)
  flan_2022_no_balancing_train
  flan_2022_eval                  the tasks that the paper evaluates held-in

Its tasks are `flan_<task>_2022`, `flan_<task>_2022_no_few_shot` and
`flan_<task>_2022_no_inversions`.

Source: Longpre et al., 2023 (arXiv 2301.13688), sections 2 and 3.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterable, Mapping

import seqio

from flan_jax.data import (
  catalogue,
  forms,
  mixtures,
  pipeline,
  preprocessors,
  prompt_types,
  registry,
  sources,
  spec,
  submixtures,
  template,
)
from flan_jax.data.collection import Collection
from flan_jax.errors import UserError, check_known
from flan_jax.tasks import flan_2022 as table

NAME = "flan_2022"
SUFFIX = "2022"
# Variants of tasks; "" is the collection as it is.
VARIANTS = ("", "no_few_shot", "no_inversions")

_TYPES = {kind.name: kind for kind in prompt_types.ALL}
# More rows than any dataset has.
_ALL_ROWS = 10**9


@functools.cache
def load() -> dict[str, spec.Task]:
  """The tasks that are not in the catalogue: chains of thought and dialog.

  >>> load()["cot_gsm8k"].paper_name
  'GSM8K (chain of thought)'
  """
  out = {}
  for part in table.SUB_MIXTURES:
    for name in part.tasks if part.folder else ():
      module = importlib.import_module(f"flan_jax.tasks.{part.folder}.{name}")
      if module.TASK.name != name:
        raise spec.SpecError(
          f"tasks/{part.folder}/{name}.py: its TASK is called"
          f" {module.TASK.name!r}; a task has the name of its file."
        )
      out[name] = module.TASK
  return out


def tasks(part: table.SubMixture, cot_dir: str | None) -> list[spec.Task]:
  """A sub-mixture's tasks, with the rows that FLAN 2022 reads of them.

  Args:
    part: of `SUB_MIXTURES`.
    cot_dir: the folder of chain-of-thought files, or None.
  """
  known = catalogue.load() | load()
  return [_task(known[name], cot_dir) for name in part.tasks]


def _task(task: spec.Task, cot_dir: str | None) -> spec.Task:
  if isinstance(task.source, spec.Cot):
    source = dataclasses.replace(task.source, folder=cot_dir)
    return dataclasses.replace(task, source=source)
  if task.name in table.KEPT_SHORT:
    return task
  splits = dataclasses.replace(task.splits, max_train_examples=_ALL_ROWS)
  return dataclasses.replace(task, splits=splits)


def lines(
  part: table.SubMixture,
  task: spec.Task,
  variant: str = "",
  wrapper: template.Wrapper = template.PLAIN,
) -> tuple[prompt_types.Line, ...]:
  """The ways in which a sub-mixture asks for a task's answers.

  Args:
    part: of `SUB_MIXTURES`.
    task: one of its tasks.
    variant: of `VARIANTS`.
    wrapper: of the run.
  """
  types = [_TYPES[name] for name in part.prompt_types]
  if variant == "no_few_shot":
    types = [kind for kind in types if not kind.few_shot]
  inverted = 0.0 if variant == "no_inversions" else part.inverted
  return prompt_types.lines(task, types, inverted=inverted, wrapper=wrapper)


def seqio_task(
  part: table.SubMixture,
  task: spec.Task,
  vocabulary: seqio.Vocabulary,
  *,
  variant: str = "",
  wrapper: template.Wrapper = template.PLAIN,
) -> seqio.Task:
  """A task of the collection as seqio's, not registered.

  Its examples have what those of `catalogue.seqio_task` have, `prompt_type`
  and `shots`.
  """
  source = sources.source(task)
  name = catalogue.registered_name(task.name)
  out = pipeline.RowTask(
    "_".join(filter(None, (name, SUFFIX, variant))),
    source=source,
    output_features={
      "inputs": seqio.Feature(vocabulary, add_eos=wrapper.eos),
      "targets": seqio.Feature(vocabulary),
    },
    preprocessors=[
      preprocessors.prepare_rows(task),
      seqio.CacheDatasetPlaceholder(required=False),
      prompt_types.render_rows(
        task,
        lines(part, task, variant, wrapper),
        train=functools.partial(source.get_dataset, "train"),
      ),
    ],
  )
  out.flan_jax_task = task
  out.flan_jax_form = forms.PLAIN
  return out


@dataclasses.dataclass
class Flan2022(Collection):
  """The collection, for a run.

  Attributes:
    cot_dir: the folder of chain-of-thought files (`cot.py`); None: `cot` in
      the TFDS data directory.
    missing_submixtures: "error" refuses a mixture of which a sub-mixture is
      absent, "skip" goes on with the others at renormalised shares.
    others: sub-mixture -> the collection that registers its tasks (T0: P3).
  """

  cot_dir: str | None = None
  missing_submixtures: str = "error"
  others: Mapping[str, Collection] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_known(
      "MISSING_SUBMIXTURES", self.missing_submixtures, ("error", "skip")
    )
    for name in self.others:
      check_known("others", name, [part.name for part in table.SUB_MIXTURES])

  @property
  def sampled(self) -> Mapping[str, spec.Task]:
    return load()

  def register(
    self,
    vocabulary: seqio.Vocabulary,
    *,
    wrapper: template.Wrapper = template.PLAIN,
  ) -> None:
    """Writes tasks and mixtures to seqio's registry, in place of earlier ones.

    The catalogue's own are there already (`catalogue.register`).

    Raises:
      UserError: another project has one of the names; or one of `others`
        cannot be registered, and `missing_submixtures` is "error".
    """
    absent: dict[str, str] = {}
    for part, other in self.others.items():
      try:
        other.register(vocabulary, wrapper=wrapper)
      except UserError as e:
        if self.missing_submixtures == "error":
          raise
        absent[part] = str(e)
    unregister()
    made: dict[tuple[str, str], tuple[seqio.Task, ...]] = {}
    for part in table.SUB_MIXTURES:
      ours = tasks(part, self.cot_dir)
      for variant in VARIANTS:
        made[part.name, variant] = tuple(
          seqio_task(part, task, vocabulary, variant=variant, wrapper=wrapper)
          if not variant or _differs(part, variant)
          else plain
          for task, plain in zip(
            ours, made.get((part.name, ""), ours), strict=True
          )
        )
    written = {task.name: task for found in made.values() for task in found}
    for provider in (*written.values(), *self._mixtures(made, absent)):
      _written.add(provider)

  def _mixtures(self, made, absent) -> Iterable[seqio.Mixture]:
    def mixture(name, variant="", names=None, balanced=True):
      parts = tuple(
        submixtures.Part(
          part.name,
          part.share,
          made[part.name, variant],
          part.names,
          functools.partial(mixtures.rate, maximum=part.cap),
          absent.get(part.name, ""),
        )
        for part in table.SUB_MIXTURES
        if names is None or part.name in names
      )
      return submixtures.Submixtures(
        "_".join(filter(None, (NAME, name, "train"))),
        parts,
        balanced,
        self.missing_submixtures,
      )

    every = [part.name for part in table.SUB_MIXTURES]
    yield mixture("")
    yield mixture("no_cot", names=[n for n in every if n != "cot"])
    yield mixture("no_few_shot", "no_few_shot")
    yield mixture("no_inversions", "no_inversions")
    yield mixture("no_balancing", balanced=False)
    for part in table.SUB_MIXTURES:
      if part.tasks:  # others have a mixture of their own
        yield mixture(part.name, names=[part.name])
    yield seqio.Mixture(
      f"{NAME}_eval",
      [(catalogue.registered_name(t), mixtures.rate) for t in table.HELD_IN],
    )


def _differs(part: table.SubMixture, variant: str) -> bool:
  return variant == "no_few_shot" or part.inverted > 0


_written = registry.Written("FLAN 2022")


def unregister() -> None:
  """Removes what `Flan2022.register` wrote from seqio's registry."""
  _written.clear()
