import json

import pytest

from flan_jax.eval import changed
from flan_jax.eval.answers import Answer
from flan_jax.eval.compare import TaskAnswers


def choice(index, prediction, template=0):
  choices = ("no", "yes")
  return Answer(
    index, template, 1, prediction, choices, choices[prediction], ()
  )


def free(index, text, *references):
  return Answer(index, 0, -1, -1, (), text, references)


def run(task, *answers):
  return {task: TaskAnswers(task, ("accuracy",), answers)}


def test_gained_and_lost_are_counted_by_template_and_row():
  a = run("rte", choice(0, 0), choice(1, 1), choice(0, 0, 3), choice(1, 0, 3))
  # The second run's rows come in another order.
  b = run("rte", choice(1, 0, 3), choice(0, 1, 3), choice(1, 0), choice(0, 1))
  counts, shown = changed.changed(a, b)
  assert counts == {"rte": changed.Counts(gained=2, lost=1, prompts=4)}
  assert [(c.template, c.index, c.a, c.b, c.gained) for c in shown] == [
    (0, 0, "no", "yes", True),
    (3, 0, "no", "yes", True),
    (0, 1, "yes", "no", False),
  ]
  assert {c.expected for c in shown} == {"yes"}


def test_no_more_than_a_few_of_each_direction_are_shown():
  n = changed.PER_TASK + 3
  a = run("rte", *(choice(i, i % 2) for i in range(2 * n)))
  b = run("rte", *(choice(i, 1 - i % 2) for i in range(2 * n)))
  counts, shown = changed.changed(a, b)
  assert counts["rte"] == changed.Counts(n, n, 2 * n)
  assert sum(c.gained for c in shown) == changed.PER_TASK
  assert len(shown) == 2 * changed.PER_TASK


@pytest.mark.parametrize(
  ("said", "right"),
  [("un chat", True), (" le chat\n", True), ("Un chat", False), ("", False)],
)
def test_free_text_is_right_letter_for_letter(said, right):
  assert free(0, said, "un chat", "le chat").right is right


def test_nothing_changed():
  a = run("mt", free(0, "x", "y"))
  assert changed.changed(a, a) == ({"mt": changed.Counts(0, 0, 1)}, [])


def test_prompts_are_read_from_a_run(tmp_path):
  line = {
    "task": "rte", "split": "test", "template": 0, "index": 0,
    "prediction": 1, "inputs_text": "Is it so?",
  }
  rows = [line, {**line, "split": "validation", "inputs_text": "not this"}]
  path = tmp_path / "predictions.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in rows))
  _, shown = changed.changed(
    run("rte", choice(0, 0), choice(1, 0)),
    run("rte", choice(0, 1), choice(1, 1)),
  )
  made = changed.with_prompts(shown, tmp_path, "test")
  # A row that the file does not have has no prompt.
  assert [c.prompt for c in made] == ["Is it so?", ""]


def test_a_row_with_several_right_choices():
  """ReCoRD's entities have several spellings; `label` is one of them."""
  spellings = ("U.S.", "France", "America")
  said = [
    Answer(0, 0, 0, n, spellings, spellings[n], ("U.S.", "America")).right
    for n in range(3)
  ]
  assert said == [True, False, True]
