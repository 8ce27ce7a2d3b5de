"""A checkpoint of ours as a text generator, of both kinds."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from flan_jax import config, generate
from flan_jax.convert import native, trees
from flan_jax.curation import backends
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Request
from flan_jax.errors import UserError
from flan_jax.models import decoder, t5
from flan_jax.models.decoding_config import DecodeConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("encoder_decoder", "decoder_only")


def made(kind):
  sizes = {
    "vocab_size": 4096, "emb_dim": 8, "num_heads": 1, "head_dim": 8,
    "mlp_dim": 8,
  }
  if kind == "decoder_only":
    return decoder.DecoderOnly(decoder.DecoderConfig(num_layers=1, **sizes))
  return t5.EncoderDecoder(
    t5.T5Config(num_encoder_layers=1, num_decoder_layers=1, **sizes)
  )


def write_checkpoint(folder, kind, seed=0, scale=3.0):
  """A checkpoint with its vocabulary beside it; answers differ by prompt."""
  model = made(kind)
  params = trees.flatten(model.init(jax.random.key(seed)))
  params = {name: np.asarray(x) * scale for name, x in params.items()}
  folder.mkdir(parents=True, exist_ok=True)
  spiece = folder / "spiece.model"
  spiece.write_bytes(vocabulary_lib.shipped_file().read_bytes())
  native.write_native(
    folder / "checkpoint", params, params.items(), config=model.config,
    tokenizer_files=[spiece],
  )
  return str(folder / "checkpoint")


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
  return write_checkpoint(tmp_path_factory.mktemp("c"), request.param)


def backend(path, **options):
  return backends.Checkpoint(path, **{"inputs_length": 64} | options)


def ask(backend, path, requests, **options):
  with Journal(path) as journal:
    return backend.generate(requests, journal=journal, **options)


def test_answers_are_those_of_the_generation_job(checkpoint, tmp_path):
  prompts = ("Is it so?", "Name three fruits.\n", "A much longer one: " * 3)
  requests = [Request(p, max_tokens=6, score=True) for p in prompts]
  made = backend(checkpoint, batch_size=2, prompt_prefix="Q: ")
  seen = []
  replies = ask(
    made, tmp_path / "j.jsonl", requests,
    on_reply=lambda number, reply: seen.append(number),
  )
  expected = generate.generate(
    initial_checkpoint_path=checkpoint, prompts=prompts, prompt_prefix="Q: ",
    decode=DecodeConfig(max_decode_len=6, return_scores=True),
    inputs_length=64,
  )
  assert [r.text for r in replies] == [e.text for e in expected]
  assert [r.complete for r in replies] == [e.complete for e in expected]
  for reply, e in zip(replies, expected, strict=True):
    assert reply.score == pytest.approx(e.answers[0].score, abs=1e-5)
  assert sorted(seen) == [0, 1, 2]
  again = ask(made, tmp_path / "j.jsonl", requests)
  assert [r.text for r in again] == [r.text for r in replies]
  assert all(r.cached for r in again)


def test_draws_differ_and_come_back(checkpoint, tmp_path):
  made = backend(checkpoint)
  requests = [
    Request("Say.", max_tokens=8, temperature=1.0, top_p=0.95, draw=d)
    for d in range(4)
  ]
  first = ask(made, tmp_path / "a.jsonl", requests)
  assert len({r.text for r in first}) > 1
  alone = ask(made, tmp_path / "b.jsonl", requests[2:3])
  assert alone[0].text == first[2].text


def test_choices_are_weighed(checkpoint, tmp_path):
  made = backend(checkpoint, batch_size=2)
  choices = ("yes", "no, not at all", "maybe")
  requests = [Request(p, choices=choices) for p in ("Is it?", "Why?", "So?")]
  replies = ask(made, tmp_path / "j.jsonl", requests)
  loaded = made._loaded
  model, params, vocabulary = loaded.model, loaded.params, loaded.vocabulary
  for request, reply in zip(requests, replies, strict=True):
    ids = list(vocabulary.encode(request.prompt))
    kind = model.kind == "decoder_only"
    ids = [0, *ids] if kind else [*ids, 1]
    for choice, log_prob in zip(choices, reply.log_probs, strict=True):
      tokens = np.array([[vocabulary.encode(choice)]], np.int32)
      alone = model.score(
        params, model.encode(params, np.array([ids], np.int32)), tokens
      )
      assert float(alone.sum()) == pytest.approx(log_prob, abs=1e-4)


def test_a_prompt_that_is_too_long_is_the_only_one_without_an_answer(
  checkpoint, tmp_path
):
  requests = [Request("a b c " * 90, max_tokens=2), Request("a", max_tokens=2)]
  bad, good = ask(backend(checkpoint), tmp_path / "j.jsonl", requests)
  assert "over the limit of 64; raise INPUTS_LENGTH" in bad.error
  assert good.error == ""


def test_a_stop_string_cuts(checkpoint, tmp_path):
  made = backend(checkpoint)
  (whole,) = ask(
    made, tmp_path / "a.jsonl", [Request("Go on.", max_tokens=12)]
  )
  stop = whole.text.strip()[3:5]
  (cut,) = ask(
    made, tmp_path / "b.jsonl",
    [Request("Go on.", max_tokens=12, stop=(stop,))],
  )
  assert cut.text == whole.text[: whole.text.find(stop)]
  assert cut.complete


def test_a_presence_penalty_is_taken_from_what_was_said(checkpoint, tmp_path):
  """Each token is the likeliest one by the model's scores less the penalty."""
  request = Request("Go on.", max_tokens=12, presence_penalty=2.0)
  made = backend(checkpoint, batch_size=1)
  (reply,) = ask(made, tmp_path / "a.jsonl", [request])
  loaded = made._loaded
  inputs_BS = np.array(made._tokenised([request], [0]), np.int32)
  logits_BV, cache = loaded.model.start_decoding(loaded.params, inputs_BS, 12)
  said, replaced = [], 0
  for index in range(12):
    scores_V = np.array(logits_BV[0], np.float64)
    best = int(np.argmax(scores_V))
    scores_V[sorted(set(said))] -= 2.0
    token = int(np.argmax(scores_V))
    replaced += token != best
    if token in loaded.end_ids:
      break
    said.append(token)
    logits_BV, cache = loaded.model.decode_step(
      loaded.params, np.array([token]), cache, index
    )
  assert replaced
  assert reply.text == loaded.vocabulary.decode(said)


