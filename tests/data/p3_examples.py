"""Examples of a prompt's schema, inferred from how its program uses fields.

A field that is looped over, joined or drawn from is a list; one whose
attributes are read is a table; one that indexes or is compared with a number
is a number; all others are texts. Where that does not render, kinds are tried.
"""

import itertools
import random

import jinja2
from jinja2 import nodes

_FOUR = {"text": ["ice", "tea", "tin", "oak"], "label": ["A", "B", "C", "D"]}
_CHOOSING = {
  "question": "Which _____ is cold?", "question_stem": "What is cold?",
  "choices": _FOUR, "answerKey": "B", "para": "Ice is cold.",
}  # fmt: skip
_RACE = {
  "article": "Ice is cold.", "question": "What is _ ?", "answer": "C",
  "options": _FOUR["text"],
}  # fmt: skip
_EVALUATIONS = [
  {"userId": user, "engagement": n, "quality": n, "breadth": n}
  for user, n in (("Alice", 3), ("Bob", 5))
]
_EDITED = "The <mayor/> sings a song"
_EQUATION = "Let a = 3*b. Solve 5*b + 2 = 12 for b?"

# What names and operations do not tell: letters of answers, a format.
BY_HAND = {
  "Zaid/coqa_expanded": {
    "story": "It rained all day.", "question": "When?",
    "answer": {"answer_start": 3, "answer_end": 9, "input_text": "rained"},
  },
  "ai2_arc": _CHOOSING,
  "cbt/raw": {
    "title": "Ann_Lee___The_Old_Mill.txt.out", "content": "A mill turned.",
  },
  "climate_fever": {
    "claim": "Ice melts.",
    "evidences": [{"evidence": f"note {n}.", "evidence_label": n % 3,
                   "article": "Ice"} for n in range(5)],
  },
  "commonsense_qa": _CHOOSING,
  "conv_ai_2": {
    "dialog": [{"sender_class": c, "text": f"I am a {c}", "sender": c}
               for c in ("Human", "Bot")],
    "user_profile": [["I like ", "tea."], ["I ", "row."]],
  },
  "conv_ai_3": {
    "initial_request": "Find a mill", "clarification_need": 4,
    "question": "which mill", "answer": "the old one",
  },
  "conv_ai": {
    "context": "A mill.", "evaluation": _EVALUATIONS,
    "thread": [{"userId": u, "text": f"Hi from {u}"} for u in ("Alice", "Bob")],
  },
  "coqa": {
    "story": "It rained all day.", "questions": ["When?", "Why?"],
    "answers": {"answer_start": [3, 0], "answer_end": [9, 2],
                "input_text": ["rained", "It"]},
  },
  "cos_e": {
    "question": "What is cold?", "choices": ["ice", "tea", "tin"],
    "answer": "tea", "abstractive_explanation": "tea cools",
  },
  "discofuse": {
    "discourse_type": "PAIR_CONN", "incoherent_first_sentence": "It rained.",
    "incoherent_second_sentence": "We left.", "coherent_second_sentence": "",
    "coherent_first_sentence": "It rained, so we left.",
  },
  "e2e_nlg_cleaned": {
    "meaning_representation": (
      "name[The Mill], eatType[pub], food[French], priceRange[cheap], "
      "customer rating[5 out of 5], area[riverside], familyFriendly[yes], "
      "near[The Oak]"
    ),
    "human_reference": "The Mill is a pub.",
  },
  "evidence_infer_treatment": {
    "Text": "A trial of tea. " * 100,
    "Prompts": {
      "Annotations": [{"Annotations": ["p"], "Label": ["no change"]},
                      {"Annotations": ["q", "r"], "Label": ["up", "down"]}],
      "Intervention": ["tea", "rest"], "Comparator": ["water", "work"],
      "Outcome": ["sleep", "pain"], "PMCID": [1, 2],
    },
  },
  "fever": {"claim": "Ice is cold.", "label": "SUPPORTS"},
  "humicroedit": {
    "original": _EDITED, "edit": "cow", "meanGrade": 1.4, "label": 1,
    "original1": _EDITED, "edit1": "cow", "original2": _EDITED,
    "edit2": "door", "meanGrade1": 0.2, "meanGrade2": 1.0,
  },
  "math_dataset": {"question": _EQUATION, "answer": "2"},
  "mdd": {
    "dialogue_turns": {"speaker": [n % 2 for n in range(6)],
                       "utterance": [f"line {n}" for n in range(6)]},
  },
  "nlu_evaluation_data": {"text": "Wake me", "scenario": "alarm", "label": 2},
  "openai_humaneval": {
    "prompt": "def f(x):", "canonical_solution": "  return x",
    "entry_point": "f", "test": "def check(f):\n  assert f(3) == 3",
  },
  "openbookqa": _CHOOSING,
  "quartz": _CHOOSING,
  "race": _RACE,
  "sick": {
    "sentence_A": "It rains.", "sentence_B": "It is wet.", "label": 1,
    "entailment_AB": "A_neutral_B", "entailment_BA": "B_neutral_A",
  },
  "social_i_qa": {
    "context": "Kim rows.", "question": "Why?", "answerA": "fun",
    "answerB": "work", "answerC": "rain", "label": "2",
  },
  "subjqa": {
    "domain": "movies", "context": "A film.", "question": "Good?",
    "question_subj_level": 2, "answers": {"text": ["yes"]},
  },
  "tydiqa": {
    "id": "english-17", "context": "Ice is cold.", "question": "What is?",
    "title": "Ice", "answers": {"text": ["Ice"], "answer_start": [0]},
  },
}  # fmt: skip
_WIQA = {
  "question_stem": "Suppose it rains.", "question_para_step": ["Sun.", "Rain."],
  "metadata_question_type": "INPARA_EFFECT", "answer_label": "more",
  "choices": {"text": ["more", "less"], "label": ["A", "B"]},
}  # fmt: skip
BY_HAND["wiqa"] = _WIQA
BY_HAND["wiki_hop"] = {
  "question": "place_of_birth kim lee", "supports": ["Kim is from Oslo."],
  "candidates": ["Oslo", "Rome"], "answer": "Oslo",
}  # fmt: skip
_TREC = {"ABBR": (2, 34), "HUM": (3, 4), "LOC": (5, 18), "NUM": (4, 8)}

