"""Prompts as PromptSource keeps them: YAML files, read as data.

  templates/<dataset>/templates.yaml
  templates/<dataset>/<subset>/templates.yaml

The package `promptsource` 0.2.3 (Apache-2.0) holds 279 such files with 2,085
prompts; `launch/p3.sh` fetches it. It is never imported: its YAML is read by a
safe loader, and its two tags (`!Template`, `!TemplateMetadata`) become plain
values.

Source: Bach et al., 2022 (arXiv 2202.01279).
"""

import dataclasses
import functools
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping

import yaml

from flan_jax.errors import UserError, check_known

TAGS = ("!Template", "!TemplateMetadata")
FILE = "templates.yaml"

# Where `launch/p3.sh` puts the package.
DEFAULT_FOLDER = "prompts/promptsource"
FETCH = "bash launch/p3.sh"


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One prompt of one dataset.

  Attributes:
    dataset, subset: Hugging Face's names; subset None where there is none.
    name: unique in the dataset; white space at its end counts.
    jinja: the program, inputs and targets parted by `|||`.
    answer_choices: a program for the choices, parted by `|||`, or None.
    original_task: whether it asks what the dataset was made for.
    choices_in_prompt: whether the inputs list the choices; None: not said.
    metrics: as its author names them.
    identifier: PromptSource's own.
  """

  dataset: str
  subset: str | None
  name: str
  jinja: str
  answer_choices: str | None = None
  original_task: bool = False
  choices_in_prompt: bool | None = None
  metrics: tuple[str, ...] = ()
  identifier: str = ""

  @property
  def where(self) -> str:
    """How messages name it: `glue/mrpc, prompt 'replace'`."""
    return f"{dataset_name(self.dataset, self.subset)}, prompt {self.name!r}"

  @property
  def ranked(self) -> bool:
    """Whether T0 evaluates it: the original task, answered by choosing."""
    return bool(self.original_task and self.answer_choices)


def dataset_name(dataset: str, subset: str | None) -> str:
  """Name and subset as a path.

  >>> dataset_name("glue", "mrpc"), dataset_name("imdb", None)
  ('glue/mrpc', 'imdb')
  """
  return f"{dataset}/{subset}" if subset else dataset


def task_name(prompt: Prompt, round_: str = "") -> str:
  """What a prompt's task is called in seqio, as T0 names it, after `t0_`.

  All that is no letter, digit, dot or `_` becomes `_`; `round_` follows the
  dataset where it is read in parts (ANLI).

  >>> task_name(Prompt("imdb", None, "Sentiment with choices ", ""))
  't0_imdb_Sentiment_with_choices_'
  """
  parts = (prompt.dataset, prompt.subset, round_, prompt.name)
  return "t0_" + re.sub(r"[^\w.]+", "_", "_".join(filter(None, parts)))


# ------------------------------------------------------------------- folder


def folder(path: str | os.PathLike | None = None) -> pathlib.Path:
  """The folder `templates` of PromptSource.

  Args:
    path: it, the package's folder, or where the package was unpacked. None:
      `prompts/promptsource` here or above, else an installed package.

  Raises:
    UserError: there is none; says how to fetch it.
  """
  if path is not None:
    looked = [pathlib.Path(path).expanduser()]
  else:
    here = pathlib.Path.cwd()
    looked = [p / DEFAULT_FOLDER for p in (here, *here.parents)]
    # Finds the package's place; imports nothing of it.
    found = importlib.util.find_spec("promptsource")
    looked += (
      map(pathlib.Path, found.submodule_search_locations or ())
      if (found)
      else ()
    )
  for base in looked:
    for inner in ("templates", "promptsource/templates", ""):
      if any((base / inner).glob(f"*/{FILE}")):
        return base / inner
  raise UserError(
    f"PromptSource's prompts are not in {looked[0]}: no <dataset>/{FILE}"
    f" there. Fetch them with `{FETCH}` (package promptsource 0.2.3), or give"
    " P3_PROMPTS, the folder that holds them."
  )


def datasets(templates: pathlib.Path) -> dict[str, pathlib.Path]:
  """Every dataset's file by its name, `glue/mrpc`."""
  files = sorted(templates.rglob(FILE))
  return {f.parent.relative_to(templates).as_posix(): f for f in files}


def load(
  templates: pathlib.Path, dataset: str, subset: str | None = None
) -> tuple[Prompt, ...]:
  """The prompts of a dataset, by name.

  >>> [p.name for p in load(folder(), "glue", "mrpc")][:2]  # doctest: +SKIP
  ['equivalent', 'generate_paraphrase']

  Raises:
    UserError: no such dataset (the nearest is named), or what `read` raises.
  """
  name = dataset_name(dataset, subset)
  if not (templates / name / FILE).is_file():
    check_known("dataset", name, tuple(datasets(templates)))
  return read(templates / name / FILE, dataset, subset)


@functools.lru_cache(maxsize=512)
def read(
  file: pathlib.Path, dataset: str, subset: str | None = None
) -> tuple[Prompt, ...]:
  """The prompts of one file, by name.

  The names are given, since two files of the package call their subset "None".

  Raises:
    UserError: the file is not YAML of this kind: file, line, column, reason.
  """
  try:
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=_loader())
  except yaml.YAMLError as e:
    mark = getattr(e, "problem_mark", None)
    at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    why = getattr(e, "problem", None) or str(e)
    raise UserError(f"{file}{at}: {why}.") from None
  templates = content.get("templates") if isinstance(content, dict) else None
  if not isinstance(templates, dict):
    raise UserError(f"{file} has no `templates:`, prompts by their id.")
  found = [
    _prompt(file, dataset, subset, key, value)
    for key, value in templates.items()
  ]
  return tuple(sorted(found, key=lambda p: p.name))


def _prompt(file, dataset, subset, key, value) -> Prompt:
  def given(name, kinds, required=False):
    found = value.get(name)
    if found is None and not required:
      return None
    if not isinstance(found, kinds):
      raise UserError(
        f"{file}: prompt {key}: `{name}` is {found!r}; a"
        f" {kinds.__name__} is needed."
      )
    return found

  if not isinstance(value, dict):
    raise UserError(f"{file}: prompt {key} is {value!r}, not a !Template.")
  about = given("metadata", dict) or {}
  return Prompt(
    dataset=dataset,
    subset=subset,
    name=given("name", str, required=True),
    jinja=given("jinja", str, required=True),
    answer_choices=given("answer_choices", str),
    original_task=bool(about.get("original_task")),
    choices_in_prompt=about.get("choices_in_prompt"),
    metrics=tuple(about.get("metrics") or ()),
    identifier=str(key),
  )


@functools.cache
def _loader():
  """A safe loader that reads the two tags as plain tables."""
  base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
  loader = type("PromptLoader", (base,), {})

  def table(self, node) -> Mapping:
    # Deep: squad_v2 refers to metadata that stands elsewhere in the file.
    return self.construct_mapping(node, deep=True)

  for tag in TAGS:
    loader.add_constructor(tag, table)
  return loader
