"""With the published sizes, rates and caps are the published ones.

Sizes are those of the datasets as published; only they are there, no data
(`schemas.py`). Wei et al., 2022 (arXiv 2109.01652), section 2.4: at most
30,000 training rows of a dataset, rates of at most 3,000.
"""

import csv

import pytest
import seqio

from flan_jax.data import catalogue, mixtures
from tests.data import made

# The tasks of fewer than 3,000 training rows. All others have the rate 3,000.
BELOW = {
  "arc_challenge": 910,
  "arc_easy": 2_040,
  "cb": 200,
  "copa": 350,
  "definite_pronoun_resolution": 1_120,
  "opinion_abstracts_idebate": 1_650,
  "rte": 2_290,
  "story_cloze": 1_670,
  "wnli": 600,
}
# 67 tasks with training rows: 58 x 3,000 and the nine above.
ALL = 184_830
# Without NLI (7 x 3,000, CB, RTE, WNLI) and paraphrase (4 x 3,000).
WITHOUT_NLI = 148_740

# What the released code calls tasks that have another name here.
THEIRS = {
  "ag_news_subset": "ag_news",
  "glue_mrpc": "mrpc",
  "glue_qqp": "qqp",
  "imdb_reviews": "imdb",
  "paws_wiki": "paws",
  "web_nlg_en": "web_nlg",
  "yelp_polarity_reviews": "yelp",
}
# In the paper's list and not in the released code.
PAPER_ALONE = {"para_crawl_ende", "para_crawl_enfr"}


@pytest.fixture(scope="module", autouse=True)
def _registered():
  catalogue.register(made.BYTES)
  yield
  catalogue.unregister()


def rates(mixture):
  """Our task -> its rate, before they are made to sum to 1."""
  mixture = seqio.get_mixture_or_task(mixture)
  return {
    catalogue.of_seqio(task).name: mixture.get_rate(task)
    for task in mixture.tasks
  }


@pytest.mark.parametrize(
  ("mixture", "count", "total"),
  [
    ("flan_all_train", 67, ALL),
    ("flan_holdout_nli_train", 53, WITHOUT_NLI),
  ],
)
def test_rates_of_a_training_mixture(mixture, count, total, made_up):
  got = rates(mixture)
  assert len(got) == count
  assert got == {name: BELOW.get(name, 3_000) for name in got}
  assert sum(got.values()) == total


def test_shares_of_a_resolved_mixture(made_up):
  resolved = mixtures.resolve("flan_holdout_nli_train")
  assert resolved.missing == ()
  assert sum(resolved.rates.values()) == pytest.approx(1)
  assert resolved.rates["flan_copa"] == pytest.approx(350 / WITHOUT_NLI)
  assert resolved.rates["flan_sst2"] == pytest.approx(3_000 / WITHOUT_NLI)
  rows = {name: r["train"] for name, r in resolved.rows.items()}
  assert max(rows.values()) == 30_000
  assert rows["flan_bool_q"] == 9_220


def test_rates_of_an_evaluation_mixture_have_no_maximum(made_up):
  got = rates("flan_holdout_nli_eval")
  assert len(got) == 10
  assert got["anli_r1"] == 16_940
  assert got["snli"] == got["qnli"] == 30_000
  assert got["cb"] == 200


def test_rates_are_those_of_the_facts(made_up, shared):
  path = shared / "facts" / "flan2021_datasets.csv"
  with path.open(newline="", encoding="utf-8") as f:
    table = {THEIRS.get(r["task"], r["task"]): r for r in csv.DictReader(f)}
  got = rates("flan_all_with_extras_train")
  assert set(got) - set(table) == PAPER_ALONE | {"lambada", "unified_qa_science"}
  # Evaluated alone; the code's en-fr pair and true_case are among the extras.
  assert set(table) - set(got) == {"wsc273"}
  for name in set(got) & set(table):
    task = catalogue.get(name)
    rows = seqio.get_mixture_or_task(f"flan_{name}").num_input_examples("train")
    assert rows == int(table[name]["train_examples"]), name
    assert got[name] == int(table[name]["mix_rate"]), name
    assert task.splits.max_train_examples == 30_000