WORDS = (
  "river", "amber", "seven", "Old Town", "blue lamp", "Kim", "two",
  "a quiet day", "North", "pears", "yes", "stone", "the 4th", "ice",
)  # fmt: skip
TEXT_METHODS = {
  "split", "lower", "replace", "strip", "startswith", "capitalize", "upper",
  "join", "endswith", "title", "rstrip", "lstrip",
}  # fmt: skip
LIST_METHODS = {"append", "index", "pop", "remove", "insert", "extend"}
TABLE_METHODS = {"items", "keys", "values", "update", "get"}
LIST_FILTERS = {
  "join", "choice", "list", "map", "select", "selectattr", "reject", "unique",
  "most_frequent", "random", "sort", "max", "min", "sum", "first", "last",
}  # fmt: skip
NUMBER_FILTERS = {"round", "int", "abs", "float"}


class Kind:
  """What is known of a value."""

  def __init__(self):
    self.kind, self.fields, self.item, self.says = None, {}, None, []
    self.least = 0

  def be(self, kind):
    strength = {None: 0, "text": 1, "number": 2, "list": 3, "table": 4}
    if strength[kind] > strength[self.kind]:
      self.kind = kind

  def field(self, name):
    self.be("table")
    return self.fields.setdefault(name, Kind())

  def element(self):
    self.be("list")
    self.item = self.item or Kind()
    return self.item


