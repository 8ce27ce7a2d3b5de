"""WMT 2016: news between English and German (Bojar et al., 2016)."""

from flan_jax.data.spec import Splits, Task, first, tfds


def templates(language):
  """The ten instructions of every WMT 2016 pair, for English and `language`."""
  return tuple(
    (inputs.replace("LANGUAGE", language), targets)
    for inputs, targets in (
      ("{english}\n\nWhat is this in LANGUAGE?", "{target}"),
      ("Give the LANGUAGE translation of a sentence from the news.\n\n{english}", "{target}"),
      ("Source (English): {english}\nTranslation (LANGUAGE):", "{target}"),
      ("A news agency sends its reports to papers abroad. Get this one ready for a paper that is printed in LANGUAGE.\n\n{english}", "{target}"),
      ("Translate from English to LANGUAGE. Carry over all that is said and add nothing; write names of persons and places as they are customary in LANGUAGE.\n\n{english}", "{target}"),
      ("I'm reading the paper to my neighbour, who speaks LANGUAGE but no English. How should I put this bit?\n\n{english}", "{target}"),
      ("Below are the same words twice, first in English and then in LANGUAGE.\n\n{english}\n\n___", "{target}"),
      ("English to LANGUAGE, please.\n\n{english}", "{target}"),
      ("Which English sentence says the same as this one in LANGUAGE?\n\n{target}", "{english}"),
      ("A correspondent has filed a report in LANGUAGE, and the desk wants it in English.\n\nReport: {target}\nFor the desk:", "{english}"),
    )
  )


TASK = Task(
  name="wmt16_translate_deen",
  paper_name="WMT-16 EN/DE",
  source=tfds("wmt16_translate/de-en:1.0.0", manual=""),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"english": "en"},
  target="de",
  templates=templates("German"),
  metrics=("bleu",),
  family="translation_ende",
  notes=("English and German count once, as the paper's eight language pairs do: with ParaCrawl EN/DE this is one family.",),
)
