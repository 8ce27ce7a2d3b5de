"""Paraphrase in spite of shared words? (PAWS-Wiki; Zhang et al., 2019)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="paws",
  paper_name="PAWS",
  source=tfds("paws_wiki/labeled_final_tokenized:1.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"sentence1": "sentence1", "sentence2": "sentence2"},
  choices=("no", "yes"),
  label="label",
  templates=(
    ("{sentence1}\n{sentence2}\n\nIs the meaning of the two sentences the same?\n\n{options}", "{answer}"),
    ("Decide whether the second sentence is a faithful rewording of the first.\n\nOriginal: {sentence1}\nRewording: {sentence2}\n\n{options}", "{answer}"),
    ("An encyclopaedia editor has moved the words of a sentence about.\n\nBefore: {sentence1}\nAfter: {sentence2}\n\nDoes the sentence still state what it did before? Answer no or yes.", "{answer}"),
    ("Sentence 1: {sentence1}\nSentence 2: {sentence2}\nEquivalent (no or yes):", "{answer}"),
    ("Whoever believes one of the following sentences should believe the other. Is that right?\n\n{options}\n\n{sentence1}\n\n{sentence2}", "{answer}"),
    ("Help me check a copy of my notes. I had written:\n{sentence1}\nThe copy reads:\n{sentence2}\nDoes the copy still say what I meant?\n\n{options}", "{answer}"),
    ("These two sentences use nearly the same words, which proves little: a name or a date in another place can turn a statement into a different one. Look at who did what, where and when, and then judge.\n\n{sentence1}\n{sentence2}\n\nDo they agree?\n\n{options}", "{answer}"),
    ("Yes or no: does the first line below mean what the second line means?\n\n{sentence1}\n{sentence2}", "{answer}"),
    ("Pick the option that completes the verdict.\n\nGiven: {sentence1}\nOffered as a paraphrase: {sentence2}\nVerdict on whether it is one: ___\n\n{options}", "{answer}"),
    ("{sentence1}\n\nIf that sentence is correct, and nothing more is known, can this one replace it without loss or error?\n\n{sentence2}\n\nGive your answer as yes or no.", "{answer}"),
  ),
  metrics=("accuracy",),
)
