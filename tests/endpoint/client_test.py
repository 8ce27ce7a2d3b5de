"""The client against a real endpoint on loopback that misbehaves."""

import asyncio
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from flan_jax.endpoint import pace
from flan_jax.endpoint.budget import Budget, BudgetSpent, Prices
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Request
from flan_jax.errors import UserError
from tests.curation.fake_endpoint import (
  Raw,
  Say,
  Server,
  Status,
  free_port,
  serving,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(pace, "FIRST_DELAY", 0.01)


def ask(server, tmp_path, *prompts, requests=None, journal="j.jsonl", **options):
  requests = requests or [Request(p) for p in prompts]
  options.setdefault("say", lambda text: None)
  with Journal(tmp_path / journal) as j:
    return Endpoint(server.url, "m", **options).generate(requests, journal=j)


def test_chat_and_completions(tmp_path):
  with serving(lambda p, n: Say(f"<{p}>", top=(("a", -1.0),))) as server:
    request = Request(
      "Hi", system="Be kind.", max_tokens=7, temperature=0.5, top_p=0.9,
      stop=("\n",), seed=3, score=True, presence_penalty=1.5,
      extra={"min_p": 0.1},
    )
    (chat,) = ask(server, tmp_path, requests=[request])
    (plain,) = ask(server, tmp_path, requests=[request], api="completions")
  assert chat.text == "<Hi>"
  assert plain.text == "<Be kind.\n\nHi>"
  assert chat.score == plain.score == -0.5
  assert (chat.prompt_tokens, chat.completion_tokens) == (10, 2)
  (_, sent, _), (_, sent_plain, _) = server.asked
  assert sent == {
    "model": "m", "temperature": 0.5, "max_tokens": 7, "top_p": 0.9,
    "stop": ["\n"], "seed": 3, "logprobs": True,
    "presence_penalty": 1.5, "min_p": 0.1,
    "messages": [
      {"role": "system", "content": "Be kind."},
      {"role": "user", "content": "Hi"},
    ],
  }
  assert sent_plain["prompt"] == "Be kind.\n\nHi"
  assert sent_plain["logprobs"] == 0


def test_nothing_is_asked_twice(tmp_path):
  with serving(lambda p, n: Say(f"{p}{n}")) as server:
    first = ask(server, tmp_path, "a", "b", "a")
    again = ask(server, tmp_path, "b", "c")
    drawn = ask(server, tmp_path, requests=[Request("a", draw=1)])
  assert [r.text for r in first] == ["a0", "b0", "a0"]
  assert [r.text for r in again] == ["b0", "c0"]
  assert [r.cached for r in again] == [True, False]
  assert drawn[0].text == "a1"
  assert sorted(server.prompts) == ["a", "a", "b", "c"]
  # What is in the journal needs no endpoint.
  assert [r.text for r in ask(server, tmp_path, "b", "c")] == ["b0", "c0"]


@pytest.mark.parametrize(
  ("bad", "reason"),
  [
    (Status(429, headers={"Retry-After": "0"}), "HTTP 429: it went wrong"),
    (Status(500), "HTTP 500"),
    (Status(503, body="busy"), "HTTP 503: busy"),
    (Raw(b'{"choices": [{"text', promised=900), "RemoteProtocolError"),
    (Raw(b'{"choices": [{"text'), "not JSON"),
    (Raw(b"[]"), "not a JSON object"),
    (Raw(b"NaN"), "NaN is no JSON"),
    (Raw(b'{"choices": []}'), "no choices"),
    (Raw(b'{"choices": [{"message": {"content": null}}]}'), "no text"),
    (Raw(b'{"error": {"message": "full"}}'), "an error: .*full"),
    (Raw(b" " * 400, drip=0.05), "no whole response within 0.5 seconds"),
    (Say(delay=1.5), "no whole response within 0.5 seconds"),
    (None, "RemoteProtocolError|ReadError"),
  ],
  ids=str,
)
def test_a_bad_response_is_asked_again(tmp_path, bad, reason):
  with serving(lambda p, n: bad if n == 0 else Say("good")) as server:
    (reply,) = ask(server, tmp_path, "a", timeout=0.5)
  assert (reply.text, reply.error) == ("good", "")
  lines = (tmp_path / "j.jsonl").read_text().splitlines()
  records = [json.loads(line) for line in lines]
  kinds = [r["record"] for r in records]
  assert kinds == ["request", "failure", "request", "response"]
  assert re.search(reason, records[1]["reason"])


def test_what_fails_always_is_marked_and_asked_in_the_next_run(tmp_path):
  broken = {"a"}
  with serving(lambda p, n: Status(500) if p in broken else Say(p)) as server:
    bad, good = ask(server, tmp_path, "a", "b", retries=2)
    assert bad.error == "3 attempts; the last: HTTP 500: it went wrong."
    assert (good.text, good.error) == ("b", "")
    broken.clear()
    assert [r.text for r in ask(server, tmp_path, "a", "b")] == ["a", "b"]
  assert server.prompts.count("b") == 1


def test_a_request_that_is_refused_is_not_asked_again(tmp_path):
  with serving(lambda p, n: Status(400) if p == "a" else Say(p)) as server:
    bad, good = ask(server, tmp_path, "a", "b")
  assert bad.error == "HTTP 400: it went wrong."
  assert good.text == "b"
  assert server.prompts.count("a") == 1


def test_retry_after_holds_all_requests(tmp_path):
  began = time.monotonic()
  times = []

  def behave(prompt, n):
    times.append(time.monotonic() - began)
    limited = prompt == "a" and n == 0
    return Status(429, headers={"Retry-After": "0.6"}) if limited else Say()

  with serving(behave) as server:
    ask(server, tmp_path, "a", "b", concurrency=1)
  assert times[1] - times[0] >= 0.6
  with serving(lambda p, n: Status(429, headers={"Retry-After": "9999"})) as s:
    (reply,) = ask(s, tmp_path, "z")
  assert "asks to wait 9,999 seconds" in reply.error


def test_many_failures_in_a_row_stop_the_run(tmp_path):
  with serving(lambda p, n: Status(400)) as server:
    with pytest.raises(UserError, match="20 requests failed one after another"):
      ask(server, tmp_path, *map(str, range(200)))
    assert len(server.asked) < 40


@pytest.mark.parametrize(
  ("status", "message"),
  [
    (401, "Check the key in the environment's FAKE_KEY"),
    (404, "Check BASE_URL, API 'chat' and ENDPOINT_MODEL 'm'"),
    (308, "give that address as BASE_URL"),
  ],
)
def test_what_no_request_can_mend_stops_the_run(
  tmp_path, monkeypatch, status, message
):
  monkeypatch.setenv("FAKE_KEY", "sk-very-secret")
  with serving(lambda p, n: Status(status)) as server:
    with pytest.raises(UserError, match=message):
      ask(server, tmp_path, *"abcdefghijk", key_variable="FAKE_KEY")
    assert len(server.asked) <= 8


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch):
  key = "sk-very-secret"
  monkeypatch.setenv("FAKE_KEY", f" {key}\n")
  echo = '{"error": {"message": "no such key: sk-very-secret"}}'

  def behave(prompt, n):
    if prompt == "bad":
      return Status(400, body=echo)
    return Say(f"you sent {key}") if n else Status(500, body=echo)

  with serving(behave) as server:
    replies = ask(server, tmp_path, "a", "bad", key_variable="FAKE_KEY")
    assert server.asked[0][2]["Authorization"] == f"Bearer {key}"
    assert replies[0].text == "you sent [key]"
    assert replies[1].error == "HTTP 400: no such key: [key]."
    server.behave = lambda p, n: Status(401, body=echo)
    with pytest.raises(UserError) as error:
      ask(server, tmp_path, "c", key_variable="FAKE_KEY")
  assert key not in str(error.value)
  assert key not in (tmp_path / "j.jsonl").read_text()
  assert key not in repr(Endpoint(server.url, "m", key_variable="FAKE_KEY"))
  monkeypatch.delenv("FAKE_KEY")
  with pytest.raises(UserError, match="the environment has no FAKE_KEY"):
    ask(server, tmp_path, "d", key_variable="FAKE_KEY")


