"""A report in one sentence (XSum; Narayan et al., 2018)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="xsum",
  paper_name="XSum",
  source=tfds("xsum:1.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"document": "document"},
  target="summary",
  templates=(
    ("{document}\n\nWhich single sentence could introduce this report?", "{target}"),
    ("Sum up the report in one sentence.\n\n{document}", "{target}"),
    ("Report: {document}\n\nThe report in a sentence:", "{target}"),
    ("A newsreader has time for one sentence about each story. What does the newsreader say about this one?\n\n{document}", "{target}"),
    ("The opening sentence of the following report was taken away. It told readers, ahead of all details, what had happened and to whom. Write such a sentence.\n\n{document}", "{target}"),
    ("Can you explain in a line what this is about? I only have a moment.\n\n{document}", "{target}"),
    ("___\n\n{document}\n\nFill in the first sentence.", "{target}"),
    ("A headline would be too short and a paragraph too long. One sentence, please.\n\n{document}", "{target}"),
    ("A report begins like this:\n{target}\n\nHow does it go on?", "{document}"),
    ("Expand the sentence into a short news report, with details and perhaps a quotation.\n\n{target}", "{document}"),
  ),
  metrics=("rouge",),
  notes=(
    "TFDS's own xsum is read, which needs a file fetched by hand; the released code named huggingface:xsum, which needs a network at run time.",
  ),
)
