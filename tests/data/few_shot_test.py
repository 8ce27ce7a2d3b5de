"""Exemplars: from training alone, never the row itself, whole or not at all."""

import doctest
import re

import pytest
import seqio

from flan_jax.data import (
  catalogue,
  evaluation,
  few_shot,
  forms,
  spec,
  template,
  vocabulary,
)
from flan_jax.errors import UserError
from tests.data import made

LENGTHS = {"inputs": 2000, "targets": 60}
CUE = template.FLAN_CUE
TRAIN, TEST = 40, 6
# Templates 0 to 8 of the made task ask; 9 is turned around.
ROW = re.compile(r"premise (\w+) holds")


@pytest.fixture(autouse=True)
def data(tmp_path):
  """Rows of `train` are numbered, those of `test` are t0 to t5."""
  test = made.rows(TEST)
  for field in ("premise", "hypothesis", "note"):
    test[field] = [re.sub(r"(\d)", r"t\1", x) for x in test[field]]
  made.write_tfds(tmp_path, train=made.rows(TRAIN), test=test)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  yield
  seqio.set_tfds_data_dir_override(None)


def examples(shots, split="train", seed=0, lengths=LENGTHS, wrapper=CUE, **task):
  vocabulary_ = task.pop("vocabulary", made.BYTES)
  made_task = catalogue.seqio_task(
    made.nli(**task),
    vocabulary_,
    wrapper=wrapper,
    form=forms.get(f"{shots}_shot"),
  )
  dataset = made_task.get_dataset(lengths, split, seed=seed, num_epochs=2)
  return list(dataset.as_numpy_iterator())


def parts(example):
  """The exemplars and the prompt, as the FLAN cue parts them."""
  text = example["inputs_pretokenized"].decode()
  assert text.startswith("0 ")
  assert text.endswith(" X 1 FLAN")
  *solved, asked = text.removeprefix("0 ").split(" X 0 ")
  return [x.split(" X 1 ") for x in solved], asked.removesuffix(" X 1 FLAN")


def test_docstrings():
  assert doctest.testmod(few_shot).failed == 0


@pytest.mark.parametrize("shots", [1, 5, 16])
def test_exemplars_are_other_training_rows_under_the_same_template(shots):
  held_out = {ROW.search(parts(e)[1])[1] for e in examples(1, "validation")}
  assert len(held_out) == 4
  seen = set()
  roomy = template.Wrapper("0 ", " X 1 FLAN", True, " X 1 ", " X ", 1999)
  for e in examples(shots, wrapper=roomy):
    solved, asked = parts(e)
    assert len(solved) == int(e["shots"]) == shots
    number = int(e["template"])
    assert number < 9
    rows = []
    for prompt, answer in solved:
      rows.append(ROW.search(prompt)[1])
      # The prompt is the template over the exemplar's own fields.
      row = int(rows[-1])
      expected = made.nli().templates[number].inputs.format(
        premise=f"premise {row} holds",
        hypothesis=f"hypothesis {row} follows",
        options=template.options(("yes", "no")),
      )
      assert prompt == expected
      assert answer == ("yes", "no")[row % 2]
    assert len(set(rows)) == shots
    assert ROW.search(asked)[1] not in rows
    assert not set(rows) & held_out
    seen |= set(rows)
  assert len(seen) == TRAIN - 4 or shots == 1


def test_evaluation_draws_from_training():
  for split in ("validation", "test"):
    for e in examples(3, split):
      solved, asked = parts(e)
      rows = [ROW.search(prompt)[1] for prompt, _ in solved]
      assert all(row.isdigit() for row in rows)
      assert ROW.search(asked)[1] not in rows


def test_a_row_that_reads_like_the_question_is_no_exemplar(tmp_path):
  """A duplicate would tell the answer."""
  columns = made.rows(30)
  columns["premise"][:20] = ["premise 99 holds"] * 20
  columns["hypothesis"][:20] = ["hypothesis 99 follows"] * 20
  made.write_tfds(tmp_path, "twice", train=columns, test=made.rows(TEST))
  for e in examples(16, source=spec.tfds("twice:1.0.0")):
    solved, asked = parts(e)
    rows = [ROW.search(prompt)[1] for prompt, _ in solved]
    assert ROW.search(asked)[1] not in rows
    assert int(e["shots"]) == len(solved)


def test_whole_exemplars_are_dropped_to_fit():
  few = template.Wrapper("0 ", " X 1 FLAN", True, " X 1 ", " X ", 300)
  found = set()
  for e in examples(16, wrapper=few):
    solved, _ = parts(e)
    assert len(e["inputs"]) - 1 <= 300
    assert len(solved) == int(e["shots"])
    found.add(len(solved))
    # One more would not have fitted (bytes: a token is a character).
    longest = max(len(f"0 {p} X 1 {a} X ") for p, a in solved)
    assert len(e["inputs"]) - 1 + longest + 3 > 300 or len(solved) == 16
    assert int(e["trimmed"]) == 0
  assert 0 < min(found) <= max(found) < 16


def test_the_length_of_a_row_is_a_budget_too():
  for e in examples(16, lengths={"inputs": 250, "targets": 60}):
    assert len(e["inputs"]) <= 250
    assert int(e["trimmed"]) == 0


def test_the_seed_decides():
  first, again, other = (
    [e["inputs_pretokenized"] for e in examples(4, seed=seed)]
    for seed in (1, 1, 2)
  )
  assert first == again
  assert sorted(first) != sorted(other)


def test_with_a_vocabulary_of_pieces():
  shipped = vocabulary.load()
  for e in examples(8, vocabulary=shipped):
    assert int(e["shots"]) == 8
    text = shipped.decode(e["inputs"].tolist())
    assert text == e["inputs_pretokenized"].decode()


def test_evaluation_examples():
  def run(**kwargs):
    return evaluation.evaluation_examples(
      made.nli(), "test", vocabulary=made.BYTES, lengths=LENGTHS,
      wrapper=CUE, **kwargs,
    )

  ours = run(shots=5, templates=range(9))
  assert [e.shots for e in ours] == [5] * (9 * TEST)
  assert [e.inputs_text for e in ours] == [
    e.inputs_text for e in run(shots=5, templates=range(9))
  ]
  plain = run(templates=range(9))
  for e, zero in zip(ours, plain, strict=True):
    assert e.inputs_text.endswith(zero.inputs_text)
    assert (e.label, e.choices_text) == (zero.label, zero.choices_text)
    assert e.inputs_text.count(" X 1 ") == 6
  with pytest.raises(UserError, match="template 9 is turned around"):
    run(shots=5)


def test_a_budget_too_small_for_the_question():
  tight = template.Wrapper("0 ", " X 1 FLAN", shot_tokens=20)
  with pytest.raises(UserError, match="prompt is 51 tokens.*cut to 21. Raise FEW_SHOT_TOKENS"):
    examples(2, wrapper=tight)


def test_too_many():
  with pytest.raises(UserError, match="no form '17_shot'"):
    forms.get("17_shot")
