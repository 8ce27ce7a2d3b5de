"""The subject line of an e-mail (AESLC; Zhang and Tetreault, 2019)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""Each run of white space as one space: mails are wrapped at odd places.

  >>> prepare({"email_body": "Team,\n\nwe meet\nat 3.", ...})  # doctest: +SKIP
  {"email_body": "Team, we meet at 3.", ...}
  """
  return ops.clean(row, "email_body", "subject_line", replace=[(r"\s+", " ")])


TASK = Task(
  name="aeslc",
  paper_name="AESLC",
  source=tfds("aeslc:1.0.0"),
  splits=Splits(validation=last("validation", 200), test="test"),
  prepare=prepare,
  inputs={"body": "email_body"},
  target="subject_line",
  templates=(
    ("{body}\n\nWhat subject line fits this e-mail?", "{target}"),
    ("Write a short subject for the message below.\n\n{body}", "{target}"),
    ("E-mail: {body}\nSubject:", "{target}"),
    ("An assistant sees to it that no e-mail leaves the office without a subject. This one still lacks it.\n\n{body}\n\nWhat does the assistant fill in?", "{target}"),
    ("The subject of an e-mail tells a busy colleague in a few words what it is about and whether it can wait. Think of such a subject for the following text.\n\n{body}", "{target}"),
    ("I've written this mail but can't come up with a title for it:\n\n{body}\n\nAny idea?", "{target}"),
    ("Subject: ___\n\n{body}\n\nWhat belongs in the gap?", "{target}"),
    ("Name the topic of this message in a phrase.\n\n{body}", "{target}"),
    ('Compose an e-mail with the subject "{target}".', "{body}"),
    ("Subject: {target}\nBody of the message:", "{body}"),
  ),
  metrics=("rouge",),
  notes=(
    "Line breaks become spaces in the subject too; the published form removed them there, which joins words.",
    "Mails without a body or without a subject are left out.",
  ),
)
