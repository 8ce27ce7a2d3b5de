"""A judge behind a real endpoint on loopback: preferences, failures, files."""

import doctest
import json
import math
import pathlib

import pytest

from flan_jax import config
from flan_jax import judge as judge_job
from flan_jax.endpoint import pace
from flan_jax.endpoint.client import Endpoint
from flan_jax.endpoint.journal import Journal
from flan_jax.errors import UserError
from flan_jax.eval import judge, pairs
from tests import browser
from tests.curation.fake_endpoint import Raw, Say, Status, serving

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(pace, "FIRST_DELAY", 0.01)


def test_docstrings():
  for module in (judge, pairs, judge_job):
    assert doctest.testmod(module).failed == 0


def shown(prompt):
  """The outputs that a prompt shows as A and B."""
  a, b = prompt.split("# Answer of A\n\n")[1].split("# Answer of B\n\n")
  return a.strip(), b.split("# Your judgement")[0].strip()


def prefers_long(prompt, times):
  """Probability of the longer one: 0.8."""
  a, b = shown(prompt)
  p = 0.8 if len(a) > len(b) else 0.2
  return Say("A", top=(("A", math.log(p)), ("B", math.log(1 - p))))


def made(count=12):
  return [
    pairs.Pair(
      f"Instruction {i}", "r" * (10 + 2 * i), "m" * (11 + 6 * (i % 4)),
      "reference", "model", {"dataset": "made"},
    )
    for i in range(count)
  ]


def judged(server, tmp_path, given, name="j.jsonl", options=None, **fields):
  endpoint = Endpoint(server.url, "judge-1", **(options or {}))
  comparison = judge.Comparison(**fields)
  with Journal(tmp_path / name) as journal:
    return judge.judge(given, endpoint, comparison, journal=journal)


def expected(pair, p=0.8):
  if pair.output_1 == pair.output_2:
    return 1.5
  return 1 + (p if len(pair.output_2) > len(pair.output_1) else 1 - p)


@pytest.mark.parametrize("order", ["random", "both"])
def test_preferences_are_for_the_model_whatever_the_order(tmp_path, order):
  given = made()
  with serving(prefers_long) as server:
    found = judged(server, tmp_path, given, order=order)
    count = len(server.asked)
    judged(server, tmp_path, given, order=order)
    assert len(server.asked) == count == 12 * (1 + (order == "both"))
  for j in found:
    assert j.preference == pytest.approx(expected(j.pair))
  swaps = {swapped for j in found for swapped, _ in j.by_order}
  assert swaps == {False, True}
  assert judge.first_shown(found) is not None
  body = server.asked[0][1]
  assert (body["max_tokens"], body["logprobs"]) == (1, True)


def test_a_judge_that_likes_the_first_place_is_seen(tmp_path):
  say = Say("A", top=(("A", math.log(0.9)), ("B", math.log(0.1))))
  with serving(lambda p, n: say) as server:
    found = judged(server, tmp_path, made(), order="both")
  assert judge.first_shown(found) == pytest.approx(0.9)
  assert all(j.preference == pytest.approx(1.5) for j in found)


def test_equal_outputs_are_not_asked(tmp_path):
  same = pairs.Pair("i", "x", "x", "r", "m")
  with serving(prefers_long) as server:
    (j,) = judged(server, tmp_path, [same])
    assert server.asked == []
  assert j.preference == 1.5


def test_verdicts_in_words(tmp_path):
  def says(prompt, times):
    a, b = shown(prompt)
    return Say(f"I like long ones.\n**Verdict:** {'A' if a > b else 'B'}")

  given = [pairs.Pair("i", "a", "b", "r", "m"), pairs.Pair("j", "d", "c", *"rm")]
  with serving(says) as server:
    found = judged(
      server, tmp_path, given, scoring="verdict", order="both", max_tokens=64
    )
  assert [j.preference for j in found] == [2.0, 1.0]
  assert server.asked[0][1]["max_tokens"] == 64


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("Verdict: A", "A"), ("verdict - b.", "B"), ("Verdict: tie", "tie"),
    ("Verdict: A? No.\nVerdict: B", "B"), ("A", "A"), ("**B**", "B"),
    ("", None), ("I cannot say.", None), ("Verdict: Apples", None),
    ("An answer", None),
  ],
)
def test_reading_verdicts(text, said):
  assert judge.verdict(text) == said


