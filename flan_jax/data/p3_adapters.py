"""Field adapters: rows as TFDS has them to rows as Hugging Face had them.

T0's prompts were written for Hugging Face's field names. Where TFDS has other
ones, a function here turns one row of Python's own values into the rows that
the prompts know: mostly one; RACE's articles hold several questions.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
Adapter = Callable[[Row], list[dict[str, Any]]]

LETTERS = "ABCDE"


def same(row: Row) -> list[dict[str, Any]]:
  """The row as it is."""
  return [dict(row)]


def ag_news(row: Row) -> list[dict[str, Any]]:
  """One text of title and description.

  >>> ag_news({"title": "Rain", "description": "It rains.", "label": 3})
  [{'text': 'Rain It rains.', 'label': 3}]
  """
  text = f"{row['title']} {row['description']}".strip()
  return [{"text": text, "label": row["label"]}]


def ai2_arc(row: Row) -> list[dict[str, Any]]:
  """Letters for the numbers of choices.

  >>> ai2_arc({"question": "Why?", "answerKey": 1,
  ...   "choices": {"text": ["a", "b"], "label": [0, 1]}})
  [{'question': 'Why?', 'answerKey': 'B', \
'choices': {'text': ['a', 'b'], 'label': ['A', 'B']}}]
  """
  choices = row["choices"]
  return [
    {
      **row,
      "answerKey": LETTERS[row["answerKey"]] if row["answerKey"] >= 0 else "",
      "choices": {**choices, "label": [LETTERS[n] for n in choices["label"]]},
    }
  ]


def anli(row: Row) -> list[dict[str, Any]]:
  """`context` is the premise.

  >>> anli({"context": "It rains.", "hypothesis": "It is wet.", "label": 0})
  [{'hypothesis': 'It is wet.', 'label': 0, 'premise': 'It rains.'}]
  """
  out = {k: v for k, v in row.items() if k != "context"}
  return [{**out, "premise": row["context"]}]


def hellaswag(row: Row) -> list[dict[str, Any]]:
  """`ctx`, and its two halves, which TFDS has not: cut at the last sentence.

  A context that breaks off within a sentence (video captions) has that piece
  as `ctx_b`; one that ends with a whole sentence has none.

  >>> hellaswag({"context": "A man sits. he", "label": 1})
  [{'label': 1, 'ctx': 'A man sits. he', 'ctx_a': 'A man sits.', 'ctx_b': 'he'}]
  """
  context = row["context"]
  found = re.fullmatch(r"(.*[.!?])\s+([^.!?]+)", context, re.DOTALL)
  first, rest = found.groups() if found else (context, "")
  out = {k: v for k, v in row.items() if k != "context"}
  return [{**out, "ctx": context, "ctx_a": first, "ctx_b": rest}]


def openbookqa(row: Row) -> list[dict[str, Any]]:
  """The question's parts at the top, choices in a table, letters.

  >>> openbookqa({"question": {"stem": "Ice is", "choice_A": "hot",
  ...   "choice_B": "cold"}, "answerKey": 1})[0]["choices"]
  {'text': ['hot', 'cold'], 'label': ['A', 'B']}
  """
  question = row["question"]
  letters = [c for c in LETTERS if f"choice_{c}" in question]
  return [
    {
      "question_stem": question["stem"],
      "choices": {
        "text": [question[f"choice_{c}"] for c in letters],
        "label": letters,
      },
      "answerKey": LETTERS[row["answerKey"]] if row["answerKey"] >= 0 else "",
    }
  ]


def race(row: Row) -> list[dict[str, Any]]:
  """One row for each question of an article.

  >>> race({"article": "Ice.", "questions": ["Hot?", "Cold?"],
  ...   "options": [["a", "b"], ["c", "d"]], "answers": ["B", "A"]})[1]
  {'article': 'Ice.', 'question': 'Cold?', 'options': ['c', 'd'], 'answer': 'A'}
  """
  parts = zip(row["questions"], row["options"], row["answers"], strict=True)
  return [
    {"article": row["article"], "question": q, "options": o, "answer": a}
    for q, o, a in parts
  ]


def story_cloze(row: Row) -> list[dict[str, Any]]:
  """Four sentences of the context, two endings, the right one from 1.

  The context is cut after its sentence ends; further ones join the last.

  >>> story_cloze({"context": "A. B. C. D.", "endings": ["e", "f"],
  ...   "label": 2})[0]["input_sentence_4"]
  'D.'
  """
  parts = re.split(r"(?<=[.!?])\s+", row["context"].strip(), maxsplit=3)
  parts += [""] * (4 - len(parts))
  return [
    {
      **{f"input_sentence_{n}": text for n, text in enumerate(parts, 1)},
      **{f"sentence_quiz{n}": text for n, text in enumerate(row["endings"], 1)},
      "answer_right_ending": row["label"],
    }
  ]


def winogrande(row: Row) -> list[dict[str, Any]]:
  """The label 0 or 1 as the answer '1' or '2'; '' where it is hidden.

  >>> winogrande({"sentence": "_ slept.", "label": 0})
  [{'sentence': '_ slept.', 'answer': '1'}]
  """
  out = {k: v for k, v in row.items() if k != "label"}
  answer = str(row["label"] + 1) if row["label"] >= 0 else ""
  return [{**out, "answer": answer}]
