"""AlpaGasus: a judge on loopback rates rows of files made here."""

import json
import pathlib

import pytest

from flan_jax import config, judge
from flan_jax.curation import alpagasus as alpagasus_lib
from flan_jax.curation import decisions, manifest, rating, rows
from flan_jax.curation.alpagasus import alpagasus
from flan_jax.curation.rating import Rating
from flan_jax.endpoint.client import Endpoint
from flan_jax.errors import UserError
from tests.curation import fake_endpoint as fake
from tests.curation.fake_endpoint import Say, Status

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
  ("text", "score"),
  [
    ("4.5", 4.5),
    ("4.5\nThe answer is right, 3 of 3.", 4.5),
    ("5.", 5.0),
    (" 0 \n", 0.0),
    ("4,5", 4.5),
    ("Score: 3", 3.0),
    ("score:4.5\nThe rest", 4.5),
    ("**Score:** 4.5/5", 4.5),
    ("### Accuracy: 4 out of 5", 4.0),
    ("The accuracy score is 2.", 2.0),
    ("[[4]]", 4.0),
    ("4 points", 4.0),
    ("评分：4.5", 4.5),
    ("得分: 4分", 4.0),
    ("The response is right.\nIt says so.\nScore: 5", 5.0),
    ("I would say that it is good. Rating: 4/5. A rating of 4.", 4.0),
    ("", None),
    ("Good!", None),
    ("N/A", None),
    ("nan", None),
    ("-1", None),
    ("5.5", None),
    ("8/10", None),
    ("Score: 8/10", None),
    ("4 or 5", None),
    ("4-5", None),
    ("between 3 and 4", None),
    ("Score: 3\nHmm.\nscore: 4", 3.0),
    ("First.\nScore: 3\nScore: 4", None),
    ("1. The answer is right.\n2. It is short.", None),
    ("2 of the 3 claims are right.", None),
    ("It took 4 tries.", None),
  ],
)
def test_reading_a_grade(text, score):
  assert rating.read(text) == score


def test_another_scale():
  assert rating.read("8/10", (1, 10)) == 8.0
  assert rating.read("0", (1, 10)) is None
  assert rating.read("Score: 70 out of 100", (0, 100)) == 70.0


GRADES = ("5", "4.5", "4.4", "Score: 4.5/5", "1", "Well.", "4 or 5", "3.5")


def write_rows(path, count=8):
  found = [
    {"instruction": f"Do {i}.", "input": "x" * (i % 2), "output": "y" * (i + 1)}
    for i in range(count)
  ]
  path.write_text(json.dumps(found))
  return str(path)


def grade(prompt, times):
  number = int(prompt.split("Do ")[1].split(".")[0])
  return Say(GRADES[number % len(GRADES)])


def run(folder, behave=grade, **options):
  with fake.serving(behave) as server:
    result = alpagasus(
      judge=Endpoint(server.url, "gpt-x-0301", retries=0, concurrency=2),
      output_dir=folder / "out", **options,
    )
  return result, server


def test_rows_that_pass(tmp_path):
  path = write_rows(tmp_path / "data.json")
  result, server = run(tmp_path, data_path=path)
  folder = tmp_path / "out"
  kept = rows.read(folder / "data.jsonl")
  # 4.5 itself is kept; 4.4 is not.
  assert [r["instruction"] for r in kept] == ["Do 0.", "Do 1.", "Do 3."]
  assert [r["rating"] for r in kept] == [5.0, 4.5, 4.5]
  assert result["histogram"] == {
    "1": 1, "3.5": 1, "4.4": 1, "4.5": 2, "5": 1,
  }
  assert json.loads((folder / "scores.json").read_text()) == (
    result["histogram"]
  )
  apart = [
    json.loads(line)
    for line in (folder / "unreadable.jsonl").read_text().splitlines()
  ]
  assert [r["judge_said"] for r in apart] == ["Well.", "4 or 5"]
  assert result["unreadable"] == 2
  assert result["rated"] == 6
  made = manifest.read(folder)
  assert made.counts["rating"] == {
    "kept": 3, "below the threshold": 3, "unreadable rating": 2,
  }
  assert set(made.outputs) >= {
    "data.jsonl", "random.jsonl", "longest.jsonl", "unreadable.jsonl",
    "scores.json", "decisions.jsonl",
  }
  assert [r["output"] for r in rows.read(folder / "longest.jsonl")] == [
    "y" * n for n in (6, 7, 8)
  ]
  assert len(rows.read(folder / "random.jsonl")) == 3
  assert made.models["filter"]["model"] == "gpt-x-0301"
  page = (folder / "report.html").read_text()
  assert "Grades" in page
  assert "gpt-x-0301 graded the rows" in page
  # A later comparison by the same judge is flagged.
  assert "gpt-x-0301" in judge.manifest_models([folder / "manifest.json"])
  body = server.asked[0][1]
  assert body["temperature"] == 0
  assert body["max_tokens"] == 256
  assert "top_p" not in body
  assert "###Instruction:\nDo " in server.prompts[0]
  assert "from 0 to 5" in server.prompts[0]
  assert "accuracy" in server.prompts[0]


