"""What a newspaper says an article is about (Newsroom; Grusky et al., 2018)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="newsroom",
  paper_name="Newsroom",
  source=tfds("newsroom:1.0.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"text": "text", "title": "title"},
  target="summary",
  templates=(
    ("{title}\n\n{text}\n\nWhat is the gist of this article?", "{target}"),
    ("Summarise the newspaper article that follows in a sentence or two.\n\n{text}", "{target}"),
    ("Headline: {title}\nArticle: {text}\nDescription:", "{target}"),
    ("A search engine shows a line or two about each page that it finds. Write them for this page.\n\n{title}\n{text}", "{target}"),
    ("Under a headline, papers often print a short text from which readers can tell whether to go on. It gives the heart of the matter and is no longer than it has to be. Supply it for the article below.\n\n{text}\n\nIts headline: {title}", "{target}"),
    ("Is this worth reading to the end? Tell me first what it says.\n\n{text}", "{target}"),
    ('{text}\n\nThe article above, "{title}", in few words: ___', "{target}"),
    ("Boil the piece down to its essence.\n\n{title}\n\n{text}", "{target}"),
    ('Write an article with the headline "{title}". What it has to tell is this: {target}', "{text}"),
    ("Give the article a headline.\n\n{text}", "{title}"),
  ),
  metrics=("rouge",),
  notes=("TFDS needs files that are given out after registration; flan_jax says so where they are missing.",),
)
