import importlib.util
import json
import pathlib
import re

import pytest

from flan_jax import compare_runs, config
from flan_jax.errors import UserError
from tests import browser

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTACK = "<script>alert(1)</script>"


def rte(index, prediction, label=1):
  return {
    "task": "rte", "split": "test", "template": 0, "index": index,
    "inputs_text": f"Row {index} {ATTACK}", "choices": ["no", "yes"],
    "prediction": prediction, "label": label,
  }


def french(index, text):
  return {
    "task": "wmt14_enfr", "split": "test", "template": 0, "index": index,
    "inputs_text": "Translate.", "prediction": text,
    "references": ["un chat noir dort ici"],
  }


# Of 6 rows the first run has row 0 right, the second rows 0 to 4.
A = [*(rte(i, int(i == 0)) for i in range(6)), french(0, ATTACK)]
B = [*(rte(i, int(i < 5)) for i in range(6)), french(0, "un chat noir dort ici")]


@pytest.fixture
def folder(tmp_path):
  def made(name, rows):
    path = tmp_path / name
    path.mkdir()
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (path / "predictions.jsonl").write_text(lines)
    return str(path)

  return made


def test_numbers_in_table_json_and_page(folder, tmp_path, capsys):
  a, b = folder("a", A), folder("b", B)
  out = tmp_path / "out" / "deeper"
  path = compare_runs.compare_runs(run_a=a, run_b=b, output_dir=str(out))
  assert path == out / "comparison.html"
  assert sorted(p.name for p in out.iterdir()) == [
    "comparison.html", "comparison.json",
  ]

  value = json.loads((out / "comparison.json").read_text())
  assert (value["runs"], value["split"]) == ([a, b], "test")
  first, second = value["differences"]
  assert (first["task"], first["value"], first["n"]) == ("rte", "accuracy", 6)
  assert first["a"] == pytest.approx(100 / 6)
  assert first["b"] == pytest.approx(500 / 6)
  assert first["difference"] == pytest.approx(400 / 6)
  # Four coins that all fall alike: 2 / 2**4; two tasks for Holm.
  assert (first["test"], first["p"]) == ("mcnemar", pytest.approx(0.125))
  assert first["p_holm"] == pytest.approx(0.25)
  low, high = first["interval"]
  assert 0 < low < first["difference"] < high <= 100
  assert (second["task"], second["value"]) == ("wmt14_enfr", "bleu")
  assert (second["a"], second["b"]) == (0.0, pytest.approx(100.0))
  clusters = ["natural_language_inference", "translation", "mean of all tasks"]
  assert [m["task"] for m in value["means"]] == clusters
  assert value["means"][-1]["difference"] == pytest.approx((400 / 6 + 100) / 2)
  assert value["changed"] == {
    "rte": {"gained": 4, "lost": 0, "prompts": 6},
    "wmt14_enfr": {"gained": 1, "lost": 0, "prompts": 1},
  }

  printed = capsys.readouterr().out
  page = path.read_text()
  for part in ("rte", "16.7", "83.3", "+66.7", "0.1250", "0.2500"):
    assert part in printed, part
    assert part in page, part
  assert "5 and 0</b><span>answers became right, wrong" in page


def test_what_models_say_is_text(folder, tmp_path):
  path = compare_runs.compare_runs(
    run_a=folder("a", A), run_b=folder("b", B), output_dir=str(tmp_path)
  )
  page = path.read_text()
  assert "<script" not in page
  # Four prompts and one answer that changed.
  assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


@browser.needed
def test_a_browser_draws_the_comparison_in_light_and_dark(folder, tmp_path):
  out = tmp_path / "out"
  page = compare_runs.compare_runs(
    run_a=folder("a", A), run_b=folder("b", B), output_dir=str(out)
  )
  browser.check(page, tmp_path, plots=1)


def other_dataset():
  return [{**r, "task": "cb"} if r["task"] == "rte" else r for r in B]


def other_rows():
  return [rte(0, 1, label=0), *B[1:]]


def other_template():
  return [{**r, "template": 2} for r in B]


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    (other_dataset(), "only the first has 'rte'; only the second has 'cb'"),
    (B[1:], "'rte': one run answers 6 rows, the other 5 .row 0 is in one"),
    (B[:-1], "only the first has 'wmt14_enfr'"),
    (other_rows(), "row 0: one run expects 'yes', the other 'no'"),
    (other_template(), "has the templates .0., the other .2."),
  ],
)
def test_runs_that_are_not_of_the_same_rows(folder, tmp_path, rows, message):
  out = tmp_path / "out"
  with pytest.raises(UserError, match=message):
    compare_runs.compare_runs(
      run_a=folder("a", A), run_b=folder("b", rows), output_dir=str(out)
    )
  assert not out.exists()


@pytest.mark.parametrize("again", ["", "/../a", "/predictions.jsonl"])
def test_one_run_given_twice(folder, tmp_path, again):
  a = folder("a", A)
  out = tmp_path / "out"
  with pytest.raises(UserError, match=f"RUN_A and RUN_B are both {a!r}"):
    compare_runs.compare_runs(
      run_a=a, run_b=a + again, output_dir=str(out)
    )
  assert not out.exists()


def test_a_split_that_is_not_there(folder, tmp_path):
  out = tmp_path / "out"
  with pytest.raises(UserError, match="no answers of split 'dev'; it has 'test'"):
    compare_runs.compare_runs(
      run_a=folder("a", A), run_b=folder("b", B), output_dir=str(out),
      split="dev",
    )
  assert not out.exists()


def test_a_folder_that_cannot_be_written(folder, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written into"):
    compare_runs.compare_runs(
      run_a=folder("a", A), run_b=folder("b", B),
      output_dir=str(tmp_path / "file" / "x"),
    )


def test_the_flag_is_the_gin_file(folder, tmp_path):
  spec = importlib.util.spec_from_file_location("run", ROOT / "launch/run.py")
  launch = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(launch)
  a, b = folder("a", A), folder("b", B)
  short = launch.parse(["--compare", a, b, "--gin.OUTPUT_DIR=x"])
  long = launch.parse(
    ["--gin_file=gin/eval_compare.gin", f"--gin.RUN_A={a}",
     f"--gin.RUN_B={b}", "--gin.OUTPUT_DIR=x"]
  )  # fmt: skip
  assert short == long
  loaded = config.load(short["files"], short["flags"], [str(ROOT)])
  for name, value in (("run_a", a), ("run_b", b), ("split", "test")):
    assert re.search(rf"{name} = .*(RUN_[AB]|SPLIT|{value})", loaded.text), name
