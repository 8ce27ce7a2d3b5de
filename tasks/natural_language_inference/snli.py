"""SNLI: is a sentence true of the scene in a caption (Bowman et al., 2015)."""

from flan_jax.data.spec import Splits, Task, first, tfds


def keep(row):
  """Rows on whose label the annotators agreed; the others have -1.

  >>> keep({"premise": "A dog runs.", "hypothesis": "It is big.", "label": -1})
  False  # as a bool tensor
  """
  return row["label"] >= 0


TASK = Task(
  name="snli",
  paper_name="SNLI",
  source=tfds("snli:1.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"premise": "premise", "hypothesis": "hypothesis"},
  choices=("yes", "it is not possible to tell", "no"),
  label="label",
  keep=keep,
  templates=(
    ("A photo is described like this:\n{premise}\n\nIs the following true of the photo as well?\n{hypothesis}\n\n{options}", "{answer}"),
    ("Caption: {premise}\nStatement: {hypothesis}\nTrue of the picture?\n{options}", "{answer}"),
    ("You answer questions about pictures for people who cannot see them. This time you have nothing but the caption to go by:\n{premise}\n\nA listener wants to know if the following is the case:\n{hypothesis}\n\nReply with yes, no, or it is not possible to tell.", "{answer}"),
    ("{hypothesis}\n\nThese words were said of a scene about which we know only this:\n{premise}\n\nAre they true?\n\n{options}", "{answer}"),
    ("Two people look at the same scene and each of them says something about it. Assume that the first is right, and work out from this whether the second is right too.\n\nFirst person: {premise}\nSecond person: {hypothesis}\n\n{options}", "{answer}"),
    ("The last reply in this conversation is missing. It is yes, no, or it is not possible to tell.\n\n- What do you know about the picture?\n- Only its caption: {premise}\n- Then is the following true? {hypothesis}\n- My reply is:", "{answer}"),
    ("{premise}\n\nGiven that, is this so?\n{hypothesis}\n\n{options}", "{answer}"),
    ("Compare the claim with the scene and pick the option that says whether the claim is true.\n\nClaim: {hypothesis}\nScene: {premise}\n\n{options}", "{answer}"),
    ('Here is the caption of a photograph:\n{premise}\n\nAdd a sentence about the photograph. A person who has read only the caption, when asked if your sentence is true, should answer "{answer}".', "{hypothesis}"),
    ('Think of a photograph and write a caption for it. A person who has read only the caption, when asked if the sentence below is true, should answer "{answer}".\n\nSentence: {hypothesis}', "{premise}"),
  ),
  metrics=("accuracy",),
  notes=(
    "Two templates are turned around; the published ten have one.",
    "No template swaps premise and hypothesis, as two published ones do.",
  ),
)
