import pytest
from flan_jax.tasks import clusters

from flan_jax.data import catalogue, splits

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
  assert len(names) == 2 * (1 + len(clusters.CLUSTERS))


def test_no_task_is_trained_on_and_held_out():
  for split in splits.all_splits():
    if split.name != "all":
      assert not set(split.train) & set(split.evaluation)


def test_no_family_is_split():
  tasks = catalogue.load()
  for split in splits.all_splits():
    if split.name != "all":
      families = [
        {tasks[n].family for n in names if tasks[n].family}
        for names in (split.train, split.evaluation)
      ]
      assert not families[0] & families[1]


def test_tasks_for_evaluation_alone_are_not_trained_on(monkeypatch):
  monkeypatch.setattr(clusters, "EVALUATION_ONLY", ("mrpc",))
  whole, *held = splits.all_splits(TABLE)
  assert "mrpc" in whole.evaluation
  assert not [s.name for s in (whole, *held) if "mrpc" in s.train]
  assert splits.hold_out("paraphrase", TABLE).evaluation == ("mrpc",)
