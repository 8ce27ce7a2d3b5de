"""Splits: which tasks are trained on, and which are evaluated.

Held out is a cluster as a whole, and with it the clusters that ask nearly the
same (tasks/clusters.py, EXCLUDED_TOGETHER). Families (ANLI R1 to R3) lie in
one cluster and stay together in every split.

Sources: Wei et al., 2022 (arXiv 2109.01652), sections 2.2, 4.1, 4.2 and
appendix; where the paper does not say how a split was drawn (one task of each
cluster, tasks per cluster), the code released with it.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

import numpy as np

from flan_jax.errors import UserError
from flan_jax.tasks import clusters

Table = Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Split:
  """One pair of mixtures, `flan_<name>_train` and `flan_<name>_eval`.

  Attributes:
    name: `holdout_nli`, `all`.
    train: names of the tasks trained on.
    evaluation: names of the tasks evaluated on.
    left_out: clusters in neither, because they are too near the held-out one.
    leaks: tasks of other clusters in neither, because their rows were made
      from the held-out ones.
  """

  name: str
  train: tuple[str, ...]
  evaluation: tuple[str, ...]
  left_out: tuple[str, ...] = ()
  leaks: tuple[str, ...] = ()

  def mixture(self, which: str, form: str = "") -> str:
    """The name of a mixture of this split, in a form of `forms.FORMS`.

    >>> Split("all", (), ()).mixture("train", "templates_4")
    'flan_all_templates_4_train'
    """
    return "_".join(filter(None, ("flan", self.name, form, which)))


def excluded(cluster: str) -> frozenset[str]:
  """Clusters not trained on when `cluster` is held out, itself included.

  >>> sorted(excluded("paraphrase"))
  ['natural_language_inference', 'paraphrase']
  """
  pairs = clusters.EXCLUDED_TOGETHER
  return frozenset({cluster}.union(*(p for p in pairs if cluster in p)))


def hold_out(
  cluster: str, table: Table = clusters.CLUSTERS, *, strict: bool = False
) -> Split:
  """The split that holds out `cluster` of `table`.

  >>> hold_out("natural_language_inference").left_out
  ('paraphrase',)

  Args:
    cluster: a key of `table`, or its short name.
    table: cluster -> tasks.
    strict: leaves out too what tasks/clusters.py lists under LEAKS: tasks of
      other clusters whose rows were made from held-out ones.

  Raises:
    UserError: no such cluster; names the nearest.
  """
  cluster = full_name(cluster, table)
  out = excluded(cluster)
  leaks = [t for t in clusters.LEAKS.get(cluster, ()) if strict]
  train = [t for c, tasks in table.items() if c not in out for t in tasks]
  return Split(
    f"holdout_{short_name(cluster)}" + "_strict" * strict,
    trainable(t for t in train if t not in leaks),
    tuple(table[cluster]),
    tuple(c for c in table if c in out and c != cluster),
    tuple(t for t in train if t in leaks),
  )


def short_name(cluster: str) -> str:
  """What a cluster is called in a mixture's name.

  >>> short_name("natural_language_inference"), short_name("sentiment")
  ('nli', 'sentiment')
  """
  return clusters.SHORT_NAMES.get(cluster, cluster)


def full_name(cluster: str, table: Table = clusters.CLUSTERS) -> str:
  """The cluster with that name or short name.

  >>> full_name("nli")
  'natural_language_inference'

  Raises:
    UserError: there is none; names the nearest.
  """
  by_name = {name: c for c in table for name in (c, short_name(c))}
  if cluster not in by_name:
    near = difflib.get_close_matches(cluster, by_name, 1, 0.0)
    raise UserError(
      f"There is no cluster {cluster!r}; the nearest is {near[0]!r}, all are"
      f" {', '.join(table)}."
    )
  return by_name[cluster]


def trainable(tasks: Iterable[str]) -> tuple[str, ...]:
  """Without the tasks that have no training rows."""
  return tuple(t for t in tasks if t not in clusters.EVALUATION_ONLY)


def everything(table: Table = clusters.CLUSTERS) -> Split:
  """`all`: the paper's datasets, nothing held out."""
  tasks = [t for names in table.values() for t in names]
  return Split("all", trainable(tasks), tuple(tasks))


