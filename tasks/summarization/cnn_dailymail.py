"""Highlights of a news story (CNN/Daily Mail; Hermann et al., 2015; See et al., 2017)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, first, tfds

# What stands before the first word of a story: place and agency, or byline
# and dates. Only at the very beginning, since a story may have dashes.
_AGENCY = r"^\s*(?:[A-Z][A-Z.' -]+(?:, [A-Za-z. ]{1,40}?)?\s*)?(?:\([\w.' -]{1,30}\))?\s*--\s+"
_BYLINE = r"^\s*By\s*\. .{0,300}(?:\b[A-Z]{2,4}, |\bon )\d{1,2}(?:st|nd|rd|th)? [A-Z][a-z]+ \d{4} \. "


def prepare(row):
  r"""The story without dateline or byline; one highlight a line.

  >>> prepare({"article": "LIMA, Peru (CNN) -- Nine men came out.",
  ...          "highlights": "Nine rescued .\nAll well ."})  # doctest: +SKIP
  {"article": "Nine men came out.",
   "highlights": "Nine rescued.\nAll well."}
  """
  row = ops.clean(row, "article", replace=[(_BYLINE, ""), (_AGENCY, "")])
  # Some copies part highlights by two spaces.
  spaces = [(r" +([.?!])(\s|$)", r"\1\2"), (r" {2,}| *\n\s*", "\n")]
  return ops.clean(row, "highlights", replace=spaces)


TASK = Task(
  name="cnn_dailymail",
  paper_name="CNN-DM",
  source=tfds("cnn_dailymail:3.4.0", paper_version="3.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  prepare=prepare,
  inputs={"article": "article"},
  target="highlights",
  templates=(
    ("{article}\n\nWhat are the main points of this story?", "{target}"),
    ("Sum up the article in two to four short sentences, one to a line.\n\n{article}", "{target}"),
    ("Article: {article}\n\nHighlights:", "{target}"),
    ("A news site shows the essential facts in a box beside every story. Write the text of the box that goes with the story below.\n\n{article}", "{target}"),
    ("This is a report from the website of a newspaper or a broadcaster. Pick out what a reader must know who has ten seconds, and write each fact as a short sentence of its own.\n\n{article}", "{target}"),
    ("I'd like to tell my colleagues over lunch what this is about:\n\n{article}\n\nCould you give me the key facts?", "{target}"),
    ("Read the story, then complete what comes after it.\n\n{article}\n\nIn short: ___", "{target}"),
    ("List the highlights of the piece.\n\n{article}", "{target}"),
    ("A news story has these highlights:\n\n{target}\n\nWrite the story itself.", "{article}"),
    ("Turn the notes into a full report.\n\nNotes:\n{target}\n\nReport:", "{article}"),
  ),
  metrics=("rouge",),
  notes=(
    "Datelines and bylines are removed; the published form kept nothing but them, such as \"(CNN\".",
    "Highlights are written without the space before their full stop.",
  ),
)
