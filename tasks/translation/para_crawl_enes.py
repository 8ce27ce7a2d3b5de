"""ParaCrawl: sentences of web pages between English and Spanish (Bañón et al., 2020)."""

from flan_jax.data.spec import Splits, Task, last, tfds


def templates(language):
  """The ten instructions of every ParaCrawl pair, for English and `language`."""
  return tuple(
    (inputs.replace("LANGUAGE", language), targets)
    for inputs, targets in (
      ("Translate the following line of a website into LANGUAGE.\n\n{english}", "{target}"),
      ("{english}\n\nHow would the LANGUAGE version of this page put it?", "{target}"),
      ("English: {english}\nLANGUAGE:", "{target}"),
      ("A shop is getting its website ready for customers who speak LANGUAGE, and this line exists in English only. Supply the missing version.\n\n{english}", "{target}"),
      ("The text below comes from the web. It may be a heading, a menu entry or part of a description, so write it in LANGUAGE in the same style, and leave numbers and names as they are.\n\n{english}", "{target}"),
      ("A friend who reads nothing but LANGUAGE has come across this online:\n\n{english}\n\nWhat do I tell them it says?", "{target}"),
      ("Complete the pair of pages.\n\nIn English: {english}\nIn LANGUAGE: ___", "{target}"),
      ("Say it in LANGUAGE.\n\n{english}", "{target}"),
      ("{target}\n\nThis was found on a page in LANGUAGE. What does it say in English?", "{english}"),
      ("Fill in the English side of a table of translations.\n\nLANGUAGE: {target}\nEnglish: ___", "{english}"),
    )
  )


TASK = Task(
  name="para_crawl_enes",
  paper_name="ParaCrawl EN/ES",
  source=tfds("para_crawl/enes:1.2.0"),
  splits=Splits(validation=last("train", 200, 1000), test=last("train", 1000)),
  inputs={"english": "en"},
  target="es",
  templates=templates("Spanish"),
  metrics=("bleu",),
)
