"""Alpaca: the job against an endpoint on loopback."""

import json
import pathlib
import re

import pytest

from flan_jax import config
from flan_jax.curation import alpaca as alpaca_lib
from flan_jax.curation import growth, manifest, rows, text_rules
from flan_jax.curation import run as run_lib
from flan_jax.curation.alpaca import Alpaca, alpaca
from flan_jax.curation.growth import Growth
from flan_jax.curation.text_rules import Rules
from flan_jax.data import sft_files
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError
from tests.curation import fake_endpoint as fake
from tests.curation.fake_endpoint import Say, Status
from tests.curation.self_instruct_test import decided, task

ROOT = pathlib.Path(__file__).resolve().parents[2]


def blocks(found, first=4):
  out = []
  for k, (i, given, o) in enumerate(found, first):
    head = "" if k == first else f"{k}. Instruction:"
    out.append(f"{head} {i}\n{k}. Input:\n{given}\n{k}. Output:\n{o}\n")
  return "###\n".join(out)


def make_alpaca(folder, behave, growth=None, **options):
  with fake.serving(behave) as server:
    endpoint = Endpoint(server.url, "maker", api="completions", retries=0)
    result = alpaca(
      generator=endpoint, output_dir=folder,
      growth=growth or Growth(target=2, prompts_per_round=1),
      options=Alpaca(**options),
    )
  return result, server


def test_alpaca(tmp_path):
  text = blocks([
    (task(0), "<noinput>", "Fine."), (task(1), "a, b", "b, a"),
    (task(0), "x", "y"), ("Short it.", "x", "y"), (task(2), "No input.", "z"),
    (task(3), "x", ""),
  ]) + "###\n12. Instruction: x\n12. Input:\n1\n12. Output:\n2"
  _result, server = make_alpaca(tmp_path, lambda p, n: Say(text))
  made = rows.read(tmp_path / "data.jsonl")
  assert [(r["instruction"], r["input"], r["output"]) for r in made] == [
    (task(0), "", "Fine."), (task(1), "a, b", "b, a"), (task(2), "", "z"),
  ]
  assert [d["reason"] for d in decided(tmp_path)] == [
    None, None, growth.NEAR, "too short", None, "empty output",
    "another format",
  ]
  prompt, body, _ = server.asked[0]
  # Published: 3 seeds, temperature 1, 3,072 tokens, the number 20 stops.
  assert prompt.count("###") == 4
  assert prompt.endswith("###\n4. Instruction:")
  assert body["temperature"] == 1.0
  assert body["max_tokens"] == 3072
  assert body["stop"] == ["\n20", "20."]
  assert "<noinput>" in prompt
  assert made[0]["provenance"]["in_context"][0].startswith("own_")


def test_alpacas_prompts(tmp_path):
  def numbers(prompt):
    head = alpaca_lib.header(prompt, 20)
    return re.findall(r"^(\d)\.", head, re.MULTILINE)

  assert numbers("as used") == list("123234567")
  assert numbers("fixed") == list("123456789")
  assert alpaca_lib.header("List {count}:", 7) == "List 7:"
  assert re.sub(r"\d", "", alpaca_lib.header("fixed", 20)) == re.sub(
    r"\d", "", alpaca_lib.header("as used", 20)
  )


def test_a_reply_that_is_cut_off_loses_its_last_task():
  text = blocks([(task(0), "a", "b"), (task(1), "c", "d")])
  found = alpaca_lib.read(Reply(text, complete=False))
  assert [p.reason for p in found] == [None, "cut off"]
  for before in ("4. Instruction:", "\n###\n4. Instruction:"):
    repeated = alpaca_lib.read(Reply(before + text))
    assert [p.reason for p in repeated] == [None, None]
  strict = alpaca_lib.read(
    Reply(blocks([(task(0), "No input.", "")])), Alpaca(faithful=True)
  )
  assert strict[0].reason is None
  assert strict[0].row["input"] == "No input."


def test_too_long_is_asked_for_less(tmp_path):
  sizes = []

  def behave(prompt, times):
    size = server_body["asked"][-1][1]["max_tokens"]
    sizes.append(size)
    if size > 2000:
      return Status(400, json.dumps(
        {"error": {"message": "Please reduce your prompt; or the answer."}}
      ))
    return Say(blocks([(task(0), "a", "b"), (task(1), "c", "d")]))

  server_body = {}
  with fake.serving(behave) as server:
    server_body["asked"] = server.asked
    endpoint = Endpoint(server.url, "maker", api="completions", retries=0)
    for _ in range(2):
      alpaca(
        generator=endpoint, output_dir=tmp_path,
        growth=Growth(target=2, prompts_per_round=1),
      )
  # 0.8 times as many, twice; the second run asks nothing.
  assert sizes == [3072, 2457, 1965]


def test_what_is_refused():
  with pytest.raises(UserError, match="PROMPT is 'as use'"):
    Alpaca(prompt="as use")
  with pytest.raises(UserError, match="IN_CONTEXT is 20"):
    Alpaca(in_context=20)


def test_the_job_by_gin(tmp_path):
  text = blocks([(task(0), "a", "b"), (task(1), "c", "d")])
  with fake.serving(lambda p, n: Say(text)) as server:
    loaded = config.load(
      ["gin/curate_alpaca.gin", "gin/backends/endpoint.gin"],
      [("BASE_URL", server.url), ("ENDPOINT_MODEL", "maker"), ("TARGET", "2"),
       ("OUTPUT_DIR", str(tmp_path)), ("API", "completions")],
      [str(ROOT)],
    )
    config.call_job(loaded, ["test"])
  written = manifest.read(tmp_path)
  # gin's values are the published ones, as the classes have them.
  assert written.options["growth"] == run_lib.plain(
    Growth(target=2, rules=Rules(keywords=text_rules.ALPACA_KEYWORDS))
  )
  assert written.options["alpaca"] == run_lib.plain(Alpaca())


def test_fine_tuning_reads_the_rows(tmp_path):
  text = blocks([(task(0), "<noinput>", "Fine."), (task(1), "a, b", "b, a")])
  make_alpaca(tmp_path, lambda p, n: Say(text))
  records, counts = sft_files.read([str(tmp_path / "data.jsonl")])
  assert len(records) == counts[0].records == 2
  assert [record.answer for record in records] == ["Fine.", "b, a"]