def test_going_on_asks_nothing(tmp_path):
  path = write_rows(tmp_path / "data.json")
  port = fake.free_port()
  for behave in (grade, lambda p, n: pytest.fail("asked again")):
    server = fake.Server(behave, port)
    try:
      alpagasus(
        judge=Endpoint(server.url, "j"), data_path=path,
        output_dir=tmp_path / "out", rating=Rating(),
      )
    finally:
      server.close()


def test_options(tmp_path):
  path = write_rows(tmp_path / "data.json", 16)
  result, server = run(
    tmp_path, data_path=path, subset=4, baselines=False, seed=1,
    rating=Rating(dimension="helpfulness", question=(
      "{instruction}|{input}|{output}|{dimension}|{low}-{high}")),
  )
  assert result["rows"] == 4
  assert not (tmp_path / "out" / "random.jsonl").exists()
  assert "Do 1.|x|yy|helpfulness|0-5" in server.prompts
  found = decisions.read(tmp_path / "out" / "decisions.jsonl")
  assert sum(d["reason"] == "not drawn" for d in found) == 2
  again, server = run(
    tmp_path, lambda p, n: Say("5" if n else "Hm."),
    data_path=write_rows(tmp_path / "more.json"), rating=Rating(retries=1),
  )
  assert again["rows"] == 8
  assert len(server.prompts) == 16
  assert server.asked[-1][1]["temperature"] == 0.7


def test_what_is_refused(tmp_path):
  path = write_rows(tmp_path / "data.json")
  cases = [
    ({"threshold": 6}, "THRESHOLD is 6 .* would keep no rows"),
    ({"threshold": 0}, "would keep all rows"),
    ({"subset": 9}, "SUBSET is 9 and 3 rows"),
    ({"subset": 0}, "SUBSET is 0"),
    ({"data_path": str(tmp_path / "no.json")}, "cannot be read"),
  ]
  for options, message in cases:
    with pytest.raises(UserError, match=message):
      run(tmp_path, **({"data_path": path} | options))
  for behave, message in (
    (lambda p, n: Say("Fine."), "none of 8 ratings could be read.*'Fine.'"),
    (lambda p, n: Say("3"), "no row has a grade of 4.5 or more: {'3': 8}"),
    (lambda p, n: Status(401), "HTTP 401"),
  ):
    with pytest.raises(UserError, match=message):
      run(tmp_path, behave, data_path=path)
  with pytest.raises(UserError, match="SCALE is"):
    Rating(scale=(5, 0))
  with pytest.raises(UserError, match="QUESTION must have"):
    Rating(question="{instruction}")
  with pytest.raises(UserError, match="QUESTION cannot be filled in"):
    Rating(question="{instruction")
  with pytest.raises(UserError, match="DIMENSION is empty"):
    Rating(dimension=" ")


def test_a_row_without_an_answer_is_kept_apart(tmp_path):
  path = write_rows(tmp_path / "data.json")
  result, _ = run(
    tmp_path, lambda p, n: Status(400) if "Do 1." in p else grade(p, n),
    data_path=path,
  )
  assert result["counts"]["rating"]["no answer"] == 1
  assert result["unreadable"] == 3
  assert result["rows"] == 2


def test_the_job_by_gin(tmp_path, shared):
  """On the first rows of dolly_3k."""
  found = json.loads(
    (shared / "instructions" / "dolly_3k.json").read_text()
  )[:12]
  path = tmp_path / "dolly.json"
  path.write_text(json.dumps(found))

  def behave(prompt, times):
    return Say(str(4 + 0.5 * (len(prompt) % 3)))

  with fake.serving(behave) as server:
    loaded = config.load(
      ["gin/curate_alpagasus.gin", "gin/backends/endpoint.gin"],
      [("BASE_URL", server.url), ("ENDPOINT_MODEL", "j"),
       ("DATA_PATH", str(path)), ("OUTPUT_DIR", str(tmp_path / "out"))],
      [str(ROOT)],
    )
    result = config.call_job(loaded, ["test"])
  assert result["read"] == 12
  assert sum(result["histogram"].values()) == 12
  made = manifest.beside(tmp_path / "out" / "data.jsonl")
  assert made.options["threshold"] == 4.5
  assert made.inputs["data"][0].path == str(path)
  assert made.method == alpagasus_lib.METHOD
