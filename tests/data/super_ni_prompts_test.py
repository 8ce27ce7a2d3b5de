"""Prompts of Super-NaturalInstructions against the published rule, plainly."""

import doctest
import random
import string

import pytest

from flan_jax.data import super_ni_prompts
from flan_jax.errors import UserError

WORDS = ("rain", "sun?", "a", "b.", "Is it", "fog", "日本", "")


def test_docstrings():
  assert doctest.testmod(super_ni_prompts).failed == 0


def ended(text):
  text = text.strip()
  if not text or text[-1] not in string.punctuation:
    text += "."
  return text


def published(task, instance, how, size, limit):
  """The rule in its own order: one example after the other."""
  definition = ""
  if how.definition:
    definition = "Definition: " + ended(task["Definition"]) + "\n\n"
  asked = "Now complete the following example -\n"
  asked += f"Input: {ended(instance)}\nOutput: "
  kept = {"Positive": [], "Negative": []}
  for kind, most in (("Positive", how.positives), ("Negative", how.negatives)):
    for i, one in enumerate(task[f"{kind} Examples"][:most]):
      text = f" {kind} Example {i + 1} -\n"
      text += f"Input: {ended(one['input'])}\n"
      text += f" Output: {ended(one['output'])}\n"
      if how.explanations and one.get("explanation"):
        text += f" Explanation: {ended(one['explanation'])}\n"
      text += "\n"
      before = definition + " ".join(kept["Positive"])
      if kind == "Negative":
        before += " ".join(kept["Negative"])
      if size(before + text + asked) > limit:
        break
      kept[kind].append(text)
  whole = definition + "".join(kept["Positive"] + kept["Negative"]) + asked
  return whole if size(whole) <= limit else None


def size(text):
  return len(text.encode())


def test_what_fits_is_what_the_published_rule_takes():
  draw = random.Random(0)

  def words(most):
    return " ".join(draw.choices(WORDS, k=draw.randrange(most)))

  def one():
    return {"input": words(9), "output": words(4), "explanation": words(5)}

  seen = set()
  for _ in range(400):
    task = {
      "Definition": words(12) + " x",
      "Positive Examples": [one() for _ in range(draw.randrange(5))],
      "Negative Examples": [one() for _ in range(draw.randrange(5))],
    }
    how = super_ni_prompts.Encoding(
      draw.random() < 0.5, draw.randrange(5), draw.randrange(5),
      draw.random() < 0.5,
    )
    limit, text = draw.randrange(60, 700), words(20)
    (ours,) = super_ni_prompts.fitted(
      [super_ni_prompts.parts(task, text, how)],
      lambda texts: list(map(size, texts)),
      limit,
    )
    theirs = published(task, text, how, size, limit)
    assert ours == theirs
    if ours is not None:
      assert ours.endswith(f"Input: {ended(text)}\nOutput: ")
      seen.add((ours.count("Positive Ex"), ours.count("Negative Ex")))
    else:
      seen.add(None)
  assert None in seen
  assert len(seen) > 15


def test_a_prompt_with_everything():
  task = {
    "Definition": "Say whether it rains",
    "Positive Examples": [
      {"input": "Drops", "output": "Yes", "explanation": "So it is"}
    ],
    "Negative Examples": [{"input": "Sun!", "output": ["Yes"]}],
  }
  how = super_ni_prompts.encoding("def+pos2+neg2+explanation")
  parts = super_ni_prompts.parts(task, "Wet?", how)
  (text,) = super_ni_prompts.fitted([parts], None, None)
  assert text == (
    "Definition: Say whether it rains.\n\n"
    " Positive Example 1 -\nInput: Drops.\n Output: Yes.\n"
    " Explanation: So it is.\n\n"
    " Negative Example 1 -\nInput: Sun!\n Output: Yes.\n\n"
    "Now complete the following example -\nInput: Wet?\nOutput: "
  )


def test_the_name_of_a_task_comes_first():
  task = {
    "Name": "task121_zest_question_rewriting",
    "Definition": "Ask again.",
    "Positive Examples": [],
    "Negative Examples": [],
  }
  for text, before in (
    ("name+def", "task121_zest_question_rewriting. Definition: Ask again.\n\n"),
    ("name", "task121_zest_question_rewriting. "),
  ):
    how = super_ni_prompts.encoding(text)
    (made,) = super_ni_prompts.fitted(
      [super_ni_prompts.parts(task, "What?", how)], None, None
    )
    assert made == f"{before}{super_ni_prompts.query('What?')}"


def test_the_mix_is_the_published_five():
  found = {
    (e.definition, e.positives, e.negatives, e.explanations)
    for e in super_ni_prompts.encodings("mix")
  }
  assert found == {
    (True, 0, 0, False), (False, 2, 0, False), (True, 2, 0, False),
    (True, 2, 2, False), (True, 2, 0, True),
  }
  assert len(super_ni_prompts.MIX) == 5


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def+pos5", "SUPER_NI_ENCODING is 'def.pos5': 'pos5' is none of name, def"),
    ("defs", "'defs' is none of name, def"),
    ("", "'' is none of name, def"),
    ("pos1+pos2", "pos is in it twice"),
    ("def+explanation", "an explanation without examples has no effect"),
  ],
)
def test_unknown_encodings(text, message):
  with pytest.raises(UserError, match=message):
    super_ni_prompts.encodings(text)
