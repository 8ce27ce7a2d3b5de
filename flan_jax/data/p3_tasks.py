"""PromptSet: one dataset with its prompts, and each prompt as seqio's task.

A row that a prompt does not apply to (an `if` around it, no label, nothing
rendered) is left out under that prompt and counted. T0 taught the target
"<NO LABEL>" where a prompt had rendered to none.

Source: Sanh et al., 2022 (arXiv 2110.08207), sections 4 and 5.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jinja2
import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import (
  forms,
  p3_pipeline,
  p3_render,
  p3_sources,
  pipeline,
  sources,
  spec,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.collection import CollectionTask
from flan_jax.data.evaluation import EvalExample
from flan_jax.data.p3_datasets import Dataset
from flan_jax.data.p3_jinja import PromptError, RowError
from flan_jax.data.p3_prompts import Prompt, task_name
from flan_jax.errors import UserError

# Rows in which a prompt must apply once, and that are looked at for counts.
MOST_LOOKED_AT = 20_000

BAD_ROWS = ("error", "skip")
Numbered = tuple[int, p3_sources.Row | None]


class UnusablePromptError(sources.NotPreparedError):
  """A prompt that applies to none of the rows that are here."""

  def __init__(self, prompt: Prompt, split: str, rows: int, source):
    wanted = f"a copy with more rows than {source!r}"
    super().__init__(prompt.where, "", (), "", wanted)
    self.args = (
      f"{prompt.where} applies to none of the first {rows:,} rows of split"
      f" {split!r} in {source!r}. Give a copy with more rows, or leave the"
      " prompt out.",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class PromptSet(CollectionTask):
  """A dataset of T0's list with all its prompts; a prompt's number is its
  position by name.

  Attributes:
    dataset: its line in the table.
    templates: the prompts.
    data_dir: root of the folder of Hugging Face datasets, or None.
    truncate: whether what a prompt prints is cut to 2,048 characters.
    on_bad_row: "error" or "skip", for lines that are no JSON.
  """

  dataset: Dataset
  templates: tuple[Prompt, ...]
  data_dir: pathlib.Path | None = None
  truncate: bool = True
  on_bad_row: str = "error"

  kind = "classification"
  metrics = ("accuracy",)
  references = None
  # COPA's ask for a cause or for an effect.
  prompts_choose_rows = True

  @property
  def name(self) -> str:
    one = Prompt(self.dataset.dataset, self.dataset.subset, "", "")
    return task_name(one, self.dataset.round)

  @property
  def paper_name(self) -> str:
    return self.dataset.key

  @property
  def cluster(self) -> str:
    return self.dataset.group

  @property
  def family(self) -> str | None:
    return "anli" if self.dataset.dataset == "anli" else None

  @property
  def splits(self) -> spec.Splits:
    """For evaluation: T0 reports the split that it has labels for."""
    return spec.Splits(None, self.dataset.splits.test, train=None)

  @functools.cached_property
  def inner(self) -> sources.Source:
    return p3_sources.source(self.dataset, self.name, self.data_dir)

  def compiled(self, number: int) -> p3_render.Compiled:
    return p3_render.compiled(self.templates[number], truncate=self.truncate)

  def rows(self, split: str, most: int | None = None) -> Iterator[Numbered]:
    """Numbered rows with the prompts' fields; None for a skipped line."""
    rows = p3_sources.numbered_rows(
      self.inner, split, self.dataset, self.on_bad_row
    )
    return itertools.islice(rows, most)

  # ------------------------------------------------------ CollectionTask

  @functools.cache  # noqa: B019
  def fingerprint(self) -> str:
    parts = (
      dataclasses.replace(self.dataset, adapter=None),
      inspect.getsource(self.dataset.adapter),
      self.templates,
      self.truncate,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

  def texts(self) -> list[str]:
    out = []
    for prompt in self.templates:
      for text in filter(None, (prompt.jinja, prompt.answer_choices)):
        tree = p3_render.environment().parse(text)
        out += [t.data for t in tree.find_all(jinja2.nodes.TemplateData)]
    return [t.replace("|||", "").strip() for t in out if t.strip()]

  def scored_templates(self, form: forms.Form) -> tuple[int, ...]:
    """T0 evaluates prompts of the original task that have choices."""
    numbers = range(len(self.templates))
    if form is not forms.PLAIN:
      ranked = (n for n in form.templates if self.templates[n].answer_choices)
      return tuple(ranked)
    return tuple(n for n in numbers if self.templates[n].ranked)

  def count(
    self,
    task: seqio.Task,
    split: str,
    lengths: Mapping[str, int] | None = None,
  ) -> tuple[int, int, int, int]:
    del lengths  # what is too long is cut
    (number,) = task.flan_jax_form.templates
    return self._counts(split, sources.data_dir())[number]

  @functools.cache  # noqa: B019 (as many as there are datasets)
  def _counts(self, split: str, folder) -> list[tuple[int, int, int, int]]:
    del folder  # what is counted changes with it
    read, sums = 0, [[0, 0] for _ in self.templates]
    programs = list(map(self.compiled, range(len(sums))))
    for index, row in self.rows(split, MOST_LOOKED_AT):
      read += 1
      for program, kept in zip(programs, sums, strict=True):
        if row is None:
          kept[1] += 1
          continue
        try:
          program.render(row, (0, index))
        except p3_render.NotAppliedError:
          kept[0] += 1
        except RowError:
          kept[1] += 1
    return [(read, *kept, 0) for kept in sums]

  @functools.cache  # noqa: B019
  def usable(self, split: str, folder) -> tuple[frozenset[int], int]:
    """Numbers of the prompts that apply to a row, and rows looked at."""
    del folder
    pending, looked = set(range(len(self.templates))), 0
    for index, row in self.rows(split, MOST_LOOKED_AT):
      looked += 1
      for number in tuple(pending) if row is not None else ():
        try:
          self.compiled(number).render(row, (0, index))
          pending.remove(number)
        except RowError:
          pass
      if not pending:
        break
    return frozenset(range(len(self.templates))) - pending, looked

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
    """Rows under the prompts that are ranked, with T0's choices.

    A row is under the prompts that apply to it, as in T0's released tasks; one
    without a label is under none. `max_examples` counts each prompt's rows.
    What a prompt draws, it draws from the row's number.

    Raises:
      UserError: exemplars are asked for, no prompt is ranked, one cannot be
        filled from a row that others are filled from, or its target is no
        choice.
    """
    if shots:
      raise UserError(f"{self.name}: T0's prompts have no few-shot form.")
    if not templates:
      raise UserError(
        f"{self.name}: none of its prompts in the mixture has choices to rank."
      )
    drawn = []
    left = dict.fromkeys(templates, max_examples or math.inf)
    for index, row in self.rows(split):
      wanted = [number for number in templates if left[number]]
      if not wanted:
        break
      for number, rendered in self._under(index, row, wanted):
        left[number] -= 1
        drawn.append((index, number, rendered))
    return _examples(self.name, drawn, vocabulary, lengths, wrapper)

  def _under(self, index, row, templates):
    """(number, the row under that prompt) of the prompts that apply."""
    found, said = [], None
    for number in templates if row is not None else ():
      try:
        rendered = self.compiled(number).render(row, index)
      except p3_render.NotAppliedError:
        continue
      except RowError as e:
        said = e
        continue
      if rendered.label < 0:
        raise PromptError(
          f"{self.templates[number].where}: in row {index} the target"
          f" {rendered.targets!r} is none of {list(rendered.choices)}."
        )
      found.append((number, rendered))
    if found and said:
      raise PromptError(f"{said}, in row {index}; other prompts apply to it.")
    return found


class PromptSource(sources.Source):
  """The rows of a `PromptSet` for one of its prompts."""

  def __init__(self, task: str, prompts: PromptSet, number: int):
    self.prompts, self.number = prompts, number
    self._inner = prompts.inner
    super().__init__(task, self._inner._spec_splits)

  def __repr__(self):
    return repr(self._inner)

  def sizes(self) -> Mapping[str, int]:
    """As the source's.

    Raises:
      NotPreparedError: it is not there, or the prompt applies to none of the
        rows that are.
    """
    sizes = self._inner.sizes()
    split = self._spec_splits.names[0]
    found, looked = self.prompts.usable(split, sources.data_dir())
    if self.number not in found:
      prompt = self.prompts.templates[self.number]
      raise UnusablePromptError(prompt, split, looked, self._inner)
    return sizes

  def read(self, split: str, start: int, stop: int) -> tf.data.Dataset:
    return self._inner.read(split, start, stop)

  def fingerprint(self) -> str:
    return self._inner.fingerprint()


def seqio_tasks(
  prompts: PromptSet,
  vocabulary: seqio.Vocabulary,
  wrapper: template.Wrapper = template.PLAIN,
) -> dict[str, seqio.Task]:
  """Every prompt of a dataset as a task, by name; nothing is registered.

  Its examples have `inputs`, `targets` (int32), both as text
  (`*_pretokenized`), `template` (the prompt's number), `trimmed` and
  `example_index`.
  """
  features = {
    "inputs": seqio.Feature(vocabulary, add_eos=wrapper.eos),
    "targets": seqio.Feature(vocabulary),
  }
  out = {}
  for number, prompt in enumerate(prompts.templates):
    name = task_name(prompt, prompts.dataset.round)
    task = pipeline.RowTask(
      name,
      source=PromptSource(name, prompts, number),
      output_features=features,
      preprocessors=[
        seqio.CacheDatasetPlaceholder(required=False),
        p3_pipeline.render_rows(prompts, number, wrapper),
      ],
    )
    task.flan_jax_task = prompts
    task.flan_jax_form = forms.Form("", (number,))
    out[name] = task
  return out


def _examples(name, drawn, vocabulary, lengths, wrapper) -> list[EvalExample]:
  """`EvalExample`s of (row number, prompt number, rendered)."""
  encode = functools.partial(vocabulary_lib.encode_batch, vocabulary)
  eos, limits = [vocabulary.eos_id], lengths or {}
  start = [wrapper.prefix + r.inputs for _, _, r in drawn]
  whole = encode([text + wrapper.suffix for text in start])
  tail = encode([wrapper.suffix])[0] if wrapper.suffix else []
  choices = sorted({c for _, _, r in drawn for c in r.choices})
  ids_of = dict(zip(choices, encode(choices), strict=True))
  out = []
  for (index, number, r), text, ids in zip(drawn, start, whole, strict=True):
    if "inputs" in limits and len(ids) > limits["inputs"] - wrapper.eos:
      limit = limits["inputs"] - wrapper.eos - len(tail)
      ids = [*encode([text])[0][: max(limit, 0)], *tail]
    tokens = [np.array([*ids_of[c], *eos], np.int32) for c in r.choices]
    out.append(
      EvalExample(
        task=name,
        template=number,
        index=index,
        inputs=np.array([*ids, *eos] if wrapper.eos else ids, np.int32),
        inputs_text=text + wrapper.suffix,
        choices=tuple(tokens),
        choices_text=r.choices,
        label=r.label,
        targets=tokens[r.label],
        targets_text=r.targets,
        references=(r.targets,),
      )
    )
  return out
