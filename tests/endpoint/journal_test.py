"""The journal: what a killed process leaves, and what is not a journal."""

import json

import pytest

from flan_jax.endpoint.journal import Journal
from flan_jax.errors import UserError

REPLY = {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.5}


def asked(key):
  return {"record": "request", "key": key}


def answered(key):
  return {"record": "response", "key": key, "reply": REPLY}


def written(path, *keys):
  with Journal(path) as journal:
    for key in keys:
      journal.append(asked(key))
      journal.append(answered(key))


def test_what_was_written_is_there(tmp_path):
  path = tmp_path / "deep" / "j.jsonl"
  written(path, "a", "b")
  with Journal(path) as journal:
    journal.append(asked("c"), {"record": "failure", "key": "c", "used": REPLY})
    journal.append(asked("d"))
  with Journal(path) as journal:
    assert journal.get("a") == REPLY
    assert journal.get("c") is None
    assert len(journal) == 2
    assert journal.unanswered == {"d"}
    assert (journal.totals.responses, journal.totals.failures) == (2, 1)
    assert (journal.totals.tokens, journal.totals.cost) == (15, 1.5)
    assert journal.notes == []


@pytest.mark.parametrize("kept", [1, 12, 30])
def test_a_cut_last_line_is_named_and_taken_away(tmp_path, kept):
  path = tmp_path / "j.jsonl"
  written(path, "a", "b")
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
  with Journal(path) as journal:
    (note,) = journal.notes
    assert f"j.jsonl, line 4: the last line was cut after {kept} bytes" in note
    assert journal.get("a") == REPLY
    assert journal.get("b") is None
    assert journal.unanswered == {"b"}
    journal.append(answered("b"))
  with Journal(path) as journal:
    assert journal.notes == []
    assert journal.get("b") == REPLY
    kinds = [r["record"] for r in journal.records()]
  assert kinds == ["request", "response", "request", "torn", "response"]


def test_a_first_line_that_was_cut(tmp_path):
  path = tmp_path / "j.jsonl"
  path.write_bytes(b'{"record": "requ')
  with Journal(path) as journal:
    assert "line 1" in journal.notes[0]


@pytest.mark.parametrize(
  "content",
  [b"my thesis", b'{"prompt": "x"}\n', b"[1]\n", b'{"record": "response"}\n'],
)
def test_another_file_is_left_alone(tmp_path, content):
  path = tmp_path / "j.jsonl"
  path.write_bytes(content)
  with pytest.raises(UserError, match="line 1: .* is no record of a journal"):
    Journal(path)
  assert path.read_bytes() == content


def test_a_line_in_the_middle_is_not_passed_over(tmp_path):
  path = tmp_path / "j.jsonl"
  written(path, "a", "b")
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
  with pytest.raises(UserError, match="line 2: .* is no record"):
    Journal(path)


def test_one_process_at_a_time(tmp_path):
  path = tmp_path / "j.jsonl"
  with Journal(path), pytest.raises(UserError, match="in use by another"):
    Journal(path)
  Journal(path).close()


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    Journal(tmp_path / "file" / "j.jsonl")


def test_text_that_is_not_unicode_is_kept(tmp_path):
  path = tmp_path / "j.jsonl"
  reply = REPLY | {"raw": "\ud83d"}
  with Journal(path) as journal:
    journal.append({"record": "response", "key": "a", "reply": reply})
  with Journal(path) as journal:
    assert journal.get("a") == reply
  json.loads(path.read_text(encoding="utf-8"))
