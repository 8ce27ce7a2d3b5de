import doctest
import json
import pathlib
import shutil

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import bbh

SAMPLE = pathlib.Path(__file__).parent.parent / "testdata" / "bbh"


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(SAMPLE, tmp_path / "bbh"))


def text(question):
  return question.heading + "".join(question.exemplars) + question.query


def test_docstrings():
  assert doctest.testmod(bbh).failed == 0


def named(**kwargs):
  return {task.name: (task, rows) for task, rows in bbh.load(SAMPLE, **kwargs).items()}


def test_a_prompt_with_a_chain_of_thought_is_the_file():
  """Without its two lines of warning, and with the question at its end."""
  task, rows = named()["bbh_word_sorting"]
  file = (SAMPLE / "cot-prompts" / "word_sorting.txt").read_text()
  published = file.split("-----\n")[1].strip()
  assert text(rows[0]) == (
    published + "\n\nQ: Sort the following words alphabetically: List: pear"
    " apple fig\nA: Let's think step by step."
  )
  assert rows[0].references == ("apple fig pear",)
  assert (task.kind, task.metrics) == ("generation", ("final_answer",))


def test_a_direct_prompt_has_no_chain():
  _, rows = named(cot=False, shots=2)["bbh_word_sorting"]
  assert text(rows[1]) == (
    "Put the words in the order of the alphabet.\n\n"
    "Q: Sort the following words alphabetically: List: dog cat\nA: cat dog\n\n"
    "Q: Sort the following words alphabetically: List: sun sea\nA: sea sun\n\n"
    "Q: Sort the following words alphabetically: List: oak elm\nA:"
  )
  _, rows = named(cot=False, shots=0)["bbh_navigate"]
  assert rows[0].exemplars == ()
  assert rows[0].query.endswith("- Yes\n- No\nA:")


def test_chance_and_families():
  tasks = named()
  assert {name: task.chance for name, (task, _) in tasks.items()} == {
    "bbh_logical_deduction_five_objects": 20.0,
    "bbh_logical_deduction_three_objects": pytest.approx(100 / 3),
    "bbh_navigate": 50.0,
    "bbh_word_sorting": 0.0,
  }
  families = [task.family for task, _ in tasks.values()]
  assert families == ["bbh_logical_deduction"] * 2 + [None, None]


def test_what_is_no_folder_of_bbh(folder, tmp_path):
  with pytest.raises(UserError, match="is no BBH folder: there is no bbh/TASK"):
    bbh.load(tmp_path)
  with pytest.raises(UserError, match="BBH_SHOTS is 4; the prompts have 3"):
    bbh.load(folder, shots=4)
  prompt = folder / "cot-prompts" / "navigate.txt"
  good = prompt.read_text()
  prompt.write_text(good[: good.rindex("\n\nQ: ")])
  with pytest.raises(UserError, match="has 2 solved questions, BBH_SHOTS asks"):
    bbh.load(folder)
  prompt.write_text(good.replace("So the answer is No", "No"))
  with pytest.raises(UserError, match="navigate.txt, exemplar 2: there is no line"):
    bbh.load(folder)
  prompt.write_text(good[good.index("\nQ: ") :])
  with pytest.raises(UserError, match="no instruction stands before"):
    bbh.load(folder)
  prompt.unlink()
  with pytest.raises(UserError, match="cannot be read: No such file"):
    bbh.load(folder)
  data = folder / "bbh" / "navigate.json"
  for value in ([], {"examples": []}, {"examples": [{"input": 1, "target": ""}]}):
    data.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"navigate.json is not \{"):
      bbh.load(folder)
  data.write_text("{")
  with pytest.raises(UserError, match="navigate.json cannot be read"):
    bbh.load(folder)
