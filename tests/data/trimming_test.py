import numpy as np
import pytest
import seqio

from flan_jax.data import template, trimming, vocabulary
from flan_jax.errors import UserError
from tests.data import made


def run(task, columns, lengths, vocabulary=None, wrapper=template.FLAN_CUE):
  """All examples over 60 epochs, so that every template is drawn."""
  made_task = made.seqio_task(task, columns, vocabulary, wrapper)
  dataset = made_task.get_dataset(
    lengths, split="train", shuffle=False, seed=3, num_epochs=60
  )
  return list(dataset.as_numpy_iterator())


def text(example):
  return example["inputs_pretokenized"].decode()


LONG = {
  "premise": ["p" + " word" * 60, "one two three", "p " + "tiny " * 20],
  "hypothesis": ["the end", "h" + " other" * 50, "h " + "huge " * 20],
  "label": [0, 1, 0],
}


@pytest.mark.parametrize("name", ["bytes", "flan_jax"])
def test_rest_of_the_prompt_is_never_cut(name):
  words = (
    made.BYTES if name == "bytes" else vocabulary.load("flan_jax")
  )
  lengths = {"inputs": 150 if name == "bytes" else 70, "targets": 30}
  task = made.nli()
  for e in run(task, LONG, lengths, words):
    row = {k: v[int(e["example_index"])] for k, v in LONG.items()}
    chosen = task.templates[int(e["template"])]
    got = text(e)
    assert len(e["inputs"]) <= lengths["inputs"]
    assert len(e["targets"]) <= lengths["targets"]
    assert e["inputs"][-1] == e["targets"][-1] == 1
    assert list(e["inputs"][:-1]) == list(words.encode(got))
    # The prompt is the template over prefixes of the fields.
    answer = task.choices[row["label"]]
    pattern = ("0 " + chosen.inputs + " X 1 FLAN").replace("{answer}", answer)
    pattern = pattern.replace("{options}", template.options(task.choices))
    fields = _unformat(pattern, got)
    for field, value in fields.items():
      assert row[field].startswith(value)
      rest = row[field][len(value):]
      assert not rest or not value or rest[0].isspace()  # a word boundary
    target = chosen.targets.format(**row, answer=answer)
    full = words.encode((
      "0 " + chosen.inputs + " X 1 FLAN"
    ).format(**row, answer=answer, options=template.options(task.choices)))
    removed = len(full) + 1 - len(e["inputs"])
    removed += len(words.encode(target)) + 1 - len(e["targets"])
    assert e["trimmed"] == removed


def _unformat(pattern: str, got: str) -> dict[str, str]:
  import re

  parts = re.split(r"\{(\w+)\}", pattern)
  expression = "".join(
    re.escape(p) if i % 2 == 0 else f"(?P<{p}>.*)" for i, p in enumerate(parts)
  )
  match = re.fullmatch(expression, got, re.DOTALL)
  assert match, f"{got!r} is not {pattern!r} over some fields"
  return match.groupdict()


def test_the_longest_gives_way_first_then_both():
  task = made.nli()
  for e in run(task, LONG, {"inputs": 150, "targets": 400}):
    if e["template"] == 9:
      continue
    got = text(e)
    if e["example_index"] == 0:
      assert "the end" in got
    if e["example_index"] == 1:
      assert "one two three" in got
    if e["example_index"] == 2:
      # Both are longer than what is left, so both are cut to one length.
      tiny, huge = got.count("tiny"), got.count("huge")
      assert 0 < tiny < 20
      assert abs(tiny - huge) <= 1


def test_no_more_is_cut_than_needed():
  for e in run(made.nli(), LONG, {"inputs": 150, "targets": 400}):
    if e["example_index"] == 0 and e["template"] != 9:
      assert len(e["inputs"]) > 150 - len(" word") - 1


def test_rows_that_fit_are_untouched():
  columns = made.rows(20)
  whole = run(made.nli(), columns, None)
  fitting = run(made.nli(), columns, {"inputs": 512, "targets": 512})
  for a, b in zip(whole, fitting, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      assert np.array_equal(a[key], b[key]), key
    assert b["trimmed"] == 0


def test_text_without_spaces_is_cut_within():
  columns = {**made.rows(1), "premise": ["漢字" * 200]}
  for e in run(made.nli(), columns, {"inputs": 200, "targets": 20}):
    if e["template"] != 9:
      assert 150 < len(e["inputs"]) <= 200
      assert 10 < text(e).count("漢") < 200


def test_white_space_alone_goes_too():
  columns = {**made.rows(1), "premise": ["a" + " \n" * 300]}
  for e in run(made.nli(), columns, {"inputs": 130, "targets": 20}):
    assert len(e["inputs"]) <= 130


def test_long_targets_lose_their_end_and_keep_eos():
  columns = {"text": ["long"], "summary": ["abcdefghij"]}
  for e in run(made.generating(), columns, {"inputs": 80, "targets": 5}):
    if e["template"] < 9:
      assert bytes(int(t) - 3 for t in e["targets"][:-1]) == b"abcd"
      assert e["targets"][-1] == 1
      assert e["trimmed"] == 6


def test_prompt_without_any_field_is_too_long():
  task = made.seqio_task(made.nli(), made.rows(4))
  with pytest.raises(UserError) as e:
    task.get_dataset({"inputs": 30, "targets": 8}, split="train")
  assert str(e.value) == (
    "task 'made', template 0: without any of its fields the prompt is 40"
    " tokens long, but inputs are cut to 30. Raise"
    " TASK_FEATURE_LENGTHS['inputs']."
  )


def test_rows_whose_own_options_do_not_fit_are_left_out():
  import tensorflow as tf

  endings = [["short", "brief"], ["x" * 90, "y" * 90]]
  columns = {**made.rows(2), "endings": tf.ragged.constant(endings)}
  out = run(made.choosing(), columns, {"inputs": 120, "targets": 20})
  left = {(int(e["example_index"]), int(e["template"])) for e in out}
  assert (1, 0) not in left  # template 0 shows options
  assert (1, 9) not in left  # template 9 asks for the answer's text
  assert {i for i, _ in left} == {0, 1}
  assert (0, 0) in left


@pytest.mark.parametrize("length", [0, 1])
def test_length_without_room(length):
  task = made.seqio_task(made.nli(), made.rows(4))
  message = rf"TASK_FEATURE_LENGTHS\['targets'\] is {length}; at least 2"
  with pytest.raises(UserError, match=message):
    task.get_dataset({"inputs": 99, "targets": length}, split="train")


def test_two_vocabularies():
  features = {
    "inputs": seqio.Feature(seqio.ByteVocabulary()),
    "targets": seqio.Feature(seqio.ByteVocabulary(extra_ids=5)),
  }
  with pytest.raises(UserError, match="different vocabularies"):
    trimming.encoder(features, None)