class Reader:
  """Walks programs and notes how names are used."""

  def __init__(self):
    self.fields = {}

  def read(self, tree):
    self.block(tree.body, {})

  def name(self, name, scope):
    if name in scope:
      return scope[name]
    return self.fields.setdefault(name, Kind())

  def block(self, body, scope):
    for node in body:
      self.statement(node, scope)

  def statement(self, node, scope):
    if isinstance(node, nodes.For):
      items = self.value(node.iter, scope)
      inner = dict(scope, loop=None)
      element = items.element() if items else None
      if isinstance(node.target, nodes.Name):
        inner[node.target.name] = element
      else:
        sources = [None] * len(node.target.items)
        call = node.iter
        if (
          isinstance(call, nodes.Call)
          and getattr(call.node, "name", "") == "zip"
        ):
          for i, arg in enumerate(call.args[: len(sources)]):
            of = self.value(arg, scope)
            sources[i] = of.element() if of else None
        for target, source in zip(node.target.items, sources, strict=True):
          inner[target.name] = source
      if node.test:
        self.value(node.test, inner)
      self.block(node.body, inner)
      self.block(node.else_, inner)
    elif isinstance(node, nodes.If):
      self.value(node.test, scope)
      for part in (node.body, node.else_):
        self.block(part, scope)
      for other in node.elif_:
        self.statement(other, scope)
    elif isinstance(node, nodes.Assign):
      value = self.value(node.node, scope)
      if isinstance(node.target, nodes.Name):
        scope[node.target.name] = value
    elif isinstance(node, nodes.Output):
      for part in node.nodes:
        if not isinstance(part, nodes.TemplateData):
          self.value(part, scope)

  def value(self, node, scope):
    """The Kind of an expression that comes from the row; None else."""
    if node is None:
      return None
    if isinstance(node, nodes.Name):
      if node.name in ("range", "zip", "namespace", "answer_choices", "loop"):
        return None
      return self.name(node.name, scope)
    if isinstance(node, nodes.Getattr):
      owner = self.value(node.node, scope)
      return owner.field(node.attr) if owner else None
    if isinstance(node, nodes.Getitem):
      return self.item(node, scope)
    if isinstance(node, nodes.Call):
      return self.call(node, scope)
    if isinstance(node, nodes.Filter):
      return self.filter(node, scope)
    if isinstance(node, nodes.Compare):
      left = self.value(node.expr, scope)
      for operand in node.ops:
        right = self.value(operand.expr, scope)
        if operand.op in ("in", "notin"):
          if right and right.kind is None:
            right.be("list")
          continue
        for side, other in ((left, operand.expr), (right, node.expr)):
          if side is None:
            continue
          number = isinstance(other, nodes.Const) and isinstance(
            other.value, int | float
          )
          if number or isinstance(other, nodes.Neg):
            side.be("number")
          elif isinstance(other, nodes.Const):
            side.be("text")
            side.says.append(other.value)
          elif isinstance(other, nodes.List):
            side.be("list")
      return None
    if isinstance(node, nodes.BinExpr):
      for side, other in ((node.left, node.right), (node.right, node.left)):
        found = self.value(side, scope)
        constant = isinstance(other, nodes.Const) and isinstance(
          other.value, int | float
        )
        arithmetic = not isinstance(node, nodes.Add | nodes.And | nodes.Or)
        if found and (
          constant or (arithmetic and not isinstance(node, nodes.Mod))
        ):
          found.be("number")
        if found and isinstance(node, nodes.Sub) and side is node.left:
          found.least = 1
      return None
    for child in node.iter_child_nodes():
      self.value(child, scope)
    return None

  def item(self, node, scope):
    owner, arg = self.value(node.node, scope), node.arg
    if isinstance(arg, nodes.Const) and isinstance(arg.value, str):
      return owner.field(arg.value) if owner else None
    if isinstance(arg, nodes.Slice):
      for part in (arg.start, arg.stop, arg.step):
        self.value(part, scope)
      return owner
    index = self.value(arg, scope)
    if index:
      index.be("number")
    return owner.element() if owner else None

  def call(self, node, scope):
    target = node.node
    for arg in node.args:
      found = self.value(arg, scope)
      if found and getattr(target, "name", "") == "range":
        found.be("number")
    for pair in node.kwargs:
      self.value(pair.value, scope)
    if isinstance(target, nodes.Getattr):
      owner = self.value(target.node, scope)
      if owner is None:
        return None
      if target.attr in TEXT_METHODS:
        owner.be("text")
      elif target.attr in LIST_METHODS:
        owner.be("list")
      elif target.attr in TABLE_METHODS:
        owner.be("table")
    return None

  def filter(self, node, scope):
    owner = self.value(node.node, scope)
    for arg in node.args:
      self.value(arg, scope)
    attribute = [
      p.value.value
      for p in node.kwargs
      if p.key == "attribute" and isinstance(p.value, nodes.Const)
    ]
    if node.name in ("selectattr", "rejectattr") and node.args:
      attribute.append(node.args[0].value)
    if owner is None:
      return None
    if node.name in LIST_FILTERS:
      element = owner.element()
      for name in attribute:
        element.field(name)
      if node.name in ("choice", "random", "first", "last", "min", "max"):
        return element
      if node.name == "map" and attribute:
        inner = Kind()
        inner.be("list")
        return inner
      return owner
    if node.name in NUMBER_FILTERS:
      owner.be("number")
      return owner
    if node.name in ("string", "trim", "default", "lower", "upper"):
      return owner
    return None