def test_an_endpoint_that_is_down_at_the_start_is_one_error(tmp_path):
  class Nothing:
    url = f"http://127.0.0.1:{free_port()}/v1"

  with pytest.raises(UserError, match="cannot be reached: ConnectError") as e:
    ask(Nothing, tmp_path, *"abcdefgh")
  assert str(e.value).count("cannot be reached") == 1
  assert (tmp_path / "j.jsonl").read_text() == ""


def test_an_endpoint_that_goes_down_pauses_the_run(tmp_path):
  """It dies after three answers, and another one takes its port."""
  said, second, dying = [], [], []
  first = Server(lambda p, n: None)

  def behave(prompt, n):
    if len(first.asked) < 4:
      return Say(f"first {prompt}")
    # Nothing listens any more when the fourth gets no answer.
    first.close()
    dying.append(threading.Thread(target=another))
    dying[0].start()
    return None

  def another():
    time.sleep(0.4)
    second.append(Server(lambda p, n: Say(f"second {p}"), first.port))

  first.behave = behave
  replies = ask(
    first, tmp_path, *"abcdefgh", concurrency=1, say=said.append, retries=1
  )
  dying[0].join()  # It may have answered all before it was written down.
  second[0].close()
  assert [r.text.split()[0] for r in replies] == ["first"] * 3 + ["second"] * 5
  assert len(said) == 2
  assert "is down (ConnectError" in said[0]
  assert "3 answers are kept" in said[0]
  assert "answers again" in said[1]


