"""ANLI R1: is a claim meant to fool models true of a passage (Nie et al., 2020)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="anli_r1",
  paper_name="ANLI R1",
  source=tfds("anli/r1:0.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"context": "context", "hypothesis": "hypothesis"},
  choices=("Yes", "It's impossible to say", "No"),
  label="label",
  templates=(
    ("{context}\n\nGoing only by what is written above, is the claim on the next line correct?\n{hypothesis}\n\n{options}", "{answer}"),
    ("PASSAGE\n{context}\n\nCLAIM\n{hypothesis}\n\nIS THE CLAIM TRUE?\n{options}\n\nVERDICT", "{answer}"),
    ("You check facts for a publisher, and the source below is all that you may use. A contributor has handed in this line:\n{hypothesis}\n\nIs the line right? Reply with Yes if the source bears it out, No if the source contradicts it, and It's impossible to say if the source leaves the matter open.\n\nSource: {context}", "{answer}"),
    ("Claim: {hypothesis}\n\nRead the text that follows and pick the option that tells whether the claim is true.\n\n{context}\n\n{options}", "{answer}"),
    ("You are shown a passage and a sentence that somebody wrote after reading it. Some such sentences are right, some are wrong, and some cannot be settled with the help of the passage.\n\nPassage: {context}\nSentence: {hypothesis}\n\nIs this one right?\n\n{options}", "{answer}"),
    ("Nadia has just read this text:\n\n{context}\n\nHer brother, who has not, would like to know if the following is so:\n\n{hypothesis}\n\nWhat can she truthfully tell him?\n\n{options}", "{answer}"),
    ("The text reads:\n{context}\n\nThe statement reads:\n{hypothesis}\n\nWhether the statement is true, given the text (Yes, No or It's impossible to say):", "{answer}"),
    ("{hypothesis}\n\nIs it so?\n\n{options}\n\n{context}", "{answer}"),
    ('Write one statement about the passage below. Somebody who knows the passage and nothing else, and is asked whether your statement is true, should reply "{answer}".\n\n{context}', "{hypothesis}"),
    ('Compose a short passage of the sort found in a reference work, a newspaper or a story. A reader of it who is asked whether the statement below is true should reply "{answer}".\n\nStatement: {hypothesis}', "{context}"),
  ),
  metrics=("accuracy",),
  family="anli",
  notes=(
    "Two templates are turned around; the published ten have one.",
    'No template ends the hypothesis in a stray "n", as three published ones do.',
  ),
)
