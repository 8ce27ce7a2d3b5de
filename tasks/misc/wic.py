"""Is a word used in the same sense twice? (WiC; Pilehvar and Camacho-Collados, 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="wic",
  paper_name="WiC",
  source=tfds("super_glue/wic:1.0.2"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={
    "word": "word",
    "sentence1": "sentence1",
    "sentence2": "sentence2",
  },
  choices=("different meanings", "the same meaning"),
  label="label",
  templates=(
    ('{sentence1}\n{sentence2}\n\nHas "{word}" different meanings or the same meaning in these two sentences?\n\n{options}', "{answer}"),
    ('Compare how the word "{word}" is used below.\n\n1. {sentence1}\n2. {sentence2}\n\n{options}', "{answer}"),
    ("Word: {word}\nFirst sentence: {sentence1}\nSecond sentence: {sentence2}\nIn them, the word has (different meanings / the same meaning):", "{answer}"),
    ('The editor of a dictionary has found two examples for "{word}". They go under one number if they show the same meaning, and under two if they show different meanings.\n\n{sentence1}\n{sentence2}\n\nWhat do they show?', "{answer}"),
    ('Many words can stand for more than one thing. Ask yourself what "{word}" stands for in each of the sentences; whether it is singular or plural, present or past, does not matter. Then choose what is true of the word.\n\n{options}\n\n- {sentence1}\n- {sentence2}', "{answer}"),
    ('I\'m learning English and met "{word}" twice today:\n\n{sentence1}\n{sentence2}\n\nI would like to know if that\'s the same meaning or different meanings.', "{answer}"),
    ('{sentence1}\n{sentence2}\n\nComplete with the right option: "In the sentences above, {word} has ___."\n\n{options}', "{answer}"),
    ('Same meaning of "{word}", or not?\n\n{sentence1}\n{sentence2}\n\n{options}', "{answer}"),
    ("Two pupils argue about a word, {word}. One of them has read this: {sentence1}\nThe other has read this: {sentence2}\n\nIs their quarrel about different meanings or the same meaning?\n\n{options}", "{answer}"),
    ('Here is a sentence with the word "{word}".\n\n{sentence1}\n\nWrite another one with it, in such a way that the word has {answer} in the two.', "{sentence2}"),
  ),
  metrics=("accuracy",),
  notes=("One template is turned around; the published ten have none.",),
)
