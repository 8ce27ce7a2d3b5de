"""Reading instruction data: formats, bad lines, and that none is lost."""

import json
import random
import sys

import pytest

from flan_jax.data import sft_files, sft_formats, sft_records
from flan_jax.data.sft_records import ASSISTANT, USER, Turn
from flan_jax.errors import UserError

ROWS = {
  "alpaca": {
    "instruction": "Translate.",
    "input": "chat",
    "output": "cat",
    "category": "translation",
  },
  "prompt_completion": {"prompt": "2 + 2?", "completion": "4", "user_id": 7},
  "question_answer": {"question": "2 + 2?", "answer": "#### 4"},
  "messages": {
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Hello"},
      {"role": "assistant", "content": "Hi", "weight": 0},
      {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
      {"role": "assistant", "content": "So long"},
    ],
    "source": "made",
  },
  "sharegpt": {
    "id": "x",
    "conversations": [
      {"from": "human", "value": "Hello"},
      {"from": "gpt", "value": "Hi"},
    ],
  },
  "self_instruct": {
    "id": "seed_1",
    "instruction": "Name a colour.",
    "instances": [
      {"input": "of the sky", "output": "blue"},
      {"input": "", "output": "red"},
    ],
    "is_classification": False,
  },
  "super_ni": {
    "Definition": ["Answer."],
    "input": "2 + 2?",
    "output": ["4", "four"],
    "id": "t-1",
  },
}


