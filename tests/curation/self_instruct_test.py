"""Self-Instruct: the job against an endpoint on loopback."""

import collections
import contextlib
import json
import pathlib
import re

import pytest

from flan_jax import config
from flan_jax.curation import (
  bootstrap,
  decisions,
  growth,
  instances,
  manifest,
  overlap,
  rows,
  seeds,
  self_instruct,
  wording,
)
from flan_jax.curation import run as run_lib
from flan_jax.curation.bootstrap import Bootstrap
from flan_jax.curation.growth import Growth
from flan_jax.curation.instances import Instances
from flan_jax.curation.text_rules import Rules
from flan_jax.endpoint.budget import Budget
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError
from tests.curation import fake_endpoint as fake
from tests.curation.fake_endpoint import Raw, Say, Status

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERBS = (
  "describe", "compare", "invent", "translate", "rank", "explain", "shorten",
  "defend", "list", "imagine",
)
THINGS = (
  "rivers", "bridges", "teapots", "planets", "violins", "markets", "storms",
  "gardens", "ladders", "whales", "castles", "engines", "spices", "proverbs",
)


def task(n):
  """Instructions that have few words in common."""
  verb = VERBS[n % len(VERBS)].capitalize()
  a, b = (THINGS[(n * k + k) % len(THINGS)] for k in (3, 5))
  return f"{verb} w{n}a {a} x{n}b {b} y{n}c"


def is_list(prompt):
  return prompt.startswith(
    (wording.ENGLISH.tasks, wording.ENGLISH.classification_tasks)
  )


class Script:
  """A model that writes three new tasks a prompt, and instances for each."""

  def __init__(self, make=task):
    self.make, self.made = make, 0

  def __call__(self, prompt, times):
    if is_list(prompt):
      first = self.made
      self.made += 3
      a, b, c = (self.make(first + i) for i in range(3))
      return Say(f" {a}\n10. {b}\n11. {c}")
    if prompt.endswith(wording.ENGLISH.question):
      return Say(" Yes" if "describe" in prompt.split("Task:")[-1].lower()
                 else " No")
    if prompt.startswith(wording.ENGLISH.output_first):
      return Say("Class label: good\nI like it.\nClass label: bad\nOh no.")
    return Say("Example 1\n1, 2\nOutput: 3\nExample 2\n4\nOutput: 5")


@contextlib.contextmanager
def serving(behave, port=0):
  server = fake.Server(behave, port)
  try:
    yield server
  finally:
    server.close()


def run(folder, behave=None, *, budget=None, port=0, **options):
  options = {
    "growth": Growth(target=6, prompts_per_round=2),
    "bootstrap": Bootstrap(),
    "instances": Instances(instance_examples=2, other_examples=2),
  } | options
  with serving(behave or Script(), port) as server:
    endpoint = Endpoint(
      server.url, "maker", api="completions", concurrency=1, retries=0,
      budget=budget or Budget(),
    )
    result = self_instruct.self_instruct(
      generator=endpoint, output_dir=folder, **options
    )
  return result, server


def decided(folder, stage=None):
  found = decisions.read(pathlib.Path(folder) / decisions.FILE)
  return [d for d in found if stage in (None, d["stage"])]


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_from_seeds_to_rows(tmp_path):
  result, server = run(tmp_path)
  made = rows.read(tmp_path / "data.jsonl")
  seed_rows = sum(len(s.instances) for s in seeds.read())
  assert result["seed_rows"] == seed_rows
  assert len(made) == seed_rows + result["rows"]
  first = made[seed_rows]
  assert first["instruction"] == task(0)
  assert (first["input"], first["output"]) == ("I like it.", "good")
  assert first["provenance"]["method"] == "self_instruct"
  assert first["provenance"]["model"] == "maker"
  assert len(first["provenance"]["in_context"]) == 8
  kept = lines(tmp_path / "instructions.jsonl")
  assert [r["instruction"] for r in kept] == [task(i) for i in range(6)]
  assert len(kept[0]["most_similar"]) == 10
  assert kept[0]["is_classification"] is True
  assert kept[1]["is_classification"] is False
  written = manifest.beside(tmp_path / "data.jsonl")
  assert written.models["generator"]["model"] == "maker"
  assert written.counts["instruction"] == {"kept": 6}
  assert written.options["growth"]["limit"]["threshold"] == 0.7
  prompts = [p for p in server.prompts if is_list(p)]
  assert len(prompts) == 2
  body = server.asked[0][1]
  # Published: appendix A.
  assert body["temperature"] == 0.7
  assert body["top_p"] == 0.5
  assert body["presence_penalty"] == 2.0
  assert body["max_tokens"] == 1024
  assert body["stop"] == ["\n\n", "\n16", "16.", "16 ."]


