"""Several articles on one event, summed up (Multi-News; Fabbri et al., 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, first, tfds


def prepare(row):
  r"""Articles parted by a line of three dashes; the summary without its dash.

  >>> prepare({"document": "One fell. ||||| Two fell.",
  ...          "summary": "– They fell."})  # doctest: +SKIP
  {"document": "One fell.\n\n---\n\nTwo fell.", "summary": "They fell."}
  """
  bars = [
    (r"^[\s|]+|[\s|]+$", ""),
    (r"\s*\|{5}[\s|]*", "\n\n---\n\n"),
    (r"[ \t]*\n[ \t]*", "\n"),
    (r"\n{3,}", "\n\n"),
  ]
  row = ops.clean(row, "document", replace=bars)
  return ops.clean(row, "summary", replace=[(r"^\s*[–-]\s+", "")])


TASK = Task(
  name="multi_news",
  paper_name="Multi-News",
  source=tfds("multi_news:2.1.0", paper_version="1.0.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  prepare=prepare,
  inputs={"articles": "document"},
  target="summary",
  templates=(
    ("{articles}\n\nWhat do these reports say, taken together?", "{target}"),
    ("Write one summary of the articles below, which are all about the same news.\n\n{articles}", "{target}"),
    ("Articles:\n\n{articles}\n\nSummary of all:", "{target}"),
    ("The editor of a daily digest reads what several papers write about an event and makes one paragraph of it. What does the editor make of this?\n\n{articles}", "{target}"),
    ("More than one source reports on the same thing, with a line of dashes between sources. They overlap, and some know more than others. Bring together what is important in them, and say nothing twice.\n\n{articles}", "{target}"),
    ("Everybody is talking about this and I've missed it. Here's all I could find:\n\n{articles}\n\nSo what has happened?", "{target}"),
    ("Coverage:\n\n{articles}\n\nThe coverage in one paragraph: ___", "{target}"),
    ("Combine into one short report.\n\n{articles}", "{target}"),
    ("This paragraph sums up what several sources have written about an event.\n\n{target}\n\nWrite the articles on which it may be based, with a line of three dashes between them.", "{articles}"),
    ("Digest: {target}\n\nWhat the sources had written, with --- between one and the next:", "{articles}"),
  ),
  metrics=("rouge",),
  notes=(
    "Articles are parted by a line of dashes, which the published form showed as five bars.",
    "The dash with which every summary begins is removed.",
    "In every template the articles end before the cue for the summary begins.",
  ),
)
