"""A how-to guide made short (WikiLingua; Ladhak et al., 2020)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="wiki_lingua_english_en",
  paper_name="Wiki Lingua EN",
  source=tfds("gem/wiki_lingua_english_en:1.1.0"),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"text": "source"},
  target="target",
  templates=(
    ("{text}\n\nWhat are the steps, in brief?", "{target}"),
    ("Summarise these instructions in a few short sentences.\n\n{text}", "{target}"),
    ("Instructions: {text}\nThe same in short:", "{target}"),
    ("Somebody wants to carry this guide in a pocket, on a card with room for three or four lines. What goes on the card?\n\n{text}", "{target}"),
    ("The passage below explains how to do something. Keep only what the reader has to do, as short commands, and leave out reasons, warnings and details.\n\n{text}", "{target}"),
    ("Far too long for me! Just tell me what to do.\n\n{text}", "{target}"),
    ("{text}\n\nAs a row of short orders: ___", "{target}"),
    ("Main steps only.\n\n{text}", "{target}"),
    ("Explain these steps at length, so that a beginner can follow them.\n\n{target}", "{text}"),
    ("Guide, short version: {target}\n\nGuide, long version:", "{text}"),
  ),
  metrics=("rouge",),
)
