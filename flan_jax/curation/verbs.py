"""Root verb and object of an English instruction, by rule.

Self-Instruct and Alpaca show the diversity of instructions by the verb at the
root of their parse and its direct object (Wang et al., 2023, arXiv 2212.10560,
figure 2). A parser is a large dependency; here the verb is the first word that
is in a list of verbs that instructions begin with, or the first question word;
the object is the last of the content words that follow it.
"""

import collections
import re
from collections.abc import Iterable

_VERBS_TEXT = """
abbreviate act adapt add adjust advise agree analyse analyze answer apply
argue arrange ask assess assign assume balance brainstorm break bring build
calculate categorise categorize change check choose cite clarify classify
combine come comment compare compile complete compose compute conclude conduct
consider construct continue contrast convert correct count craft create
critique debate decide decode decompose deduce define delete derive describe
design detect determine develop devise diagnose differentiate discuss display
distinguish divide draft draw edit elaborate eliminate encode enter estimate
evaluate examine execute expand explain explore express extend extract fill
filter find finish fix follow form format formulate gather generate get give
group guess help highlight identify illustrate imagine implement improve
include incorporate indicate infer insert interpret invent judge justify keep
label learn list locate look make mark match mention merge modify name narrate
negate note number offer order organise organize outline output paraphrase
parse perform pick plan point pose predict prepare present print produce
proofread propose prove provide punctuate put quote rank rate read rearrange
reason recall recite recommend reconstruct record reduce rephrase refer
reformat reformulate remove rename reorder repeat replace reply report
represent research resolve respond restate return reverse review revise
rewrite round say score search select separate set share shorten show simplify
solve sort specify spell split state structure suggest summarise summarize
suppose swap take talk teach tell think train transcribe transform translate
treat turn underline update use utilize verify visit visualize weigh write
"""
_QUESTIONS_TEXT = """
what who whom whose which when where why how is are was were do does did can
could will would should has have
"""
# What a question word may stand behind, and what is no part of an object.
_SKIPPED_TEXT = """
a an the this that these those some any all each every both several many few
more most one two three four five six seven eight nine ten first second third
last next my your his her its our their me you him us them it i we they he she
please kindly just also only very really own following given brief short long
good best new old possible different appropriate creative simple detailed
concise is are was were be been being do does did can could will would should
has have had may might must not n't
"""
_END_TEXT = """
about above across after against along among and as at because before below
between but by during else for from if in into like of off on onto or over per
since so such than then through to toward towards under until up upon using
versus via vs when where whether which while who whose why with within without
how what that
"""
VERBS = frozenset(_VERBS_TEXT.split())
QUESTIONS = frozenset(_QUESTIONS_TEXT.split())
_SKIPPED = frozenset(_SKIPPED_TEXT.split())
_END = frozenset(_END_TEXT.split())
_WORD = re.compile(r"[a-z]+(?:['\u2019-][a-z]+)*|\d+|[^\w\s]", re.IGNORECASE)
# Words of an instruction in which its verb is looked for.
_LOOKED_AT = 25


def root(text: str) -> tuple[str, str | None] | None:
  """The verb and its object, lower case; None: no verb of the list.

  >>> root("Please write me a short poem about rain.")
  ('write', 'poem')
  >>> root("Given a text, list the tallest buildings in it.")
  ('list', 'building')
  >>> root("What is the capital of Japan?")
  ('what', 'capital')
  >>> root("Bonjour tout le monde") is None
  True

  The object is None where no content word follows.
  """
  words = [
    re.sub(r"['\u2019]s$", "", w.lower())
    for w in _WORD.findall(text)[: 2 * _LOOKED_AT]
  ]
  for place, word in enumerate(words[:_LOOKED_AT]):
    before = words[place - 1] if place else "."
    # "the list", "your answer" are nouns; "in which" belongs to what precedes.
    starts = before in ("and", "to", "please", "you", "then") or not (
      before[0].isalnum()
    )
    if word in VERBS and (starts or (place == 1 and before not in _SKIPPED)):
      return word, _object(words[place + 1 :])
    if word in QUESTIONS and starts and word not in ("you", "and"):
      if (
        word in ("can", "could", "would", "will")
        and "you" in words[place + 1 : place + 2]
      ):
        continue
      return word, _object(words[place + 1 :])
  return None


def counts(
  texts: Iterable[str],
) -> tuple[dict[str, collections.Counter], int]:
  """Objects of each verb, the most frequent verb first; texts without a verb.

  >>> found, without = counts(["Write a poem.", "Write a song.", "Hm."])
  >>> found["write"].most_common(), without
  ([('poem', 1), ('song', 1)], 1)
  """
  found: dict[str, collections.Counter] = {}
  without = 0
  for text in texts:
    made = root(text)
    if made is None:
      without += 1
      continue
    found.setdefault(made[0], collections.Counter())[made[1] or "\u2013"] += 1
  ordered = sorted(found, key=lambda v: (-found[v].total(), v))
  return {verb: found[verb] for verb in ordered}, without


def _object(words) -> str | None:
  noun = None
  for word in words:
    if word in _SKIPPED or word.isdigit():
      if noun is not None and word in _SKIPPED:
        break
      continue
    if word in _END or not word[0].isalnum():
      # "of" right behind the verb, as in "think of a name", goes on.
      if noun is not None:
        break
      if not word[0].isalnum() and word not in "\"'(":
        break
      continue
    noun = word
  return None if noun is None else _singular(noun)


def _singular(noun: str) -> str:
  if noun in ("series", "species", "news", "bias"):
    return noun
  if len(noun) > 4 and noun.endswith("ies"):
    return noun[:-3] + "y"
  if noun.endswith(("ches", "shes", "sses", "xes", "zes")):
    return noun[:-2]
  if noun.endswith("s") and not noun.endswith(("ss", "us", "is", "'s")):
    return noun[:-1]
  return noun
