"""AG News: which section a news item belongs to (Zhang et al., 2015)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="ag_news",
  paper_name="AG News",
  source=tfds("ag_news_subset:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"title": "title", "text": "description"},
  choices=("World", "Sports", "Business", "Science/Tech"),
  label="label",
  metrics=("accuracy",),
  templates=(
    ("{title}\n\n{text}\n\nWhat is this news item about?\n\n{options}", "{answer}"),
    ("Headline: {title}\nText: {text}\nSection (World, Sports, Business or Science/Tech):", "{answer}"),
    ("Name the topic of the article in a word.\n\n{text}\n\n{options}", "{answer}"),
    ("You lay out the pages of a daily paper, and this item has just come in. On which page do you put it?\n\n{options}\n\n{title}\n{text}", "{answer}"),
    ("{text}\n\nThe report above would be filed under one of World, Sports, Business and Science/Tech, namely", "{answer}"),
    ("A news site has four sections, and every story appears in just one of them. Judge by what the story is mainly about, not by the country it comes from.\n\n{title}\n\n{text}\n\n{options}", "{answer}"),
    ('I only caught the headline "{title}" on the radio. What sort of news is that likely to be?\n\n{options}', "{answer}"),
    ("Which desk of the newsroom wrote this: World, Sports, Business or Science/Tech?\n\n{title}\n\n{text}", "{answer}"),
    ("Write a headline for the news item below.\n\n{text}", "{title}"),
    ("Section: {answer}\nHeadline: {title}\n\nWrite the opening of the report.", "{text}"),
  ),
)
