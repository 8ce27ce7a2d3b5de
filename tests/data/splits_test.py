import itertools

import numpy as np
import pytest
from flan_jax.tasks import clusters

from flan_jax.data import catalogue, splits
from flan_jax.errors import UserError

TABLE = {
  "natural_language_inference": ("rte",),
  "paraphrase": ("mrpc",),
  "commonsense": ("piqa",),
  "reading_comprehension": ("bool_q",),
  "reading_comprehension_commonsense": ("cosmos_qa",),
  "sentiment": ("imdb",),
}


# As in the code released with Wei et al., 2022.
@pytest.mark.parametrize(
  ("held_out", "also_dropped"),
  [
    ("natural_language_inference", {"paraphrase"}),
    ("paraphrase", {"natural_language_inference"}),
    ("reading_comprehension", {"reading_comprehension_commonsense"}),
    ("commonsense", {"reading_comprehension_commonsense"}),
    (
      "reading_comprehension_commonsense",
      {"reading_comprehension", "commonsense"},
    ),
    ("sentiment", set()),
  ],
)
def test_exclusions_of_the_paper(held_out, also_dropped):
  split = splits.hold_out(held_out, TABLE)
  assert set(split.left_out) == also_dropped
  assert split.evaluation == TABLE[held_out]
  gone = {held_out} | also_dropped
  assert set(split.train) == {
    t for c, tasks in TABLE.items() if c not in gone for t in tasks
  }


def test_names():
  names = {s.mixture("train") for s in splits.all_splits()}
  names |= {s.mixture("eval") for s in splits.all_splits()}
  assert {
    "flan_holdout_nli_train",
    "flan_holdout_nli_eval",
    "flan_all_train",
    "flan_all_eval",
    "flan_holdout_sentiment_train",
  } <= names
  held_out = len(clusters.CLUSTERS)
  assert len(names) == 2 * (2 + 2 * held_out + splits.INTRA_SPLITS + 1 + 7 + 4)


def test_no_task_is_trained_on_and_held_out():
  for split in splits.all_splits():
    if split.name not in ("all", "all_with_extras"):
      assert not set(split.train) & set(split.evaluation)


def test_no_family_is_split():
  tasks = catalogue.load()
  for split in splits.all_splits():
    if split.name not in ("all", "all_with_extras"):
      families = [
        {tasks[n].family for n in names if tasks[n].family}
        for names in (split.train, split.evaluation)
      ]
      assert not families[0] & families[1]


def test_tasks_for_evaluation_alone_are_not_trained_on(monkeypatch):
  monkeypatch.setattr(clusters, "EVALUATION_ONLY", ("mrpc",))
  assert "mrpc" in splits.everything(TABLE).evaluation
  assert not [s.name for s in splits.all_splits() if "mrpc" in s.train]
  assert splits.hold_out("paraphrase", TABLE).evaluation == ("mrpc",)


def test_families_are_those_of_the_tasks():
  tasks = catalogue.load()
  for name, task in tasks.items():
    assert task.family == clusters.FAMILY_OF.get(name), name


@pytest.mark.parametrize("cluster", clusters.CLUSTERS)
def test_a_strict_split_drops_leaks_too(cluster):
  plain, strict = (splits.hold_out(cluster, strict=s) for s in (False, True))
  assert strict.mixture("train") == plain.mixture("train").replace(
    "_train", "_strict_train"
  )
  assert strict.evaluation == plain.evaluation
  assert strict.left_out == plain.left_out
  assert set(strict.leaks) == set(plain.train) - set(strict.train)
  assert set(strict.leaks) <= set(clusters.LEAKS.get(cluster, ()))
  assert not plain.leaks


def test_known_leaks():
  """Rows made from the rows of a held-out cluster."""
  reading = splits.hold_out(
    "reading_comprehension",
    {"reading_comprehension": ("bool_q",),
     "natural_language_inference": ("qnli", "rte")},
    strict=True,
  )
  assert reading.train == ("rte",)
  assert reading.leaks == ("qnli",)
  assert "wnli" in clusters.LEAKS["coreference"]


@pytest.mark.parametrize("index", range(splits.INTRA_SPLITS))
def test_one_dataset_of_every_cluster_is_held_out(index):
  split = splits.intra_cluster(index)
  groups = {clusters.FAMILY_OF.get(t, t) for t in split.evaluation}
  for tasks in clusters.CLUSTERS.values():
    own = {clusters.FAMILY_OF.get(t, t) for t in tasks}
    assert len(own & groups) == (len(own) > 1)
  held_out = {
    clusters.FAMILY_OF.get(t, t) for t in split.train
  } & groups
  assert not held_out
  everything = {t for tasks in clusters.CLUSTERS.values() for t in tasks}
  assert set(split.train) | set(split.evaluation) >= everything - set(
    clusters.EVALUATION_ONLY
  )


def test_intra_cluster_orders_are_numpy_s():
  """Order of cluster 1 with four datasets, from numpy's legacy generator."""
  table = {"first": ("a",), "second": ("b", "c", "d", "e")}
  held = [splits.intra_cluster(i, table).evaluation for i in range(5)]
  order = np.random.RandomState(1).permutation(4)
  names = [("b", "c", "d", "e")[i] for i in order]
  assert held == [(n,) for n in (*names, names[0])]


def test_a_misspelt_cluster_is_refused():
  with pytest.raises(UserError, match="no cluster 'sentimnet'.*'sentiment'"):
    splits.hold_out("sentimnet")
  assert splits.hold_out("nli") == splits.hold_out("natural_language_inference")


def test_extras_are_in_one_split_alone():
  """But for WSC, which SuperGLUE and the ablations name."""
  extras = {t for tasks in clusters.EXTRAS.values() for t in tasks} - {"wsc"}
  for split in splits.all_splits():
    there = extras & {*split.train, *split.evaluation}
    assert bool(there) == (split.name == "all_with_extras"), split.name


def test_superglue():
  split = splits.superglue()
  assert len(split.evaluation) == 8
  assert "mnli_matched" in split.train
  assert not set(split.train) & set(split.evaluation)


def test_number_of_clusters_has_the_papers_counts():
  ablation = [splits.number_of_clusters(n) for n in range(1, 8)]
  assert [len(s.train) for s in ablation] == [11, 20, 26, 30, 34, 37, 39]
  held_out = {
    t
    for c in ("natural_language_inference", "commonsense", "closed_book_qa")
    for t in clusters.CLUSTERS[c]
  }
  for fewer, more in itertools.pairwise(ablation):
    assert more.train[: len(fewer.train)] == fewer.train
    assert set(more.evaluation) == held_out
  with pytest.raises(UserError, match="8 training clusters: .* 1 to 7"):
    splits.number_of_clusters(8)


def test_tasks_per_cluster_has_the_released_codes_counts():
  counts = [len(splits.tasks_per_cluster(n).train) for n in range(1, 5)]
  assert counts == [7, 14, 20, 25]
