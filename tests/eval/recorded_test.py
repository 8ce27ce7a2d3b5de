import json

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import compare, recorded

ROW = {
  "task": "rte", "split": "test", "template": 0, "index": 0,
  "choices": ["no", "yes"], "scores": [-2.0, -1.0], "prediction": 1, "label": 1,
}
TEXT = {
  "task": "wmt14_enfr", "split": "test", "template": 0, "index": 0,
  "prediction": "un chat", "references": ["un chat"], "complete": True,
}


@pytest.fixture
def write(tmp_path):
  def made(*rows, name="predictions.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path

  return made


def test_what_was_written_is_read(write):
  dev = {**ROW, "split": "validation", "prediction": 0}
  path = write(dev, ROW, {**ROW, "index": 1, "label": 0}, TEXT)
  tasks = recorded.read(path.parent)
  rte, wmt = tasks["rte"], tasks["wmt14_enfr"]
  assert (rte.metrics, rte.cluster) == (
    ("accuracy",), "natural_language_inference",
  )
  assert [a.label for a in rte.answers] == [1, 0]
  assert rte.answers[0].text == "yes"
  assert wmt.answers[0].references == ("un chat",)
  rows = compare.compare(tasks, tasks)
  assert [(r.task, r.value, r.a) for r in rows] == [
    ("rte", "accuracy", 50.0), ("wmt14_enfr", "bleu", 0.0),
  ]
  validation = recorded.read(path, split="validation")["rte"]
  assert validation.answers[0].prediction == 0


def test_a_task_of_one_s_own(write):
  path = write({**TEXT, "task": "mine"})
  with pytest.raises(UserError, match="'mine' is not in the catalogue"):
    recorded.read(path)
  with pytest.raises(UserError, match="'rogue' is unknown; the nearest is 'rouge'"):
    recorded.read(path, metrics={"mine": ("rogue",)})
  own = recorded.read(path, metrics={"mine": ("exact_match",)})
  assert own["mine"].metrics == ("exact_match",)


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([{**ROW, "split": "dev"}], "no answers of split 'test'; it has 'dev'"),
    ([{"task": "rte"}], "line 1: no split, template, index, prediction"),
    ([7], "line 1: no task"),
    ([{**ROW, "prediction": 2}], "prediction is 2; it must be the number"),
    ([{**ROW, "label": None}], "label is None"),
    ([{**TEXT, "prediction": 3}], "prediction 3 of a row without choices"),
    ([{**TEXT, "references": []}], "'bleu' of task 'wmt14_enfr' needs 'references'"),
    ([{**ROW, "task": "multirc"}], "'multirc' of task 'multirc' needs 'group'"),
    ([{**TEXT, "task": "rte"}], "'accuracy' of task 'rte' needs 'choices'"),
  ],
)
def test_lines_that_are_no_answers(write, rows, message):
  with pytest.raises(UserError, match=message):
    recorded.read(write(*rows))


def test_a_file_cut_off(write, tmp_path):
  path = write(ROW, TEXT)
  path.write_text(path.read_text()[:-20])
  with pytest.raises(UserError, match="line 2: no JSON .*cut off"):
    recorded.read(path)
  with pytest.raises(UserError, match="cannot be read: No such file"):
    recorded.read(tmp_path / "none.jsonl")


def test_a_file_beside_a_report_has_its_rows(write, tmp_path):
  def report(**tasks):
    (tmp_path / "report.json").write_text(json.dumps({"after": {"tasks": tasks}}))

  path = write(ROW)
  report(rte={"rows": 1, "templates": [0]})
  assert set(recorded.read(path)) == {"rte"}
  # A prompt that chooses its rows, and has none of them here.
  report(rte={"rows": 1, "templates": [0, 1], "prompts": 1})
  assert set(recorded.read(path)) == {"rte"}
  report(rte={"rows": 277, "templates": [0, 1]})
  with pytest.raises(UserError, match="'rte' has 1 answers, .* 277 rows under 2"):
    recorded.read(path)
  report(cb={"rows": 1, "templates": [0]})
  with pytest.raises(UserError, match="answers to rte, but .* reports cb"):
    recorded.read(path)