def test_patience_has_an_end(tmp_path):
  server = Server(lambda p, n: None)

  def behave(prompt, n):
    if len(server.asked) > 2:
      server.close()  # Nothing listens any more when this gets no answer.
      return None
    return Say(prompt)

  server.behave = behave
  with pytest.raises(UserError, match="down for 0 sec.* 2 answers are kept"):
    ask(server, tmp_path, *"abcdefgh", concurrency=1, patience=0.3)
  with Journal(tmp_path / "j.jsonl") as journal:
    identity = Endpoint(server.url, "m").identity
    keys = [Request(p).key(identity) for p in "abc"]
    assert [journal.get(k) is not None for k in keys] == [True, True, False]


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path):
  with serving(lambda p, n: Say(p, usage=(10, 5))) as server:
    options = {"requests": [Request(p, max_tokens=8) for p in "abcdefgh"]}
    with pytest.raises(BudgetSpent, match="BUDGET_REQUESTS is 3: 3 are spent"):
      ask(server, tmp_path, **options, budget=Budget(requests=3))
    with pytest.raises(BudgetSpent, match="BUDGET_TOKENS is 80: 75 are spent"):
      ask(server, tmp_path, **options, budget=Budget(tokens=80))
    assert len(server.asked) == 5
    prices = Prices(prompt=100_000.0, completion=200_000.0)
    with pytest.raises(BudgetSpent, match=r"BUDGET_COST is 4.5: 4.0 are spent"):
      ask(
        server, tmp_path, **options, journal="k.jsonl", prices=prices,
        budget=Budget(cost=4.5), concurrency=1,
      )
    replies = ask(server, tmp_path, **options)
  assert [r.text for r in replies] == list("abcdefgh")


def test_a_run_that_stops_waits_for_no_retry(tmp_path):
  def behave(prompt, n):
    if prompt == "slow":
      return Status(429, headers={"Retry-After": "50"})
    time.sleep(0.1)
    return Status(404)

  began = time.monotonic()
  with serving(behave) as server, pytest.raises(UserError, match="HTTP 404"):
    ask(server, tmp_path, "a", "slow")
  assert time.monotonic() - began < 20


def test_an_empty_answer_is_an_answer(tmp_path):
  with serving(lambda p, n: Say("")) as server:
    (reply,) = ask(server, tmp_path, "a")
    (again,) = ask(server, tmp_path, "a")
  assert (reply.text, reply.error, again.cached) == ("", "", True)


def test_tokens_that_the_endpoint_does_not_count_are_guessed(tmp_path):
  with serving(lambda p, n: Say("x" * 40, usage=None)) as server:
    (reply,) = ask(server, tmp_path, "y" * 400)
  assert reply.estimated
  assert (reply.prompt_tokens, reply.completion_tokens) == (108, 11)


def test_choices_are_weighed_by_the_first_token(tmp_path):
  top = (("m", -0.2), (" m", -2.0), ("M", -2.5), ("The", -4.0))
  requests = [Request("Which?", choices=("m", "M", "x"))]
  for api in ("chat", "completions"):
    with serving(lambda p, n: Say("m", finish="length", top=top)) as server:
      (reply,) = ask(server, tmp_path, requests=requests, api=api)
      (again,) = ask(server, tmp_path, requests=requests, api=api)
    assert reply.complete
    m, M, x = reply.log_probs
    assert math.isclose(m, math.log(math.exp(-0.2) + math.exp(-2.0)))
    assert (M, x) == (-2.5, -math.inf)
    assert again.cached
    assert again.log_probs == reply.log_probs
    assert server.asked[0][1]["max_tokens"] == 1
  for top, message in (
    ((), "does not offer them"),
    ((("The", -1.0),), "none of 'm', 'M', 'x' among .* 'The'"),
  ):
    with serving(lambda p, n, top=top: Say("m", top=top)) as server:
      (reply,) = ask(
        server, tmp_path, requests=requests, retries=0, journal="k.jsonl"
      )
    assert re.search(message, reply.error)