def with_extras() -> Split:
  """`all_with_extras`: the released code's further datasets too."""
  tasks = [
    t
    for table in (clusters.CLUSTERS, clusters.EXTRAS)
    for names in table.values()
    for t in names
  ]
  return Split("all_with_extras", trainable(tasks), tuple(tasks))


# The released code draws ten splits.
INTRA_SPLITS = 10


def intra_cluster(index: int, table: Table = clusters.CLUSTERS) -> Split:
  """One dataset of every cluster with more than one is held out.

  As in the released code, a cluster's datasets are put in an order drawn from
  the cluster's own position, and `index` counts through it; a family counts as
  one dataset and is held out whole.

  Args:
    index: 0 to 9.
    table: cluster -> tasks.
  """
  held: list[str] = []
  for number, tasks in enumerate(table.values()):
    groups = _groups(tasks)
    if len(groups) > 1:
      order = np.random.RandomState(number).permutation(len(groups))
      held += groups[order[index % len(groups)]]
  every = [t for tasks in table.values() for t in tasks]
  train = trainable(t for t in every if t not in held)
  return Split(f"intra_{index}", train, tuple(held))


def _groups(tasks: Iterable[str]) -> list[list[str]]:
  """Tasks, with those of a family in one group."""
  groups: dict[str, list[str]] = {}
  for task in tasks:
    groups.setdefault(clusters.FAMILY_OF.get(task, task), []).append(task)
  return list(groups.values())


def superglue(table: Table = clusters.CLUSTERS) -> Split:
  """SuperGLUE's eight datasets are held out, whatever their cluster.

  Siblings (MNLI beside RTE and CB) stay in training, as published.
  """
  every = [t for tasks in table.values() for t in tasks]
  train = trainable(t for t in every if t not in clusters.SUPERGLUE)
  return Split("superglue", train, clusters.SUPERGLUE)


def number_of_clusters(count: int) -> Split:
  """The first `count` training clusters of the paper's figure 6.

  NLI, commonsense and closed-book QA are evaluated. In the paper's order 11,
  20, 26, 30, 34, 37 and 39 tasks are trained on.

  Args:
    count: 1 to 7.

  Raises:
    UserError: another number.
  """
  if not 1 <= count <= len(clusters.ABLATION_TRAIN):
    raise UserError(
      f"{count} training clusters: the ablation has 1 to"
      f" {len(clusters.ABLATION_TRAIN)}."
    )
  named = list(clusters.ABLATION_TRAIN.values())[:count]
  return Split(
    f"clusters_{count}",
    tuple(t for tasks in named for t in tasks),
    _ablation_evaluation(),
  )


def tasks_per_cluster(count: int) -> Split:
  """The first `count` tasks of each of the ablation's seven clusters.

  Args:
    count: 1 to 4; the smallest cluster has two tasks.
  """
  train = [t for ts in clusters.ABLATION_TRAIN.values() for t in ts[:count]]
  return Split(
    f"tasks_per_cluster_{count}", tuple(train), _ablation_evaluation()
  )


def _ablation_evaluation() -> tuple[str, ...]:
  return tuple(t for c in clusters.ABLATION_EVAL for t in clusters.CLUSTERS[c])


def all_splits() -> tuple[Split, ...]:
  """Every split of the catalogue; their names are stable."""
  table = clusters.CLUSTERS
  return (
    everything(),
    with_extras(),
    *(hold_out(c) for c in table),
    *(hold_out(c, strict=True) for c in table),
    *(intra_cluster(i) for i in range(INTRA_SPLITS)),
    superglue(),
    *(number_of_clusters(n) for n in range(1, 8)),
    *(tasks_per_cluster(n) for n in range(1, 5)),
  )
