"""Texts that are not UTF-8; labels and choices are in template_test.py."""

import pytest

from flan_jax.data import preprocessors, spec, template
from flan_jax.errors import UserError
from tests.data import made

LATIN = b"caf\xe9 closed"
# Half of a character, bytes that stand for nothing, and half of a pair.
NOT_TEXT = [LATIN, b"caf\xc3", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80"]


@pytest.mark.parametrize("wrong", NOT_TEXT)
def test_text_that_is_not_utf8_names_field_and_row(wrong):
  with pytest.raises(UnicodeDecodeError):
    wrong.decode()
  columns = made.rows(8)
  columns["hypothesis"] = [h.encode() for h in columns["hypothesis"]]
  columns["hypothesis"][5] = wrong
  message = (
    "^task 'made': field hypothesis of row 5 is not UTF-8 text. Write the data"
    " in UTF-8, or drop such rows with keep=.$"
  )
  with pytest.raises(template.DataError, match=message):
    list(template.user_errors(iter_rows(made.nli(), columns)))


def iter_rows(task, columns):
  dataset = made.seqio_task(task, columns).get_dataset(
    None, split="train", shuffle=False, seed=0
  )
  return dataset.as_numpy_iterator()


@pytest.mark.parametrize("text", ["café", "\x00", "日本", "🦉", "�", "a\nb"])
def test_text_that_is(text):
  columns = made.rows(2)
  columns["premise"][1] = text
  rows = made.examples(made.nli(), columns)
  assert rows[1]["premise"].decode() == text


def test_a_choice_or_a_target_that_is_not():
  columns = made.rows(4)
  columns["endings"] = [[b"a", b"b"], [b"a", LATIN], [b"a", b"b"], [b"c", b"d"]]
  with pytest.raises(template.DataError, match="field choices of row 1 is not"):
    list(template.user_errors(iter_rows(made.choosing(), columns)))
  columns = {"text": ["a", "b", "c"], "summary": [b"x", b"y", LATIN]}
  with pytest.raises(template.DataError, match="field target of row 2 is not"):
    list(template.user_errors(iter_rows(made.generating(), columns)))


def test_json_lines_that_are_not(tmp_path):
  pattern = made.write_jsonl(tmp_path, train=[{"premise": "a"}] * 3)
  file = tmp_path / "train.jsonl"
  file.write_bytes(file.read_bytes() + b'{"premise": "caf\xe9"}\n')
  from flan_jax.data import sources

  task = made.nli(source=spec.Jsonl(pattern))
  with pytest.raises(UserError, match=r"train.jsonl, line 4 is not UTF-8 .*0xe9"):
    sources.source(task).rows("train")


def test_a_feature_that_prepare_reads_is_named():
  def prepare(row):
    return {**row, "premise": row["context"]["text"]}

  task = made.nli(prepare=prepare)
  columns = {**made.rows(2), "context": {"title": ["a", "b"]}}
  import tensorflow as tf

  rows = preprocessors.number(tf.data.Dataset.from_tensor_slices(columns))
  message = (
    "task 'made': prepare reads a feature 'text', which its rows have not; they"
    " have context/title, hypothesis, label, note, premise."
  )
  with pytest.raises(spec.SpecError, match=message):
    preprocessors.examine(task, rows)
