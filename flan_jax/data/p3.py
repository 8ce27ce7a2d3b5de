"""P3: T0's prompt pool as tasks and mixtures beside the catalogue's.

Names in seqio's registry:
  t0_<dataset>[_<subset>]_<prompt>   one prompt; what is no letter, digit, dot
                                     or `_` is `_`: t0_glue_mrpc_want_to_know
  t0_train, t0_plus_train, t0_plus_plus_train      T0, T0+ and T0++
  t0_p_1_train, t0_p_5_7_train, t0_p_8_03_train    prompts a dataset: the first
                                     of the original task, all of it, all
  t0_d_39_train, t0_d_49_train, t0_d_55_train      datasets: T0, T0+, T0++
  t0_eval, t0_plus_eval, t0_plus_plus_eval         what each has held out
  t0_flan_2022_train                 what FLAN 2022 has of them

Every prompt is a task of its published rate: the dataset's training rows, or
500,000 over all its prompts where there are more. Of the names above, only a
prompt's is a task, so `t0_` finds all of them in seqio's task registry.

The paper counts 39, 49 and 55 datasets; one of them (TyDi QA) has no prompt in
the release, so 38, 48 and 54 have.

Source: Sanh et al., 2022 (arXiv 2110.08207), sections 4 to 6, and the code
released with it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping

import seqio

from flan_jax.data import (
  p3_datasets,
  p3_prompts,
  p3_tasks,
  registry,
  template,
)
from flan_jax.data.collection import Collection
from flan_jax.data.p3_datasets import MIXTURES
from flan_jax.errors import UserError, check_known

# Mixtures that are another's prompts under the name that the ablations use.
SAME = {
  "t0_p_8_03_train": "t0_train",
  "t0_d_39_train": "t0_train",
  "t0_d_49_train": "t0_plus_train",
  "t0_d_55_train": "t0_plus_plus_train",
}

# A task and its rate.
Parts = list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class P3(Collection):
  """T0's prompts over the datasets that are here.

  >>> P3().register(vocabulary)  # doctest: +SKIP
  >>> mixtures.resolve("t0_train", "skip").present  # doctest: +SKIP
  ('t0_glue_mrpc_equivalent', ...)

  Attributes:
    prompts: PromptSource's folder; None: where launch/p3.sh puts it, else an
      installed package.
    data_dir: folder of Hugging Face datasets (`p3_sources.py` has its layout),
      for those that TFDS has not; None: only TFDS's.
    truncate: whether what a prompt prints is cut to 2,048 characters, as in T0.
    on_bad_row: "error" stops at a line that is no JSON object, "skip" leaves
      it out and counts it.
  """

  prompts: str | None = None
  data_dir: str | None = None
  truncate: bool = True
  on_bad_row: str = "error"

  def __post_init__(self):
    check_known("P3_ON_BAD_ROW", self.on_bad_row, p3_tasks.BAD_ROWS)
    if self.data_dir and not pathlib.Path(self.data_dir).expanduser().is_dir():
      raise UserError(
        f"P3_DATA_DIR {self.data_dir!r} is not a folder; give the root of"
        " <dataset>/<subset>/<split>.jsonl, or None for TFDS alone."
      )

  def sets(self) -> dict[str, p3_tasks.PromptSet]:
    """Every dataset of T0's list with its prompts, by name.

    Raises:
      UserError: PromptSource's files are not here, or not what they should be.
    """
    folder = p3_prompts.folder(self.prompts)
    root = None
    if self.data_dir:
      root = pathlib.Path(os.path.expanduser(self.data_dir))
    return {
      d.key: p3_tasks.PromptSet(
        d,
        p3_prompts.load(folder, d.dataset, d.subset),
        root,
        self.truncate,
        self.on_bad_row,
      )
      for d in p3_datasets.all_datasets()
    }

  def register(
    self,
    vocabulary: seqio.Vocabulary,
    *,
    wrapper: template.Wrapper = template.PLAIN,
  ) -> None:
    """Writes every prompt and mixture to seqio's registry.

    Raises:
      UserError: as `sets`, or another project has one of the names.
    """
    found = self.sets()
    unregister()
    for prompts in found.values():
      made = p3_tasks.seqio_tasks(prompts, vocabulary, wrapper)
      for task in made.values():
        _written.add(task)
    for name, parts in mixtures(found).items():
      _written.add(seqio.Mixture(name, parts))


_written = registry.Written("P3")


def unregister() -> None:
  """Removes what `P3.register` wrote from seqio's registry."""
  _written.clear()


def task_names(prompts: p3_tasks.PromptSet) -> list[str]:
  """The tasks of a dataset's prompts, by number."""
  part = prompts.dataset.round
  return [p3_prompts.task_name(p, part) for p in prompts.templates]


def mixtures(found: Mapping[str, p3_tasks.PromptSet]) -> dict[str, Parts]:
  """Every mixture: its tasks with their rates.

  Args:
    found: of `P3.sets`.
  """
  out: dict[str, Parts] = {}
  for mixture in MIXTURES:
    trained = [found[d.key] for d in p3_datasets.training(mixture)]
    out[f"{mixture}_train"] = _rated(trained, _all)
    held_out = [found[d.key] for d in p3_datasets.held_out(mixture)]
    out[f"{mixture}_eval"] = [
      (name, 1.0)
      for prompts in held_out
      for name, prompt in zip(
        task_names(prompts), prompts.templates, strict=True
      )
      if prompt.ranked
    ]
  trained = [found[d.key] for d in p3_datasets.training("t0")]
  out["t0_p_1_train"] = _rated(trained, _first)
  out["t0_p_5_7_train"] = _rated(trained, _original)
  flan = [found[d.key] for d in p3_datasets.flan_2022()]
  out["t0_flan_2022_train"] = _rated(flan, _all)
  return out | {name: list(out[other]) for name, other in SAME.items()}


def training_tasks(
  found: Mapping[str, p3_tasks.PromptSet], mixture: str = "t0"
) -> list[str]:
  """Names of the tasks that `t0`, `t0_plus` or `t0_plus_plus` trains on.

  Raises:
    UserError: another mixture's name.
  """
  check_known("mixture", mixture, MIXTURES)
  return [name for name, _ in mixtures(found)[f"{mixture}_train"]]


def _rated(sets: Iterable[p3_tasks.PromptSet], chosen) -> Parts:
  """Chosen prompts with their rates, which count all prompts of a dataset."""
  return [
    (name, float(prompts.dataset.rate(len(prompts.templates))))
    for prompts in sets
    for name, prompt in zip(task_names(prompts), prompts.templates, strict=True)
    if prompt in chosen(prompts.templates)
  ]


def _all(prompts):
  return prompts


def _original(prompts):
  return [p for p in prompts if p.original_task]


def _first(prompts):
  """The first by name of the original task; prompts come by name."""
  return _original(prompts)[:1]
