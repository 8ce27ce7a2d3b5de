"""The table of clusters is the paper's figure 3, families counted once."""

import pytest
from flan_jax.tasks import clusters

from flan_jax.data import catalogue

# Wei et al., 2022 (arXiv 2109.01652), figure 3.
PAPER = {
  "natural_language_inference": 7,
  "commonsense": 4,
  "sentiment": 4,
  "paraphrase": 4,
  "closed_book_qa": 3,
  "struct_to_text": 4,
  "translation": 8,
  "reading_comprehension": 5,
  "reading_comprehension_commonsense": 2,
  "coreference": 3,
  "misc": 7,
  "summarization": 11,
}


def datasets(cluster: str) -> set[str]:
  """The cluster's tasks, each family once."""
  tasks = (catalogue.get(name) for name in clusters.CLUSTERS[cluster])
  return {task.family or task.name for task in tasks}


def test_the_paper_s_62_datasets_in_12_clusters():
  assert set(clusters.CLUSTERS) == set(PAPER)
  counts = {cluster: len(datasets(cluster)) for cluster in clusters.CLUSTERS}
  assert counts == PAPER
  assert sum(counts.values()) == 62


def test_extras_are_in_no_cluster():
  for cluster, names in clusters.EXTRAS.items():
    assert cluster in clusters.CLUSTERS
    for name in names:
      assert name not in clusters.CLUSTERS[cluster]
      assert clusters.cluster_of(name) == cluster


@pytest.mark.parametrize("name", clusters.EVALUATION_ONLY)
def test_tasks_for_evaluation_alone_have_no_training_rows(name):
  assert catalogue.get(name).splits.names == ("test",)