def test_what_is_refused(checkpoint, tmp_path):
  with pytest.raises(UserError, match="extra = .* has no effect on a check"):
    ask(
      backend(checkpoint), tmp_path / "j.jsonl",
      [Request("a", extra={"best_of": 2})],
    )
  with pytest.raises(UserError, match="frequency_penalty = 0.5 has no effect"):
    ask(
      backend(checkpoint), tmp_path / "j.jsonl",
      [Request("a", frequency_penalty=0.5)],
    )
  with pytest.raises(UserError, match="BATCH_SIZE is 0"):
    backend(checkpoint, batch_size=0)
  with pytest.raises(UserError, match="does not exist"):
    ask(backend("nothing"), tmp_path / "k.jsonl", [Request("a")])


def test_a_model_is_named_by_its_parameters(tmp_path):
  one = write_checkpoint(tmp_path / "one", "decoder_only")
  same = write_checkpoint(tmp_path / "same", "decoder_only")
  other = write_checkpoint(tmp_path / "other", "decoder_only", seed=1)
  names = [backend(p).identity["model"] for p in (one, same, other)]
  assert names[0] == names[1] != names[2]


def test_a_checkpoint_judges(checkpoint, tmp_path):
  """The job with a local judge: no endpoint, both scorings."""
  for name, outputs in (("ref", "aaa"), ("mine", "bb")):
    rows = [
      {"instruction": f"Say {i}.", "output": outputs * (1 + i % 3)}
      for i in range(6)
    ]
    (tmp_path / f"{name}.json").write_text(json.dumps(rows))
  flags = {
    "MODEL_OUTPUTS": str(tmp_path / "mine.json"),
    "REFERENCE_OUTPUTS": str(tmp_path / "ref.json"),
    "OUTPUT_DIR": str(tmp_path / "out"),
    "CHECKPOINT_PATH": checkpoint,
    "INPUTS_LENGTH": "256",
    "LENGTH_CONTROL": "None",
    "FILTER_MODELS": repr((backend(checkpoint).identity["model"],)),
  }
  loaded = config.load(
    ["gin/eval_judge.gin", "gin/backends/checkpoint.gin"],
    list(flags.items()),
    [str(ROOT)],
  )
  result = config.call_job(loaded, ["test"])
  assert result["win_rate"]["n_total"] == 6
  assert len(result["flags"]) == 1
  rows = json.loads((tmp_path / "out" / "annotations.json").read_text())
  assert len({round(r["preference"], 4) for r in rows}) > 1
  asked = (tmp_path / "out" / "journal.jsonl").read_text().count("\n")
  assert asked == 12
  config.call_job(loaded, ["test"])
  again = (tmp_path / "out" / "journal.jsonl").read_text().count("\n")
  assert again == asked


KILLED = """
import sys
from flan_jax.curation import backends
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Request
made = backends.Checkpoint(sys.argv[1], inputs_length=64, batch_size=2)
with Journal(sys.argv[2]) as journal:
  made.generate(
    [Request(f"Number {i}", max_tokens=4) for i in range(400)],
    journal=journal)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_journal(tmp_path):
  checkpoint = write_checkpoint(tmp_path / "c", "decoder_only")
  path = tmp_path / "j.jsonl"
  process = subprocess.Popen(
    [sys.executable, "-c", KILLED, checkpoint, str(path)], cwd=ROOT
  )
  deadline = time.monotonic() + 300
  while time.monotonic() < deadline:
    if path.exists() and path.read_bytes().count(b"\n") > 20:
      break
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  with Journal(path) as journal:
    answered = len(journal)
  assert 0 < answered < 400
  requests = [Request(f"Number {i}", max_tokens=4) for i in range(400)]
  replies = ask(backend(checkpoint, batch_size=2), path, requests)
  assert sum(r.cached for r in replies) == answered
  keys = [
    json.loads(line)["key"]
    for line in path.read_text().splitlines()
    if '"response"' in line[:30]
  ]
  assert len(keys) == len(set(keys)) == 400