def test_what_prompts_show(tmp_path):
  _, server = run(tmp_path, growth=Growth(target=12, prompts_per_round=1))
  own = {wording.squeeze(s.instruction).rstrip(":") for s in seeds.read()}
  prompts = [p for p in server.prompts if is_list(p)]
  shown = [
    [line.partition(". ")[2] for line in p.split("\n")[1:-1]] for p in prompts
  ]
  assert [len(s) for s in shown] == [8] * 4
  assert all(p.endswith("\n9.") for p in prompts)
  generated = [sum(i not in own for i in s) for s in shown]
  assert generated == [0, 2, 2, 2]
  tests = [p for p in server.prompts if p.startswith(
    wording.ENGLISH.is_classification)]
  answers = collections.Counter(re.findall(r"classification\? (\w+)", tests[0]))
  # Published: twelve that are, if there are so many.
  assert answers == {"Yes": 12, "No": 2}


def test_a_run_that_goes_on_asks_nothing_twice(tmp_path):
  """Stopped by its budget, and then again by an endpoint that went down."""
  script, port = Script(), fake.free_port()
  with pytest.raises(UserError, match="BUDGET_REQUESTS is 3"):
    run(tmp_path, script, budget=Budget(requests=3), port=port)
  assert not (tmp_path / manifest.NAME).exists()
  with pytest.raises(UserError, match="HTTP 401"):
    # A key that is refused stops a run at once.
    run(tmp_path, lambda p, n: (
      script(p, n) if is_list(p) or not p.endswith("\n") else Status(401)
    ), port=port)
  result, server = run(tmp_path, script, port=port)
  journal = lines(tmp_path / "journal.jsonl")
  answered = [r["key"] for r in journal if r["record"] == "response"]
  assert len(answered) == len(set(answered))
  whole, other = run(tmp_path / "whole", Script(), port=port)
  assert len(other.prompts) == len(answered)
  assert 0 < len(server.prompts) < len(answered)
  for name in ("data.jsonl", "decisions.jsonl", "instructions.jsonl"):
    assert (tmp_path / name).read_text() == (
      tmp_path / "whole" / name
    ).read_text()
  assert result["rows"] == whole["rows"]
  _, third = run(tmp_path, lambda p, n: pytest.fail("asked again"), port=port)
  assert third.prompts == []


def test_a_request_that_failed_stays_without_an_answer(tmp_path):
  """Else all that was asked after it would be asked anew."""

  def behave(script, broken):
    def answer(prompt, times):
      if is_list(prompt):
        broken["n"] += 1
        if broken["n"] == 2:
          return Status(400)
      return script(prompt, times)

    return answer

  script, port = Script(), fake.free_port()
  with pytest.raises(UserError, match="BUDGET_REQUESTS"):
    run(tmp_path, behave(script, {"n": 0}), budget=Budget(requests=5),
        port=port)
  run(tmp_path, script, port=port)
  journal = lines(tmp_path / "journal.jsonl")
  asked = [r["key"] for r in journal if r["record"] == "request"]
  assert len(asked) == len(set(asked))
  given_up = [r for r in journal if r["record"] == "given_up"]
  assert len(given_up) == 1
  assert "HTTP 400" in given_up[0]["error"]
  lost = [d for d in decided(tmp_path) if d["reason"] == "no answer"]
  assert len(lost) == 1


def test_an_endpoint_that_goes_down_midway_is_waited_for(tmp_path):
  script, said = Script(), []
  port = fake.free_port()
  servers = [fake.Server(script, port)]
  restarted = []

  def say(text):
    said.append(text)
    if "is down" in text:
      restarted.append(fake.Server(script, port))

  endpoint = Endpoint(
    servers[0].url, "maker", api="completions", retries=0, patience=30,
    concurrency=1, say=say,
  )
  original = growth.grow

  def stop_after_first(text):
    if text.startswith("round 1"):
      servers[0].close()

  try:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        self_instruct, "grow",
        lambda *a, say, **k: original(*a, say=stop_after_first, **k),
      )
      result = self_instruct.self_instruct(
        generator=endpoint, output_dir=tmp_path,
        growth=Growth(target=6, prompts_per_round=1),
        instances=Instances(instance_examples=2),
      )
  finally:
    for server in restarted:
      server.close()
  assert len(restarted) == 1
  assert "answers again" in said[-1]
  assert result["instructions"] == 6


