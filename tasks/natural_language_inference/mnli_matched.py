"""MNLI, matched genres: is a conclusion from a text true (Williams et al., 2018)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="mnli_matched",
  paper_name="MNLI (matched)",
  source=tfds("glue/mnli:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation_matched"),
  inputs={"premise": "premise", "hypothesis": "hypothesis"},
  choices=("yes", "it is not possible to tell", "no"),
  label="label",
  templates=(
    ("Trust the first text completely. Is what the second one says true?\n\nFirst text: {premise}\nSecond text: {hypothesis}\n\n{options}", "{answer}"),
    ("Source: {premise}\nConclusion: {hypothesis}\nCorrect (yes, no, or it is not possible to tell):", "{answer}"),
    ("A court reporter took down these words:\n{premise}\n\nA newspaper printed this account of them:\n{hypothesis}\n\nJudging by the words that were taken down, is the account true?\n\n{options}", "{answer}"),
    ("{hypothesis}\n\nSuppose that the next lines are all you know. Is the sentence above true?\n\n{premise}\n\n{options}", "{answer}"),
    ("In this exercise you compare two pieces of writing. Answer yes if the first makes the second true, no if it makes the second false, and it is not possible to tell if it does neither.\n\n1. {premise}\n2. {hypothesis}", "{answer}"),
    ("Someone tells you this:\n{premise}\n\nLater a friend wants to know if it is true that:\n{hypothesis}\n\nWhat do you tell your friend?\n\n{options}", "{answer}"),
    ("Line 1: {premise}\nLine 2: {hypothesis}\n\nIf line 1 is all you have to go by, is line 2 true?\n\n{options}", "{answer}"),
    ('A quiz gives you this to read:\n{premise}\n\nThen it asks you about the following remark:\n{hypothesis}\n\nThe answer key knows three entries, "yes", "no" and "it is not possible to tell". Beside the question whether the remark is true it says', "{answer}"),
    ("{options}\n\nPick the reply to the question under the text.\n\nText: {premise}\n\nQuestion: Is the following statement right?\n{hypothesis}", "{answer}"),
    ('Write a sentence about what you read below. To anyone who asks if the sentence is true, the honest reply, from these lines alone, should be "{answer}".\n\n{premise}', "{hypothesis}"),
  ),
  metrics=("accuracy",),
  family="mnli",
  notes=("One template is turned around; the published ten have none.",),
)
