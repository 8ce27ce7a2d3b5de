"""Ratings from file to table; agreement against published and plain values."""

import doctest
import itertools
import json

import numpy as np
import pytest

from flan_jax import config, evaluate_three_h
from flan_jax.errors import UserError
from flan_jax.eval import agreement, three_h
from tests.conftest import ROOT

# Krippendorff, 2011, example of four observers and twelve units, "." missing.
OBSERVERS = ("12332141 2...", "12332241 25.3", ".3332342 251.", "12332441 251.")


def units():
  rows = [o.replace(" ", "") for o in OBSERVERS]
  return [
    [int(r[u]) for r in rows if r[u] != "."] for u in range(len(rows[0]))
  ]


def plain_alpha(units, difference):
  """1 - observed / expected disagreement, pair by pair."""
  units = [u for u in units if len(u) > 1]
  everything = [v for u in units for v in u]
  n = len(everything)
  observed = sum(
    difference(a, b) / (len(u) - 1)
    for u in units
    for a, b in itertools.permutations(u, 2)
  )
  expected = sum(
    difference(a, b) for a, b in itertools.permutations(everything, 2)
  )
  return 1 - (observed / n) / (expected / (n * (n - 1)))


def ordinal(units):
  everything = [v for u in units if len(u) > 1 for v in u]

  def difference(a, b):
    low, high = min(a, b), max(a, b)
    between = sum(low <= v <= high for v in everything)
    ends = everything.count(low) + everything.count(high)
    return 0 if a == b else (between - ends / 2) ** 2

  return difference


@pytest.mark.parametrize("module", [three_h, agreement])
def test_docstrings(module):
  result = doctest.testmod(module)
  assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize(
  ("level", "published"),
  [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)],
)
def test_alpha_is_the_published_one(level, published):
  found = agreement.agreement(units(), level)
  assert round(found.alpha, 3) == published
  assert (found.units, found.ratings) == (11, 40)
  low, high = found.interval
  assert low < found.alpha < high <= 1


@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_that_of_all_pairs(seed):
  rng = np.random.default_rng(seed)
  some = [rng.integers(1, 8, size=rng.integers(1, 5)).tolist() for _ in range(9)]
  for level, difference in (
    ("nominal", lambda a, b: a != b),
    ("interval", lambda a, b: (a - b) ** 2),
    ("ordinal", ordinal(some)),
  ):
    expected = plain_alpha(some, difference)
    assert agreement.alpha(some, level) == pytest.approx(expected)


def test_alpha_where_there_is_nothing_to_disagree_on():
  same = agreement.agreement([(1, 1), (1, 1)], "nominal")
  assert np.isnan(same.alpha)
  assert same.percent == 100
  none = agreement.agreement([(1,), (0,)], "nominal")
  assert np.isnan(none.alpha)
  assert none.units == 0
  assert agreement.alpha([(1, 1), (0, 0)], "nominal") == 1.0
  with pytest.raises(UserError, match="level is 'ratio'; known are nominal"):
    agreement.agreement([(1, 2)], "ratio")


CSV = """example,system,rater,overall,fails_instruction,hallucination,comment
1,sft,anna,5,no,,fine
1,sft,ben,6,No,yes,
2,sft,anna,2,yes,no,"so, so"
1,base,anna,1,TRUE,,
1,base,ben,3,0,,
"""


def test_a_csv_file_and_its_values(tmp_path):
  path = tmp_path / "ratings.csv"
  path.write_text(CSV)
  found = three_h.read(path)
  assert (found.lines, len(found.rows), found.skipped) == (5, 5, ())
  assert found.rows[1] == three_h.Rating(
    "1", "sft", "ben", 6, {"fails_instruction": False, "hallucination": True}
  )
  scores = {(s.system, s.question): s for s in three_h.scores(found.rows)}
  assert len(scores) == 5
  overall = scores["sft", "overall"]
  assert (overall.mean, overall.responses, overall.ratings) == (3.75, 2, 3)
  assert overall.interval == (2.0, 5.5)
  assert scores["sft", "fails_instruction"].mean == 50
  assert scores["sft", "hallucination"].mean == 50
  assert scores["sft", "hallucination"].heading == "honest"
  assert scores["base", "fails_instruction"].mean == 50
  agreed = three_h.agreements(found.rows)
  assert agreed["fails_instruction"].units == 2
  assert agreed["fails_instruction"].percent == 50
  # Both find sft's response to example 1 the better one.
  assert three_h.preferences(found.rows) == three_h.Preferences(100.0, 1)


