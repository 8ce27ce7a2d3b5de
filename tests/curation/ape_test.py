"""APE: a task with a scripted model on loopback, and tiny checkpoints."""

import json
import math
import pathlib

import numpy as np
import pytest

from flan_jax import config
from flan_jax.curation import ape as ape_lib
from flan_jax.curation import (
  ape_scores,
  ape_search,
  backends,
  decisions,
  manifest,
  rows,
)
from flan_jax.curation.ape import ape
from flan_jax.curation.ape_scores import Score
from flan_jax.curation.ape_search import Search
from flan_jax.curation.ape_templates import Example, Templates, fill
from flan_jax.curation.asking import Asker, Decoding
from flan_jax.curation.bandit import Bandit
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Request
from flan_jax.errors import UserError
from tests.curation import fake_endpoint as fake
from tests.curation.backends_test import write_checkpoint
from tests.curation.fake_endpoint import Say, Status

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPPOSITES = {
  "hot": "cold", "big": "small", "up": "down", "wet": "dry", "old": "young",
  "fast": "slow", "full": "empty", "light": "dark", "high": "low",
  "early": "late", "open": "closed", "hard": "soft",
}
PROPOSALS = (
  "repeat the word", "write the opposite of the word", "repeat the word",
  "", "sing", '"name a colour"',
)


@pytest.fixture
def task(tmp_path):
  path = tmp_path / "task.jsonl"
  with path.open("w") as file:
    for k, (given, output) in enumerate(OPPOSITES.items()):
      wanted = [output, f"not {given}"] if k % 2 else output
      file.write(json.dumps({"input": given, "output": wanted}) + "\n")
  return str(path)


class Friend:
  """Proposes in turn, does what it is told, and varies it on request."""

  def __init__(self):
    self.proposed = 0

  def __call__(self, prompt, times):
    if prompt.startswith("I gave a friend"):
      self.proposed += 1
      return Say(" " + PROPOSALS[(self.proposed - 1) % len(PROPOSALS)])
    if prompt.startswith("Generate a variation"):
      what = prompt.split("Input: ")[1].split("\n")[0]
      return Say(f" {what}, {'again ' * (times + 1)}")
    instruction, given = (
      line.split(": ", 1)[1] for line in prompt.split("\n")[:2]
    )
    if "opposite" in instruction:
      return Say(f" {OPPOSITES[given].capitalize()}.\nI am sure.")
    return Say(given)


SMALL = {"subsamples": 2, "prompts": 3, "demos": 3, "samples": 4}


def run(folder, task, behave=None, port=0, api="completions", **options):
  server = fake.Server(behave or Friend(), port)
  try:
    result = ape(
      generator=Endpoint(
        server.url, "friend", api=api, concurrency=1, retries=0
      ),
      task_path=task, output_dir=folder / "out",
      **({"search": Search(**SMALL), "test_samples": 3} | options),
    )
  finally:
    server.close()
  return result, server