def _made(kind, draw, depth=0):
  if kind is None or kind.kind in (None, "text"):
    if kind is not None and kind.says and draw.random() < 0.8:
      return draw.choice(kind.says)
    return (
      " ".join(draw.choices(WORDS, k=4))
      if depth
      else (" ".join(draw.choices(WORDS, k=draw.choice((3, 9, 500)))))
    )
  if kind.kind == "number":
    return max(kind.least, draw.choice((0, 1, 1, 2)))
  if kind.kind == "list":
    return [_made(kind.item, draw, depth + 1) for _ in range(4)]
  return {n: _made(k, draw, depth + 1) for n, k in kind.fields.items()}


def by_hand(prompt) -> dict | None:
  """The example written for the prompt's dataset, if there is one."""
  if prompt.dataset == "trec":
    kinds = [k for k in _TREC if f"grained_{k}" in prompt.name]
    coarse, fine = _TREC[kinds[0]] if kinds else (0, 0)
    return {"text": "Who?", "label_coarse": coarse, "label_fine": fine}
  found = [n for n in BY_HAND if prompt.dataset.startswith(n)]
  return BY_HAND[found[0]] if found else None


def examples(prompt, renders, seed=0, count=3, tries=400):
  """Up to `count` examples for which `renders(example)` is true."""
  written = by_hand(prompt)
  if written is not None and renders(written):
    return [written]
  env = jinja2.Environment()
  reader = Reader()
  for text in (prompt.answer_choices, prompt.jinja):
    if text is not None:
      reader.read(env.parse(text))
  reader.fields.pop("answer_choices", None)
  fields = reader.fields
  draw, found = random.Random(f"{seed}{prompt.where}"), []
  for _ in range(12):
    example = {n: _made(k, draw) for n, k in fields.items()}
    if renders(example):
      found.append(example)
      if len(found) == count:
        return found
  if found:
    return found
  number = Kind()
  number.be("number")
  texts, tables = Kind(), Kind()
  texts.element()
  tables.element().element()
  options = [[k, Kind(), number, texts, tables] for k in fields.values()]
  for kinds in itertools.islice(itertools.product(*options), tries):
    pairs = zip(fields, kinds, strict=True)
    example = {n: _made(k, draw) for n, k in pairs}
    if renders(example):
      return [example]
  return found
