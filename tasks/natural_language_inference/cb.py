"""CB: does a speaker take what they mention to be true (de Marneffe et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="cb",
  paper_name="CB",
  source=tfds("super_glue/cb:1.0.2"),
  splits=Splits(validation=last("train", 50), test="validation"),
  inputs={"premise": "premise", "hypothesis": "hypothesis"},
  choices=("Yes", "No", "It's impossible to say"),
  label="label",
  templates=(
    ("{premise}\n\nTo judge by these lines, is the following true?\n{hypothesis}\n\n{options}", "{answer}"),
    ("Excerpt: {premise}\nStatement: {hypothesis}\nIs it so?\n{options}", "{answer}"),
    ("A linguist is marking what people commit themselves to when they speak or write. For the excerpt and the statement below, the mark is Yes if the statement is presented as true, No if it is presented as false, and It's impossible to say if it is left open.\n\nExcerpt: {premise}\nStatement: {hypothesis}\n\nMark:", "{answer}"),
    ("Here is a statement:\n{hypothesis}\n\nAnd here is where it comes up:\n{premise}\n\nWould you call the statement true?\n\n{options}", "{answer}"),
    ("People often mention a thing without saying that it is so: they hope it, doubt it or ask about it. Read the passage and decide whether what the statement says is really the case.\n\nPassage: {premise}\n\nStatement: {hypothesis}\n\n{options}", "{answer}"),
    ("I am going to read something out to you.\n\n{premise}\n\nNow tell me if this is right:\n{hypothesis}\n\nYou may choose your reply from these.\n{options}", "{answer}"),
    ("{premise}\n\nThe statement to be judged by the lines above: {hypothesis}\nThe judgement, which is Yes, No or It's impossible to say:", "{answer}"),
    ("Tell from the passage whether the statement is true.\n\n{options}\n\nStatement: {hypothesis}\n\nPassage: {premise}", "{answer}"),
    ('Something is mentioned in the passage below. Put it as a plain statement, of which a reader who is asked "Is it true?" would say "{answer}".\n\n{premise}', "{hypothesis}"),
    ('Write a few lines of dialogue or narrative in which the idea below comes up. Asked whether it is true, a reader of your lines should say "{answer}".\n\nIdea: {hypothesis}', "{premise}"),
  ),
  metrics=("accuracy", "mean_3class_f1"),
  notes=(
    "Two templates are turned around; the published ten have one.",
    'No template ends the hypothesis in a stray "n", as three published ones do.',
    "mean_3class_f1 is taken over label indices; the released code gives it texts and gets 0.",
  ),
)
