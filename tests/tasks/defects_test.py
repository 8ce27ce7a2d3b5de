"""Defects of the published form that these tasks do not have: one test each.

Question answering, reading comprehension and coreference; the facts are
measured on the code released with Wei et al., 2022 (arXiv 2109.01652).
"""

import collections
import re

import pytest

from flan_jax.data import (
  catalogue,
  evaluation,
  forms,
  preprocessors,
  sources,
)
from flan_jax.eval import metrics
from tests.data import made


def prepared(name, split="train"):
  """The prepared rows of a split."""
  task = catalogue.get(name)
  rows = preprocessors.prepare_rows(task)(
    sources.source(task).get_dataset(split)
  )
  return list(rows.as_numpy_iterator())


def rendered(name, split="test", templates=range(10)):
  return evaluation.evaluation_examples(
    catalogue.get(name),
    split,
    vocabulary=made.BYTES,
    lengths=None,
    templates=templates,
  )


def perfect(name, split="test", template=0):
  """What the task's metrics give to answers that are all right."""
  rows = rendered(name, split, [template])
  texts = [e.targets_text for e in rows]
  out = {}
  for metric in catalogue.get(name).metrics:
    out |= metrics.get(metric).function(texts, [e.references for e in rows])
  return out


# -------------------------------------------------------------- closed-book QA


def test_natural_questions_end_in_one_question_mark(sample_data):
  for example in rendered("natural_questions"):
    texts = example.inputs_text + example.targets_text
    assert "?" in texts
    assert "??" not in texts


def test_trivia_qa_answers_are_as_they_are_written(sample_data):
  targets = {r["target"].decode() for r in prepared("trivia_qa")}
  assert {"Agatha Christie", "Bering Strait"} <= targets
  assert perfect("trivia_qa") == {"exact_match": 100.0, "f1": 100.0}


def test_trivia_qa_drops_what_has_no_answer():
  keep = catalogue.get("trivia_qa").keep
  assert not keep({"target": "<unk>"})
  assert keep({"target": "Firenze"})


@pytest.mark.parametrize("name", ["arc_challenge", "arc_easy"])
def test_arc_keeps_questions_with_any_number_of_choices(sample_data, name):
  read = sources.source(catalogue.get(name)).rows("train")
  rows = prepared(name) + prepared(name, "validation")
  assert len(prepared(name)) == read
  assert {len(r["choices"]) for r in rows} == {3, 4, 5}
  for example in rendered(name, templates=[0]):
    assert example.targets_text == example.choices_text[example.label]


# ------------------------------------------------------- reading comprehension


def test_bool_q_ends_in_one_question_mark(sample_data):
  for row in prepared("bool_q", "test"):
    assert re.fullmatch(rb"[^?]+\?", row["question"])


def test_drop_accepts_every_validated_answer(sample_data):
  rows = {r["question"]: r for r in prepared("drop", "test")}
  row = rows[b"How many yards was the longest touchdown pass?"]
  assert row["references"].tolist() == [b"71", b"71-yard"]
  assert perfect("drop") == {"exact_match": 100.0, "f1": 100.0}


def test_multirc_shows_the_response(sample_data):
  task = catalogue.get("multirc")
  for number in task.rankable_templates:
    assert "response" in task.templates[number].input_fields
  # Without a template too (the published baseline).
  assert "response" in forms.template(task, forms.NO_TEMPLATE).input_fields


def test_multirc_groups_the_answers_to_one_question(sample_data):
  groups = collections.defaultdict(set)
  for example in rendered("multirc", templates=[0]):
    groups[example.group].add(example.label)
  assert len(groups) == 6
  assert all(labels == {0, 1} for labels in groups.values())


def test_openbookqa_does_not_show_the_fact(sample_data):
  facts = {r["fact1"].decode() for r in prepared("openbookqa", "test")}
  assert len(facts) == 12
  for example in rendered("openbookqa"):
    assert not any(fact in example.inputs_text for fact in facts)


def test_squad_v2_asks_for_unanswerable_by_name(sample_data):
  for example in rendered("squad_v2"):
    assert "unanswerable" in example.inputs_text
  targets = [r["target"] for r in prepared("squad_v2", "test")]
  assert targets.count(b"unanswerable") == 4
  for name in ("squad_v1", "squad_v2"):
    assert perfect(name) == {"exact_match": 100.0, "f1": 100.0}
