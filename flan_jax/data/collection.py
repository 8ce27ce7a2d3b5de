"""Collection: tasks that are not files of the catalogue, and how they join in.

The catalogue's tasks are `spec.Task`s: ten templates each, rendered in the
graph. Other recipes have prompts of another kind (T0's are Jinja programs).
Such a recipe is a `Collection`, which registers its tasks with seqio for a
run's vocabulary, and each of these carries a `CollectionTask`, which answers
what jobs ask of a task: what identifies it, what of its rows is used, and
its evaluation examples.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import seqio

from flan_jax.data import catalogue, forms, spec, template
from flan_jax.data.evaluation import EvalExample


class CollectionTask(abc.ABC):
  """One dataset of a collection with all its prompts.

  Attributes:
    name: unlike any name in the catalogue.
    paper_name: as tables print it.
    cluster: the heading under which results are shown.
    family: datasets of one family count as one in `family_mean`.
    kind: "classification" (ranked over choices) or "generation".
    metrics: names of functions in `eval/metrics.py`.
    templates: its prompts; their positions are their numbers.
    references: whether several answers are accepted; None or a name.
    splits: ours in terms of the source's.
    prompts_choose_rows: whether a prompt may apply to some rows alone; else
      every prompt is evaluated on the same ones.
    split: what decides which rows are held out; "" where the source has splits
      of its own.
  """

  name: str
  paper_name: str
  cluster: str
  family: str | None
  kind: str
  metrics: tuple[str, ...]
  templates: tuple
  references: str | None = None
  splits: spec.Splits
  prompts_choose_rows: bool = False
  split: str = ""

  @abc.abstractmethod
  def fingerprint(self) -> str:
    """A short hash of all that decides its examples, but the data."""

  @abc.abstractmethod
  def texts(self) -> list[str]:
    """What the prompts say themselves (for `check_representable`)."""

  @abc.abstractmethod
  def scored_templates(self, form: forms.Form) -> tuple[int, ...]:
    """Numbers of the prompts of a form that are evaluated; those of
    `forms.PLAIN` are all that can be."""

  @abc.abstractmethod
  def count(
    self,
    task: seqio.Task,
    split: str,
    lengths: Mapping[str, int] | None = None,
  ) -> tuple[int, ...]:
    """Rows read, not kept, incomplete and too long (`counts.Counts`) of
    one of its seqio tasks; and turns, where rows have some."""

  def lines(self) -> list[dict[str, Any]]:
    """What became of the lines of its files (`sft_files.FileCounts`)."""
    return []

  @abc.abstractmethod
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
    """Rows of `split` under each of `templates`; row by row."""


class Collection(abc.ABC):
  """Tasks and mixtures that a job registers beside the catalogue's."""

  @property
  def sampled(self) -> Mapping[str, spec.Task]:
    """Its tasks of which the package holds sample rows, by name."""
    return {}

  @property
  def own_files(self) -> str:
    """The files that all its rows are from, where these are no datasets."""
    return ""

  @property
  def data_paths(self) -> tuple[str, ...]:
    """These files' paths, beside which a curation run's manifest may lie."""
    return ()

  def for_model(self, kind: str) -> "Collection":
    """The same for a kind of model, where that decides its examples."""
    del kind
    return self

  @abc.abstractmethod
  def register(
    self,
    vocabulary: seqio.Vocabulary,
    *,
    wrapper: template.Wrapper = template.PLAIN,
  ) -> None:
    """Writes them to seqio's registry, in place of what it wrote before."""


def register(
  collection: Collection | None,
  vocabulary: seqio.Vocabulary | str | None = None,
  *,
  wrapper: template.Wrapper = template.PLAIN,
  train_examples: int | None = None,
  kind: str | None = None,
) -> Collection | None:
  """Registers the catalogue, and a collection beside it.

      register(flan_2022.Flan2022(missing_submixtures="skip"))

  Args:
    collection: None is the catalogue alone.
    vocabulary: as `catalogue.register` takes it.
    wrapper: what surrounds every prompt.
    train_examples: as `catalogue.register` takes it.
    kind: of the model that reads the examples; None: of any.

  Returns:
    The collection as it was registered, for this kind of model.

  Raises:
    UserError: as either raises it.
  """
  catalogue.register(vocabulary, wrapper=wrapper, train_examples=train_examples)
  if collection is None:
    return None
  if kind is not None:
    collection = collection.for_model(kind)
  collection.register(catalogue.vocabulary(), wrapper=wrapper)
  return collection


def known(collection: Collection | None) -> dict[str, spec.Task]:
  """The tasks of which the package holds sample rows, the catalogue's too."""
  ours = {} if collection is None else collection.sampled
  return {**catalogue.load(), **ours}


def data_paths(collection: Collection | None) -> tuple[str, ...]:
  """Its `data_paths`; () without a collection."""
  return () if collection is None else collection.data_paths
