"""Makes instruction data from seeds in one call for many tasks: Alpaca.

  python launch/run.py --gin_file=gin/curate_alpaca.gin \
      --gin_file=gin/backends/endpoint.gin --gin.API=completions \
      --gin.BASE_URL=http://localhost:8000/v1 --gin.ENDPOINT_MODEL=my-model

Each prompt shows three seeds with input and output and asks for a list of
twenty tasks, which the reply goes on with from the fourth. Alpaca's own list of
requirements is numbered wrongly, and its data were made with that; both forms
are here (`prompt`), in our words.

Source: Taori et al., 2023, "Stanford Alpaca: an instruction-following LLaMA
model", and the rules of its code.
"""

import dataclasses
import functools
import os
import random
import re
from collections.abc import Sequence
from typing import Any

from flan_jax.curation import run as run_lib
from flan_jax.curation import seeds as seeds_lib
from flan_jax.curation import text_rules
from flan_jax.curation import wording as wording_lib
from flan_jax.curation.asking import Decoding
from flan_jax.curation.bootstrap import ANOTHER_FORMAT, CUT_OFF
from flan_jax.curation.growth import Admitted, Asked, Growth, Piece, grow
from flan_jax.curation.seeds import Seed
from flan_jax.endpoint.request import Generator, Reply
from flan_jax.errors import UserError, check_known

METHOD = "alpaca"
NO_INPUT = "<noinput>"
PROMPTS = ("as used", "fixed")
# How Alpaca's file numbers its requirements.
_NUMBERS = {"as used": (1, 2, 3, 2, 3, 4, 5, 6, 7), "fixed": range(1, 10)}
_FIELDS = ("Instruction", "Input", "Output")
# What models write for no input.
_NO_INPUT = re.compile(r"\W*(no[ _]?input|none|n/?a)\W*", re.IGNORECASE)

HEAD = (
  "Write {count} different task instructions. They will be given to a language"
  " model, and we will see how well it follows them.\n\nRequirements:"
)
REQUIREMENTS = (
  "Begin the instructions with different verbs as far as you can.",
  "Vary the form too: some are questions, others are commands.",
  "Cover many types of task: open questions, rewriting, classification,"
  " extraction, planning, stories and so on.",
  "A language model must be able to do the task: it sees and hears nothing, and"
  " it cannot act, such as set an alarm or send a message.",
  "Write in English.",
  "An instruction has one or two sentences.",
  "Give each instruction an input that is realistic and specific, of at most"
  " 100 words, and no placeholder.",
  f'Where a task needs no input, such as a general question, write "{NO_INPUT}"'
  " as its input.",
  "The output answers the instruction and its input in less than 100 words.",
)
LIST = "List of {count} tasks:"
DECODING = Decoding(3072, temperature=1.0, top_p=1.0)


@dataclasses.dataclass(frozen=True)
class Alpaca:
  """What a prompt shows, and how a reply is read.

  Attributes:
    prompt: "as used", with requirements numbered 1, 2, 3, 2, ..., or "fixed";
      or a text of yours with {count} for the number of tasks.
    tasks: in the list that is asked for.
    in_context: of them, seeds in the prompt.
    faithful: whether the published code's defects are kept: only "<noinput>"
      stands for no input, and a task may have an empty output.
    decoding: how replies are drawn; without `stop`, the number after the last
      task ends a reply.

  Raises:
    UserError: an unknown prompt, numbers that do not fit.
  """

  prompt: str = "as used"
  tasks: int = 20
  in_context: int = 3
  faithful: bool = False
  decoding: Decoding = DECODING

  def __post_init__(self):
    if "{count}" not in self.prompt:
      check_known("PROMPT", self.prompt, PROMPTS)
    if not 1 <= self.in_context < self.tasks:
      raise UserError(
        f"IN_CONTEXT is {self.in_context} and TASKS_PER_PROMPT"
        f" {self.tasks}; give 1 or more seeds and more tasks than seeds."
      )

  @property
  def stop(self) -> tuple[str, ...]:
    """What ends a reply; Alpaca's: the number of the last task."""
    if self.decoding.stop:
      return self.decoding.stop
    return (f"\n{self.tasks}", f"{self.tasks}.")


def header(prompt: str, count: int) -> str:
  r"""What stands above the tasks.

  >>> header("as used", 20).split("\n")[6][:2]
  '2.'
  """
  if "{count}" in prompt:
    return prompt.replace("{count}", str(count))
  lines = [
    f"{number}. {text}"
    for number, text in zip(_NUMBERS[prompt], REQUIREMENTS, strict=True)
  ]
  head = HEAD.format(count=count)
  return "\n".join([head, *lines, "", LIST.format(count=count)])


def prompt_of(seeds: Sequence[Seed], options: Alpaca) -> str:
  """The prompt with these seeds, up to the number of the next task."""
  lines = [header(options.prompt, options.tasks)]
  for k, seed in enumerate(seeds, 1):
    given, output = seed.instances[0]
    instruction = wording_lib.squeeze(seed.instruction).rstrip(":")
    lines += [
      "###",
      f"{k}. Instruction: {instruction}",
      f"{k}. Input:\n{given or NO_INPUT}",
      f"{k}. Output:\n{output}",
    ]
  return "\n".join([*lines, "###", f"{len(seeds) + 1}. Instruction:"])


