import dataclasses
import doctest
import html.parser
import json
import math
import re
import xml.etree.ElementTree

import pytest

from flan_jax.errors import UserError
from flan_jax.eval import outputs, page_text, plots, protocol, rank, report
from flan_jax.eval.evaluation import Confusion, Evaluation, Sample
from flan_jax.page import markup, svg
from tests import browser

ATTACK = "<script>alert(1)</script>'\"&|\n<b>"


def task(name, scores, *, kind="classification", cluster="nli", paper=None):
  main = protocol.MetricResult(
    name="accuracy" if kind == "classification" else "rougeL",
    scores=scores,
    dev_scores=scores,
    spread=protocol.Spread.of(list(scores.values())),
    best_dev_template=2,
    best_dev_score=scores[2],
    interval=(1.0, 2.0),
    chance=50.0 if kind == "classification" else None,
    majority=57.1 if kind == "classification" else None,
  )
  return protocol.TaskResult(
    task=name, paper_name=paper or name.upper(), cluster=cluster, family=name,
    kind=kind, rows=1234, dev_rows=200, templates=tuple(scores),
    turned_around=1, ties=3, primary=main.name, metrics={main.name: main},
  )


def evaluation(shift):
  tasks = [
    task("rte", {0: 50.0 + shift, 2: 60.0 + shift}),
    task("e2e", {0: 5.0, 2: 7.0 + shift}, kind="generation", cluster="text"),
  ]
  samples = (
    Sample("rte", 2, 7, f"prompt {ATTACK}", ("yes", ATTACK), (-1.0, -2.0), "yes", "yes", True),
    Sample("e2e", 0, 1, "name = X", (), (), f"{ATTACK}{shift}", "X is.", None),
  )
  return Evaluation(
    {t.task: t for t in tasks}, protocol.clusters(tasks), samples, "test",
    4321, 12.3, {"e2e": 2}, "sum",
    worst=(
      Sample("rte", 0, 3, "worst one", ("yes", ATTACK), (-9.0, -1.0), ATTACK, "yes", False),
      Sample("e2e", 2, 4, "name = Y", (), (), ATTACK, "Y is.", None),
    ),
    # Generated: a choice without scores.
    random=(Sample("rte", 2, 5, "drawn one", ("yes", "no"), (), ATTACK, "no", False),),
    by_score={"sum": {"rte": 55.0}, "calibrated": {"rte": 41.25}},
    unmatched={"rte": 1717},
    confusions={"rte": Confusion(("yes", ATTACK), ((30, 12, 1), (7, 8, 0)), 2)},
  )


RUN = {
  "name": "flan_holdout_nli",
  "command": ["python", "launch/run.py", "--gin_file=a b.gin"],
  "config": f"NAME = '{ATTACK}'",
  "versions": {"jax": "0.10.2"},
  "data_label": "TFDS_DATA_DIR=/data",
  "data": {
    "source": "/data",
    "train": {
      "mixture": "flan_holdout_nli_train",
      "tasks": {"sst2": {"rows": {"train": 30000, "test": 872}, "rate": 0.75},
                "copa": {"rows": {"train": 350}, "rate": 0.25}},
    },
  },
}
CURVES = [
  {"step": s, "train/loss": 8.0 - s / 100, "train/learning_rate": 1e-3}
  for s in range(1, 301)
] + [{"step": 300, "validation/loss": 5.5, "eval/mean": float("nan")}]


class Page(html.parser.HTMLParser):
  """Open tags must be closed; texts and attributes are kept."""

  VOID = ("meta", "br", "hr", "img", "link")

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.attributes, self.said = [], [], [], []
    self.feed(text)
    assert not self.stack, self.stack

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in self.VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    self.said.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("report") / "new"
  path = report.write_report(
    out, run=RUN, curves=CURVES, before=evaluation(0), after=evaluation(20),
    missing={f"story_cloze {ATTACK}": "not prepared; run tfds build"},
  )
  assert path == out / "report.html"
  return out


@pytest.mark.parametrize("module", [outputs, page_text, markup, plots, svg])
def test_docstrings(module):
  assert doctest.testmod(module).failed == 0


def test_the_page_is_well_formed_and_needs_nothing_else(folder):
  text = (folder / "report.html").read_text()
  read = Page(text)
  assert "script" not in read.tags
  assert not {"img", "link", "iframe"} & set(read.tags)
  for name, value in read.attributes:
    assert not name.startswith("on")
    assert name not in ("src", "href")
    assert value != "http://www.w3.org/2000/svg" or name == "xmlns"
  assert "@import" not in text
  assert "url(" not in text


def test_every_text_is_escaped(folder):
  text = (folder / "report.html").read_text()
  assert "<script" not in text
  assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
  said = "".join(Page(text).said)
  assert f"prompt {ATTACK}" in said
  assert "<script" not in (folder / "report.md").read_text()


