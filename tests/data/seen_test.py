import pytest

from flan_jax.data import catalogue, mixtures, seen
from flan_jax.errors import UserError


@pytest.fixture
def registered(sample_data):
  catalogue.register()
  yield
  catalogue.unregister()


def trained(*names):
  return [{"train": {"tasks": {name: {}}}} for name in names]


def test_by_task_family_and_source(registered):
  evaluated = mixtures.resolve("flan_holdout_nli_eval", split="test")
  assert seen.seen([], evaluated) == {}
  assert seen.seen([{"train": {}}, {}], evaluated) == {}
  assert seen.seen(trained("flan_sst2", "flan_gone"), evaluated) == {}
  assert seen.seen(trained("flan_rte"), evaluated) == {
    "flan_rte": ["flan_rte"]
  }
  # Another form is the same dataset, and so are the other rounds of ANLI.
  found = seen.seen(
    trained("flan_rte_template_3", "flan_anli_r1", "flan_mnli_matched"),
    evaluated,
  )
  assert found["flan_rte"] == ["flan_rte_template_3"]
  assert {"flan_anli_r1", "flan_anli_r2", "flan_anli_r3"} <= set(found)
  assert found["flan_mnli_mismatched"] == ["flan_mnli_matched"]


def test_what_was_trained_on_is_refused_by_name():
  found = {"flan_rte": ["flan_rte"], "flan_cb": ["flan_cb_1_shot"]}
  with pytest.raises(UserError) as caught:
    seen.check(found, "flan_all_eval", allowed=False)
  message = str(caught.value)
  assert "flan_all_eval: the checkpoint was trained on 2 of" in message
  assert "flan_cb: by flan_cb_1_shot" in message
  assert "ALLOW_SEEN=True" in message
  seen.check(found, "flan_all_eval", allowed=True)
  seen.check({}, "flan_all_eval", allowed=False)
