"""Facts taken from tables, put into words (DART; Nan et al., 2021)."""

import tensorflow as tf

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  r"""Facts as text without table markers, and all accepted texts, each once.

  >>> prepare({"tripleset": ["[TABLECONTEXT] [TITLE] 1912 Olympics",
  ...                        "Sweden GOLD_MEDALS 24"], ...})  # doctest: +SKIP
  {"facts": "TITLE 1912 Olympics; Sweden GOLD MEDALS 24",
   "fact_lines": "TITLE 1912 Olympics\nSweden GOLD MEDALS 24", ...}
  """
  marks = (
    (r"\[TABLECONTEXT\]", ""),
    (r"\[TITLE\]", "TITLE"),
    (r"[\s|_]+", " "),  # cells are parted by spaces or, in some copies, bars
  )
  facts = ops.clean(row, "tripleset", replace=marks)["tripleset"]
  facts = tf.boolean_mask(facts, (facts != "") & (facts != "TITLE"))
  return ops.accepted(ops.listed(row, facts, "facts", "fact_lines"))


TASK = Task(
  name="dart",
  paper_name="DART",
  source=tfds("gem/dart:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"facts": "facts", "fact_lines": "fact_lines"},
  plain=("facts",),
  target="target",
  references="answers",
  templates=(
    ("Put the following facts into words: {facts}", "{target}"),
    ("Facts:\n{fact_lines}\n\nText:", "{target}"),
    ("How would you tell a reader what these entries of a table say?\n\n{fact_lines}", "{target}"),
    ("A reporter finds this in a database and needs one fluent statement that covers it.\n\n{fact_lines}\n\nWhat does the reporter write?", "{target}"),
    ("Most entries below name a thing, one of its properties and the value of that property; an entry without a thing is about the table as a whole. Write a sentence or two from which a reader learns what the entries say.\n\n{facts}", "{target}"),
    ("I only have the bare data. Could you write it out as proper English for me?\n\n{facts}", "{target}"),
    ("Data: {facts}\nIn other words: ___", "{target}"),
    ("{fact_lines}\n\nDescribe this.", "{target}"),
    ("{target}\n\nList what this text states as short entries of subject, relation and value, one to a line.", "{fact_lines}"),
    ("Turn the statement below back into data, as table entries separated by semicolons.\n\nStatement: {target}", "{facts}"),
  ),
  metrics=("rouge",),
  notes=("Table markers and underscores are removed; the published text kept empty cells in their place.",),
)
