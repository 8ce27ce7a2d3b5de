"""Lines that survive a full disk: a real one, a file system of 64 KiB."""

import json
import logging
import resource

import pytest

from flan_jax.training import writers
from tests.training.full_disk import full_disk  # noqa: F401


def steps(path):
  return [row["step"] for row in writers.read(path)]


def test_lines_are_replaced_and_appended(tmp_path):
  lines = writers.JsonLines(tmp_path / "a.jsonl", [{"step": 1}])
  assert lines.append({"step": 2, "x": 0.5})
  lines.close()
  text = (tmp_path / "a.jsonl").read_text()
  assert text == '{"step": 1}\n{"step": 2, "x": 0.5}\n'


def test_no_line_is_lost_or_torn_where_files_cannot_grow(tmp_path, caplog):
  path = tmp_path / "a.jsonl"
  lines = writers.JsonLines(path, [{"step": 0}])
  text = "x" * 300
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
  try:
    with caplog.at_level(logging.WARNING):
      done = [lines.append({"step": n, "text": text}) for n in range(1, 8)]
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
  assert done == [True] * 3 + [False] * 4
  # The file is whole at every moment, and one message was enough.
  assert steps(path) == [0, 1, 2, 3]
  assert path.read_text().endswith("\n")
  assert caplog.text.count("cannot be written") == 1
  assert lines.append({"step": 8})
  lines.close()
  assert steps(path) == list(range(9))
  assert "is written again; no line is lost" in caplog.text


def test_a_full_disk(full_disk, caplog):  # noqa: F811
  path = full_disk.folder / "a.jsonl"
  lines = writers.JsonLines(path, [])
  lines.append({"step": 1})
  full_disk.fill()
  with caplog.at_level(logging.WARNING):
    for number in range(2, 40):
      lines.append({"step": number, "text": "x" * 1000})
  assert "No space left on device" in caplog.text
  kept = steps(path)
  assert kept == list(range(1, len(kept) + 1))
  assert len(kept) < 39
  full_disk.free()
  assert lines.append({"step": 40})
  lines.close()
  assert steps(path) == list(range(1, 41))


@pytest.mark.parametrize("start", [0, 2])
def test_the_log_holds_one_curve(tmp_path, start):
  log = writers.MetricsLog(tmp_path, 0)
  for step in range(1, 5):
    log.write(step, {"train/loss": float(step)})
  log.go_back(3)
  log.write(4, {"train/loss": 40.0})
  log.close()
  assert [r["train/loss"] for r in writers.read(log.path)] == [1, 2, 3, 40]
  with log.path.open("a") as file:
    file.write(json.dumps({"step": 5})[:-3])
  again = writers.MetricsLog(tmp_path, start)
  again.close()
  assert steps(again.path) == ([1, 2] if start else [])
  assert list((tmp_path / "tensorboard").glob("events*"))