def test_rubbish_is_drawn_again_and_then_excluded(tmp_path):
  rubbish = {made()[0].output_2, made()[1].output_2}

  def says(prompt, times):
    outputs = shown(prompt)
    if made()[1].output_2 in outputs and "Instruction 1\n" in prompt:
      return Say("Lorem ipsum")
    if made()[0].output_2 in outputs and times == 0:
      return Say("Dolor")
    return Say("Verdict: tie")

  with serving(says) as server:
    found = judged(server, tmp_path, made(4), scoring="verdict", retries=2)
  assert [j.preference for j in found] == [1.5, None, 1.5, 1.5]
  assert found[1].error == "no verdict in 'Lorem ipsum'"
  assert len(found[1].replies) == 3
  assert len(found[0].replies) == 2
  (failed,) = judge.failures(found)
  assert failed["said"] == ["Lorem ipsum"] * 3
  temperatures = [
    body["temperature"] for prompt, body, _ in server.asked
    if "Instruction 1\n" in prompt
  ]
  assert temperatures == [0.0, 0.7, 0.7]
  assert rubbish


@pytest.mark.parametrize(
  ("bad", "kind"),
  [
    (Status(429, headers={"Retry-After": "0"}), "HTTP 429"),
    (Raw(b"{}", drip=0.5), "timeout"),
    (Say("Hm", top=(("Hm", -0.1),)), "no letter among the likeliest tokens"),
    (Say("A"), "no letter among the likeliest tokens"),
    (Raw(b"<html>"), "no answer"),
  ],
  ids=str,
)
def test_a_pair_without_an_answer_is_retried_and_excluded(tmp_path, bad, kind):
  def behave(prompt, times):
    return bad if "Instruction 3\n" in prompt else prefers_long(prompt, times)

  options = {"retries": 1, "timeout": 0.4}
  with serving(behave) as server:
    found = judged(server, tmp_path, made(), options=options)
    count = sum("Instruction 3\n" in p for p in server.prompts)
  # A letter that is not offered would not be offered the next time.
  assert count == (1 if isinstance(bad, Say) else 2)
  assert [j.preference is None for j in found].count(True) == 1
  summary = judge_job.summary(found, judge.Comparison(), None)
  assert summary["n_failed"] == 1
  assert summary["failed"] == {kind: 1}
  assert summary["win_rate"]["n_total"] == 11


def write(path, rows):
  path.write_text(json.dumps(rows))
  return str(path)


@pytest.fixture
def files(tmp_path):
  given = made()
  reference = write(
    tmp_path / "reference.json",
    [
      {
        "instruction": p.instruction, "output": p.output_1,
        "generator": "gpt-4-0613", "dataset": "made",
      }
      for p in given
    ],
  )
  # Another order, and lines of the generation job.
  lines = [
    {"prompt": p.instruction, "continuations": [{"text": p.output_2}]}
    for p in reversed(given)
  ]
  model = tmp_path / "mine.jsonl"
  model.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return str(model), reference


def run(server, files, folder, model="openai/gpt-4-1106-preview", **options):
  return judge_job.judge(
    judge=Endpoint(server.url, model, **options.pop("endpoint", {})),
    comparison=judge.Comparison(**options.pop("comparison", {})),
    model_outputs=files[0],
    reference_outputs=files[1],
    output_dir=str(folder),
    **options,
  )