def test_an_endpoint_that_is_down_at_the_start(tmp_path):
  endpoint = Endpoint(f"http://127.0.0.1:{fake.free_port()}/v1", "maker")
  with pytest.raises(UserError, match="cannot be reached"):
    self_instruct.self_instruct(generator=endpoint, output_dir=tmp_path)


@pytest.mark.parametrize(
  ("behave", "reason"),
  [
    (lambda p, n: Say(""), "3 empty reply"),
    (lambda p, n: Say("\n \n"), "3 empty reply"),
    (lambda p, n: Say("I am only a model.\nI cannot.\nSorry."),
     "another format"),
    (lambda p, n: Say("Name it."), "too short"),
  ],
)
def test_replies_that_are_of_no_use(tmp_path, behave, reason):
  with pytest.raises(UserError, match="none was|no row is kept") as e:
    run(tmp_path, behave, growth=Growth(prompts_per_round=1, barren_rounds=3))
  assert reason in str(e.value)
  assert len(decided(tmp_path)) >= 3


def test_an_endpoint_that_always_fails(tmp_path):
  with pytest.raises(UserError, match="20 requests failed one after another"):
    run(tmp_path, lambda p, n: Raw(b'{"choices": 3}'),
        growth=Growth(prompts_per_round=7))


def test_a_budget_of_zero():
  with pytest.raises(UserError, match="BUDGET_TOKENS is 0"):
    Budget(tokens=0)


def test_it_stops_when_novelty_falls(tmp_path):
  def same(prompt, times):
    if is_list(prompt):
      return Say(" Describe the long way home\n10. Describe the long way back")
    return Script()(prompt, times)

  result, _ = run(
    tmp_path, same,
    growth=Growth(target=99, prompts_per_round=1, novelty_rounds=3),
  )
  assert "novelty has fallen" in result["stopped"]
  assert len(result["rounds"]) == 3
  reasons = [d["reason"] for d in decided(tmp_path, "instruction")]
  assert collections.Counter(reasons) == {None: 1, growth.NEAR: 5}
  never, _ = run(
    tmp_path / "never", same,
    growth=Growth(target=99, prompts_per_round=1, novelty_rounds=3,
                  most_similar=None, barren_rounds=6),
  )
  assert never["stopped"] == "6 rounds admitted nothing"
  few, _server = run(
    tmp_path / "few",
    growth=Growth(target=99, prompts_per_round=2, most_requests=3),
  )
  assert "MOST_REQUESTS = 3" in few["stopped"]


def test_every_filter_leaves_its_reason(tmp_path):
  said = [
    "Draw a house on a hill.", "Too short", "Write a program that sorts.",
    "- with a mark before it", "Écris un poème sur la mer.",
    "Rewrite the sentence so that it is very polite.", task(1),
  ]
  text = "\n".join(f"{i}. {s}" for i, s in enumerate(said, 9))

  def behave(prompt, times):
    return Say(text) if is_list(prompt) else Script()(prompt, times)

  run(tmp_path, behave, growth=Growth(target=1, prompts_per_round=1))
  assert [d["reason"] for d in decided(tmp_path, "instruction")] == [
    "has the word 'draw'", "too short", "begins with 'Write a program'",
    "begins with punctuation", "is in another script", growth.NEAR, None,
  ]


def test_the_pool_decides_as_one_pass_over_all(shared):
  """Growing admits what `Pool` admits of the candidates in one go."""
  found = seeds.read(
    shared / "instructions" / "self_instruct_seed_tasks.jsonl"
  )
  texts = [s.instruction for s in found]
  limit = growth.Growth().limit
  pool = overlap.Pool(limit=limit)
  kept = [v.novel for v in pool.admit(texts)]
  again = overlap.Pool(limit=limit)
  assert [again.admit([t])[0].novel for t in texts] == kept
  assert sum(kept) == 173
  assert len(found) == 175
  assert sum(s.is_classification for s in found) == 26


@pytest.mark.parametrize(
  ("text", "complete", "expected"),
  [
    (" a b\n10. c d:\n11.e", True, ["a b", "c d:", "e"]),
    ("9. a\n10. b", True, ["a", "b"]),
    ("\n- a\n- b", True, ["a", "b"]),
    ("**9.** a\n**10.** b", True, ["a", "b"]),
    (" a\n10. b", False, ["a", ("b", "cut off")]),
    ("1、甲乙\n2、丙丁", True, ["甲乙", "丙丁"]),
    (" Multiply 3.5 by 2\n10. b", True, ["Multiply 3.5 by 2", "b"]),
    ("a\nb\nc", True, ["a", ("b c", "another format")]),
  ],
)
def test_reading_instructions(text, complete, expected):
  found = [
    (p.row["instruction"], p.reason) if p.reason else p.row["instruction"]
    for p in bootstrap.read(Reply(text, complete=complete))
  ]
  assert found == expected


