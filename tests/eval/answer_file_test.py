"""Answers on disk: resumed after a real kill, nothing decoded twice."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.eval.answer_file import AnswerFile
from tests.eval.fakes import example

LENGTHS = {"inputs": 64, "targets": 4}


def key(e):
  return {"task": e.task, "index": e.index}


def opened(path, run="one"):
  return AnswerFile(path, run=run, key=key)


def examples_of(count):
  # Two of them share an input.
  out = [example([2 + i, 3], index=i, task="e2e") for i in range(count - 1)]
  return [*out, example([2, 3], index=count - 1, task="e2e")]


def answer(number):
  return {
    "text": f"answer {number}\u2028", "tokens": (5, number), "complete": True,
    "score": -0.1,
  }


def rows(path):
  return [json.loads(x) for x in path.read_text("utf-8").split("\n") if x]


def test_lines_come_as_answers_do_and_end_in_the_order_of_the_examples(
  tmp_path
):
  path = tmp_path / "deep" / "generated.jsonl"
  examples = examples_of(3)
  file = opened(path)
  assert file.begin(examples) == {}
  for number in (2, 0, 1):
    file.add(number, examples[number], [answer(number)])
    assert [r["number"] for r in rows(file.partial)][-1] == number
  assert not path.exists()
  file.end(examples)
  assert not file.partial.exists()
  found = rows(path)
  assert [r["number"] for r in found] == [0, 1, 2]
  assert found[0]["task"] == "e2e"
  assert found[0]["prompt"] == found[2]["prompt"] != found[1]["prompt"]
  assert opened(path).begin(examples) == {n: [answer(n)] for n in range(3)}


def test_a_line_that_was_being_written_is_made_anew(tmp_path):
  path = tmp_path / "generated.jsonl"
  examples = examples_of(3)
  file = opened(path)
  file.begin(examples)
  file.add(1, examples[1], [answer(1)])
  whole = file.partial.read_bytes()
  file.add(0, examples[0], [answer(0)])
  torn = file.partial.read_bytes()
  for cut in (len(whole) + 1, len(torn) - 1):
    file.partial.write_bytes(torn[:cut])
    again = opened(path)
    assert again.begin(examples) == {1: [answer(1)]}
    assert file.partial.read_bytes() == whole


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda r: {**r, "run": "two"}, "line 1 holds an answer of another check"),
    (lambda r: {**r, "prompt": "0"}, "line 1 answers another prompt than ex"),
    (lambda r: {**r, "number": 7}, "line 1 answers another prompt than ex"),
    (lambda r: {"number": 1}, "line 1 is no answer .*remove the file"),
    (lambda r: "[]", "line 1 is no answer"),
  ],
)
def test_answers_of_something_else_are_refused(tmp_path, change, message):
  path = tmp_path / "generated.jsonl"
  examples = examples_of(3)
  file = opened(path)
  file.begin(examples)
  file.add(1, examples[1], [answer(1)])
  (row,) = rows(file.partial)
  file.partial.write_text(json.dumps(change(row)) + "\n")
  with pytest.raises(UserError, match=message):
    opened(path).begin(examples)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="answers cannot be kept in .*OUTPUT_DIR"):
    opened(tmp_path / "file" / "x.jsonl").begin(examples_of(2))


def test_examples_that_share_an_input_are_answered_together(
  tmp_path, monkeypatch
):
  """Also where the first start was stopped between their lines."""
  path, examples = tmp_path / "generated.jsonl", examples_of(4)
  decoded = []

  def answers(model, params, inputs, **_):
    for number, tokens in enumerate(inputs):
      decoded.append(tokens.tolist())
      yield generation.continuous.Ended(number, (7, 1), None, True)

  monkeypatch.setattr(generation.continuous, "answers", answers)

  def run():
    return generation.generate(
      "model", {}, examples, decode=str, batch_size=2, lengths=LENGTHS,
      end_ids=(1,), file=opened(path),
    )

  first = run()
  whole = path.read_bytes()
  assert len(decoded) == 3
  kept = whole.split(b"\n")[0] + b"\n"
  path.unlink()
  opened(path).partial.write_bytes(kept)
  assert run() == first
  assert len(decoded) == 5
  assert path.read_bytes() == whole
  assert run() == first
  assert len(decoded) == 5


WORKER = """
import sys, time
import jax
from flan_jax.eval import generation
from flan_jax.eval.answer_file import AnswerFile
from tests.eval.answer_file_test import LENGTHS, examples_of, key
from tests.models import recurrent

model = recurrent.Recurrent(vocab_size=40)
params = model.init(spread=1.5)
file = AnswerFile(sys.argv[1], run="one", key=key)
pause = float(sys.argv[2])
answers = generation.continuous.answers

def slowly(*args, **kwargs):
  for ended in answers(*args, **kwargs):
    print(len(args[2]), flush=True)
    time.sleep(pause)
    yield ended

generation.continuous.answers = slowly
generation.generate(
  model, params, examples_of(30), decode=str, batch_size=4, lengths=LENGTHS,
  end_ids=(1,), file=file,
)
"""


def start(path, pause):
  return subprocess.Popen(
    [sys.executable, "-c", WORKER, str(path), str(pause)],
    stdout=subprocess.PIPE, text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again(tmp_path):
  whole = tmp_path / "whole" / "generated.jsonl"
  process = start(whole, 0)
  decoded = process.communicate()[0].split()
  assert (process.returncode, len(decoded)) == (0, 29)

  path = tmp_path / "killed" / "generated.jsonl"
  partial = opened(path).partial
  process = start(path, 0.2)
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline:
    if partial.exists() and len(partial.read_bytes().split(b"\n")) > 10:
      break
    time.sleep(0.02)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  assert not path.exists()
  kept = partial.read_bytes()
  lines = kept[: kept.rfind(b"\n") + 1].split(b"\n")[:-1]
  assert 10 <= len(lines) < 30
  inputs = {json.loads(line)["prompt"] for line in lines}

  process = start(path, 0)
  decoded = process.communicate()[0].split()
  assert process.returncode == 0
  # What was kept is not decoded again, and all else is.
  assert len(decoded) == 29 - len(inputs)
  assert set(decoded) == {str(29 - len(inputs))}
  assert path.read_bytes() == whole.read_bytes()
  assert not partial.exists()


def test_a_kept_score_is_the_same_number():
  value = float(np.float32(-1.1))
  assert json.loads(json.dumps(value)) == value