def test_half_of_a_character_is_replaced(tmp_path):
  body = b'{"choices": [{"message": {"content": "a\\ud83d b \\ud83d\\ude00"}}]}'
  with serving(lambda p, n: Raw(body)) as server:
    (reply,) = ask(server, tmp_path, "a")
    (again,) = ask(server, tmp_path, "a")
  assert reply.text == again.text == "a\ufffd b \U0001f600"


def test_concurrency_and_rates(tmp_path):
  now, most, lock = [0], [0], threading.Lock()

  def behave(prompt, n):
    with lock:
      now[0] += 1
      most[0] = max(most[0], now[0])
    time.sleep(0.05)
    with lock:
      now[0] -= 1
    return Say()

  with serving(behave) as server:
    ask(server, tmp_path, *"abcdefghijkl", concurrency=3)
    assert most[0] == 3
    began = time.monotonic()
    ask(
      server, tmp_path, *"abcd", requests_per_minute=600, journal="k.jsonl"
    )
    assert time.monotonic() - began >= 0.3


def test_inside_a_running_loop(tmp_path):
  async def notebook():
    with serving(lambda p, n: Say(p)) as server:
      return ask(server, tmp_path, "a")

  assert asyncio.run(notebook())[0].text == "a"


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"base_url": "localhost:80"}, "BASE_URL must be like http"),
    ({"base_url": "http://u:p@host/v1"}, "without a user"),
    ({"base_url": "http://host/v1?key=s3cret"}, "keys come from"),
    ({"api": "chats"}, "API is 'chats'; .*nearest is 'chat'"),
    ({"model": ""}, "ENDPOINT_MODEL is ''"),
    ({"concurrency": 0}, "CONCURRENCY is 0"),
    ({"retries": -1}, "RETRIES is -1"),
    ({"timeout": 0}, "TIMEOUT is 0"),
    ({"requests_per_minute": 0}, "REQUESTS_PER_MINUTE is 0"),
    ({"budget": Budget(cost=1.0)}, "BUDGET_COST is 1.0, but PRICE_PROMPT"),
    ({"max_tokens_field": "max_token"}, "nearest is 'max_tokens'"),
  ],
)
def test_what_is_refused(options, message):
  with pytest.raises(UserError, match=message) as error:
    Endpoint(**{"base_url": "http://host/v1", "model": "m"} | options)
  assert "s3cret" not in str(error.value)
  assert "u:p" not in str(error.value)


def test_a_budget_of_zero():
  with pytest.raises(UserError, match="BUDGET_TOKENS is 0: nothing could be"):
    Budget(tokens=0)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"presence_penalty": 3.0}, "presence_penalty = 3.0: it is from -2 to 2"),
    ({"frequency_penalty": float("nan")}, "frequency_penalty = nan: it is"),
    (
      {"presence_penalty": 1.0, "target": "b"},
      "presence_penalty = 1.0 has no effect with a target",
    ),
    ({"stop": ("a",), "choices": ("b", "c")}, "stop = .* with choices"),
    ({"target": "b", "choices": ("b", "c")}, "no effect with a target"),
  ],
)
def test_requests_that_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    Request("a", **options)


def test_extra_fields_that_clash(tmp_path):
  with serving() as server, pytest.raises(UserError, match="max_tokens is set"):
    ask(server, tmp_path, requests=[Request("a", extra={"max_tokens": 3})])
  assert server.asked == []


KILLED = """
import sys
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Request
with Journal(sys.argv[2]) as journal:
  Endpoint(sys.argv[1], "m", concurrency=2).generate(
    [Request(f"p{i}") for i in range(30)], journal=journal)
"""


def test_a_killed_run_goes_on_without_asking_twice(tmp_path):
  path = tmp_path / "j.jsonl"
  with serving(lambda p, n: Say(f"<{p}>", delay=0.03)) as server:
    command = [sys.executable, "-c", KILLED, server.url, str(path)]
    for enough in (5, 14):
      process = subprocess.Popen(command, cwd=ROOT)
      deadline = time.monotonic() + 60
      while len(server.asked) < enough and time.monotonic() < deadline:
        time.sleep(0.005)
      os.kill(process.pid, signal.SIGKILL)
      assert process.wait() == -signal.SIGKILL
    with Journal(path) as journal:
      answered = len(journal)
      on_their_way = set(journal.unanswered)
      assert 0 < answered < 30
      assert len(on_their_way) <= 2
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
  counts = [server.prompts.count(f"p{i}") for i in range(30)]
  # At most the two that were on their way when it was killed, each time.
  assert min(counts) == 1
  assert sum(counts) <= 30 + 2 * 2
  records = [json.loads(line) for line in path.read_text().splitlines()]
  replied = [r["key"] for r in records if r["record"] == "response"]
  assert len(replied) == len(set(replied)) == 30
