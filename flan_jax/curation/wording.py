"""The words of Self-Instruct's prompts, in one language each.

The form (numbered tasks; `Task:`, `Example 1`, `Output:`, `Class label:`) is
what Self-Instruct's code reads (Wang et al., 2023, arXiv 2212.10560, appendix
A); the sentences are ours, and so are the examples: the seeds themselves.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from flan_jax.curation.seeds import Seed
from flan_jax.errors import UserError, check_known


@dataclasses.dataclass(frozen=True)
class Wording:
  """What prompts say.

  Attributes:
    tasks, classification_tasks: above a list of tasks that is to be continued.
    is_classification: above tasks that are sorted with yes or no.
    input_first, output_first: above tasks with instances.
    task, example, output, label, question: names of the parts.
    yes, no: answers to the question.
    yeses: answers that count as yes; any other counts as no.
  """

  tasks: str
  classification_tasks: str
  is_classification: str
  input_first: str
  output_first: str
  task: str
  example: str
  output: str
  label: str
  question: str
  yes: str
  no: str
  yeses: tuple[str, ...]


ENGLISH = Wording(
  tasks="Come up with a series of tasks:",
  classification_tasks=(
    "Come up with a series of classification tasks. Say which labels there are"
    " where it is possible:"
  ),
  is_classification=(
    "Some tasks have a small, fixed set of possible outputs (labels). Say for"
    " each task whether it is one of them."
  ),
  input_first=(
    "Make up examples for each task. Write the input first, if the task needs"
    " one, and then the output. A task that needs no input has an output alone."
  ),
  output_first=(
    "Each task sorts an input into one of several classes. For every class that"
    " is possible, write its label first and then an input that belongs to it."
  ),
  task="Task:",
  example="Example",
  output="Output:",
  label="Class label:",
  question="Is it classification?",
  yes="Yes",
  no="No",
  yeses=("Yes", "yes", "YES"),
)
CHINESE = Wording(
  tasks="请想出一系列任务：",
  classification_tasks="请想出一系列分类任务，并尽可能写明有哪些类别：",
  is_classification="有些任务的答案只能是几个固定的类别之一。请判断每个任务是否属于这种。",
  input_first="请为每个任务编写示例。如果任务需要输入，先写输入，再写输出；不需要输入的任务只写输出。",
  output_first="每个任务都要把输入归入某个类别。请为每个可能的类别先写类别，再写一个属于该类别的输入。",
  task="任务：",
  example="示例",
  output="输出：",
  label="类别：",
  question="是否为分类任务？",
  yes="是",
  no="否",
  yeses=("是", "是的"),
)
WORDINGS = {"english": ENGLISH, "chinese": CHINESE}


def resolve(wording: "str | Wording") -> Wording:
  """A wording, for a known name or a wording itself.

  >>> resolve("english").task
  'Task:'

  Raises:
    UserError: for a name that is not known.
  """
  if isinstance(wording, Wording):
    return wording
  check_known("WORDING", wording, WORDINGS)
  return WORDINGS[wording]


def squeeze(text: str) -> str:
  r"""One line, without white space around it.

  >>> squeeze(" a\n  b ")
  'a b'
  """
  return re.sub(r"\s+", " ", text).strip()


def instruction_prompt(
  instructions: Sequence[str],
  wording: Wording,
  *,
  classification: bool = False,
) -> str:
  r"""A numbered list of instructions, up to the number of the next one.

  >>> print(instruction_prompt(["Name a fruit.", "Sort it:"], ENGLISH))
  Come up with a series of tasks:
  1. Name a fruit.
  2. Sort it
  3.

  Args:
    instructions: in the order in which they stand.
    wording: of the first line.
    classification: whether the first line asks for classification tasks.
  """
  head = wording.classification_tasks if classification else wording.tasks
  lines = [
    f"{k}. {squeeze(i).rstrip(':：')}" for k, i in enumerate(instructions, 1)
  ]
  return "\n".join([head, *lines, f"{len(lines) + 1}."])


def classification_prompt(
  instruction: str, examples: Iterable[Seed], wording: Wording
) -> str:
  """Seeds with the answer, then the instruction without."""
  blocks = [
    f"{wording.task} {squeeze(s.instruction)}\n{wording.question}"
    f" {wording.yes if s.is_classification else wording.no}"
    for s in examples
  ]
  last = f"{wording.task} {squeeze(instruction)}\n{wording.question}"
  return "\n\n".join([wording.is_classification, *blocks, last])


def instance_prompt(
  instruction: str,
  examples: Iterable[Seed],
  wording: Wording,
  *,
  output_first: bool,
) -> str:
  r"""Seeds with their instances, then the instruction.

  >>> seed = Seed("s", "Add the numbers.", (("1, 2", "3"),), False)
  >>> text = instance_prompt("Double it.", [seed], ENGLISH, output_first=False)
  >>> print(text.partition("\n\n")[2])
  Task: Add the numbers.
  Example 1
  1, 2
  Output: 3
  <BLANKLINE>
  Task: Double it.
  <BLANKLINE>

  Args:
    instruction: that instances are wanted for.
    examples: classification tasks for `output_first`, others else.
    wording: of the parts.
    output_first: whether labels stand before inputs.
  """
  form = _labels_first if output_first else _inputs_first
  head = wording.output_first if output_first else wording.input_first
  blocks = [
    f"{wording.task} {squeeze(s.instruction)}\n{form(s, wording)}"
    for s in examples
  ]
  return "\n\n".join([head, *blocks, f"{wording.task} {instruction}\n"])


def _inputs_first(seed: Seed, wording: Wording) -> str:
  lines = []
  for k, (given, output) in enumerate(seed.instances, 1):
    # A task without an input has one output and no numbered examples.
    if given:
      lines.append(f"{wording.example} {k}\n{given.strip()}")
    lines.append(f"{wording.output} {output.strip()}")
  return "\n".join(lines)


def _labels_first(seed: Seed, wording: Wording) -> str:
  lines = []
  for given, output in seed.instances:
    lines.append(f"{wording.label} {output.strip()}")
    if given:
      lines.append(given.strip())
  return "\n".join(lines)


def check_examples(
  seeds: Sequence[Seed], classification: bool, name: str
) -> list[Seed]:
  """The seeds of one kind.

  Raises:
    UserError: there is none, so that prompts would have no example.
  """
  found = [s for s in seeds if s.is_classification == classification]
  if not found:
    raise UserError(
      f"{name} needs a seed with is_classification"
      f" {'true' if classification else 'false'}; none of the"
      f" {len(seeds):,} seeds has it."
    )
  return found
