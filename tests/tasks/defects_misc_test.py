"""Defects of the published form that these tasks do not have: one test each.

Translation, summarization, misc. and the extras; the facts are measured on the
code released with Wei et al., 2022 (arXiv 2109.01652).
"""

import pytest

from flan_jax.data import catalogue, evaluation, preprocessors, sources
from flan_jax.eval import metrics
from tests.data import made


def prepared(name, split="train"):
  """The prepared rows of a split."""
  task = catalogue.get(name)
  rows = preprocessors.prepare_rows(task)(
    sources.source(task).get_dataset(split)
  )
  return list(rows.as_numpy_iterator())


def rendered(name, templates, split="test"):
  return evaluation.evaluation_examples(
    catalogue.get(name),
    split,
    vocabulary=made.BYTES,
    lengths=None,
    templates=templates,
  )


def stories():
  for split in sources.SPLITS:
    yield from prepared("cnn_dailymail", split)


def check_stories():
  """The story is all there, and neither dateline nor byline is."""
  count = 0
  for row in stories():
    article = row["article"].decode()
    assert len(article) > 200, article
    assert not article.startswith(("(CNN", "By .")), article[:80]
    assert " -- " not in article[:12], article[:80]
    assert " (CNN) " not in article[:60], article[:80]
    assert "UPDATED: ." not in article
    assert "Last updated at" not in article
    for line in row["target"].decode().split("\n"):
      assert line == line.strip()
      assert not line.endswith(" ."), line
    count += 1
  return count


def test_cnn_dailymail_keeps_the_story_sample(sample_data):
  assert check_stories() == 40


@pytest.mark.slow
def test_cnn_dailymail_keeps_the_story_real(real_data):
  assert check_stories() > 300


@pytest.mark.parametrize(
  ("article", "story"),
  [
    ("(CNN) -- Rain fell. It cost $2 -- a record.", "Rain fell. It cost $2 -- a record."),
    ("ST. LOUIS, Missouri (CNN)  -- Rain.", "Rain."),
    ("LONDON, England -- Rain.", "Rain."),
    ("(InStyle) -- Rain.", "Rain."),
    ("He left -- at last -- in 2013 . So.", "He left -- at last -- in 2013 . So."),
    (
      "By . Ann Bee . PUBLISHED: . 10:51 EST, 3 December 2013 . | . UPDATED: ."
      " 11:00 EST, 3 December 2013 . Rain fell on 2 May 2012.",
      "Rain fell on 2 May 2012.",
    ),
    ("By . Ann Bee . Last updated at 1:14 PM on 24th May 2011 . Rain.", "Rain."),
    ("By the sea it rained on 3 May 2013 . So.", "By the sea it rained on 3 May 2013 . So."),
  ],
)
def test_cnn_dailymail_loses_nothing_but_its_dateline(article, story):
  row = catalogue.get("cnn_dailymail").prepare(
    {"article": article, "highlights": "A ."}
  )
  assert row["article"].numpy().decode() == story


@pytest.mark.parametrize("name", ["cnn_dailymail", "multi_news"])
def test_versions_are_those_that_tfds_serves(name):
  import tensorflow_datasets as tfds

  source = catalogue.get(name).source
  assert source.paper_version not in (None, source.version)
  assert str(tfds.builder_cls(source.name).VERSION) == source.version


def test_multi_news_articles_end_before_the_cue(sample_data):
  """Published template 7 ran the documents into its cue."""
  for example in rendered("multi_news", range(8)):
    articles = example.inputs_text.split("---")
    assert len(articles) > 1
    assert "|||||" not in example.inputs_text
    if example.template == 2:
      cut = example.inputs_text.rfind("Summary of all:")
      assert example.inputs_text[:cut].endswith("\n\n")


def test_xsum_needs_no_network():
  source = catalogue.get("xsum").source
  assert source.spec == "xsum:1.1.0"


def test_aeslc_joins_no_words(sample_data):
  row = catalogue.get("aeslc").prepare(
    {"email_body": "We meet\nat 3.\n", "subject_line": "Meeting\nmoved"}
  )
  assert row["subject_line"] == "Meeting moved"
  assert row["email_body"] == "We meet at 3."


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("wmt16_translate_csen", "czeng16pre.deduped-ign"),
    ("wmt16_translate_ruen", "1mcorpus.zip"),
    ("newsroom", "summari.es"),
    ("xsum", "tar"),
  ],
)
def test_files_to_be_fetched_by_hand_are_named(
  name, said, tmp_path, monkeypatch
):
  monkeypatch.setattr(sources, "data_dir", lambda: tmp_path)
  with pytest.raises(sources.NotPreparedError, match=f"by hand.*{said}"):
    sources.source(catalogue.get(name)).sizes()


def test_no_file_is_asked_for_where_none_is_needed(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, "data_dir", lambda: tmp_path)
  with pytest.raises(sources.NotPreparedError) as error:
    sources.source(catalogue.get("wmt16_translate_roen")).sizes()
  assert "by hand" not in str(error.value)


def test_translations_are_scored_by_corpus_bleu():
  for name in catalogue.clusters()["translation"]:
    assert catalogue.get(name).metrics == ("bleu",)
  assert metrics.get("bleu").takes == "texts"


def test_english_and_german_are_one_pair_of_the_paper_s_eight():
  tasks = [catalogue.get(n) for n in catalogue.clusters()["translation"]]
  assert len(tasks) == 9
  assert len({t.family or t.name for t in tasks}) == 8
