"""DBpedia triples put into words (WebNLG; Gardent et al., 2017)."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, Task, last, tfds


def prepare(row):
  """Triples as text without underscores, and all accepted texts, each once.

  >>> prepare({"input": ["Lake_Tana | country | Ethiopia"], ...})  # doctest: +SKIP
  {"triples": "Lake Tana, country, Ethiopia",
   "triple_lines": "Lake Tana, country, Ethiopia", ...}
  """
  marks = (("_", " "), (r"\s*\|\s*", ", "))
  triples = ops.clean(row, "input", replace=marks)["input"]
  return ops.accepted(ops.listed(row, triples, "triples", "triple_lines"))


TASK = Task(
  name="web_nlg",
  paper_name="WEBNLG",
  source=tfds("gem/web_nlg_en:1.1.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={"triples": "triples", "triple_lines": "triple_lines"},
  plain=("triples",),
  target="target",
  references="answers",
  templates=(
    ("Write a text that expresses these triples: {triples}", "{target}"),
    ("Triples:\n{triple_lines}\n\nIn words:", "{target}"),
    ("What do the following entries of a knowledge base tell us? Say it in full sentences.\n\n{triple_lines}", "{target}"),
    ("An encyclopaedia is to be written from a knowledge graph. Draft the passage for this part of the graph.\n\n{triple_lines}", "{target}"),
    ("Every entry below gives a subject, a relation and an object. Tell a reader who has never seen such data what is known, without adding anything of your own.\n\n{triples}", "{target}"),
    ("My program prints its knowledge like this, and nobody wants to read it:\n{triple_lines}\nHow would a person say that?", "{target}"),
    ("Knowledge: {triples}\nA fluent version of it: ___", "{target}"),
    ("{triples}\n\nVerbalise the data.", "{target}"),
    ("Which facts does the text state? Write each as subject, relation and object, one fact to a line.\n\nText: {target}", "{triple_lines}"),
    ("{target}\n\nConvert this to triples with commas inside them and semicolons between them.", "{triples}"),
  ),
  metrics=("rouge",),
)
