"""WMT 2014: news, parliament and the web, English and French (Bojar et al., 2014)."""

from flan_jax.data.spec import Splits, Task, first, tfds

TASK = Task(
  name="wmt14_enfr",
  paper_name="WMT-14 EN/FR",
  source=tfds("wmt14_translate/fr-en:1.0.0", manual=""),
  splits=Splits(validation=first("validation", 200), test="test"),
  inputs={"english": "en"},
  target="fr",
  templates=(
    ("{english}\n\nCan you put this into French?", "{target}"),
    ("Write a French sentence with the meaning of the one below.\n\n{english}", "{target}"),
    ("EN: {english}\nFR:", "{target}"),
    ("The minutes of a parliament appear in English and in French. Write the French column for this entry.\n\n{english}", "{target}"),
    ("You are given one sentence in English, from a speech or the news. Translate it into French that sounds as if it had been written in French, but keep to what it says.\n\n{english}", "{target}"),
    ("My French isn't good enough for this one:\n\n{english}\n\nHow do they say it in Paris?", "{target}"),
    ("{english}\n\nEn français : ___", "{target}"),
    ("Translate, English to French.\n\n{english}", "{target}"),
    ("Put this French sentence into English.\n\n{target}", "{english}"),
    ("An interpreter hears the following in French and repeats it in English.\n\nHeard: {target}\nRepeated:", "{english}"),
  ),
  metrics=("bleu",),
  family="translation_enfr",
  notes=("An extra: the released code trains on it, the paper evaluates on it and does not list it among its clusters.",),
)
