"""Task: one dataset, its ten instructions and its metrics, as one value.

A dataset file in `tasks/<cluster>/<dataset>.py` holds one `Task` literal and
nothing else that runs. Everything wrong with the literal is said here, when
it is constructed, with the task's name, the value and the way out; what only
the data can show (a label outside its range) is said by `data/template.py`.

Source: Wei et al., 2022 (arXiv 2109.01652), sections 2.1 to 2.3 and 3.
"""

import dataclasses
import difflib
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.data.slices import MAX_TRAIN_EXAMPLES as MAX_TRAIN_EXAMPLES
from flan_jax.data.slices import Rows as Rows
from flan_jax.data.slices import Splits
from flan_jax.data.slices import first as first
from flan_jax.data.slices import last as last
from flan_jax.errors import SpecError

# Wei et al., section 2.1 and 2.4: ten templates per dataset, "up to three"
# turned around, rates of at most 3k.
NUM_TEMPLATES = 10
MAX_TURNED_AROUND = 3
MAX_RATE = 3_000

# Fields a template may name besides the task's own inputs.
ANSWER, OPTIONS, TARGET = "answer", "options", "target"
# What a row that `keep` sees has beside its own features: a bool.
TRAINING = "is_training_row"
# The one of a task's inputs that shows the turns of a dialog.
DIALOG = "dialog"

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Tfds:
  """A TFDS dataset: `name` with its config, the version that TFDS serves.

  `paper_version` is what the paper pinned where TFDS no longer serves it.
  `manual` says which files have to be fetched by hand, "" that none has, where
  TFDS's own instructions (None: they are shown) do not say so.
  """

  name: str
  version: str
  paper_version: str | None = None
  manual: str | None = None

  @property
  def spec(self) -> str:
    """The name TFDS and seqio take, `super_glue/rte:1.0.2`."""
    return f"{self.name}:{self.version}"


def tfds(
  spec: str, *, paper_version: str | None = None, manual: str | None = None
) -> Tfds:
  """A TFDS source from `name[/config]:version`.

  >>> tfds("super_glue/rte:1.0.2").version
  '1.0.2'

  Raises:
    SpecError: the version is missing; seqio insists on one.
  """
  name, colon, version = spec.partition(":")
  if not colon or not re.fullmatch(r"\d+\.\d+\.\d+", version):
    raise SpecError(
      f"tfds({spec!r}) has no version: write name[/config]:X.Y.Z, the version"
      " that the installed TFDS serves."
    )
  return Tfds(name, version, paper_version, manual)


@dataclasses.dataclass(frozen=True)
class Jsonl:
  """JSON-lines files: a glob with `{split}` in it, one object a line."""

  pattern: str


@dataclasses.dataclass(frozen=True)
class Cot:
  """A chain-of-thought file of three columns (`cot.py`).

  Attributes:
    file: its name, `gsm8k_train.tsv`.
    folder: where it lies; None: `cot` in the TFDS data directory. Not a part
      of what the task is.
  """

  file: str
  folder: str | None = dataclasses.field(
    default=None, repr=False, compare=False
  )


@dataclasses.dataclass(frozen=True)
class Features:
  """Choices that differ from row to row: the features that hold them.

  Several names are one text each; one name is a sequence of texts.
  """

  names: tuple[str, ...]


def from_features(*names: str) -> Features:
  """Choices read from the row: `from_features("sol1", "sol2")`."""
  return Features(names)


@dataclasses.dataclass(frozen=True)
class Template:
  """One instruction: how inputs and targets read. `{name}` is a field."""

  inputs: str
  targets: str

  @property
  def input_fields(self) -> tuple[str, ...]:
    """Names in `inputs`, in order, repeated as written."""
    return tuple(_FIELD.findall(self.inputs))

  @property
  def target_fields(self) -> tuple[str, ...]:
    """Names in `targets`, in order, repeated as written."""
    return tuple(_FIELD.findall(self.targets))

  @property
  def turned_around(self) -> bool:
    """Whether the model is asked for the input instead of the answer."""
    return not {ANSWER, TARGET} & set(self.target_fields)

  @property
  def shows_options(self) -> bool:
    return OPTIONS in self.input_fields


