"""Super-NaturalInstructions: tasks to train on and to test, from a checkout.

Names in seqio's registry:
  super_ni_train             the track's training tasks, a sample of each, as
                             one task: one pipeline reads them all
  super_ni_eval              its test tasks, the first 100 instances of each
  super_ni_<task>            one task, super_ni_task190_snli_classification
  super_ni_flan_2022_train   what FLAN 2022 has of them: all tasks but MMLU's,
                             with the definition alone, or with examples

Registering opens no task file; a file is read when its rows are asked for, and
what is used of it stays in memory.

Source: Wang et al., 2022 (arXiv 2204.07705), sections 4 and 5; for FLAN 2022,
Longpre et al., 2023 (arXiv 2301.13688) and the code released with it.
"""

import dataclasses
import pathlib
import re

import seqio

from flan_jax.data import (
  registry,
  super_ni_files,
  super_ni_prompts,
  super_ni_tasks,
  template,
)
from flan_jax.data.collection import Collection
from flan_jax.errors import UserError, check_known

TRAIN, EVAL = "super_ni_train", "super_ni_eval"
FLAN_2022 = "super_ni_flan_2022_train"
# A test task has its first instances, which the authors balanced.
TEST_INSTANCES = 100
# Half of FLAN 2022's prompts are zero-shot; of the others, half have an
# explained example. There, two exemplars are other instances; here, examples.
FLAN_2022_ENCODINGS = tuple(
  map(
    super_ni_prompts.encoding,
    ("def", "def", "def+pos1+explanation", "def+pos2"),
  )
)
# Tasks made of MMLU, on which FLAN 2022 is evaluated.
_MMLU = frozenset((*range(664, 668), *range(685, 738)))


@dataclasses.dataclass(frozen=True)
class SuperNI(Collection):
  """A checkout's tasks, for a run.

  >>> SuperNI("data/natural-instructions").register(
  ...   vocabulary)  # doctest: +SKIP
  >>> mixtures.resolve("super_ni_train").rows  # doctest: +SKIP
  {'super_ni_training_tasks': {'train': 75417, 'validation': 7570}}

  Attributes:
    folder: the checkout, with `tasks` and `splits`.
    track: "default" (English) or "xlingual".
    encoding: of training prompts: "mix" draws one of the five that
      Tk-Instruct had for each instance; else as `super_ni_prompts.encoding`.
    eval_encoding: of test prompts, which cannot be a mix.
    instances: of a training task, a sample of at most so many; None: all.
    flan_2022_instances: the same for FLAN 2022, which had all.
    seed: of the samples.
  """

  folder: str | None = None
  track: str = "default"
  encoding: str = "def+pos2"
  eval_encoding: str = "def+pos2"
  instances: int | None = 100
  flan_2022_instances: int | None = 1_000
  seed: int = 0

  def __post_init__(self):
    check_known("SUPER_NI_TRACK", self.track, super_ni_files.TRACKS)
    super_ni_prompts.encodings(self.encoding)
    super_ni_prompts.encoding(self.eval_encoding, "SUPER_NI_EVAL_ENCODING")
    for name, value in (
      ("SUPER_NI_INSTANCES", self.instances),
      ("SUPER_NI_FLAN_2022_INSTANCES", self.flan_2022_instances),
    ):
      if value is not None and value < 1:
        raise UserError(f"{name}={value}: write 1 or more, or None for all.")

  def checkout(self) -> super_ni_files.Checkout:
    """The files.

    Raises:
      UserError: the folder is not given or is not there.
    """
    if self.folder is None:
      raise UserError(
        "SUPER_NI_DIR is not set. Give the folder of a checkout of"
        " natural-instructions, which has tasks and splits in it:"
        " --gin.SUPER_NI_DIR=data/natural-instructions"
      )
    folder = pathlib.Path(self.folder).expanduser()
    if not folder.is_dir():
      raise UserError(
        f"SUPER_NI_DIR {self.folder!r} is not a folder; give that of a checkout"
        " of natural-instructions, which has tasks and splits in it."
      )
    return super_ni_files.Checkout(folder, self.track)

  def sets(self) -> dict[str, super_ni_tasks.TaskSet]:
    """Every set of tasks by its name in seqio's registry.

    Raises:
      UserError: the checkout is not whole; see `super_ni_files.Checkout`.
    """
    checkout = self.checkout()
    lists = checkout.check()
    how = super_ni_prompts.encodings(self.encoding)
    asked = (super_ni_prompts.encoding(self.eval_encoding),)

    def training(name, members, instances=self.instances, templates=how):
      return super_ni_tasks.TaskSet(
        name, checkout, members, False, instances, templates, self.seed
      )

    out = {
      "super_ni_training_tasks": training(
        "super_ni_training_tasks", lists["train"]
      ),
      "super_ni_flan_2022_tasks": training(
        "super_ni_flan_2022_tasks",
        tuple(n for n in checkout.files() if not _of_mmlu(n)),
        self.flan_2022_instances,
        FLAN_2022_ENCODINGS,
      ),
    }
    for name in lists["train"]:
      out[task_name(name)] = training(name, (name,))
    for name in lists["test"]:
      out[task_name(name)] = super_ni_tasks.TaskSet(
        name, checkout, (name,), True, TEST_INSTANCES, asked
      )
    return out

  def register(
    self,
    vocabulary: seqio.Vocabulary,
    *,
    wrapper: template.Wrapper = template.PLAIN,
  ) -> None:
    """Writes tasks and mixtures to seqio's registry, in place of earlier ones.

    Raises:
      UserError: as `sets`; or another project has one of the names.
    """
    found = self.sets()
    unregister()
    for name, tasks in found.items():
      _written.add(super_ni_tasks.seqio_task(name, tasks, vocabulary, wrapper))
    tests = [name for name, tasks in found.items() if tasks.testing]
    for mixture, members in (
      (TRAIN, ["super_ni_training_tasks"]),
      (EVAL, tests),
      (FLAN_2022, ["super_ni_flan_2022_tasks"]),
    ):
      parts = [(name, 1.0) for name in members]
      _written.add(seqio.Mixture(mixture, parts))


def task_name(name: str) -> str:
  """A task's name in seqio's registry.

  >>> task_name("task190_snli_classification")
  'super_ni_task190_snli_classification'
  """
  return "super_ni_" + re.sub(r"[^\w.]", "_", name)


def _of_mmlu(name: str) -> bool:
  number = re.match(r"task(\d+)_", name)
  return number is not None and int(number.group(1)) in _MMLU


_written = registry.Written("Super-NaturalInstructions")


def unregister() -> None:
  """Removes what `SuperNI.register` wrote from seqio's registry."""
  _written.clear()