def written(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def read(path, **options):
  records, (counts,) = sft_files.read([str(path)], **options)
  return records, counts


@pytest.mark.parametrize("name", sft_formats.FORMATS)
def test_every_format_is_told_by_its_keys_and_can_be_named(name, tmp_path):
  assert sft_formats.detect(ROWS[name]).name == name
  path = written(tmp_path / "a.jsonl", [ROWS[name]] * 3)
  told, counts = read(path)
  named, same = read(path, how=name)
  assert told == named
  assert counts == same
  assert (counts.format, counts.lines, counts.read) == (name, 3, 3)
  assert {r.line for r in told} == {1, 2, 3}
  assert {r.file for r in told} == {path}


def test_what_each_format_says(tmp_path):
  def one(name):
    path = written(tmp_path / f"{name}.jsonl", [ROWS[name]])
    return read(path)[0]

  (alpaca,) = one("alpaca")
  assert alpaca.turns == (
    Turn(USER, "Translate.", "chat"),
    Turn(ASSISTANT, "cat"),
  )
  assert alpaca.metadata == {"category": "translation"}
  assert one("prompt_completion")[0].metadata == {"user_id": 7}
  (chat,) = one("messages")
  assert chat.system == "Be brief."
  assert chat.metadata == {"source": "made"}
  assert [t.trained for t in chat.turns] == [True, False, True, True]
  assert chat.turns[2].text == "Bye"
  assert chat.answer == "So long"
  assert [t.role for t in one("sharegpt")[0].turns] == [USER, ASSISTANT]
  first, second = one("self_instruct")
  assert first.turns[0].input == "of the sky"
  assert second.answer == "red"
  assert one("super_ni")[0].turns[0] == Turn(USER, "Answer.", "2 + 2?")
  assert one("super_ni")[0].answer == "4"


def test_other_spellings(tmp_path):
  rows = [
    {"instruction": "a", "context": "b", "response": "c"},
    {"instruction": "a", "output": "c", "history": [["d", "e"]], "system": "s"},
  ]
  dolly, turned = read(written(tmp_path / "a.jsonl", rows))[0]
  assert dolly.turns == (Turn(USER, "a", "b"), Turn(ASSISTANT, "c"))
  assert [t.text for t in turned.turns] == ["d", "e", "a", "c"]
  assert turned.system == "s"
  lists = {
    "prompt": [{"role": "user", "content": "a"}],
    "completion": [{"role": "assistant", "content": "b"}],
  }
  assert read(written(tmp_path / "b.jsonl", [lists]))[0][0].answer == "b"
  other = {"conversations": ROWS["messages"]["messages"]}
  (found,), counts = read(written(tmp_path / "c.jsonl", [other]))
  assert (
    found.turns
    == read(written(tmp_path / "d.jsonl", [ROWS["messages"]]))[0][0].turns
  )
  assert counts.format == "sharegpt"


def user(text):
  return {"role": "user", "content": text}


def assistant(text):
  return {"role": "assistant", "content": text}


BAD = [
  ('{"instruction": "a", "output": "b"', "not_json", "column 35"),
  ("[1, 2]", "not_object", "list, no object"),
  ('{"text": "a"}', "unknown_format", r"known are messages \(messages\)"),
  ('{"instruction": 1, "output": "b"}', "not_text", "instruction is a number"),
  ('{"instruction": "a", "output": ""}', "empty_turn", "assistant, is empty"),
  (
    {"messages": [assistant("a"), user("b")]},
    "starts_with_assistant",
    "starts with the assistant",
  ),
  ({"messages": [user("a"), assistant(" ")]}, "empty_turn", "turn 2"),
  ({"messages": [user("a")]}, "no_answer", "ends with a user's turn"),
  ({"messages": []}, "no_answer", "no turn"),
  (
    {"messages": [user("a"), user("b")]},
    "not_alternating",
    "turns 1 and 2 are both of the user",
  ),
  (
    {"messages": [{"role": "asistant", "content": "a"}]},
    "unknown_role",
    "'asistant'; known are .*nearest is 'assistant'",
  ),
  (
    {"messages": [user("a"), {"role": "system", "content": "s"}]},
    "system_not_first",
    "may only be the first",
  ),
  ({"messages": [user(None), assistant("b")]}, "not_text", "absent"),
  ({"messages": ["a"]}, "not_text", "message 1 is a number|no object"),
  (
    {"instruction": "a", "instances": []},
    "no_answer",
    "instances is empty",
  ),
  (
    {"Definition": "a", "input": "b", "output": []},
    "no_answer",
    "empty list of references",
  ),
  ('{"prompt": "\\ud800", "completion": "b"}', "not_utf8", "surrogate pair"),
  ('{"prompt": ' + "[" * 100_000, "not_json", "column 1"),
]


@pytest.mark.parametrize(("row", "reason", "said"), BAD)
def test_a_bad_row_is_named_or_counted(row, reason, said, tmp_path):
  line = row if isinstance(row, str) else json.dumps(row)
  path = tmp_path / "a.jsonl"
  good = json.dumps(ROWS["messages"])
  path.write_text(f"{line}\n\n{good}\n")
  with pytest.raises(UserError, match=rf"a.jsonl, line 1: .*({said})") as e:
    read(path)
  assert "ON_BAD_ROW='skip'" in str(e.value)
  alone = tmp_path / "alone.jsonl"
  try:
    good = ROWS[sft_formats.detect(json.loads(line)).name]
  except (ValueError, RecursionError, AttributeError):  # of no format
    good = ROWS["alpaca"]
  alone.write_text(f"{line}\n{json.dumps(good)}\n")
  assert reason in read(alone, on_bad_row="skip")[1].skipped
  good = json.dumps(ROWS["messages"])
  if reason != "unknown_format" and not line.startswith('{"mess'):
    path.write_text(f"{good}\n{line}\n")  # the format is told by now
  records, counts = read(path, on_bad_row="skip")
  assert len(records) == 1
  assert counts.read + sum(counts.skipped.values()) == counts.lines
  assert counts.bad == 1


def test_bytes_that_are_no_text(tmp_path):
  path = tmp_path / "a.jsonl"
  good = json.dumps(ROWS["alpaca"]).encode()
  path.write_bytes(b"\xef\xbb\xbf" + good + b"\n" + good[:20] + b"\xff\n")
  with pytest.raises(UserError, match="line 2: byte 21 of the line .0xff."):
    read(path)
  records, counts = read(path, on_bad_row="skip")
  assert len(records) == 1
  assert counts.skipped == {"not_utf8": 1}


def test_mixed_formats_in_a_file(tmp_path):
  rows = [ROWS["alpaca"], ROWS["messages"], {"instruction": "a"}]
  path = written(tmp_path / "a.jsonl", rows)
  with pytest.raises(
    UserError, match="line 2: it is a row of format messages.* are alpaca"
  ):
    read(path)
  _, counts = read(path, on_bad_row="skip")
  assert counts.skipped == {"other_format": 1, "missing_field": 1}
  with pytest.raises(UserError, match="SFT_FORMAT is 'alpacca'.*'alpaca'"):
    read(path, how="alpacca")
  with pytest.raises(UserError, match="ON_BAD_ROW is 'ignore'"):
    read(path, on_bad_row="ignore")
  # Two files may differ.
  other = written(tmp_path / "b.jsonl", [ROWS["sharegpt"]])
  _, counts = sft_files.read([path, other], on_bad_row="skip")
  assert [c.format for c in counts] == ["alpaca", "sharegpt"]


def test_a_json_list(tmp_path):
  path = tmp_path / "a.json"
  path.write_text(json.dumps([ROWS["alpaca"]] * 3, indent=1))
  records, counts = read(path)
  assert counts.lines == counts.read == 3
  assert [r.line for r in records] == [2, 8, 14]
  assert path.read_text().splitlines()[7] == " {"
  path.write_text(json.dumps([ROWS["alpaca"], 3, ROWS["alpaca"]]))
  assert read(path, on_bad_row="skip")[1].skipped == {"not_object": 1}
  text = json.dumps([ROWS["alpaca"]] * 2, indent=1)
  for wrong, said in (
    (text[:-20], r"line \d+, column \d+: not JSON"),
    (text.replace("},", "}"), "comma or the end"),
    (text + "x", "something follows"),
    (text.replace("}\n]", "},\n]"), "comma before the end"),
  ):
    path.write_text(wrong)
    with pytest.raises(UserError, match=said):
      read(path, on_bad_row="skip")
  path.write_text(json.dumps(ROWS["alpaca"]))
  assert len(read(path)[0]) == 1
  path.write_text(2 * (json.dumps(ROWS["alpaca"]) + "\n"))
  assert len(read(path)[0]) == 2
  path.write_bytes(b'["\xff"]')
  with pytest.raises(UserError, match="line 1: 0xff is not UTF-8"):
    read(path)


def test_a_task_of_super_natural_instructions(tmp_path):
  path = tmp_path / "task1_sums.json"
  task = {
    "Definition": ["Add."],
    "Categories": ["Mathematics"],
    "Instances": [
      {"id": "1", "input": "2 2", "output": ["4"]},
      {"id": "2", "input": "2 3", "output": []},
    ],
  }
  path.write_text(json.dumps(task))
  with pytest.raises(UserError, match="line 2: output is an empty list"):
    read(path)
  (record,), counts = read(path, on_bad_row="skip")
  assert record.metadata == {
    "id": "1", "task": "task1_sums", "category": "Mathematics"
  }  # fmt: skip
  assert counts.skipped == {"no_answer": 1}
  del task["Definition"]
  path.write_text(json.dumps(task))
  with pytest.raises(UserError, match="Instances but no Definition"):
    read(path)


def test_parquet(tmp_path, monkeypatch):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  for name, row in ROWS.items():
    if name != "messages":  # content has two types, which no column has
      path = tmp_path / f"{name}.parquet"
      parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
      lines = written(tmp_path / f"{name}.jsonl", [row, row])
      found, counts = read(path)
      wanted, _ = read(lines)
      assert [r.turns for r in found] == [r.turns for r in wanted]
      assert counts.lines == counts.read == 2
  path.write_bytes(b"PAR1 and no more")
  with pytest.raises(UserError, match="cannot be read as Parquet"):
    read(path)
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(UserError, match=r"pip install 'flan_jax\[sft\]'"):
    read(path)


def test_files(tmp_path):
  with pytest.raises(UserError, match="SFT_FILES is not set"):
    sft_files.files(())
  with pytest.raises(UserError, match="names no file"):
    sft_files.files(str(tmp_path / "*.jsonl"))
  (tmp_path / "a.csv").touch()
  with pytest.raises(UserError, match="none of .jsonl, .json, .parquet"):
    sft_files.files(str(tmp_path / "*"))
  path = written(tmp_path / "b.jsonl", [ROWS["alpaca"]])
  assert sft_files.files([path, str(tmp_path / "*.jsonl")]) == [path]
  (tmp_path / "b.jsonl").write_text("{}\n\n")
  with pytest.raises(UserError, match="not one conversation.*1 blank lines"):
    sft_files.read([path], on_bad_row="skip")


def test_real_rows(shared):
  folder = shared / "instructions"
  for name, how, lines in (
    ("dolly_3k.json", "alpaca", 2996),
    ("self_instruct_seed_tasks.jsonl", "self_instruct", 175),
    ("user_oriented_instructions_eval.jsonl", "self_instruct", 252),
  ):
    records, counts = read(folder / name)
    assert (counts.format, counts.lines, len(records)) == (how, lines, lines)
    assert not counts.skipped


# ------------------------------------------------------------------- fuzzing


def anything(chance, depth=0):
  kinds = ["text", "number", "null", "bool"] + ["list", "object"] * (depth < 3)
  kind = chance.choice(kinds)
  if kind == "text":
    return "".join(
      chance.choices("ab \n\t\u2581é😀\x00{}<|", k=chance.randrange(9))
    )
  if kind == "number":
    return chance.choice([0, -1, 2.5, 1e400, 10**30])
  if kind == "list":
    return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
  if kind == "object":
    keys = ["role", "content", "from", "value", "input", "output", "x"]
    return {k: anything(chance, depth + 1) for k in chance.sample(keys, 2)}
  return None if kind == "null" else chance.random() < 0.5


def spoilt(chance, value):
  """The same with one thing in it replaced, somewhere."""
  if isinstance(value, dict) and value and chance.random() < 0.8:
    key = chance.choice(list(value))
    if chance.random() < 0.2:
      return {k: v for k, v in value.items() if k != key}
    return {**value, key: spoilt(chance, value[key])}
  if isinstance(value, list) and value and chance.random() < 0.8:
    at = chance.randrange(len(value))
    if chance.random() < 0.2:
      return value[:at] + value[at + 1 :]
    return [*value[:at], spoilt(chance, value[at]), *value[at + 1 :]]
  return anything(chance)


def fuzzed(chance, name):
  """A line, and whether it is known to be good."""
  row, kind = ROWS[name], chance.randrange(10)
  if kind < 4:
    return json.dumps(row, ensure_ascii=chance.random() < 0.5).encode(), True
  if kind == 4:
    row = ROWS[chance.choice(list(ROWS))]
    return json.dumps(row).encode(), row is ROWS[name]
  if kind < 8:
    return json.dumps(spoilt(chance, row)).encode(), False
  line = bytearray(json.dumps(row).encode())
  if kind == 8:
    return bytes(line[: chance.randrange(len(line))]), False
  for _ in range(chance.randrange(1, 4)):
    line[chance.randrange(len(line))] = chance.randrange(256)
  return bytes(line).replace(b"\n", b" "), False


@pytest.mark.parametrize("name", sft_formats.FORMATS)
def test_fuzzed_lines_are_read_or_counted(name, tmp_path):
  """10,000 lines over all formats: no crash, and read + skipped = lines."""
  chance = random.Random(name)
  lines = [(json.dumps(ROWS[name]).encode(), True)]
  lines += [fuzzed(chance, name) for _ in range(1_999)]
  path = tmp_path / "a.jsonl"
  end = b"\n" if chance.random() < 0.5 else b""
  path.write_bytes(b"\n".join(line for line, _ in lines) + end)
  records, counts = read(path, on_bad_row="skip")
  # A last line that is empty and has no end is none.
  expected = 2_000 - (lines[-1][0] == b"" and not end)
  assert counts.lines == expected
  assert counts.read + sum(counts.skipped.values()) == counts.lines
  assert set(counts.skipped) <= set(sft_records.REASONS)
  good = {n for n, (_, known) in enumerate(lines, 1) if known}
  assert good <= {r.line for r in records}
  assert len({r.line for r in records}) == counts.read
  for record in records:
    assert [t.role for t in record.turns[:2]] == [USER, ASSISTANT]
    assert all((t.text + t.input).strip() for t in record.turns)
    "".join(t.text for t in record.turns).encode()
