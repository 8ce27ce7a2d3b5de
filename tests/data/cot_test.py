"""Chain-of-thought files: three columns, and errors that name the line."""

import doctest
import re

import pytest
import seqio

from flan_jax.data import cot, sources, spec
from flan_jax.errors import UserError
from tests.data import made

GOOD = "2 + 2?\t4\t1 + 1 = 2.\\nTwice that is 4.\n"
SPLITS = spec.Splits(validation=spec.last("train", 2, 2), test=spec.last("train", 2))


def test_docstrings():
  assert doctest.testmod(cot).failed == 0


def test_rows(tmp_path):
  path = tmp_path / "a.tsv"
  path.write_text("\ufeff" + GOOD + "Is it?\\n\tyes\tIt is.\r\nLast?\tno\tNo.")
  rows = cot.read(path)
  assert rows[0] == {
    "question": "2 + 2?",
    "answer": "4",
    "rationale": "1 + 1 = 2.\nTwice that is 4.",
  }
  assert rows[1] == {"question": "Is it?", "answer": "yes", "rationale": "It is."}
  assert rows[2]["rationale"] == "No."
  assert len(rows) == 3


@pytest.mark.parametrize(
  ("line", "reason"),
  [
    (b"only a question", "1 columns between tabs, not 3 (question, answer, rat"),
    (b"q\ta\tr\tmore", "4 columns between tabs, not 3"),
    (b"", "1 columns between tabs, not 3"),
    (b"q\t \tr", "its answer is empty"),
    (b"\\n\ta\tr", "its question is empty"),
    (b"q\ta\t\xff", "byte 4 is not UTF-8"),
  ],
)
def test_malformed_line_is_named(tmp_path, line, reason):
  path = tmp_path / "bad_train.tsv"
  path.write_bytes(GOOD.encode() + line + b"\n" + GOOD.encode())
  with pytest.raises(UserError, match=re.escape(f"{path}, line 2: {reason}")):
    cot.read(path)


def test_empty_file(tmp_path):
  path = tmp_path / "none.tsv"
  path.write_text("")
  with pytest.raises(UserError, match="none.tsv is empty"):
    cot.read(path)


def task(file="made_train.tsv", folder=None):
  return made.generating(
    source=spec.Cot(file, folder),
    splits=SPLITS,
    inputs={"text": "question", "why": "rationale"},
    target="answer",
  )


def test_source_cuts_three_splits_from_one_file(tmp_path):
  lines = [f"q{i}\ta{i}\tr{i}" for i in range(20)]
  (tmp_path / "made_train.tsv").write_text("\n".join(lines) + "\n")
  source = sources.source(task(folder=str(tmp_path)))
  assert isinstance(source, cot.CotSource)
  rows = {s: source.rows(s) for s in ("train", "validation", "test")}
  assert rows == {"train": 16, "validation": 2, "test": 2}
  first = next(iter(source.get_dataset("test").as_numpy_iterator()))
  assert first["question"] == b"q18"
  assert first["rationale"] == b"r18"
  before = source.fingerprint()
  (tmp_path / "made_train.tsv").write_text("\n".join(lines[::-1]) + "\n")
  assert source.fingerprint() != before
  again = next(iter(source.get_dataset("test").as_numpy_iterator()))
  assert again["question"] == b"q1"


def test_absent_file_says_how_to_give_it(tmp_path):
  source = sources.source(task(folder=str(tmp_path)))
  message = (
    f"Dataset cot/made_train.tsv is not prepared in {tmp_path}. Prepare it"
    " with: put the chain-of-thought file made_train.tsv there, or set COT_DIR"
    " to the folder that holds it"
  )
  with pytest.raises(sources.NotPreparedError, match=re.escape(message)):
    source.sizes()
  assert not source.is_prepared()


def test_without_a_folder_it_is_in_the_tfds_directory(tmp_path):
  (tmp_path / "cot").mkdir()
  (tmp_path / "cot" / "made_train.tsv").write_text(GOOD * 8)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  try:
    assert sources.source(task()).sizes() == {"train": 8}
  finally:
    seqio.set_tfds_data_dir_override(None)


def test_the_folder_is_no_part_of_what_a_task_is():
  from flan_jax.data import catalogue

  here, there = task(folder="/a"), task(folder="/b")
  assert catalogue.fingerprint(here) == catalogue.fingerprint(there)
  assert here.source == there.source


# Rows as their publishers counted them.
REAL = {
  "aqua": 2728,
  "creak": 6915,
  "ecqa": 7112,
  "gsm8k": 7473,
  "qasc": 1084,
  "sensemaking": 6070,
  "strategyqa": 2061,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared, name):
  rows = cot.read(shared / "cot" / f"{name}_train.tsv")
  assert len(rows) == REAL[name]
  assert not any("\\n" in value for row in rows for value in row.values())
