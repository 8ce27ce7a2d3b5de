import doctest
import json

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import answers, super_ni
from flan_jax.eval.compare import TaskAnswers

TASK = {
  "Definition": ["Say whether it rains"],
  "Categories": ["Textual Entailment", "Other"],
  "Positive Examples": [
    {"input": "Drops fall", "output": "Yes", "explanation": "So it is."},
    {"input": "It is dry.", "output": "No"},
    {"input": "Fog", "output": "No"},
  ],
  "Instances": [
    {"id": "a", "input": "Wet?", "output": ["Yes", "It does"]},
    {"id": "b", "input": "", "output": "No"},
  ],
}


@pytest.fixture
def write(tmp_path):
  def made(value=TASK, name="task001_rain", track="default", listed=None):
    (tmp_path / "tasks").mkdir(exist_ok=True)
    (tmp_path / "splits" / track).mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (tmp_path / "tasks" / f"{name}.json").write_text(text)
    (tmp_path / "splits" / track / "test_tasks.txt").write_text(
      "\n".join(listed or [name]) + "\n"
    )
    return tmp_path

  return made


def text(question):
  return question.heading + "".join(question.exemplars) + question.query


def test_docstrings():
  assert doctest.testmod(super_ni).failed == 0


def test_a_prompt_as_published(write):
  ((task, (first, second)),) = super_ni.load(write()).items()
  assert text(first) == (
    "Definition: Say whether it rains.\n\n"
    " Positive Example 1 -\nInput: Drops fall.\n Output: Yes.\n\n"
    " Positive Example 2 -\nInput: It is dry.\n Output: No.\n\n"
    "Now complete the following example -\nInput: Wet?\nOutput: "
  )
  assert first.references == ("Yes", "It does")
  assert second.query.endswith("Input: .\nOutput: ")
  assert second.references == ("No",)
  assert (task.name, task.cluster) == ("task001_rain", "Textual Entailment")
  assert (task.metrics, task.kind) == (("super_ni",), "generation")


def test_options(write):
  folder = write()
  ((_, (only,)),) = super_ni.load(folder, positives=0, instances=1).items()
  assert only.exemplars == ()
  write(track="xlingual")
  ((task, _),) = super_ni.load(folder, track="xlingual").items()
  assert task.metrics == ("super_ni_characters",)
  with pytest.raises(UserError, match="SUPER_NI_TRACK is 'english'"):
    super_ni.load(folder, track="english")
  with pytest.raises(UserError, match="SUPER_NI_INSTANCES=0"):
    super_ni.load(folder, instances=0)


def test_older_files_and_the_task_of_two_names(write):
  old = {**TASK, "Definition": "Say whether it rains"}
  folder = write(
    old, "task121_zest_question_rewriting",
    listed=["task121_atomic_question_rewriting"],
  )
  ((task, (first, _)),) = super_ni.load(folder).items()
  assert task.name == "task121_atomic_question_rewriting"
  assert first.heading == "Definition: Say whether it rains.\n\n"


@pytest.mark.parametrize(
  ("value", "message"),
  [
    ("{", "task001_rain.json cannot be read"),
    ("[]", "there is no Definition, Categories, Positive Examples, Instances"),
    ({**TASK, "Definition": []}, "there is no Definition, or it is empty"),
    ({**TASK, "Instances": [{"input": "x", "output": []}]}, "instance 0: an input"),
    ({**TASK, "Instances": [{"output": ["x"]}]}, "instance 0: an input and at"),
    ({**TASK, "Instances": ["x"]}, "not 'x'"),
  ],
)
def test_files_that_are_not_as_published(write, value, message):
  with pytest.raises(UserError, match=message):
    super_ni.load(write(value))


def test_what_is_no_checkout(write, tmp_path):
  with pytest.raises(UserError, match="is no checkout of natural-instructions"):
    super_ni.load(tmp_path)
  folder = write(listed=["task001_rain", "task002_snow"])
  with pytest.raises(UserError, match="task002_snow.json cannot be read: No such"):
    super_ni.load(folder)


def test_the_real_tasks(shared):
  tasks = super_ni.load(shared / "superni")
  assert len(tasks) == 5
  assert {t.cluster for t in tasks} == {"Textual Entailment", "Data to Text"}
  assert all(len(questions) == 100 for questions in tasks.values())


def answered(name, category, said, wanted):
  rows = tuple(
    answers.Answer(i, 0, -1, -1, (), s, tuple(w))
    for i, (s, w) in enumerate(zip(said, wanted, strict=True))
  )
  return TaskAnswers(name, ("super_ni",), rows, category)


def test_means_are_over_instances():
  """Three instances of one task weigh more than one of another."""
  tasks = {
    "a": answered("a", "Textual Entailment", ["Yes!", "no", "no"], [["yes"], ["yes"], ["maybe", "NO"]]),
    "b": answered("b", "Title Generation", ["running dogs"], [["the dog runs"]]),
  }
  every, entailment, title = super_ni.scores(tasks)
  assert (every.category, every.tasks, every.n) == (super_ni.ALL, 2, 4)
  assert entailment.exact_match == pytest.approx(200 / 3)
  assert entailment.preferred == "exact_match"
  # run, dog against the, dog, run: one in order of 2 and 3.
  assert title.rouge_l == pytest.approx(100 * 2 / 5)
  assert (title.exact_match, title.preferred) == (0.0, "rougeL")
  assert every.exact_match == pytest.approx(50.0)
  assert every.rouge_l == pytest.approx((100 + 0 + 100 + 40) / 4)
  assert every.rouge_l_interval[0] < every.rouge_l < every.rouge_l_interval[1]
  assert "Porter" in every.signature


def test_other_scripts_have_tokens_in_the_cross_lingual_track():
  tasks = {"a": answered("a", "Title Generation", ["今天下雨"], [["今天有雨"]])}
  assert super_ni.scores(tasks)[0].rouge_l == 0.0
  assert super_ni.scores(tasks, "xlingual")[0].rouge_l == pytest.approx(75.0)
  whole = super_ni.scores(tasks, "xlingual", tokens=lambda text: [text])
  assert whole[0].rouge_l == 0.0
  with pytest.raises(UserError, match="no effect in the English track"):
    super_ni.scores(tasks, tokens=list)
  with pytest.raises(UserError, match="no answers to score"):
    super_ni.scores({})


