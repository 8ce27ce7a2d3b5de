"""Lists in drawn formats: marks match options, and all styles occur."""

import re

import tensorflow as tf

from flan_jax.data import formats

CHOICES = [["iron", "neon"], ["it is so", "it is not", "no one knows."]]


def drawn(choices, labels, seed=(3, 4)):
  text, mark = formats.options(
    tf.ragged.constant(choices), tf.constant(labels, tf.int64), seed
  )
  return [t.decode() for t in text.numpy()], [m.decode() for m in mark.numpy()]


def test_marks_match_options():
  choices = CHOICES * 400
  labels = [i % len(c) for i, c in enumerate(choices)]
  texts, marks = drawn(choices, labels)
  lettered = 0
  for text, mark, options, label in zip(texts, marks, choices, labels, strict=True):
    lines = text.split("\n")
    if len(lines) > len(options):
      assert lines.pop(0) in formats.OPTION_HEADS
    assert len(lines) == len(options)
    heads = []
    for line, option in zip(lines, options, strict=True):
      found = re.fullmatch("(.*?)" + re.escape(option) + "[;.]?", line)
      assert found, (line, option)
      # An option that ends in a stop gets no other.
      assert not line.endswith((".;", ".."))
      heads.append(found[1])
    if not mark:
      assert set(heads) < set(formats.BULLETS)
      assert len(set(heads)) == 1
      continue
    lettered += 1
    assert len(set(heads)) == len(heads)
    # The answer is the mark of the right line and of no other.
    assert [h.strip().rstrip(":- ") == mark for h in heads].index(True) == label
    assert sum(h.strip().rstrip(":- ") == mark for h in heads) == 1
  share = 1 - len(formats.BULLETS) / len(formats.OPTION_MARKS)
  # Five standard deviations of 800 draws.
  assert abs(lettered / 800 - share) < 5 * (share * (1 - share) / 800) ** 0.5


def test_every_format_occurs_and_the_seed_decides():
  choices = [["one", "two"]] * 3000
  texts, marks = drawn(choices, [1] * 3000)
  assert texts == drawn(choices, [1] * 3000)[0]
  assert texts != drawn(choices, [1] * 3000, (4, 4))[0]
  heads = {t.split("\n")[0] for t in texts if t.count("\n") == 2}
  assert heads == set(formats.OPTION_HEADS) - {""}
  assert any(t.count("\n") == 1 for t in texts)
  answers = {pair[1][1] for pair in formats.OPTION_MARKS}
  assert set(marks) == answers
  ends = {t[-1] for t in texts}
  assert ends == {"o", ";", "."}


def test_more_options_than_letters_have_bullets():
  many = [[f"word{i}" for i in range(30)]] * 50
  texts, marks = drawn(many, [29] * 50)
  assert set(marks) == {""}
  assert all(t.count("word") == 30 for t in texts)


def test_numerals():
  assert formats._roman(4) == "iv"
  assert formats._roman(26) == "xxvi"
  assert [a for _, a in formats.OPTION_MARKS[-1]][:3] == ["I", "II", "III"]


def test_dialog_ends_with_the_one_who_asks():
  turns = [["Hello.", "Where is it?", "Here.", "Since when?"], ["And why?"]] * 200
  text = formats.dialog(tf.ragged.constant(turns), (1, 2))
  askers = {a for a, _ in formats.DIALOG_MARKS}
  seen = set()
  for said, given in zip(text.numpy(), turns, strict=True):
    lines = [x for x in said.decode().split("\n") if x]
    if len(lines) > len(given):
      assert lines.pop(0) in formats.DIALOG_HEADS
    marks = [
      line.removesuffix(turn) for line, turn in zip(lines, given, strict=True)
    ]
    assert marks[-1] in askers
    assert marks[0::2] == marks[0:1] * len(marks[0::2])
    assert not said.endswith(b"\n")
    seen.add(tuple(marks[-2:]))
  assert len(seen) > 20
