import json
import pathlib
import shutil

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import mmlu

SAMPLE = pathlib.Path(__file__).parent.parent / "testdata" / "mmlu"


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(SAMPLE, tmp_path / "mmlu"))


def test_the_57_subjects():
  subjects = [s for part in mmlu.CATEGORIES.values() for s in part]
  assert len(subjects) == len(set(subjects)) == 57
  counts = {name: len(part) for name, part in mmlu.CATEGORIES.items()}
  assert counts == {
    "STEM": 18, "humanities": 13, "social sciences": 12, "other": 14,
  }
  assert mmlu.category("cooking") == "own"


def test_a_prompt_as_published():
  tasks = mmlu.load(SAMPLE, shots=1)
  astronomy, religions = tasks
  assert (astronomy.name, astronomy.cluster) == ("mmlu_astronomy", "STEM")
  assert (religions.cluster, religions.chance) == ("humanities", 25.0)
  first, _, third = tasks[astronomy]
  assert first.heading + "".join(first.exemplars) + first.query == (
    "The following are multiple choice questions (with answers) about"
    " astronomy.\n\n"
    "Which of these is a star?\nA. the Moon\nB. the Sun\nC. Mars\nD. a comet\n"
    "Answer: B\n\n"
    "Which of these is nearest to the Earth?\nA. Saturn\nB. the Moon\n"
    "C. the Pole Star\nD. Neptune\nAnswer:"
  )
  assert first.choices == (" A", " B", " C", " D")
  assert (first.label, first.references) == (1, ("B",))
  # A quoted field may have a line break.
  assert third.query.startswith("A leap year has one more\nday, in which")
  assert "world religions." in tasks[religions][0].heading


def test_shots():
  assert len(next(iter(mmlu.load(SAMPLE).values()))[0].exemplars) == 5
  zero = next(iter(mmlu.load(SAMPLE, shots=0).values()))[0]
  assert zero.exemplars == ()
  with pytest.raises(UserError, match="MMLU_SHOTS is 6; dev has 5"):
    mmlu.load(SAMPLE, shots=6)


def test_chain_of_thought():
  (asked, *_), _ = mmlu.load(SAMPLE, shots=5, cot=True).values()
  (solved,) = asked.exemplars
  assert solved.endswith("The answer is (B).\n\n")
  assert asked.heading == ""
  assert asked.query == (
    "Q: Which of these is nearest to the Earth?\n(A) Saturn (B) the Moon (C)"
    " the Pole Star (D) Neptune\nA: Let's think step by step."
  )
  assert (asked.choices, asked.references) == ((), ("B",))
  tasks = mmlu.load(SAMPLE, shots=0, cot=True)
  task, questions = next(iter(tasks.items()))
  assert (task.kind, task.metrics) == ("generation", ("final_letter",))
  assert questions[0].heading.startswith("The following are multiple choice")


def test_what_is_no_folder_of_mmlu(folder, tmp_path):
  with pytest.raises(UserError, match="is no MMLU folder: there is no test/"):
    mmlu.load(tmp_path)
  (folder / "mmlu-cot.json").write_text(json.dumps({"astronomy": "Q: ..."}))
  with pytest.raises(UserError, match="has no exemplars of 'world_religions'"):
    mmlu.load(folder, cot=True)
  (folder / "mmlu-cot.json").unlink()
  with pytest.raises(UserError, match="MMLU itself has none: .* MMLU_SHOTS=0"):
    mmlu.load(folder, cot=True)
  file = folder / "dev" / "astronomy_dev.csv"
  lines = file.read_text().splitlines()
  file.write_text("\n".join(lines[:2]))
  with pytest.raises(UserError, match="has 2 questions, MMLU_SHOTS asks for 5"):
    mmlu.load(folder)
  file.write_text("question,A,B,C,D,answer\n")
  with pytest.raises(UserError, match="astronomy_dev.csv, row 1: .* a letter A to D"):
    mmlu.load(folder)
  file.write_text("")
  with pytest.raises(UserError, match="astronomy_dev.csv has no question"):
    mmlu.load(folder)
  file.unlink()
  with pytest.raises(UserError, match="cannot be read: No such file"):
    mmlu.load(folder)
