"""Defects of the published form that these tasks do not have: one test each.

Inference, paraphrase, sentiment, and text from structured data; the facts are
measured on the code released with Wei et al., 2022 (arXiv 2109.01652).
"""

import dataclasses
import re

import pytest
import tensorflow_datasets as tfds

from flan_jax.data import catalogue, evaluation, options, sources, template
from flan_jax.eval import answers, protocol
from tests.data import made

NLI = catalogue.clusters()["natural_language_inference"]
# What each task's label means to TFDS, in our words.
SAID = {
  "entailment": ("Yes", "yes"),
  "not_entailment": ("no",),
  "contradiction": ("No", "no"),
  "neutral": ("It's impossible to say", "it is not possible to tell"),
}
# ANLI names its labels by letters, WNLI by the relation.
LETTERS = {"e": "entailment", "n": "neutral", "c": "contradiction"}


def examples(name, split="test", templates=None, **kwargs):
  task = catalogue.get(name)
  return evaluation.evaluation_examples(
    kwargs.pop("task", task),
    split,
    vocabulary=made.BYTES,
    lengths=None,
    templates=range(10) if templates is None else templates,
    **kwargs,
  )


def perfect(name, split="test"):
  """Scores by name of answers that are all right."""
  task = catalogue.get(name)
  given = [
    answers.Answer(
      e.index, 0, e.label, e.label, e.choices_text, e.targets_text, e.references
    )
    for e in examples(name, split, task.rankable_templates[:1])
  ]
  result = protocol.summarise(task, given)
  return {name: m.scores[0] for name, m in result.metrics.items()}


@pytest.mark.parametrize(
  "name", ["anli_r1", "anli_r2", "anli_r3", "cb", "rte"]
)
def test_no_line_ends_in_a_lost_backslash(name, sample_data):
  """Published templates 5 to 7 end the hypothesis in a stray "n"."""
  for example in examples(name):
    text = example.inputs_text + "\n" + example.targets_text
    assert not re.search(r"[.?!\"]n\n", text + "\n"), text


@pytest.mark.parametrize("name", NLI)
def test_choices_are_in_the_order_of_tfds_s_labels(name, tmp_path):
  """The published baseline of CB has two labels the wrong way round."""
  task = catalogue.get(name)
  features = tfds.builder(task.source.spec, data_dir=tmp_path).info.features
  names = [LETTERS.get(n, n) for n in features[task.label].names]
  if name == "rte" or name == "qnli" or name.startswith(("anli", "mnli")):
    assert names[0] == "entailment"
  assert len(names) == len(task.choices)
  for label, said in zip(names, task.choices, strict=True):
    assert said in SAID[label], (label, said)


def test_cb_s_f1_is_taken_over_labels(sample_data):
  """The published one compares texts, and is 0."""
  assert perfect("cb") == {"accuracy": 100.0, "mean_3class_f1": 100.0}


def test_stsb_is_scored_on_numbers(sample_data):
  """The published scoring compares texts with floats, and fails."""
  scores = perfect("stsb")
  assert set(scores) == {"pearson", "spearman"}
  assert all(s == pytest.approx(100.0) for s in scores.values())


def test_without_options_and_without_the_cue_are_two_things(sample_data):
  """The published tasks of both names are the same."""
  cue = template.FLAN_CUE
  hidden = options.hidden(catalogue.get("rte"))
  (shown,) = examples("rte", templates=[0], wrapper=cue, max_examples=1)
  (bare,) = examples(
    "rte", templates=[0], wrapper=cue, max_examples=1, task=hidden
  )
  (neither,) = examples("rte", templates=[0], max_examples=1, task=hidden)
  assert "OPTIONS:" in shown.inputs_text
  assert "OPTIONS:" not in bare.inputs_text
  assert bare.inputs_text.endswith(cue.suffix)
  assert bare.inputs_text == cue.prefix + neither.inputs_text + cue.suffix


# What stands before premise and hypothesis in SNLI's templates 0 to 7.
PLACES = (
  ("is described like this:", "true of the photo as well?"),
  ("Caption:", "Statement:"),
  ("nothing but the caption to go by:", "if the following is the case:"),
  ("of a scene about which we know only this:", ""),
  ("First person:", "Second person:"),
  ("Only its caption:", "Then is the following true?"),
  ("", "Given that, is this so?"),
  ("Scene:", "Claim:"),
)