def read(reply: Reply, options: Alpaca | None = None) -> list[Piece]:
  r"""The tasks in a reply.

  >>> text = " Name it.\n4. Input:\n<noinput>\n4. Output:\nIt.\n###\n5. Ins"
  >>> first, second = read(Reply(text, complete=False))
  >>> first.row
  {'instruction': 'Name it.', 'input': '', 'output': 'It.'}
  >>> second.reason
  'cut off'

  A task must have its number on all three fields. Of a reply that was cut off
  the last task is dropped.
  """
  options = options or Alpaca()
  first = options.in_context + 1
  text = reply.text
  begins = rf"\s*(###\s*)?{first}\.\s*Instruction:"
  if options.faithful or not re.match(begins, text):
    text = f"{first}. Instruction:" + text
  parts = text.lstrip().removeprefix("###").split("###")
  out = []
  for place, part in enumerate(parts):
    number = first + place
    last = place == len(parts) - 1
    if last and not reply.complete:
      out.append(Piece({"text": part.strip()}, CUT_OFF))
    elif part.strip():
      out.append(_task(part, number, options.faithful))
  return out


def _task(part: str, number: int, faithful: bool) -> Piece:
  cut = re.split(rf"{number}\.\s+({'|'.join(_FIELDS)}):", part)
  if len(cut) != 7 or tuple(cut[1::2]) != _FIELDS:
    return Piece({"text": part.strip()}, ANOTHER_FORMAT)
  instruction, given, output = (text.strip() for text in cut[2::2])
  if given.lower() == NO_INPUT or (not faithful and _NO_INPUT.fullmatch(given)):
    given = ""
  row = {"instruction": instruction, "input": given, "output": output}
  if not faithful and not output:
    return Piece(row, "empty output")
  return Piece(row)


def ask(
  number: int,
  admitted: Sequence[Admitted],
  *,
  seeds: Sequence[Seed],
  options: Alpaca,
  seed: int,
) -> Asked:
  """The request of that number: all that it shows are seeds."""
  del admitted
  draws = random.Random(f"{seed} {number}")
  shown = draws.sample(list(seeds), options.in_context)
  decoding = dataclasses.replace(options.decoding, stop=options.stop)
  request = decoding.request(prompt_of(shown, options), number)
  return Asked(request, tuple(s.id for s in shown))


def alpaca(
  *,
  generator: Generator,
  output_dir: str | os.PathLike,
  seeds_path: str | None = None,
  growth: Growth | None = None,
  options: Alpaca | None = None,
  include_seeds: bool = False,
) -> dict[str, Any]:
  """Grows tasks from seeds, each with its input and output.

      alpaca(generator=Endpoint("http://localhost:8000/v1", "my-model"),
             growth=Growth(target=1000), output_dir="runs/alpaca")["rows"]
      # 1004

  The folder gets what `self_instruct` writes, but no `instructions.jsonl`;
  `provenance` has what each task was most similar to.

  Args:
    generator: an `Endpoint` or a `Checkpoint`.
    output_dir: a folder.
    seeds_path: see `seeds.read`; None: those of this package.
    growth: which tasks are admitted, and when to stop.
    options: how they are asked for.
    include_seeds: whether the seeds stand in `data.jsonl` too, first.

  Returns:
    Counts, as the manifest has them.

  Raises:
    UserError: seeds that cannot be read or are too few, no task admitted; what
      the generator raises.
  """
  options = options or Alpaca()
  growth = growth or Growth(
    target=52_000,
    rules=text_rules.Rules(keywords=text_rules.ALPACA_KEYWORDS),
  )
  seeds = seeds_lib.read(seeds_path)
  if len(seeds) < options.in_context:
    raise UserError(
      f"a prompt shows IN_CONTEXT = {options.in_context} seeds, and there are"
      f" {len(seeds)}. Give more seeds or a smaller IN_CONTEXT."
    )
  with run_lib.open_run(METHOD, output_dir, generator) as run:
    grown = grow(
      growth,
      [s.instruction for s in seeds],
      functools.partial(
        ask,
        seeds=seeds,
        options=options,
        seed=growth.seed,
      ),
      functools.partial(read, options=options),
      asker=run.asker,
      decisions=run.decisions,
      method=METHOD,
      say=run.say,
      shrink=True,
    )
    rows = [
      {
        **a.row,
        "id": a.id,
        "provenance": run_lib.provenance(METHOD, run.asker.model, a),
        "most_similar_instructions": dict(a.nearest),
        "avg_similarity_score": a.mean_similarity,
      }
      for a in grown.admitted
    ]
    return run.finish(
      rows,
      seeds=seeds if include_seeds else (),
      inputs={"seeds": seeds_lib.resolve(seeds_path)},
      options={
        "growth": growth,
        "alpaca": options,
        "include_seeds": include_seeds,
      },
      model_role="generator",
      table=run_lib.rounds_table(grown.rounds),
      more={
        "requests": grown.requests,
        "stopped": grown.stopped,
        "rounds": grown.rounds,
      },
    )
