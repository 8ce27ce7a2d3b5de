"""Files of natural-instructions: task files and lists of tasks by track.

A checkout holds `tasks/NAME.json` and, for each track, `splits/TRACK/` with
`train_tasks.txt`, `test_tasks.txt` and `excluded_tasks.txt`: a name a line.

Source: Wang et al., 2022 (arXiv 2204.07705), sections 3 and 5.
"""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import UserError, check_known

# English, and cross-lingual.
TRACKS = ("default", "xlingual")
LISTS = ("train", "test", "excluded")

# One task has two names.
_ZEST, _ATOMIC = (
  f"task121_{source}_question_rewriting" for source in ("zest", "atomic")
)
_RENAMED = {_ZEST: _ATOMIC, _ATOMIC: _ZEST}
_NEEDED = ("Definition", "Categories", "Positive Examples", "Instances")


@dataclasses.dataclass(frozen=True)
class Checkout:
  """A checkout and one of its tracks; nothing is read until it is asked for.

  Attributes:
    folder: with `tasks` and `splits`.
    track: of `TRACKS`.
  """

  folder: pathlib.Path
  track: str = "default"

  def __post_init__(self):
    check_known("SUPER_NI_TRACK", self.track, TRACKS)

  @property
  def splits(self) -> pathlib.Path:
    return self.folder / "splits" / self.track

  def listed(self, which: str) -> tuple[str, ...]:
    """The tasks of one of `LISTS`, each once; () of a list that may be empty.

    Raises:
      UserError: the list is not there, names no task, or names one twice.
    """
    path = self.splits / f"{which}_tasks.txt"
    try:
      names = tuple(path.read_text(encoding="utf-8").split())
    except OSError as e:
      if which == "excluded":  # nothing is read of these tasks
        return ()
      raise UserError(
        f"{self.folder} is no checkout of natural-instructions: {path} cannot"
        f" be read: {e.strerror}."
      ) from None
    except UnicodeDecodeError as e:
      raise UserError(
        f"{path}: byte {e.start} is not UTF-8; convert the file to UTF-8."
      ) from None
    if not names and which != "excluded":
      raise UserError(f"{path} names no task.")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
      raise UserError(f"{path} names {twice[0]} more than once; keep one line.")
    return names

  def files(self) -> tuple[str, ...]:
    """Names of all task files, in order; none is opened.

    Raises:
      UserError: there is no folder of tasks, or no file in it.
    """
    folder = self.folder / "tasks"
    found = sorted(p.stem for p in folder.glob("*.json"))
    if not found:
      raise UserError(
        f"{self.folder} is no checkout of natural-instructions: {folder} holds"
        " no *.json."
      )
    return tuple(found)

  def check(self) -> dict[str, tuple[str, ...]]:
    """The lists, once it is known that each task of theirs has a file.

    Raises:
      UserError: as `listed` and `files`; a listed task without a file, with
        the nearest name; a task to train on that is a test task too.
    """
    lists = {which: self.listed(which) for which in LISTS}
    files = set(self.files())
    for which in ("train", "test"):
      absent = [
        name
        for name in lists[which]
        if name not in files and _RENAMED.get(name) not in files
      ]
      if absent:
        near = difflib.get_close_matches(absent[0], files, 1, 0.0)[0]
        raise UserError(
          f"{self.splits / which}_tasks.txt names {absent[0]}, but there is no"
          f" {self.folder / 'tasks' / absent[0]}.json ({len(absent)} of"
          f" {len(lists[which])} tasks are absent; the nearest file is"
          f" {near}.json). Complete the checkout, or take the line out."
        )
    both = sorted(set(lists["train"]) & set(lists["test"]))
    if both:
      raise UserError(
        f"{self.splits}: {both[0]} is in train_tasks.txt and in test_tasks.txt;"
        " a test task is not trained on."
      )
    return lists

  def path(self, name: str) -> pathlib.Path:
    return path(self.folder / "tasks", name)


def path(folder: pathlib.Path, name: str) -> pathlib.Path:
  """The file of a task, which may have the task's other name."""
  paths = [folder / f"{n}.json" for n in (name, _RENAMED.get(name, name))]
  return next((p for p in paths if p.is_file()), paths[0])


def read(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """One task file, with what older files write otherwise made alike.

  `Definition` is then a text, `output` of an instance a list of texts, and
  `Name` the task's name.

  Args:
    folder: `tasks` of a checkout.
    name: of the task.

  Raises:
    UserError: the file is not there or is no JSON; Definition, Categories,
      examples or instances are lacking or empty; an instance or example
      without an input or output. Names file and place.
  """
  file = path(folder, name)
  try:
    value = json.loads(file.read_text(encoding="utf-8"))
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{file} cannot be read: {reason}.") from None
  lacks = [
    k for k in _NEEDED if not isinstance(value, dict) or not value.get(k)
  ]
  if lacks:
    raise UserError(f"{file}: there is no {', '.join(lacks)}, or it is empty.")
  definition = value["Definition"]
  if not isinstance(definition, str):
    definition = definition[0]
  if not isinstance(definition, str) or not definition.strip():
    raise UserError(f"{file}: there is no Definition, or it is empty.")
  instances = []
  for number, one in enumerate(value["Instances"]):
    outputs = _outputs(one)
    if not outputs:
      raise UserError(
        f"{file}, instance {number}: an input and at least one output are"
        f" needed, not {one!r}."
      )
    instances.append({"input": one["input"], "output": outputs})
  examples = {}
  for key in ("Positive Examples", "Negative Examples"):
    examples[key] = value.get(key) or []
    for number, one in enumerate(examples[key]):
      if not _outputs(one):
        raise UserError(
          f"{file}, {key}, number {number}: an input and an output are needed,"
          f" not {one!r}."
        )
  return {
    **value,
    **examples,
    "Name": name,
    "Definition": definition,
    "Instances": instances,
  }


def _outputs(one: Any) -> list[str]:
  """The outputs of an instance or example; [] where it is not as published."""
  if not isinstance(one, Mapping) or not isinstance(one.get("input"), str):
    return []
  output = one.get("output")
  outputs = [output] if isinstance(output, str) else output
  whole = isinstance(outputs, list) and all(isinstance(o, str) for o in outputs)
  return outputs if whole else []
