"""The final answer in a text that reasons first, and metrics of it.

Source: Wei et al., 2022 (chain of thought, arXiv 2201.11903), appendix; Suzgun
et al., 2022 (BIG-Bench Hard, arXiv 2210.09261), section 3: exact match of what
follows "the answer is".
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.eval.metric import Metric, check_texts, means

_MARK = re.compile(r"\bthe answer is\b[ \t]*:?", re.IGNORECASE)
# A model that goes on asks itself the next question.
_NEXT = re.compile(r"\n\s*(?:Q|Question)\s*:")
_LETTER = re.compile(r"^\(?([A-Z])(?:\)|[.:,]|$|\s)")


def final_answer(text: str) -> str:
  r"""What follows the last "the answer is", up to the end of its line.

  >>> final_answer("2 and 2 are 4. So the answer is 4.\n\nQ: And 3 and 3?")
  '4'
  >>> final_answer("(B)\nbecause it rains")
  '(B)'

  Without these words it is the first line that is not empty. What stands after
  the next question, blanks at both ends and one full stop do not count.
  """
  text = _NEXT.split(text, maxsplit=1)[0]
  marks = list(_MARK.finditer(text))
  rest = text[marks[-1].end() :] if marks else text
  lines = [line.strip() for line in rest.splitlines() if line.strip()]
  return lines[0].removesuffix(".").strip() if lines else ""


def final_letter(text: str) -> str:
  """The letter of the option in `final_answer`; "" where it begins with none.

  >>> final_letter("So the answer is (C) the heart."), final_letter("Cats.")
  ('C', '')
  """
  found = _LETTER.match(final_answer(text))
  return found.group(1) if found else ""


def _rows(value: str, extract: Callable[[str], str], name: str):
  def rows(predictions, references) -> dict[str, np.ndarray]:
    check_texts(name, predictions, references)
    right_R = [
      extract(p) != "" and extract(p) in {extract(text) for text in texts}
      for p, texts in zip(predictions, references, strict=True)
    ]
    return {value: 100.0 * np.array(right_R)}

  return rows


_ANSWERS = _rows("exact_match", final_answer, "final_answer")
_LETTERS = _rows("accuracy", final_letter, "final_letter")


def answer_match(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Share of texts whose final answer is a reference, in per cent.

  Case and punctuation count, but for one full stop at the end.

  >>> answer_match(["So the answer is No.", "no"], [["No"], ["No"]])
  {'exact_match': 50.0}

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  rows_R = _ANSWERS(predictions, references)["exact_match"]
  return {"exact_match": float(rows_R.mean())}


def letter_match(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Share of texts whose final answer begins with the right option's letter.

  >>> letter_match(["The answer is (A).", "It is B."], [["A"], ["B"]])
  {'accuracy': 50.0}

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  rows_R = _LETTERS(predictions, references)["accuracy"]
  return {"accuracy": float(rows_R.mean())}


METRICS = (
  Metric("final_answer", answer_match, "texts", "exact_match", means(_ANSWERS)),
  Metric("final_letter", letter_match, "texts", "accuracy", means(_LETTERS)),
)
