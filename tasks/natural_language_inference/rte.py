"""RTE: does a news text establish a statement (Dagan et al., 2006; Wang et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="rte",
  paper_name="RTE",
  source=tfds("super_glue/rte:1.0.2"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"premise": "premise", "hypothesis": "hypothesis"},
  choices=("yes", "no"),
  label="label",
  templates=(
    ("{premise}\n\nDoes this report show that the next line is true?\n{hypothesis}\n\n{options}", "{answer}"),
    ("Report: {premise}\nStatement: {hypothesis}\nBacked by the report?\n{options}", "{answer}"),
    ("A news editor lets a headline pass only if the story under it leaves no doubt about it.\n\nHeadline: {hypothesis}\nStory: {premise}\n\nWill this headline pass, yes or no?", "{answer}"),
    ("Someone claims the following:\n{hypothesis}\n\nIs this text proof enough?\n{premise}\n\n{options}", "{answer}"),
    ("A text and a statement are given below. Answer yes if everyone who believes the text has to believe the statement as well, and no if there is room for doubt.\n\nText: {premise}\nStatement: {hypothesis}", "{answer}"),
    ("In this morning's paper I read:\n{premise}\n\nMy neighbour read it too and now goes about saying:\n{hypothesis}\n\nDid the paper really tell us as much?\n\n{options}", "{answer}"),
    ("{premise}\n\nA reader concludes:\n{hypothesis}\n\nThe word that says whether the report entitles the reader to this, yes or no, is", "{answer}"),
    ("Check the statement against the text, and choose yes only where the text is enough to establish it.\n\nStatement: {hypothesis}\nText: {premise}\n\n{options}", "{answer}"),
    ('Add a one-sentence statement to the news item below. The reply to anyone who asks if the item shows the statement to be true must be "{answer}".\n\n{premise}', "{hypothesis}"),
    ('Write a short news item on the subject of this statement:\n{hypothesis}\n\nThe reply to anyone who asks if the item shows the statement to be true must be "{answer}".', "{premise}"),
  ),
  metrics=("accuracy",),
  notes=(
    "Two templates are turned around; the published ten have one.",
    'No template ends the hypothesis in a stray "n", as three published ones do.',
  ),
)
