"""WNLI: is a pronoun read rightly (Levesque et al., 2012; Wang et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="wnli",
  paper_name="WNLI",
  source=tfds("glue/wnli:2.0.0"),
  splits=Splits(validation=last("train", 30), test="validation"),
  inputs={"sentence1": "sentence1", "sentence2": "sentence2"},
  choices=("no", "yes"),
  label="label",
  templates=(
    ("{sentence1}\n\nIs this part of what the text above tells us?\n{sentence2}\n\n{options}", "{answer}"),
    ("Text: {sentence1}\nReading: {sentence2}\nIs the reading right?\n{options}", "{answer}"),
    ("Before she starts, a translator notes down who or what is meant by the pronouns in a text. Her text is:\n{sentence1}\n\nOne of her notes is:\n{sentence2}\n\nCan she rely on the note? Answer yes or no.", "{answer}"),
    ("{sentence2}\n\nIs that what the writer of the following lines had in mind?\n\n{sentence1}\n\n{options}", "{answer}"),
    ('A word such as "it", "she" or "their" may point to more than one thing in a text. The text below has been followed by a sentence in which such a word is spelled out; say whether the right thing has been put in its place.\n\nText: {sentence1}\nSpelled out: {sentence2}\n\n{options}', "{answer}"),
    ("Ravi reads a line from a story to his little sister:\n{sentence1}\n\nTo show that she was listening, she says:\n{sentence2}\n\nHas she understood the line?\n\n{options}", "{answer}"),
    ("{sentence1}\nIn other words:\n{sentence2}\nRight, yes or no?", "{answer}"),
    ("Use your common sense to find out what each pronoun in the text refers to. Then pick the option that tells whether the statement is true.\n\n{options}\n\nText: {sentence1}\nStatement: {sentence2}", "{answer}"),
    ("Someone has written:\n{sentence1}\n\nA careless reader could mix up who or what is meant. Say yes if the sentence below fits what was meant, and no if things have been mixed up in it.\n\n{sentence2}\n\nDoes it fit?", "{answer}"),
    ('Restate part of the text below, with a name or a thing in place of one of its pronouns. Whether the restatement should be true: "{answer}".\n\n{sentence1}', "{sentence2}"),
  ),
  metrics=("accuracy",),
  notes=("One template is turned around; the published ten have none.",),
)
