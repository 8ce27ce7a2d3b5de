r"""BIG-Bench Hard: 23 tasks of 27 files, from a local folder.

The folder is as published: `bbh/navigate.json` with `{"examples": [{"input":
..., "target": ...}]}` and `cot-prompts/navigate.txt`: a warning and a line of
dashes, an instruction, and three questions with chains of thought that end
"So the answer is ...". Answers are generated and compared exactly
(`extraction.py`). Direct exemplars are the same without the chain.

Source: Suzgun et al., 2022 (arXiv 2210.09261), section 3 and its released
prompts; Chung et al., 2022 (arXiv 2210.11416), section 3.2.
"""

import json
import pathlib
import re
import statistics
from collections.abc import Sequence

from flan_jax.errors import UserError
from flan_jax.eval import extraction
from flan_jax.eval.prompted import PromptedTask, Question

SHOTS = 3
THINK = "Let's think step by step."

_OPTION = re.compile(r"^\(([A-Z])\) ", re.MULTILINE)
# Answers of which there are two alone, in any case.
_PAIRS = (
  {"yes", "no"}, {"true", "false"}, {"valid", "invalid"},
)  # fmt: skip
# Files of one task that differ in the number of objects.
_FAMILIES = ("logical_deduction", "tracking_shuffled_objects")


def load(
  folder: str | pathlib.Path, *, shots: int = SHOTS, cot: bool = True
) -> dict[PromptedTask, list[Question]]:
  """Questions of every task of the folder.

  >>> tasks = load("data/bbh")                             # doctest: +SKIP
  >>> len(tasks), sum(map(len, tasks.values()))            # doctest: +SKIP
  (27, 6511)

  Args:
    folder: with `bbh` and `cot-prompts`.
    shots: solved questions before each, 0 to 3.
    cot: whether a chain of thought is asked for.

  Raises:
    UserError: a folder or file that is not there or not as described.
  """
  folder = pathlib.Path(folder)
  if not 0 <= shots <= SHOTS:
    raise UserError(
      f"BBH_SHOTS is {shots}; the prompts have {SHOTS} solved questions: 0 to"
      f" {SHOTS}."
    )
  files = sorted((folder / "bbh").glob("*.json"))
  if not files:
    raise UserError(
      f"{folder} is no BBH folder: there is no bbh/TASK.json in it. Give the"
      " folder that has bbh and cot-prompts."
    )
  out = {}
  for file in files:
    name = file.stem
    rows = _examples(file)
    heading, solved = _prompt(folder / "cot-prompts" / f"{name}.txt")
    if len(solved) < shots:
      raise UserError(
        f"{folder / 'cot-prompts' / name}.txt has {len(solved)} solved"
        f" questions, BBH_SHOTS asks for {shots}."
      )
    exemplars = tuple(
      f"Q: {question}\nA: {chain if cot else answer}\n\n"
      for question, chain, answer in solved[:shots]
    )
    task = PromptedTask(
      name=f"bbh_{name}",
      paper_name=f"BBH {name.replace('_', ' ')}",
      cluster="BIG-Bench Hard",
      family=next((f"bbh_{f}" for f in _FAMILIES if name.startswith(f)), None),
      kind="generation",
      metrics=("final_answer",),
      chance=chance(rows),
    )
    out[task] = [
      Question(
        heading=f"{heading}\n\n",
        exemplars=exemplars,
        query=f"Q: {asked}\nA:{f' {THINK}' if cot else ''}",
        choices=(),
        label=-1,
        references=(target,),
      )
      for asked, target in rows
    ]
  return out


def chance(rows: Sequence[tuple[str, str]]) -> float:
  r"""The score, in per cent, of guessing evenly among the options shown.

  >>> chance([("Who?\nOptions:\n(A) Ann\n(B) Bo", "(B)")])
  50.0
  >>> chance([("Is 1 + 1 = 2?", "yes")]), chance([("1 + 1 =", "2")])
  (50.0, 0.0)

  Args:
    rows: questions and answers of one task.
  """
  targets = {target.lower() for _, target in rows}
  if any(targets <= pair for pair in _PAIRS):
    return 50.0
  counts = [len(set(_OPTION.findall(asked))) for asked, _ in rows]
  if all(re.fullmatch(r"\([a-z]\)", t) for t in targets) and all(counts):
    return 100.0 * statistics.fmean(1 / n for n in counts)
  return 0.0


def _examples(path: pathlib.Path) -> list[tuple[str, str]]:
  try:
    examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
    rows = [(e["input"], e["target"]) for e in examples]
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{path} cannot be read: {reason}.") from None
  except (KeyError, TypeError):
    rows = []
  if not rows or not all(isinstance(v, str) for row in rows for v in row):
    raise UserError(
      f'{path} is not {{"examples": [{{"input": ..., "target": ...}}]}} with'
      " at least one example of two texts."
    )
  return rows


def _prompt(path: pathlib.Path) -> tuple[str, list[tuple[str, str, str]]]:
  """The instruction, and (question, chain of thought, answer) of exemplars."""
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"{path} cannot be read: {reason}.") from None
  lines = text.splitlines()
  if len(lines) > 1 and set(lines[1].strip()) == {"-"}:
    text = "\n".join(lines[2:])
  heading, *blocks = re.split(r"^Q: ", text, flags=re.MULTILINE)
  solved = []
  for number, block in enumerate(blocks, 1):
    asked, mark, chain = block.partition("\nA:")
    chain = chain.strip()
    answer = extraction.final_answer(chain)
    if not mark or "the answer is" not in chain or not answer:
      raise UserError(
        f"{path}, exemplar {number}: there is no line 'A: {THINK} ... So the"
        " answer is ...' after its 'Q: '."
      )
    solved.append((asked.strip(), chain, answer))
  if not heading.strip():
    raise UserError(f"{path}: no instruction stands before the first 'Q: '.")
  return heading.strip(), solved