@pytest.mark.parametrize(("number", "places"), list(enumerate(PLACES)))
def test_snli_asks_about_the_hypothesis(number, places):
  """Two published templates swap premise and hypothesis."""
  text = catalogue.get("snli").templates[number].inputs
  for field, before in zip(("premise", "hypothesis"), places, strict=True):
    assert text.count("{" + field + "}") == 1
    stands = text.partition("{" + field + "}")[0].strip()
    assert stands.endswith(before) if before else not stands


def test_snli_has_no_stray_full_stop(sample_data):
  """Three published templates put one before the question."""
  for example in examples("snli"):
    assert not re.search(r"\.\.|\s\.|[?!]\.", example.inputs_text)


def test_paws_says_what_can_be_answered():
  """Published template 9 does not."""
  for t in catalogue.get("paws").templates:
    asked = t.inputs.lower()
    yes_or_no = {"no", "yes"} <= set(re.findall(r"\w+", asked))
    assert t.shows_options or yes_or_no, t.inputs


def test_sentiment140_has_no_neutral_tweet_in_its_test_rows(sample_data):
  """They are labelled negative in the published form."""
  task = catalogue.get("sentiment140")
  polarity = {0: 0, 4: 1}
  rows = sources.source(task).get_dataset("test").as_numpy_iterator()
  read = {int(r["example_index"]): int(r["polarity"]) for r in rows}
  assert 2 in read.values()
  shown = {e.index: e.label for e in examples("sentiment140", templates=[0])}
  assert shown == {i: polarity[p] for i, p in read.items() if p != 2}


def test_e2e_templates_are_worded_for_what_they_ask():
  """Published template 5 is worded as the reverse and is not turned around.

  A prompt that asks for a text shows the attributes, the others the text.
  """
  shown = {"attributes", "attribute_lines"}
  turned = 0
  for t in catalogue.get("e2e_nlg").templates:
    assert bool(shown & set(t.input_fields)) != t.turned_around
    assert ("target" in t.input_fields) == t.turned_around
    # Only what is turned around tells how attributes are to be written.
    assert ('"attribute: value"' in t.inputs) == t.turned_around
    turned += t.turned_around
  assert turned == 2


@pytest.mark.parametrize("name", catalogue.load())
def test_at_most_three_of_ten_are_turned_around_and_none_is_ranked(name):
  """Up to four of the published ones are, and they are ranked all the same."""
  task = catalogue.get(name)
  turned = [i for i, t in enumerate(task.templates) if t.turned_around]
  assert len(turned) <= 3
  assert not set(turned) & set(task.rankable_templates)
  if task.choices:
    assert len(task.rankable_templates) == 10 - len(turned)


def test_a_template_is_drawn_for_each_example_anew():
  """Published templates follow the row's place in a batch of ten, and the last
  rows, which fill no batch, are dropped."""
  columns = made.rows(25)
  drawn = made.examples(made.nli(), columns, num_epochs=8)
  assert len(drawn) == 8 * 25
  for row in range(25):
    seen = {int(e["template"]) for e in drawn if e["example_index"] == row}
    assert len(seen) > 1


def test_gigaword_is_evaluated_on_all_of_its_test_rows(sample_data):
  """Masked digits and words leave training alone."""

  def masked(split):
    shown = examples("gigaword", split, [0])
    texts = [e.inputs_text + e.targets_text for e in shown]
    return sum(bool(re.search(r"#|\bUNK\b", t)) for t in texts), len(texts)

  source = sources.source(catalogue.get("gigaword"))
  assert masked("train")[0] == 0
  assert masked("train")[1] == source.rows("train") - 2
  for split in ("validation", "test"):
    some, count = masked(split)
    assert some > 0
    assert count == source.rows(split)


def test_the_last_row_of_a_dataset_is_asked_too():
  columns = made.rows(11)
  indexes = [int(e["example_index"]) for e in made.examples(made.nli(), columns)]
  assert indexes == list(range(11))


def test_a_template_that_repeats_another_is_refused():
  task = made.nli()
  with pytest.raises(ValueError, match="two templates are the same"):
    dataclasses.replace(task, templates=(task.templates[1], *task.templates[1:]))
