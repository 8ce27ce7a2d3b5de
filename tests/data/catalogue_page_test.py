import csv
import dataclasses
import doctest
import html
import json
import re
import subprocess
import sys

import pytest
from flan_jax.tasks import published_rows
from rich.console import Console

from flan_jax.data import (
  browse,
  catalogue,
  catalogue_page,
  entries,
  evaluation,
  sample,
  spec,
)
from flan_jax.errors import UserError
from flan_jax.page import markup
from tests import browser
from tests.data import made
from tests.eval.report_test import Page

ATTACK = "<script>alert(1)</script>'\"&\n<b>"
# Choices of the task, choices of the row, free form with references.
NAMES = ("anli_r1", "copa", "common_gen")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """Entries of a few tasks; nothing is prepared, the cache is a new one."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("FLAN_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("nothing")))
    yield list(entries.entries([catalogue.get(n) for n in NAMES]))


@pytest.fixture(scope="module")
def page(found):
  return catalogue_page.render(found)


def attacked(entry):
  piece = ((ATTACK, ""), (ATTACK, "context"))
  one = dataclasses.replace(entry.templates[0], inputs=piece, targets=piece)
  task = dataclasses.replace(
    entry.task, paper_name=ATTACK, notes=(ATTACK,), metrics=(ATTACK,)
  )
  return dataclasses.replace(
    entry, task=task, templates=(one, *entry.templates[1:]),
    homepage="javascript:alert(1)", licence=ATTACK, choices=(ATTACK,),
    references=(ATTACK, ATTACK), unrendered=ATTACK,
    slices={"train": (ATTACK, 3)},
  )


def test_docstrings():
  assert doctest.testmod(entries).failed == 0


def test_templates_read_as_the_model_reads_them(found, sample_data):
  for entry in found:
    want = evaluation.evaluation_examples(
      entry.task, "test", vocabulary=made.BYTES, lengths=None, max_examples=1
    )
    assert len(want) == len(entry.templates) == spec.NUM_TEMPLATES
    for got, example in zip(entry.templates, want, strict=True):
      assert entries.joined(got.inputs) == example.inputs_text
      assert entries.joined(got.targets) == example.targets_text
      assert (got.kind == "ranked") == bool(example.choices)
      if example.choices:
        assert entry.choices == example.choices_text
      assert got.shows_options == ("OPTIONS:" in example.inputs_text)


def test_the_page_is_well_formed_and_needs_nothing_else(page):
  read = Page(page)
  assert read.tags.count("script") == 1
  assert not {"img", "link", "iframe"} & set(read.tags)
  for name, value in read.attributes:
    assert not name.startswith("on")
    assert name != "src"
    if name == "href":
      assert value.startswith(("https://", "http://", "#"))
  assert "@import" not in page
  assert "url(" not in page
  assert "prefers-color-scheme: dark" in page
  anchors = {v for n, v in read.attributes if n == "id"}
  ids = [v for n, v in read.attributes if n == "id"]
  assert len(ids) == len(anchors)
  targets = [v[1:] for n, v in read.attributes if n == "href" and v[0] == "#"]
  assert set(targets) <= anchors
  assert set(NAMES) <= set(targets)


def test_the_page_says_every_fact_and_shows_every_template(page, found):
  said = "".join(Page(page).said)
  assert page.count("<div class='sample'>") == len(found) * spec.NUM_TEMPLATES
  for entry in found:
    for one in entry.templates:
      assert entries.joined(one.inputs) in said
      assert f"target{entries.joined(one.targets)}" in said
    for fact in (
      entry.task.paper_name, entry.task.source.spec, *entry.task.metrics,
      *entry.task.notes, entry.task.kind, f"flan_{entry.task.name}",
    ):
      assert fact in said
    assert entry.homepage.startswith("http")
    assert html.escape(entry.homepage) in page
    assert html.escape(entry.catalog_page) in page
  for fact in (
    "about 16,940 as published", "3,000 (its training rows, 3,000 at most)",
    "about 350 (its training rows", "last 50 of train",
    "train less validation, the first 30,000 at most",
    "Yes | It's impossible to say | No", "turned around", "options shown",
    "differ from row to row (features choice1, choice2)", "flan_all_train",
    "flan_holdout_nli_train", "Held out, it takes Paraphrase out of training",
    "Accepted answers of this row",
  ):
    assert fact in said, fact


def test_every_text_is_escaped(found):
  text = catalogue_page.render([attacked(e) for e in found])
  read = Page(text)
  assert read.tags.count("script") == 1
  assert "<script>alert" not in text
  assert "javascript:alert" not in text
  assert "".join(read.said).count(ATTACK) >= 10 * len(found)


def test_rows_and_rate_of_a_prepared_copy_go_before_the_published(sample_data):
  (entry,) = entries.entries([catalogue.get("copa")])
  assert entry.slices == {
    "train": ("train[:18]", 18), "validation": ("train[18:24]", 6),
    "test": ("validation[:12]", 12),
  }
  assert (entry.train_rows, entry.rate, entry.published) == (18, 18, 350)
  assert entries.split_rows(entry, "train") == (
    "18 (train[:18] of the prepared copy)"
  )
  assert entries.rate_line(entry).startswith("18 (")
  large = dataclasses.replace(entry, slices={"train": ("train", 9_999)})
  assert large.rate == spec.MAX_RATE


def test_a_dataset_without_a_sample_is_shown_with_its_fields(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  (entry,) = entries.entries([catalogue.get("rte")], embedded_in=tmp_path)
  assert entry.unrendered == "the sample has no row of it"
  assert "{premise}" in entries.joined(entry.templates[0].inputs)
  assert "Templates are on no row" in catalogue_page.render([entry])


def test_json_lines_of_ones_own(tmp_path):
  task = dataclasses.replace(
    catalogue.get("rte"), source=spec.Jsonl(str(tmp_path / "{split}.jsonl"))
  )
  (entry,) = entries.entries([task])
  assert "is not prepared" in entry.unrendered
  assert entry.catalog_page == ""
  for split in ("train", "validation"):
    rows = [
      {"premise": f"{ATTACK} {i}", "hypothesis": "It is.", "label": i % 2}
      for i in range(8)
    ]
    (tmp_path / f"{split}.jsonl").write_text(
      "\n".join(json.dumps(r) for r in rows)
    )
  (entry,) = entries.entries([task])
  assert entry.unrendered == ""
  assert ATTACK in entries.joined(entry.templates[0].inputs)
  text = catalogue_page.render([entry])
  assert "<script>alert" not in text
  assert ATTACK in "".join(Page(text).said)


def test_seqio_reads_what_it_read_before(sample_data):
  from flan_jax.data import sources

  before = sources.data_dir()
  list(entries.entries([catalogue.get("copa")]))
  assert sources.data_dir() == before


def test_published_rows_are_those_of_the_released_code(shared):
  table = shared / "facts" / "flan2021_datasets.csv"
  checked = 0
  for line in csv.DictReader(table.open()):
    name = re.split(r"[: ]", line["tfds_4_9_10"])[0]
    rows = published_rows.TRAIN_ROWS.get(name)
    if rows is not None:
      assert rows == int(line["train_examples"])
      assert min(rows, spec.MAX_RATE) == int(line["mix_rate"])
      checked += 1
  assert checked > 50


def test_show_in_the_terminal(found, monkeypatch, capsys):
  monkeypatch.setattr(entries, "entries", lambda tasks: [
    e for t in tasks for e in found if e.task.name == t.name
  ])
  assert browse.main(["--show", "anli_r1"]) == 0
  out = capsys.readouterr().out
  assert len(re.findall(r"template \d: ", out)) == spec.NUM_TEMPLATES
  entry = found[0]
  flat = re.sub(r"[\s│]+", "", out)
  for one in entry.templates:
    assert re.sub(r"\s+", "", entries.joined(one.inputs)) in flat
    assert f"template {one.number}: {one.kind}" in out
  for part in ("anli/r1:0.1.0", "accuracy", "Yes | It's impossible to say | No",
               "flan_anli_r1", "about 16,940 as published", "OPTIONS:", "target"):
    assert part in out, part


def test_the_terminal_takes_no_text_for_markup(found):
  console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
  with console.file:
    console.print(browse._pieces((("[bold]x[/bold] [/]", ""),)))
  assert "[bold]x[/bold] [/]" in console.export_text()


def test_a_misspelt_task(capsys):
  assert browse.main(["--show", "anli_r4"]) == 2
  said = capsys.readouterr().err
  assert "There is no task 'anli_r4'; the nearest is 'anli_r3'." in said


def test_one_of_the_two_is_asked_for(capsys):
  for arguments in ([], ["--html", "a", "--show", "b"], ["--htm", "a"]):
    with pytest.raises(SystemExit) as stopped:
      browse.main(arguments)
    assert stopped.value.code == 2
  capsys.readouterr()


def test_the_page_is_written_whole_or_not_at_all(found, tmp_path, monkeypatch):
  monkeypatch.setattr(entries, "entries", lambda tasks: iter(found))
  path = browse.write_page(tmp_path)
  assert path == tmp_path / browse.PAGE_NAME
  assert browse.write_page(tmp_path / "new" / "c.html").read_text() == (
    path.read_text()
  )
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"cannot be written to '.*file/x\.html'"):
    browse.write_page(tmp_path / "file" / "x.html")
  assert not list(tmp_path.rglob("*.tmp"))


def test_links_go_to_the_web_alone():
  assert markup.link("javascript:alert(1)", "<a>") == "&lt;a&gt;"
  assert 'x"' not in markup.link('https://x"onclick="', "a")


@pytest.mark.slow
def test_the_whole_catalogue_by_its_command(tmp_path, sample_dir):
  out = tmp_path / "catalogue.html"
  done = subprocess.run(
    [sys.executable, "-m", "flan_jax.data.catalogue", "--html", str(out)],
    capture_output=True, text=True, timeout=600, cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == str(out)
  text = out.read_text()
  Page(text)
  tasks = catalogue.load()
  assert text.count("<div class='sample'>") == len(tasks) * spec.NUM_TEMPLATES
  there = sample.embedded()
  lacking = sum(t.source.spec not in there for t in tasks.values())
  assert text.count("Templates are on no row") == lacking


# Typing three words, in turn; what is shown then is written into the page.
TYPED = """<script>
const box = document.getElementById('words'), seen = [];
const shown = (what) => Array.from(document.querySelectorAll(what))
  .filter((e) => e.checkVisibility()).map((e) => e.id);