def test_the_job_from_files_to_files(files, tmp_path, capsys):
  folder = tmp_path / "out"
  manifest = tmp_path / "manifest.json"
  manifest.write_text('{"filters": [{"kind": "rating", "model": "gpt-4"}]}')
  with serving(prefers_long) as server:
    result = run(
      server, files, folder, comparison={"order": "both"},
      curation_manifests=(str(manifest),), filter_models=("claude-2",),
    )
  rows = json.loads((folder / "annotations.json").read_text())
  assert [r["instruction"] for r in rows] == [p.instruction for p in made()]
  for row, pair in zip(rows, made(), strict=True):
    assert row["preference"] == pytest.approx(expected(pair))
    assert row["output_2"] == pair.output_2
    assert row["generator_2"] == "mine"
    assert row["dataset"] == "made"
    assert row["annotator"] == "openai/gpt-4-1106-preview"
  mean = sum(expected(p) - 1 for p in made()) / 12
  assert result["win_rate"]["win_rate"] == pytest.approx(100 * mean)
  assert result["length_controlled"]["form"] == "length_controlled_minimal"
  assert result["both_orders"]["agreement"] == 1.0
  assert result["tokens"] == 24 * 12
  filtered, own = result["flags"]
  assert "also chose or made training data (as 'gpt-4')" in filtered
  assert "judges its own outputs (as 'gpt-4-0613')" in own
  assert json.loads((folder / "result.json").read_text()) == json.loads(
    json.dumps(result)
  )
  assert json.loads((folder / "failed.json").read_text()) == []
  said = capsys.readouterr().out
  assert "mine against gpt-4-0613, 12 pairs" in said
  assert "flag: the judge" in said
  page = (folder / "report.html").read_text()
  assert page.count("<b>Flag:</b> the judge") == 2
  assert "also chose or made training data (as &#x27;gpt-4&#x27;)" in page
  for part in ("Clearest wins", "preferred by 80 %", "both orders: agreement"):
    assert part in page, part


@browser.needed
def test_a_browser_draws_the_page_in_light_and_dark(files, tmp_path):
  def behave(prompt, times):
    bad = "Instruction 3\n" in prompt
    return Say("Hm", top=(("Hm", -0.1),)) if bad else prefers_long(prompt, times)

  path = pathlib.Path(files[0])
  attack = "<script>alert(1)</script>"
  path.write_text(path.read_text().replace('"mmm', f'"{attack}mmm'))
  with serving(behave) as server:
    run(server, files, tmp_path / "out")
  page = tmp_path / "out" / "report.html"
  assert "<script" not in page.read_text()
  assert "&lt;script&gt;alert(1)&lt;/script&gt;mmm" in page.read_text()
  assert "Excluded pairs" in page.read_text()
  browser.check(page, tmp_path, plots=2)


def test_difficulties_and_gamed_rows(files, tmp_path):
  rows = [
    {"instruction": p.instruction, "instruction_difficulty": 0.1 * i}
    for i, p in enumerate(made())
  ]
  by_text = write(tmp_path / "d.json", rows[::-1])
  numbered = tmp_path / "d.csv"
  numbered.write_text(
    ",instruction_difficulty\n"
    + "".join(f"{i},{0.1 * i}\n" for i in range(12))
  )
  gamed = tmp_path / "g.csv"
  gamed.write_text(
    "index,preference,std_delta_len,instruction_difficulty,model\n"
    + "".join(f"{i},0.{i},{i / 9 - 0.5},{i / 5},x\n" for i in range(10))
  )
  with serving(prefers_long) as server:
    found = [
      run(
        server, files, tmp_path / "out", difficulty_path=str(path),
        length_form=f"length_controlled_{form}", **more,
      )["length_controlled"]
      for path, form, more in (
        (by_text, "noreg", {}),
        (numbered, "noreg", {}),
        (numbered, "v1", {"gamed_path": str(gamed)}),
      )
    ]
    assert found[0] == found[1] != found[2]
    with pytest.raises(UserError, match="has no 'instruction_difficulty' for"):
      run(
        server, files, tmp_path / "out", length_form="length_controlled_noreg",
        difficulty_path=write(tmp_path / "e.json", rows[1:]),
      )
    numbered.write_text("instruction_difficulty\n1\n2\n")
    with pytest.raises(UserError, match="2 difficulties by number, for 12"):
      run(
        server, files, tmp_path / "out", length_form="length_controlled_noreg",
        difficulty_path=str(numbered),
      )
    with pytest.raises(UserError, match="no effect with LENGTH_CONTROL None"):
      run(
        server, files, tmp_path / "out", length_form=None,
        gamed_path=str(gamed),
      )