@dataclasses.dataclass(frozen=True)
class Task:
  r"""A dataset turned into instructions.

  >>> Task(
  ...   name="rte",
  ...   paper_name="RTE",
  ...   source=tfds("super_glue/rte:1.0.2"),
  ...   splits=Splits(validation=last("train", 200), test="validation"),
  ...   inputs={"premise": "premise", "hypothesis": "hypothesis"},
  ...   choices=("yes", "no"),
  ...   label="label",
  ...   templates=(("{premise}\n\nIs it true that {hypothesis}\n\n{options}",
  ...               "{answer}"), ...),
  ...   metrics=("accuracy",),
  ... )  # doctest: +SKIP

  Attributes:
    name: the file's name, the task's name everywhere.
    paper_name: as the paper's tables print it.
    source: `tfds(...)`, `Jsonl(...)` or `Cot(...)`.
    splits: ours in terms of the source's.
    inputs: field of the templates -> feature of the (prepared) row.
    templates: ten (inputs, targets) pairs; at most three turned around.
    metrics: names of functions in `eval/metrics.py`.
    choices: answer texts in label order, or `from_features(...)`.
    label: feature with the index of the right choice.
    target: feature with a free-form target; exclusive with `choices`.
    references: feature with all accepted answers (a sequence of texts), for
      metrics; default: the target alone. With choices of the row, those that
      are accepted, where more than the one at `label` is right.
    group: feature (a text) that rows share which a metric takes together, and
      of which none is an exemplar of another: MultiRC's question.
    postprocess: name of a function in `eval/postprocess.py` that generated
      answers go through before metrics; default: white space at the ends goes.
    prepare: graph function of one row (a dict of tensors) to the row that the
      fields name; written above the task, with a before/after example.
    keep: graph function of one prepared row to a bool; rows for which it is
      false are dropped and counted. The row has `is_training_row` beside its
      own features: whether it is of our training split.
    inversions: further pairs that ask for an input, numbered from ten on;
      only the prompt types of FLAN 2022 draw them (`prompt_types.py`).
    turns: feature with the turns (a sequence of texts) of the dialog that the
      field `dialog` shows; FLAN 2022 lists them in drawn formats.
    family: tasks of one family (ANLI R1 to R3) count as one dataset in the
      paper and are held out together.
    plain: fields that make a prompt without any template, where others say
      the same in another way; default: all that templates show (`forms.py`).
    notes: one line for each deliberate difference from the published form.
  """

  name: str
  paper_name: str
  source: Tfds | Jsonl | Cot
  splits: Splits
  inputs: Mapping[str, str]
  templates: tuple[Template, ...]
  metrics: tuple[str, ...]
  choices: tuple[str, ...] | Features | None = None
  label: str | None = None
  target: str | None = None
  references: str | None = None
  group: str | None = None
  postprocess: str | None = None
  prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None
  keep: Callable[[dict[str, Any]], Any] | None = None
  inversions: tuple[Template, ...] = ()
  turns: str | None = None
  family: str | None = None
  plain: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    pairs = tuple(
      t if isinstance(t, Template) else self._pair(i, t)
      for i, t in enumerate(self.templates)
    )
    object.__setattr__(self, "templates", pairs)
    inverted = tuple(
      t if isinstance(t, Template) else self._pair(i, t)
      for i, t in enumerate(self.inversions, NUM_TEMPLATES)
    )
    object.__setattr__(self, "inversions", inverted)
    object.__setattr__(self, "inputs", dict(self.inputs))
    self._check_fields()
    for i, template in enumerate((*pairs, *inverted)):
      self._check_template(i, template)
    self._check_together()

  @property
  def fields(self) -> tuple[str, ...]:
    """Every field that a template of this task may name."""
    extra = (ANSWER, OPTIONS) if self.choices else (TARGET,)
    return tuple(self.inputs) + extra

  def rankable(self, template: int) -> bool:
    """Whether template `template` is answered by choosing: computed, from
    its target being the bare `{answer}`."""
    return self.templates[template].targets == "{" + ANSWER + "}"

  @property
  def rankable_templates(self) -> tuple[int, ...]:
    return tuple(i for i in range(NUM_TEMPLATES) if self.rankable(i))

  @property
  def kind(self) -> str:
    """`classification` (ranked over choices) or `generation`."""
    return "classification" if self.choices else "generation"

  def _fail(self, message: str):
    raise SpecError(f"task {self.name!r}: {message}")

  def _pair(self, index: int, value) -> Template:
    if (
      not isinstance(value, tuple)
      or len(value) != 2
      or not all(isinstance(v, str) for v in value)
    ):
      self._fail(
        f"template {index} is {value!r}; write a pair (inputs, targets) of"
        " texts."
      )
    return Template(*value)

  def _check_fields(self):
    if not _NAME.fullmatch(self.name):
      self._fail("a name is lower case letters, digits and _.")
    if not self.inputs:
      self._fail("inputs is empty; name at least one field.")
    for field in self.inputs:
      if field in (ANSWER, OPTIONS, TARGET) or not field.isidentifier():
        self._fail(f"inputs may not name a field {field!r}.")
    for field in self.plain:
      if field not in self.inputs:
        self._fail(
          f"plain names {field!r}, which is none of the fields"
          f" {', '.join(self.inputs)}."
        )
    if (self.choices is None) == (self.target is None):
      self._fail("give either choices (and label) or target, not both.")
    if self.choices is not None and self.label is None:
      self._fail("choices need label, the feature with the right one's index.")
    if self.choices is None and self.label is not None:
      self._fail(f"label {self.label!r} has no choices to point into.")
    if self.references and isinstance(self.choices, tuple):
      self._fail("references are for targets, or for choices of the row.")
    if isinstance(self.choices, tuple):
      if len(self.choices) < 2:
        self._fail(f"choices {self.choices!r}: at least two are needed.")
      if len(set(self.choices)) != len(self.choices):
        self._fail(f"choices {self.choices!r} repeat a text.")
      if not all(c and c == c.strip() for c in self.choices):
        self._fail(f"choices {self.choices!r}: empty or padded text.")
    if not self.metrics or not isinstance(self.metrics, tuple):
      self._fail("metrics is a tuple of at least one name.")

  def _check_template(self, index: int, template: Template):
    where = f"template {index}"
    for part in ("inputs", "targets"):
      text = getattr(template, part)
      if not text.strip() or text != text.strip():
        self._fail(f"{where}, {part}: empty, or padded with white space.")
      if "\\n" in text:
        self._fail(
          f"{where}, {part}: backslash-n is two characters here; write the"
          " escape \\n in a plain (not raw) string."
        )
      # `}n` before a line break is the lost backslash of nine published
      # FLAN prompts (facts: `}n\n` for `}\n\n`).
      if re.search(r"\}n(\n|$)", text):
        self._fail(f"{where}, {part}: '}}n' looks like a lost backslash.")
      try:
        parsed = [f for _, f, _, _ in string.Formatter().parse(text)]
      except ValueError as e:
        self._fail(f"{where}, {part}: {e} in {text!r}.")
      for field in parsed:
        if field is not None and field not in self.fields:
          near = difflib.get_close_matches(field, self.fields, 1, 0.0)
          self._fail(
            f"{where}, {part}: unknown field {{{field}}}; the nearest is"
            f" {{{near[0]}}}, known are {', '.join(self.fields)}."
          )
      if "{{" in text or "}}" in text:
        self._fail(f"{where}, {part}: literal braces are not supported.")
    if OPTIONS in template.target_fields:
      self._fail(f"{where}: {{options}} belongs in inputs, not in targets.")
    if not template.target_fields:
      self._fail(
        f"{where}: target {template.targets!r} names no field, so every"
        " example would have the same; use {"
        + (ANSWER if self.choices else TARGET)
        + "}."
      )
    if not template.turned_around:
      if {ANSWER, TARGET} & set(template.input_fields):
        self._fail(f"{where}: inputs show the answer that targets ask for.")
      inverted = index >= NUM_TEMPLATES
      if self.choices and not inverted and not self.rankable(index):
        self._fail(
          f"{where}: no choice matches target {template.targets!r}; a target"
          " with {answer} is exactly '{answer}', so that it can be ranked."
        )
    elif set(template.target_fields) & set(template.input_fields):
      self._fail(f"{where}: inputs show the field that targets ask for.")

  def _check_together(self):
    if len(self.templates) != NUM_TEMPLATES:
      self._fail(
        f"{len(self.templates)} templates; every task has {NUM_TEMPLATES}"
        " (Wei et al., section 2.1)."
      )
    every = (*self.templates, *self.inversions)
    if len(set(every)) != len(every):
      self._fail("two templates are the same.")
    for i, template in enumerate(self.inversions, NUM_TEMPLATES):
      if not set(template.target_fields) & set(self.inputs):
        self._fail(f"template {i} is an inversion and asks for no input.")
    if self.turns is not None and DIALOG not in self.inputs:
      self._fail(f"turns need a field {DIALOG!r} in inputs, which shows them.")
    turned = sum(t.turned_around for t in self.templates)
    if turned > MAX_TURNED_AROUND:
      self._fail(
        f"{turned} templates turned around; {MAX_TURNED_AROUND} at most."
      )
