"""MMLU: 57 subjects of four-choice questions, from a local folder.

The folder is as published: `dev/anatomy_dev.csv`, `test/anatomy_test.csv` (and
`val/`, which is not read), without a heading row, with the columns question, A,
B, C, D and answer. A prompt is as published too (but for a second blank
before the subject): up to five solved questions of dev, the question and
`Answer:`; the four letters are ranked by their log-probability. With a chain
of thought the answer is generated.

Source: Hendrycks et al., 2021 (arXiv 2009.03300), section 4.1 and its released
code; Chung et al., 2022 (arXiv 2210.11416), section 3.2, for the mean over
subjects and chains of thought.
"""

import csv
import json
import pathlib
from collections.abc import Mapping

from flan_jax.errors import UserError
from flan_jax.eval.prompted import PromptedTask, Question

LETTERS = ("A", "B", "C", "D")
SHOTS = 5
COT_FILE = "mmlu-cot.json"
THINK = "Let's think step by step."

# Subjects by category, as in the released code.
CATEGORIES: dict[str, tuple[str, ...]] = {
  "STEM": (
    "abstract_algebra", "astronomy", "college_biology", "college_chemistry",
    "college_computer_science", "college_mathematics", "college_physics",
    "computer_security", "conceptual_physics", "electrical_engineering",
    "elementary_mathematics", "high_school_biology",
    "high_school_chemistry", "high_school_computer_science",
    "high_school_mathematics", "high_school_physics",
    "high_school_statistics", "machine_learning",
  ),
  "humanities": (
    "formal_logic", "high_school_european_history", "high_school_us_history",
    "high_school_world_history", "international_law", "jurisprudence",
    "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
    "prehistory", "professional_law", "world_religions",
  ),
  "social sciences": (
    "econometrics", "high_school_geography",
    "high_school_government_and_politics", "high_school_macroeconomics",
    "high_school_microeconomics", "high_school_psychology", "human_sexuality",
    "professional_psychology", "public_relations", "security_studies",
    "sociology", "us_foreign_policy",
  ),
  "other": (
    "anatomy", "business_ethics", "clinical_knowledge", "college_medicine",
    "global_facts", "human_aging", "management", "marketing",
    "medical_genetics", "miscellaneous", "nutrition",
    "professional_accounting", "professional_medicine", "virology",
  ),
}  # fmt: skip


def category(subject: str) -> str:
  """The category of a subject; "own" for one that MMLU does not have.

  >>> category("virology")
  'other'
  """
  for name, subjects in CATEGORIES.items():
    if subject in subjects:
      return name
  return "own"


def load(
  folder: str | pathlib.Path, *, shots: int = SHOTS, cot: bool = False
) -> dict[PromptedTask, list[Question]]:
  """Questions of every subject of the folder.

  >>> tasks = load("data/mmlu")                            # doctest: +SKIP
  >>> len(tasks), sum(map(len, tasks.values()))            # doctest: +SKIP
  (57, 14042)

  Args:
    folder: with `dev` and `test`.
    shots: solved questions before each, 0 to 5.
    cot: whether a chain of thought is asked for. With shots the exemplars are
      those of `mmlu-cot.json` in the folder (subject -> text with all of them,
      as published by Chung et al.); a text counts as all shots or none.

  Raises:
    UserError: a folder or file that is not there or not as described.
  """
  folder = pathlib.Path(folder)
  if not 0 <= shots <= SHOTS:
    raise UserError(f"MMLU_SHOTS is {shots}; dev has {SHOTS}: write 0 to 5.")
  files = sorted((folder / "test").glob("*_test.csv"))
  if not files:
    raise UserError(
      f"{folder} is no MMLU folder: there is no test/SUBJECT_test.csv in it."
      " Give the unpacked folder that has dev, val and test."
    )
  solved = _cot_texts(folder) if cot and shots else {}
  out = {}
  for file in files:
    subject = file.name.removesuffix("_test.csv")
    exemplars: tuple[str, ...] = ()
    if cot and shots:
      if subject not in solved:
        raise UserError(
          f"{folder / COT_FILE} has no exemplars of {subject!r}; add them, or"
          " set MMLU_SHOTS=0."
        )
      exemplars = (solved[subject].strip() + "\n\n",)
    elif shots:
      dev = folder / "dev" / f"{subject}_dev.csv"
      exemplars = tuple(
        f"{_asked(row)} {row[5]}\n\n" for row in _rows(dev)[:shots]
      )
      if len(exemplars) < shots:
        raise UserError(
          f"{dev} has {len(exemplars)} questions, MMLU_SHOTS asks for {shots}."
        )
    task = PromptedTask(
      name=f"mmlu_{subject}",
      paper_name=f"MMLU {subject.replace('_', ' ')}",
      cluster=category(subject),
      family=None,
      kind="generation" if cot else "classification",
      metrics=("final_letter",) if cot else ("accuracy",),
      chance=100 / len(LETTERS),
    )
    out[task] = [_question(subject, row, exemplars, cot) for row in _rows(file)]
  return out


def _question(subject, row, exemplars, cot: bool) -> Question:
  about = subject.replace("_", " ")
  heading = (
    "The following are multiple choice questions (with answers) about"
    f" {about}.\n\n"
  )
  if cot:
    query = f"{_cot_asked(row)}\nA: {THINK}"
    return Question(
      # The published texts have their own heading.
      heading="" if exemplars else heading,
      exemplars=exemplars,
      query=query,
      choices=(),
      label=-1,
      references=(row[5],),
    )
  return Question(
    heading=heading,
    exemplars=exemplars,
    query=_asked(row),
    choices=tuple(f" {letter}" for letter in LETTERS),
    label=LETTERS.index(row[5]),
    references=(row[5],),
  )


def _asked(row) -> str:
  options = "".join(
    f"\n{letter}. {text}"
    for letter, text in zip(LETTERS, row[1:5], strict=True)
  )
  return f"{row[0]}{options}\nAnswer:"


def _cot_asked(row) -> str:
  options = " ".join(
    f"({letter}) {text}" for letter, text in zip(LETTERS, row[1:5], strict=True)
  )
  return f"Q: {row[0]}\n{options}"


def _rows(path: pathlib.Path) -> list[list[str]]:
  try:
    with path.open(encoding="utf-8", newline="") as file:
      rows = list(csv.reader(file))
  except (OSError, UnicodeDecodeError, csv.Error) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{path} cannot be read: {reason}.") from None
  for number, row in enumerate(rows, 1):
    if len(row) != 6 or row[5] not in LETTERS:
      raise UserError(
        f"{path}, row {number}: {row!r} is not question, four options and a"
        " letter A to D."
      )
  if not rows:
    raise UserError(f"{path} has no question.")
  return rows


def _cot_texts(folder: pathlib.Path) -> Mapping[str, str]:
  path = folder / COT_FILE
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(
      f"{path}, exemplars with a chain of thought for each subject, cannot be"
      f" read: {reason}. MMLU itself has none: copy the file that was published"
      " with Flan-PaLM there, or set MMLU_SHOTS=0."
    ) from None
  if not isinstance(value, dict) or not all(
    isinstance(text, str) and text.strip() for text in value.values()
  ):
    raise UserError(f"{path} is no object of subjects and texts.")
  return value