def test_the_page_says_what_ran_and_what_came_of_it(folder):
  said = " ".join("".join(Page((folder / "report.html").read_text()).said).split())
  for part in (
    "Flan holdout nli", "TFDS_DATA_DIR=/data", "1 dataset left out",
    "python launch/run.py '--gin_file=a b.gin'", "jax 0.10.2",
    "RTE", "55.0", "75.0", "+20.0", "1,234", "57.1", "80.0 #2",
    "sst2", "30,000", "75.0 %", "name = X", "rougeL",
    "that reached the length limit: E2E 2", "decided by a tie: RTE 3, E2E 3",
    "4,321 prompts", "RTE, before tuning worded as in template 2",
    "none of them", "worst one", "drawn one",
    "All else here is by sum", "41.2",
    "none of the choices, counted as wrong: RTE 1,717",
  ):
    assert part in said, part


def test_plots_are_well_formed_and_hold_every_template(folder):
  svgs = re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(), re.S)
  roots = [xml.etree.ElementTree.fromstring(svg) for svg in svgs]
  # Clusters, every template; loss, learning rate. A curve of NaN alone is not drawn.
  assert [r.get("aria-label") for r in roots] == [
    "Clusters", "Every template", "Loss", "Learning rate",
  ]
  ns = "{http://www.w3.org/2000/svg}"
  tips = [t.text for t in roots[1].iter(f"{ns}title")]
  for part in ("RTE, before, template 0: 50.0", "RTE, after, template 2: 80.0",
               "RTE, chance: 50.0", "E2E, after, mean: 16.0"):
    assert part in tips
  for root in roots:
    _, _, width, height = map(float, root.get("viewBox").split())
    for circle in root.iter(f"{ns}circle"):
      assert 0 <= float(circle.get("cx")) <= width
      assert 0 <= float(circle.get("cy")) <= height


def test_json_is_strict_and_whole(folder):
  def refuse(constant):
    raise AssertionError(constant)

  text = (folder / "report.json").read_text()
  value = json.loads(text, parse_constant=refuse)
  assert Evaluation.from_json(value["after"]) == evaluation(20)
  assert value["run"]["command"] == RUN["command"]
  assert value["curves"][-1]["eval/mean"] is None
  assert len(value["curves"]) == len(CURVES)


def test_markdown_table(folder):
  lines = (folder / "report.md").read_text().splitlines()
  table = [line for line in lines if line.startswith("|")]
  columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
  assert len(columns) == 1
  assert (
    "| RTE | accuracy | 1,234 | 2 | 50.0 | 57.1 | 55.0 | 75.0 | +20.0 |"
    " 1.0\u20132.0 | 75.0 | 72.5\u201377.5 | 70.0 | 80.0 | 80.0 |"
  ) in table


@pytest.mark.parametrize(
  ("before", "after", "heading"),
  [(None, None, 0), (evaluation(0), None, 1), (None, evaluation(1), 1)],
)
def test_parts_may_be_absent(tmp_path, before, after, heading):
  path = report.write_report(tmp_path, run={}, before=before, after=after)
  text = path.read_text()
  Page(text)
  assert text.count("Held-out results") == heading
  assert "change" not in text
  assert "Training" not in text


@pytest.mark.parametrize("score", rank.SCORES)
def test_the_page_says_how_choices_are_scored(tmp_path, score):
  made = dataclasses.replace(evaluation(1), score=score)
  text = report.write_report(tmp_path, run={}, after=made).read_text()
  assert "A choice, end of sequence included, is scored by the " in text
  assert ("less that after a prompt" in text) == (score == "calibrated")


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="report cannot be written into"):
    report.write_report(tmp_path / "file" / "x", run={})


def test_ticks_cover_and_are_few():
  for low, high in ((0, 1e-5), (3, 3), (-5, 5), (7.9, 8.3), (0, 123456)):
    got = svg.ticks(low, high)
    assert got[0] <= low <= high <= got[-1]
    assert 2 <= len(got) <= 9


def test_curves_are_thinned_but_keep_their_end():
  points = svg.thin([(float(i), math.sin(i)) for i in range(30_000)])
  assert len(points) <= svg.MAX_POINTS
  assert points[-1][0] == 29_999
  assert svg.thin([(0.0, math.nan), (1.0, 2.0)]) == [(1.0, 2.0)]


def test_negative_scores_widen_the_axis():
  svg = plots.dots("x", [plots.Dots("STS-B", {0: -40.0}, {0: 80.0})])
  assert ">-100<" in svg


@browser.needed
def test_a_browser_draws_it_in_light_and_dark(folder, tmp_path):
  browser.check(folder / "report.html", tmp_path, plots=4)