for (const words of ['', 'CoPA', 'zzzz', 'accuracy NLI-ish', 'anli "%s"', '']) {
  box.value = words; box.dispatchEvent(new Event('input'));
  seen.push([words, shown('section.dataset'), shown('.sample').length,
    shown('nav li').length, document.getElementById('count').textContent]);
}
document.getElementById('toggle').click();
seen.push(['open', [], shown('.sample').length, 0, '']);
const out = document.createElement('script');
out.type = 'application/json'; out.id = 'seen';
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script></body>"""


@browser.needed
def test_it_reads_well_in_light_and_dark(page, tmp_path):
  (tmp_path / "page.html").write_text(page)
  browser.check(tmp_path / "page.html", tmp_path, plots=0)


@browser.needed
def test_a_browser_searches_it(page, tmp_path):
  # Words of one template of ANLI alone.
  typed = TYPED.replace('anli "%s"', "anli_r1 publisher")
  (tmp_path / "page.html").write_text(page.replace("</body>", typed))
  out = subprocess.run(
    ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
     "--no-first-run", "--disable-background-networking",
     "--disable-component-update", "--disable-sync",
     f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
     "--enable-logging=stderr", "--dump-dom", f"file://{tmp_path}/page.html"],
    capture_output=True, text=True, timeout=120, check=True,
  )
  assert "CONSOLE" not in out.stderr
  seen = json.loads(
    re.search(r'id="seen">(.*?)</script>', out.stdout, re.S).group(1)
  )
  n = len(NAMES)
  whole = ["", list(NAMES), 0, n, f"{n} tasks, {10 * n} templates"]
  assert seen[0] == whole
  assert seen[1] == ["CoPA", ["copa"], 0, 1, "1 task, 10 templates"]
  assert seen[2] == ["zzzz", [], 0, 0, "0 tasks, 0 templates"]
  assert seen[3][1] == []
  assert seen[4][1:4] == [["anli_r1"], 1, 1]
  assert seen[5] == whole
  assert seen[6][2] == 10 * n