def test_published_defects_on_request():
  cut = bootstrap.read(Reply(" A b.\n10. C", complete=False), faithful=True)
  assert [p.reason for p in cut] == ["cut off"]
  (piece,) = bootstrap.read(Reply(" Name a city in Peru."), faithful=True)
  assert piece.row["instruction"] == "Name a city in peru."
  (piece,) = bootstrap.read(Reply(" Name a city in Peru."))
  assert piece.row["instruction"] == "Name a city in Peru."


def test_reading_instances():
  read = instances.read_inputs_first
  assert read("Example 1\nSentence: x\nOutput: y\n\nExample 2.\nz\n") == [
    ("Sentence: x", "y"), "z",
  ]
  assert read("no form at all") == ["no form at all"]
  labels = instances.read_labels_first
  assert labels("Class label: yes") == [("", "yes")]
  assert labels("hm\nClass label: a\nb\nc") == ["hm", ("b\nc", "a")]


def test_instances_that_are_dropped(tmp_path):
  text = (
    "Example 1\nq\nOutput: r\nExample 2\nq\nOutput: r\nExample 3\ns\nOutput:"
    " s\nExample 4\nt\nOutput:\nExample 5\nu:\nOutput: v\nw"
  )

  def behave(prompt, times):
    if prompt.endswith(wording.ENGLISH.question):
      return Say(" no idea")
    return Script()(prompt, times) if is_list(prompt) else Say(text)

  result, server = run(
    tmp_path, behave, growth=Growth(target=3, prompts_per_round=1)
  )
  reasons = [d["reason"] for d in decided(tmp_path, "instance")]
  assert reasons == 3 * [
    None, "copy", "output is the input", "empty output",
    "input ends with a colon",
  ]
  assert result["rows"] == 3
  body = server.asked[-1][1]
  assert body["max_tokens"] == 350
  assert body["presence_penalty"] == 1.5
  assert body["stop"] == ["Example 6", "Task:"]
  assert body["temperature"] == 0
  assert server.asked[-4][1]["max_tokens"] == 3


def test_a_label_in_the_batch_shortens_it(tmp_path):
  _, server = run(tmp_path)
  sizes = [b["max_tokens"] for p, b, _ in server.asked if p.endswith("\n")]
  # The first of six is classification, and the sixth is alone in its batch.
  assert sizes == [300] * 5 + [350]


def test_seeds_that_are_wrong(tmp_path):
  good = {
    "id": "a", "instruction": "b", "is_classification": False,
    "instances": [{"input": "", "output": "c"}],
  }
  cases = [
    ("{", "line 1: not JSON"),
    ("[]", "line 1: '\\[\\]' is no object"),
    (json.dumps({"id": "a"}), "no 'instruction', 'instances', 'is_class"),
    (json.dumps(good) + "\n" + json.dumps(good), "line 2: the id 'a' is also"),
    (json.dumps(good | {"instances": []}), "'instances' is empty"),
    (json.dumps(good | {"instances": "x"}), "'instances' is no list"),
    (json.dumps(good | {"instances": [{"input": ""}]}), "'output' is None"),
    (json.dumps(good | {"instances": [3]}), "the instance 3 is no object"),
    (json.dumps(good | {"is_classification": "no"}), "it is true or false"),
    (json.dumps(good | {"instruction": " "}), "'instruction' is ' ', no text"),
    ("", "has no seed"),
  ]
  path = tmp_path / "seeds.jsonl"
  for text, message in cases:
    path.write_text(text)
    with pytest.raises(UserError, match=message):
      seeds.read(path)
  flat = {"id": "a", "instruction": "b", "output": "c", "is_classification": 0}
  path.write_text(json.dumps(flat | {"is_classification": True}))
  assert seeds.read(path)[0].instances == (("", "c"),)
  path.write_text(json.dumps(good))
  with pytest.raises(UserError, match="IN_CONTEXT = 8 seeds, and there are 1"):
    run(tmp_path / "out", seeds_path=path)
  with pytest.raises(UserError, match="needs a seed with is_classification tr"):
    run(tmp_path / "out", seeds_path=path, bootstrap=Bootstrap(in_context=1,
        machine_in_context=0))
  with pytest.raises(UserError, match="cannot be read"):
    seeds.read(tmp_path / "none.jsonl")