def candidates(folder):
  text = (folder / "out" / "candidates.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_the_instruction_is_found(tmp_path, task):
  result, server = run(tmp_path, task)
  assert result["best"] == "write the opposite of the word"
  assert result["score"] == result["test_score"] == 1.0
  assert result["test_samples"] == 3
  found = candidates(tmp_path)
  assert [c["instruction"] for c in found] == [
    "write the opposite of the word", "repeat the word", "sing",
    "name a colour",
  ]
  assert [c["evaluated"] for c in found] == [4] * 4
  reasons = [
    d["reason"] for d in decisions.read(tmp_path / "out" / "decisions.jsonl")
  ]
  assert reasons == [None, None, "copy", "empty reply", None, None]
  proposals = [p for p in server.prompts if p.startswith("I gave")]
  assert len(set(proposals)) == 2
  assert len(proposals) == 6
  assert proposals[0].endswith("The instruction was to")
  assert proposals[0].count("Input: ") == 3
  body = server.asked[0][1]
  assert (body["temperature"], body["top_p"], body["max_tokens"]) == (
    0.9, 0.9, 50,
  )
  tried = server.asked[-1][1]
  assert (tried["temperature"], tried["max_tokens"]) == (0.7, 200)
  # What is tried on in the search is not tested on.
  assert len(rows.read(tmp_path / "out" / "data.jsonl")) == 9
  page = (tmp_path / "out" / "report.html").read_text()
  assert "Instructions by exact match" in page
  made = manifest.read(tmp_path / "out")
  assert {"candidates.jsonl", "best.json", "data.jsonl"} <= set(made.outputs)
  assert made.models["generator"]["model"] == "friend"


def test_going_on_asks_nothing(tmp_path, task):
  port = fake.free_port()
  options = {"search": Search(**SMALL, method="ucb", rounds=3, resampling=1)}
  first, _ = run(tmp_path, task, port=port, **options)
  text = (tmp_path / "out" / "candidates.jsonl").read_text()
  again, server = run(
    tmp_path, task, lambda p, n: pytest.fail("asked again"), port, **options
  )
  assert server.prompts == []
  assert again["best"] == first["best"]
  assert (tmp_path / "out" / "candidates.jsonl").read_text() == text


def test_a_bandit_spends_less_on_bad_instructions(tmp_path, task):
  result, _ = run(
    tmp_path, task,
    search=Search(
      **SMALL, method="ucb", rounds=12, per_round=0.5, round_samples=2, c=0.3
    ),
  )
  found = {c["instruction"]: c["evaluated"] for c in candidates(tmp_path)}
  best = found.pop(result["best"])
  assert result["best"] == "write the opposite of the word"
  assert best == max(best, *found.values()) > min(found.values()) > 0


def test_what_was_never_tried_is_never_the_best():
  """In the published code it has score 0, above every log-probability."""
  bandit = Bandit(4)
  bandit.add(3, [-2.0, -4.0])
  assert bandit.choose(4) == [0, 1, 2, 3]
  assert bandit.ranking()[0] == 3
  bandit.add(0, [-1.0])
  # mean + c sqrt(log N / n), by hand.
  assert bandit.bound(3) == pytest.approx(
    -3.0 + math.sqrt(math.log(3) / 2)
  )
  assert bandit.ranking() == [0, 3, 1, 2]
  assert Bandit(2, c=0).choose(1) == [0]
  with pytest.raises(UserError, match="UCB_C is -1"):
    Bandit(1, c=-1)


def test_few_rounds_leave_some_untried(tmp_path, task):
  result, _ = run(
    tmp_path, task,
    search=Search(**SMALL, method="ucb", rounds=1, per_round=0.25),
  )
  found = candidates(tmp_path)
  assert [c["score"] is None for c in found] == [False, True, True, True]
  assert result["unscored"] == 3
  assert result["best"] == found[0]["instruction"] == "repeat the word"


def test_resampling(tmp_path, task):
  """Algorithm 1: variants of the best, on fresh samples, until it stays."""
  result, server = run(
    tmp_path, task,
    search=Search(**SMALL, resampling=5, keep=0.5, variants=2),
  )
  assert [h["round"] for h in result["history"]] == [0, 1]
  variants = [c for c in candidates(tmp_path) if c["round"] == 1]
  assert {c["parent"] for c in variants} == {
    "write the opposite of the word", "repeat the word",
  }
  assert len(variants) == 4
  asked = [p for p in server.prompts if p.startswith("Generate a variation")]
  assert len(asked) == 4
  assert asked[0].endswith("Output:")


def test_insert_by_an_endpoints_suffix(tmp_path, task):
  def behave(prompt, times):
    if prompt == "Instruction:":
      return Say(' "write the opposite of the word"')
    return Friend()(prompt, times)

  result, server = run(
    tmp_path, task, behave, templates=Templates(mode="insert")
  )
  assert result["best"] == "write the opposite of the word"
  body = server.asked[0][1]
  assert body["suffix"].startswith("\n\nInput: ")
  assert body["suffix"].count("Output: ") == 3
  with pytest.raises(UserError, match="MODE 'insert' needs a model that fills"):
    run(tmp_path, task, api="chat", templates=Templates(mode="insert"))


def test_insert_by_marks_of_places():
  assert ape_search.clean("<extra_id_0> say it <extra_id_1> x") == "say it"
  assert ape_search.clean("“say it”") == "say it"
  assert ape_search.clean('say "it"') == 'say "it"'


@pytest.fixture(scope="module", params=["encoder_decoder", "decoder_only"])
def checkpoint(request, tmp_path_factory):
  path = tmp_path_factory.mktemp("ape")
  return backends.Checkpoint(
    write_checkpoint(path, request.param), inputs_length=128, batch_size=4
  )


def test_log_probability_is_the_mean_over_tokens(checkpoint, tmp_path):
  examples = [Example("hot", ("cold and dry",)), Example("a b", ("c", "d"))]
  templates = Templates()
  with Journal(tmp_path / "j.jsonl") as journal:
    found = Score("log_probability")(
      [("say it", e, 0) for e in examples], templates,
      Asker(checkpoint, journal),
    )
  loaded = checkpoint._loaded
  model, params, vocabulary = loaded.model, loaded.params, loaded.vocabulary
  for example, score in zip(examples, found, strict=True):
    prompt = f"Instruction: say it\nInput: {example.input}\nOutput:"
    ids = list(vocabulary.encode(prompt))
    ids = [0, *ids] if model.kind == "decoder_only" else [*ids, 1]
    target = vocabulary.encode(" " + example.outputs[0])
    alone = np.asarray(model.score(
      params, model.encode(params, np.array([ids], np.int32)),
      np.array([[target]], np.int32),
    ))
    assert alone.size == len(target)
    assert score == pytest.approx(float(alone.mean()), abs=1e-4)
    assert score < 0


def test_a_checkpoint_scores_what_an_endpoint_proposes(
  checkpoint, tmp_path, task
):
  server = fake.Server(Friend())
  try:
    flags = {
      "BASE_URL": server.url, "ENDPOINT_MODEL": "friend",
      "API": "completions", "TASK_PATH": task, "OUTPUT_DIR": str(tmp_path / "o"),
      "SCORER_CHECKPOINT_PATH": checkpoint.path, "SCORE": "log_probability",
      "SEARCH_SAMPLES": "3", "SUBSAMPLES": "2", "PROMPTS_PER_SUBSAMPLE": "3",
      "DEMOS": "3", "TEST_SAMPLES": "2", "SCORER_INPUTS_LENGTH": "128",
    }
    loaded = config.load(
      ["gin/curate_ape.gin", "gin/backends/endpoint.gin",
       "gin/backends/scorer.gin"], list(flags.items()), [str(ROOT)],
    )
    result = config.call_job(loaded, ["test"])
  finally:
    server.close()
  assert result["score"] < 0
  assert result["test_score"] < 0
  made = manifest.read(tmp_path / "o")
  assert set(made.models) == {"generator", "scorer"}
  assert len(server.prompts) == 6
  found = [
    json.loads(line)["score"]
    for line in (tmp_path / "o" / "candidates.jsonl").read_text().splitlines()
  ]
  assert found == sorted(found, reverse=True)
  assert len(set(found)) == 4


def test_a_checkpoint_fills_in(checkpoint, tmp_path, task):
  """A tiny model of its own: all of the search, and of its form."""
  result = ape(
    generator=checkpoint, task_path=task, output_dir=tmp_path,
    templates=Templates(
      mode="insert", infill="{prefix}<extra_id_0>{suffix}"
    ),
    search=Search(
      subsamples=1, prompts=3, demos=2, samples=2, method="ucb", rounds=2,
      round_samples=1, decoding=Decoding(6, temperature=0.9, top_p=0.9),
    ),
    score=Score("log_probability"), test_samples=2,
  )
  assert result["best"]
  assert result["score"] < 0


def test_metrics():
  fits = ape_scores.normalise
  assert fits("\n Cats and Dogs.\nMore") == "cats dogs"
  assert fits("well-known, Yes!") == "well known yes"
  score = Score(metric="exact_set")
  assert score.compare("b, a", ("a, b",)) == 1.0
  assert Score(metric="f1").compare("a b c", ("x", "b c d")) == pytest.approx(
    2 / 3
  )
  assert Score(metric="contains").compare("It is late", ("late",)) == 1.0
  assert Score().compare("", ("a",)) == 0.0
  assert fill("[A][B]", {"[A]": "[B]", "[B]": "x"}) == "[B]x"


def test_what_is_refused(tmp_path, task):
  cases = [
    (lambda: Templates(mode="inset"), "MODE is 'inset'"),
    (lambda: Templates(proposal="[full_DEMO]"), "PROPOSAL_TEMPLATE has .APE. 0"),
    (lambda: Templates(proposal="[APE] [full_DEMO]"), "must end with .APE"),
    (lambda: Templates(evaluation="[PROMPT]"), "EVAL_TEMPLATE has .INPUT. 0"),
    (lambda: Templates(infill="{prefix}{suffix}"), "INFILL has no effect"),
    (lambda: Templates(mode="insert", infill="{prefix}"), "INFILL must have"),
    (lambda: Search(method="best"), "SEARCH is 'best'"),
    (lambda: Search(per_round=0), "UCB_PER_ROUND is 0"),
    (lambda: Search(resampling=-1), "RESAMPLING_ROUNDS is -1"),
    (lambda: Score("loss"), "SCORE is 'loss'"),
    (lambda: Score(metric="em"), "METRIC is 'em'"),
    (lambda: run(tmp_path, task, test_samples=11), "leaves fewer than DEMOS"),
    (lambda: run(tmp_path, task, score=Score("log_probability")),
     "needs a checkpoint, and friend is an endpoint"),
    (lambda: run(tmp_path, task, lambda p, n: Say("")),
     "none of 6 replies has an instruction"),
    (lambda: run(tmp_path, task, lambda p, n: (
      Friend()(p, n) if p.startswith("I gave") else Status(400))),
     "none of 1 candidates could be scored"),
    (lambda: Request("a", target="b", stop=("c",)), "no effect with a target"),
  ]
  for make, message in cases:
    with pytest.raises(UserError, match=message):
      make()
  path = tmp_path / "bad.jsonl"
  for row in ({"input": "a"}, {"input": "a", "output": []}, {"output": "b"},
              {"input": "a", "output": " "}):
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match="row 1: an example has 'input'"):
      ape_lib.read(str(path))
  endpoint = Endpoint("http://127.0.0.1:1/v1", "m")
  with pytest.raises(UserError, match="no log-probability of a given text"):
    endpoint.body(Request("a", target="b"))
