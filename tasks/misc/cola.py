"""Is a sentence acceptable English? (CoLA; Warstadt et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="cola",
  paper_name="CoLA",
  source=tfds("glue/cola:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"sentence": "sentence"},
  choices=("unacceptable", "acceptable"),
  label="label",
  templates=(
    ("{sentence}\n\nIs the grammar of this sentence unacceptable or acceptable?\n\n{options}", "{answer}"),
    ("Decide whether the following is acceptable or unacceptable as an English sentence.\n\n{sentence}", "{answer}"),
    ("Sentence: {sentence}\nGrammar:\n{options}", "{answer}"),
    ("A linguist asks native speakers which sentences they find acceptable and which they find unacceptable. What do most of them say of this one?\n\n{sentence}\n\n{options}", "{answer}"),
    ("Judge the form of the sentence below, not what it says: the order of words, agreement, the forms of verbs, and whether anything is missing or too much. However odd its content is, a well-formed sentence is acceptable.\n\n{sentence}\n\n{options}", "{answer}"),
    ("There's a pencil mark beside this line in my essay, but my teacher didn't say what is meant:\n\n{sentence}\n\nIs my grammar acceptable here, or unacceptable?", "{answer}"),
    ("{sentence}\n\nComplete the remark with acceptable or unacceptable: to a native speaker, the grammar of the sentence above is ___", "{answer}"),
    ("Acceptable or unacceptable?\n\n{sentence}", "{answer}"),
    ("Grammar books print sentences that nobody would say with a star in front. They call those unacceptable, and all others acceptable. What would they call this one?\n\n{options}\n\n{sentence}", "{answer}"),
    ("Make up a sentence whose grammar native speakers of English would find {answer}.", "{sentence}"),
  ),
  metrics=("accuracy", "matthews"),
  notes=(
    "One template is turned around; two of the published ten are, and two others are the same.",
    "Matthews' correlation, GLUE's own metric, is reported beside accuracy; it was left out of the published form.",
  ),
)
