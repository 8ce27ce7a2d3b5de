"""Defects of the published form that these tasks do not have: one test each.

Question answering, reading comprehension and coreference; the facts are
measured on the code released with Wei et al., 2022 (arXiv 2109.01652).
"""

import collections
import re

import pytest
import seqio
import tensorflow as tf

from flan_jax.data import (
  catalogue,
  evaluation,
  forms,
  mixtures,
  preprocessors,
  sources,
  splits,
)
from flan_jax.eval import metrics, protocol
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


# ---------------------------------------------------------------- coreference


@pytest.mark.parametrize(
  "name", ["winogrande", "wsc273", "definite_pronoun_resolution"]
)
def test_every_prompt_tells_what_to_choose_from(sample_data, name):
  for template in catalogue.get(name).templates:
    fields = set(template.input_fields)
    assert fields & {"options"} or fields >= {"option1", "option2"} or (
      fields >= {"first", "second"}
    ), template.inputs


def test_winogrande_is_what_tfds_serves(sample_data):
  source = catalogue.get("winogrande").source
  assert (source.version, source.paper_version) == ("1.2.0", "1.1.0")
  rows = {r["opening"].decode(): r for r in prepared("winogrande")}
  row = rows["The lamp in the hall was brighter than the candle, so we read by the"]
  assert sorted(row["choices"]) == [b"candle.", b"lamp."]


def test_wsc273_is_evaluated_alone_and_never_few_shot(sample_data):
  catalogue.register(made.BYTES)
  try:
    for split in splits.all_splits():
      assert "wsc273" not in split.train
    task = seqio.get_mixture_or_task("flan_wsc273")
    assert list(task.splits) == ["test"]
    assert "flan_wsc273_2_shot" not in seqio.TaskRegistry.names()
    mixture = seqio.get_mixture_or_task("flan_holdout_coreference_2_shot_eval")
    names = {t.name for t in mixture.tasks}
    assert "flan_winogrande_2_shot" in names
    assert not [n for n in names if "wsc273" in n]
    plain = mixtures.resolve("flan_holdout_coreference_eval")
    assert "flan_wsc273" in plain.present
  finally:
    catalogue.unregister()


def test_wsc273_splits_texts_at_characters():
  prepare = catalogue.get("wsc273").prepare
  text = "Zoë rief René, weil sie fror."
  start = text.index("sie")
  row = prepare({
    "text": tf.constant(text),
    "pronoun_text": tf.constant("sie"),
    "pronoun_start": tf.constant(start),
    "pronoun_end": tf.constant(start + 3),
    "option1_normalized": tf.constant("Zoë"),
    "option2_normalized": tf.constant("René"),
    "label": tf.constant(0),
  })
  assert row["opening"].numpy().decode() == "Zoë rief René, weil"
  readings = [t.decode() for t in row["readings"].numpy()]
  assert readings == ["Zoë fror.", "René fror."]


@pytest.mark.parametrize(
  ("index", "pronoun", "marked"),
  [
    (4, "they", "Owls eat voles, as *they* hunt them."),
    (6, "them", "Owls eat voles, as they hunt *them*."),
    (5, "they", "Owls eat voles, as they hunt them."),
    (90, "they", "Owls eat voles, as they hunt them."),
    (1, "eat voles", "Owls *eat voles*, as they hunt them."),
  ],
)
def test_wsc_marks_the_pronoun_that_is_meant(index, pronoun, marked):
  row = catalogue.get("wsc").prepare({
    "text": tf.constant("Owls eat voles, as they hunt them."),
    "span2_text": tf.constant(pronoun),
    "span2_index": tf.constant(index),
  })
  assert row["marked"].numpy().decode() == marked


# -------------------------------------------------- ReCoRD and conversations


def test_record_accepts_every_answer_and_trains_on_one_of_them(sample_data):
  rows = prepared("record") + prepared("record", "validation")
  assert [r for r in rows if len(r["references"]) > 1]
  for row in rows:
    names = row["choices"].tolist()
    accepted = [n for n in names if n in row["references"]]
    assert names[row["label"]] == accepted[0]
    assert b"@" not in row["passage"] + row["query"]
    assert b"___" in row["query"]
  assert perfect("record") == {"exact_match": 100.0, "f1": 100.0}


def test_record_ranks_with_any_number_of_names(sample_data):
  examples = rendered("record", "train", [0])
  assert {len(e.choices) for e in examples} == {4, 5}
  both = [e for e in examples if len(e.references) > 1]
  assert both
  for e in both:
    answer = protocol.Answer(
      e.index, 0, e.label, e.label, e.choices_text, e.references[-1],
      e.references,
    )
    result = protocol.summarise(catalogue.get("record"), [answer])
    assert result.main.scores == {0: 100.0}


def test_a_perfect_conversation_scores_100(sample_data):
  assert perfect("coqa") == {"exact_match": 100.0, "f1": 100.0}
  example = rendered("coqa", templates=[0])[0]
  lines = example.targets_text.split("\n")
  assert [line[:3] for line in lines] == [f"{n + 1}. " for n in range(len(lines))]


def test_answers_of_quac_are_as_good_as_people_s(sample_data):
  # A person's own answer is left out where people are scored, so that even it
  # has less than 100 of F1 among references that differ; HEQ counts it whole.
  scores = perfect("quac")
  assert scores["heq"] == 100.0
  assert 75.0 < scores["f1"] < 100.0
  rows = prepared("quac", "test")
  assert max(len(r["references"]) for r in rows) == 2
  for example in rendered("quac"):
    assert "CANNOTANSWER" not in example.inputs_text + example.targets_text
  assert "unanswerable" in {r["target"].decode() for r in rows}