def test_no_preference_at_all(files, tmp_path):
  with serving(lambda p, n: Say("A")) as server, pytest.raises(
    UserError, match="none of 12 pairs has a preference.*SCORING='verdict'"
  ):
    run(server, files, tmp_path / "out", endpoint={"retries": 0})


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([{"instruction": "a"}], "row 1: its output is None"),
    ([{"output": "a"}], "row 1: its instruction is None"),
    ([{"instruction": "a", "output": "b"}] * 2, "row 2: .* comes twice"),
    ([3], "row 1: 3 is no object"),
    ([], "holds no row"),
    ([{"instruction": "other", "output": "b"}], "no instruction in common"),
  ],
)
def test_outputs_that_do_not_fit(files, tmp_path, rows, message):
  with pytest.raises(UserError, match=message):
    pairs.read(write(tmp_path / "x.json", rows), files[1])


def test_rows_of_one_file_alone_are_said(files, tmp_path):
  some = write(
    tmp_path / "x.json",
    [{"instruction": f"Instruction {i}", "output": "o"} for i in (3, 99, 1)],
  )
  found, notes = pairs.read(some, files[1])
  assert [p.instruction for p in found] == ["Instruction 1", "Instruction 3"]
  assert len(notes) == 2
  assert "10 of the 12" in notes[0]
  assert "'Instruction 99'" in notes[1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"order": "bothh"}, "nearest is 'both'"),
    ({"retries": -1}, "JUDGE_RETRIES is -1"),
    ({"question": "{instruction} {first}"}, "QUESTION must have"),
    ({"question": "{instruction} {first} {second} {x}"}, "no other field"),
    ({"question": "{instruction} {first} {second} {"}, "cannot be filled in"),
  ],
)
def test_what_is_refused(options, message):
  with pytest.raises(UserError, match=message):
    judge.Comparison(**options)


def test_outputs_with_braces_are_text():
  pair = pairs.Pair("{first}", "{second}", "{x}", "r", "m")
  prompt = judge.Comparison().prompt(pair, swapped=True)
  assert shown(prompt) == ("{x}", "{second}")
  own = judge.Comparison(question="{instruction}|{first}|{second}|{{}}")
  assert own.prompt(pair, swapped=False) == "{first}|{second}|{x}|{}"


def test_manifests_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match="CURATION_MANIFESTS .* cannot be read"):
    judge_job.manifest_models([tmp_path / "none.json"])


def job(files, folder, *more, **flags):
  flags = {
    "MODEL_OUTPUTS": files[0], "REFERENCE_OUTPUTS": files[1],
    "OUTPUT_DIR": str(folder), **flags,
  }
  loaded = config.load(
    ["gin/eval_judge.gin", *more], list(flags.items()), [str(ROOT)]
  )
  return config.call_job(loaded, ["test"])


def test_gin_files(files, tmp_path):
  with pytest.raises(UserError, match="BACKEND is None: no judge"):
    job(files, tmp_path / "out")
  with serving(prefers_long) as server:
    given = {"BASE_URL": server.url, "ENDPOINT_MODEL": "m", "ORDER": "both"}
    endpoint = "gin/backends/endpoint.gin"
    with pytest.raises(UserError, match="BUDGET_REQUESTS is 5: 5 are spent"):
      job(files, tmp_path / "out", endpoint, BUDGET_REQUESTS="5", **given)
    result = job(files, tmp_path / "out", endpoint, **given)
    assert len(server.asked) == 24
  assert result["win_rate"]["n_total"] == 12
  assert result["totals"]["responses"] == 24
  with pytest.raises(UserError, match="BUDGET_COST is 0: nothing could be"):
    job(files, tmp_path / "out", endpoint, BUDGET_COST="0", **given)