def test_options_that_are_wrong(tmp_path):
  with pytest.raises(UserError, match="MACHINE_IN_CONTEXT is 8"):
    Bootstrap(machine_in_context=8)
  with pytest.raises(UserError, match="MOST_SIMILAR is 2"):
    Growth(most_similar=2)
  with pytest.raises(UserError, match="tokenizer is 'rogue'.*'rouge'"):
    Growth(tokenizer="rogue")
  with pytest.raises(UserError, match="length is 'letters'"):
    Rules(length="letters")
  with pytest.raises(UserError, match="keywords is one text"):
    Rules(keywords="draw")
  with pytest.raises(UserError, match="WORDING is 'engish'.*'english'"):
    wording.resolve("engish")
  with pytest.raises(UserError, match="INSTANCE_BATCH is 100"):
    Instances(batch=100)
  with pytest.raises(UserError, match="BACKEND is None"):
    self_instruct.self_instruct(generator=None, output_dir=tmp_path)


CHINESE = [
  "请写一首关于春天的短诗。", "《红楼梦》的作者是谁？", "用Python写一个排序函数。",
  "Python中的列表是什么？", "把这段话翻译成英文。", "请写一首关于春天的小诗。",
  "请描述这张图片。", "写诗",
]


def test_chinese(tmp_path):
  """Near-duplicates are found, and nothing is dropped for being Chinese."""
  made = iter(range(99))

  def behave(prompt, times):
    zh = wording.CHINESE
    if prompt.startswith(zh.tasks):
      said = CHINESE if next(made) == 0 else []
      return Say(
        "\n".join(f"{i}. {s}" for i, s in enumerate(said, 9)) or "10. 无"
      )
    if prompt.endswith(zh.question):
      return Say("是。" if "翻译" in prompt.split(zh.task)[-1] else "否")
    if prompt.startswith(zh.output_first):
      return Say("类别：好评\n很喜欢。\n类别：差评\n太差了。")
    return Say("示例1\n一\n输出：甲\n示例 2\n二\n输出：乙")

  _result, _server = run(
    tmp_path, behave,
    seeds_path="chinese", wording="chinese",
    growth=Growth(
      target=5, prompts_per_round=1, tokenizer="characters",
      rules=Rules(length="characters", script="han", keywords=("图片",)),
    ),
  )
  found = {d["row"]["instruction"]: d["reason"]
           for d in decided(tmp_path, "instruction")}
  assert [found[c] for c in CHINESE] == [
    None, None, None, None, None, growth.NEAR, "has the word '图片'",
    "too short",
  ]
  made = [r for r in rows.read(tmp_path / "data.jsonl")
          if r["provenance"]["method"] == "self_instruct"]
  assert ("太差了。", "差评") in [(r["input"], r["output"]) for r in made]
  assert ("二", "乙") in [(r["input"], r["output"]) for r in made]
  # The published rules drop all of it: why they are options.
  assert all(Rules().reason(c) for c in CHINESE)
  assert len(overlap.near_pairs(CHINESE, tokenizer="characters")) == 1
  passed = [Rules(length="characters", script="han").reason(s.instruction)
            for s in seeds.read(seeds.CHINESE)]
  assert passed == [None] * 12


def test_the_job_by_gin(tmp_path):
  with fake.serving(Script()) as server:
    flags = {
      "BASE_URL": server.url, "ENDPOINT_MODEL": "maker", "TARGET": "2",
      "OUTPUT_DIR": str(tmp_path), "API": "completions", "SEED": "3",
    }
    loaded = config.load(
      ["gin/curate_self_instruct.gin", "gin/backends/endpoint.gin"],
      list(flags.items()), [str(ROOT)],
    )
    result = config.call_job(loaded, ["test"])
  assert result["rows"] >= 2
  written = manifest.read(tmp_path)
  # gin's values are the published ones, as the classes have them.
  assert written.options["growth"] == run_lib.plain(
    Growth(target=2, seed=3)
  )
  assert written.options["bootstrap"] == run_lib.plain(Bootstrap())
  assert written.options["instances"] == run_lib.plain(Instances(seed=3))
  assert written.command == ["test"]
  assert "mean similarity" in (tmp_path / "report.html").read_text()


def test_chinese_by_gin():
  loaded = config.load(
    ["gin/curate_self_instruct.gin", "gin/languages/chinese.gin",
     "gin/backends/checkpoint.gin"],
    [("CHECKPOINT_PATH", "x")], [str(ROOT)],
  )
  assert loaded.value("TOKENIZER") == "characters"
  assert loaded.value("WORDING") == "chinese"
