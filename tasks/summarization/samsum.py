"""A chat between friends made short (SAMSum; Gliwa et al., 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, first, tfds


def prepare(row):
  r"""Unix line ends, no trailing space, file tags as words.

  >>> prepare({"dialogue": "Ida: look \r\nIda: <file_photo>", ...})  # doctest: +SKIP
  {"dialogue": "Ida: look\nIda: (photo)", ...}
  """
  tags = (
    (r"<(?:[a-z]+_)*(photo|picture|gif|video|link)(?:_[a-z]+)*>", r"(\1)"),
    (r"<[a-z_]+>", "(file)"),
    (r"[ \t\r]*\n", "\n"),
  )
  return ops.clean(row, "dialogue", "summary", replace=tags)


def keep(row):
  """Drops a row without a dialogue (the published data has one)."""
  return row["dialogue"] != ""


TASK = Task(
  name="samsum",
  paper_name="SAMSum",
  source=tfds("samsum:1.0.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  prepare=prepare,
  keep=keep,
  inputs={"dialogue": "dialogue"},
  target="summary",
  templates=(
    ("{dialogue}\n\nWhat is this conversation about, in brief?", "{target}"),
    ("Summarise the chat below in one to three sentences.\n\n{dialogue}", "{target}"),
    ("Chat:\n{dialogue}\n\nSummary:", "{target}"),
    ("A friend was away while these messages were sent and asks what has happened.\n\n{dialogue}\n\nTell the friend.", "{target}"),
    ("Hi! I have no time to read all this now:\n\n{dialogue}\n\nCan you give me the gist?", "{target}"),
    ("The text below is an exchange of short messages. Report what the people in it said, decided or arranged, in the third person and without quoting them.\n\n{dialogue}", "{target}"),
    ("Read the messages and finish the sentence that follows.\n\n{dialogue}\n\nIn short: ___", "{target}"),
    ("Make a note of the main points.\n\n{dialogue}", "{target}"),
    ("Invent a chat that could be summed up like this: {target}", "{dialogue}"),
    ("Summary: {target}\n\nWrite the messages behind this summary, with the name of the sender in front of each.", "{dialogue}"),
  ),
  metrics=("rouge",),
  notes=("File tags become words; the published pattern cut each line from its first < to its last >.",),
)
