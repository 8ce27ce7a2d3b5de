"""Rules of wording: the published counts on the published seeds."""

import json

import pytest

from flan_jax.curation import text_rules
from flan_jax.curation.text_rules import Rules
from flan_jax.errors import UserError


def test_seeds(shared):
  path = shared / "instructions" / "self_instruct_seed_tasks.jsonl"
  seeds = [
    json.loads(line)["instruction"] for line in path.read_text().splitlines()
  ]
  first = [r for r in map(Rules().reason, seeds) if r]
  assert sorted(first) == ["begins with 'Write a program'"] + 2 * ["too short"]
  alpaca = Rules(keywords=text_rules.ALPACA_KEYWORDS)
  second = [r for r in map(alpaca.reason, seeds) if r]
  assert len(seeds) - len(first) == 172
  assert len(seeds) - len(second) == 171
  assert set(second) - set(first) == {"has the word 'music'"}


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("", "too short"),
    ("Name a fruit.", "too short"),
    ("Name a red fruit.", None),
    (" ".join(["word"] * 150), None),
    (" ".join(["word"] * 151), "too long"),
    ("Please GO TO the shop.", "has the word 'go to'"),
    ("Describe the imagery of it.", None),
    ("Write a program that sorts.", "begins with 'Write a program'"),
    ("- name a red fruit", "begins with punctuation"),
    ("Écris un poème court.", "is in another script"),
  ],
)
def test_reasons(text, reason):
  assert Rules().reason(text) == reason


def test_chinese_passes():
  rules = Rules(length=len, script=lambda text: True)
  assert rules.reason("请写一首关于春天的诗。") is None
  assert rules.reason("写诗") == "too short"


def test_user_mistakes():
  with pytest.raises(UserError, match="least is 9 and most is 3"):
    Rules(least=9, most=3)
