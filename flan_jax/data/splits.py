"""Hold-outs: which tasks are trained on when a cluster is evaluated.

Held out is a cluster as a whole, and with it the clusters that ask nearly the
same (tasks/clusters.py, EXCLUDED_TOGETHER). Families (ANLI R1 to R3) lie in
one cluster, so none is ever split.

Source: Wei et al., 2022 (arXiv 2109.01652), section 2.2, and for reading
comprehension with commonsense the code released with it.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from flan_jax.tasks import clusters


@dataclasses.dataclass(frozen=True)
class Split:
  """One pair of mixtures, `flan_<name>_train` and `flan_<name>_eval`.

  Attributes:
    name: `holdout_nli`, `all`.
    train: names of the tasks trained on.
    evaluation: names of the tasks evaluated on.
    left_out: clusters in neither, because they are too near the held-out one.
  """

  name: str
  train: tuple[str, ...]
  evaluation: tuple[str, ...]
  left_out: tuple[str, ...] = ()

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
  cluster: str, table: Mapping[str, tuple[str, ...]] = clusters.CLUSTERS
) -> Split:
  """The split that holds out `cluster` of `table`.

  >>> hold_out("natural_language_inference").left_out
  ('paraphrase',)
  """
  out = excluded(cluster)
  short = clusters.SHORT_NAMES.get(cluster, cluster)
  train = [t for c, tasks in table.items() if c not in out for t in tasks]
  return Split(
    f"holdout_{short}",
    _trained(train),
    tuple(table[cluster]),
    tuple(c for c in table if c in out and c != cluster),
  )


def all_splits(
  table: Mapping[str, tuple[str, ...]] = clusters.CLUSTERS,
) -> tuple[Split, ...]:
  """Every split: each cluster held out, and `all` (nothing held out)."""
  every = tuple(t for tasks in table.values() for t in tasks)
  whole = Split("all", _trained(every), every)
  return (whole, *(hold_out(c, table) for c in table))


def _trained(tasks: Iterable[str]) -> tuple[str, ...]:
  """Of `tasks` those that have training rows."""
  return tuple(t for t in tasks if t not in clusters.EVALUATION_ONLY)
