"""QNLI: does a sentence answer a question (Rajpurkar et al., 2016; Wang et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="qnli",
  paper_name="QNLI",
  source=tfds("glue/qnli:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"question": "question", "sentence": "sentence"},
  choices=("yes", "no"),
  label="label",
  templates=(
    ("{sentence}\n\nIs the answer to the following question to be found in this sentence?\n{question}\n\n{options}", "{answer}"),
    ("Question: {question}\nSentence: {sentence}\nDoes the sentence settle the question?\n{options}", "{answer}"),
    ("You test a search engine, which must show a sentence only when it tells the users what they asked. One of them typed:\n{question}\n\nThe engine has come up with this:\n{sentence}\n\nShould it be shown? Answer yes or no.", "{answer}"),
    ("Decide whether a pupil who has learned nothing but the sentence below could reply to the question under it.\n\n{sentence}\n\n{question}\n\n{options}", "{answer}"),
    ("A question and a sentence from an encyclopaedia are put side by side. The sentence may be about the very thing that is asked and still not give the answer, so read closely before you say whether it does.\n\nQuestion: {question}\nSentence: {sentence}\n\n{options}", "{answer}"),
    ("Ingrid asks: {question}\nTomás looks it up and reads to her: {sentence}\n\nDoes she now know what she wanted to know?\n\n{options}", "{answer}"),
    ("{question}\n\n{sentence}\n\nAnswered, yes or no?", "{answer}"),
    ("A teacher put this to the class:\n{question}\n\nOne child wrote:\n{sentence}\n\nIs what was asked for anywhere in the child's reply? The teacher's note, which can only be yes or no, says:", "{answer}"),
    ('Ask a question on the subject of the sentence below. Whether the sentence gives the answer to it: "{answer}".\n\n{sentence}', "{question}"),
    ('Somebody would like to know:\n{question}\n\nWrite a sentence on this subject for an encyclopaedia. Whether the sentence should give the answer: "{answer}".', "{sentence}"),
  ),
  metrics=("accuracy",),
  notes=("Two templates are turned around; the published ten have one.",),
)