def test_jsonl_and_other_names_of_columns(tmp_path):
  path = tmp_path / "ratings.jsonl"
  rows = [
    {"id": 7, "system": "a", "rater": "x", "quality": 4, "sexual": False},
    {"id": 7, "system": "a", "rater": "y", "quality": None, "sexual": "yes"},
  ]
  path.write_text("\n\n".join(map(json.dumps, rows)))
  columns = {"example": "id", "overall": "quality"}
  first, second = three_h.read(path, columns=columns).rows
  assert (first.example, first.overall, first.items) == ("7", 4, {"sexual": False})
  assert (second.overall, second.items) == (None, {"sexual": True})


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("1,sft,anna,5", "1,sft,anna,8",
     r"line 2: column 'overall' is '8'; it is a whole number from 1 to 7"),
    ("1,sft,anna,5", "1,sft,anna,4.5", "column 'overall' is '4.5'"),
    ("2,sft,anna,2,yes", "2,sft,anna,2,perhaps",
     "line 4: column 'fails_instruction' is 'perhaps'; write yes or no"),
    ("1,sft,ben,6,No,yes,", "1,sft,ben,6,No,yes",
     "line 3: 6 cells, but the header has 7"),
    ("1,sft,ben", "1,sft,anna", "line 3: 'anna' rated .* in line 2 already"),
    ("1,sft,ben", "1,,ben", "column 'system' is ''; it names nothing"),
    ("1,base,anna,1,TRUE", "1,base,anna,,", "no question is answered"),
  ],
)  # fmt: skip
def test_a_row_that_is_no_record(tmp_path, old, new, message):
  path = tmp_path / "ratings.csv"
  path.write_text(CSV.replace(old, new, 1))
  with pytest.raises(UserError, match=message):
    three_h.read(path)
  found = three_h.read(path, on_bad_row="skip")
  assert len(found.rows) + len(found.skipped) == found.lines == 5
  assert len(found.skipped) == 1


def test_files_that_are_refused(tmp_path):
  path = tmp_path / "ratings.csv"
  path.write_text(CSV.replace("rater", "Rater", 1))
  with pytest.raises(UserError, match=r"no column 'rater' \(rater\); it has exam"):
    three_h.read(path)
  assert three_h.read(path, columns={"rater": "Rater"}).lines == 5
  with pytest.raises(UserError, match="COLUMNS is 'raters'; .*'rater'"):
    three_h.read(path, columns={"raters": "Rater"})
  with pytest.raises(UserError, match="ON_BAD_ROW is 'skips'"):
    three_h.read(path, on_bad_row="skips")
  with pytest.raises(UserError, match="none.csv cannot be read"):
    three_h.read(tmp_path / "none.csv")
  with pytest.raises(UserError, match="is neither .csv"):
    three_h.read(tmp_path / "ratings.xlsx")
  path.write_text(CSV.split("\n")[0])
  with pytest.raises(UserError, match="holds no record of 0 rows"):
    three_h.read(path)
  lines = tmp_path / "ratings.jsonl"
  lines.write_text('{"example": 1\n[3]\n')
  with pytest.raises(UserError, match="line 1: not JSON"):
    three_h.read(lines)
  with pytest.raises(UserError, match="no record of 2 rows"):
    three_h.read(lines, on_bad_row="skip")


def test_the_job_writes_tables(tmp_path):
  path = tmp_path / "ratings.csv"
  path.write_text(CSV.replace("2,sft,anna,2,yes", "2,sft,anna,2,what", 1))
  page = evaluate_three_h.evaluate_three_h(
    ratings=path, output_dir=tmp_path / "out", on_bad_row="skip"
  )
  text = page.read_text()
  assert "| sft | overall | overall | 5.50 |" in text
  assert "4 records of 5 rows; 1 left out" in text
  assert "agree in 100.0 % of 1 comparisons" in text
  value = json.loads(page.with_suffix(".json").read_text())
  assert value["scores"][0]["mean"] == 5.5
  assert value["agreement"]["hallucination"]["alpha"] is None
  assert "is 'what'" in value["skipped"][0]


def test_the_gin_file():
  loaded = config.load(
    ["gin/eval_three_h.gin"], [("RATINGS", "x.csv")], [str(ROOT)]
  )
  assert loaded.value("ON_BAD_ROW") == "error"
  with pytest.raises(UserError, match="RATINGS, which no file defines"):
    config.load(["gin/eval_three_h.gin"], [], [str(ROOT)])
