"""The texts of APE: what asks for an instruction, and what tries one.

Marks in a template: `[PROMPT]`, the instruction that is tried; `[INPUT]` and
`[OUTPUT]` of an example; `[full_DEMO]`, several examples; `[APE]`, the
instruction that is asked for, exactly once.

Source: Zhou et al., 2023, "Large language models are human-level prompt
engineers" (arXiv 2211.01910), section 3 and its code.
"""

import dataclasses
from collections.abc import Sequence

from flan_jax.errors import UserError, check_known

MODES = ("forward", "insert")
FORWARD = (
  "I gave a friend an instruction. Based on the instruction they produced the"
  " following input-output pairs:\n\n[full_DEMO]\n\nThe instruction was to"
  " [APE]"
)
INSERT = "Instruction: [APE]\n\n[full_DEMO]"
EVALUATION = "Instruction: [PROMPT]\nInput: [INPUT]\nOutput: [OUTPUT]"
DEMO = "Input: [INPUT]\nOutput: [OUTPUT]"
VARIATION = (
  "Generate a variation of the following instruction while keeping the semantic"
  " meaning.\n\nInput: [PROMPT]\nOutput: [APE]"
)
MARKS = ("[PROMPT]", "[INPUT]", "[OUTPUT]", "[full_DEMO]", "[APE]")


@dataclasses.dataclass(frozen=True)
class Example:
  """An input of a task with all outputs that are right."""

  input: str
  outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Templates:
  """The texts of a search.

  Attributes:
    mode: "forward", the instruction is at the end of what the model reads, or
      "insert", it is filled in.
    proposal: with [full_DEMO] and [APE]; None: the mode's own.
    evaluation: with [PROMPT], [INPUT] and [OUTPUT], the output last.
    demo: one example, with [INPUT] and [OUTPUT].
    variation: with [PROMPT] and [APE], for Monte-Carlo resampling.
    infill: how a generator is asked to fill in, with {prefix} and {suffix}, for
      example "{prefix}<extra_id_0>{suffix}" for T5; None: the suffix goes into
      the `suffix` field of an endpoint of the completions API.

  Raises:
    UserError: an unknown mode, a template without its marks, an option that
      the mode does not read.
  """

  mode: str = "forward"
  proposal: str | None = None
  evaluation: str = EVALUATION
  demo: str = DEMO
  variation: str = VARIATION
  infill: str | None = None

  def __post_init__(self):
    check_known("MODE", self.mode, MODES)
    for name, template, marks in (
      ("PROPOSAL_TEMPLATE", self.proposing, ("[full_DEMO]", "[APE]")),
      ("EVAL_TEMPLATE", self.evaluation, ("[PROMPT]", "[INPUT]", "[OUTPUT]")),
      ("DEMO_TEMPLATE", self.demo, ("[INPUT]", "[OUTPUT]")),
      ("VARIATION_TEMPLATE", self.variation, ("[PROMPT]", "[APE]")),
    ):
      for mark in MARKS:
        count = template.count(mark)
        if count != (mark in marks):
          raise UserError(
            f"{name} has {mark} {count} times; it must have"
            f" {' and '.join(marks)} once each and no other mark."
          )
    for name, template, mark in (
      ("EVAL_TEMPLATE", self.evaluation, "[OUTPUT]"),
      ("VARIATION_TEMPLATE", self.variation, "[APE]"),
      ("PROPOSAL_TEMPLATE", FORWARD if self.mode == "insert" else
       self.proposing, "[APE]"),
    ):  # fmt: skip
      if not template.endswith(mark):
        raise UserError(
          f"{name} must end with {mark}: what the model writes comes there."
        )
    if self.infill is None:
      return
    if self.mode != "insert":
      raise UserError("INFILL has no effect with MODE 'forward'.")
    for mark in ("{prefix}", "{suffix}"):
      if self.infill.count(mark) != 1:
        raise UserError(f"INFILL must have {mark} once: {self.infill!r}.")

  @property
  def proposing(self) -> str:
    """The template of proposals."""
    if self.proposal is not None:
      return self.proposal
    return FORWARD if self.mode == "forward" else INSERT

  def proposal_parts(self, demos: Sequence[Example]) -> tuple[str, str]:
    """What stands before and after the instruction that is asked for."""
    text = "\n\n".join(
      fill(self.demo, {"[INPUT]": d.input, "[OUTPUT]": d.outputs[0]})
      for d in demos
    )
    before, _, after = self.proposing.partition("[APE]")
    filled = [fill(t, {"[full_DEMO]": text}) for t in (before, after)]
    return filled[0].rstrip(" "), filled[1]

  def variation_prompt(self, instruction: str) -> str:
    """What asks for another wording of an instruction."""
    before = self.variation.partition("[APE]")[0]
    return fill(before, {"[PROMPT]": instruction}).rstrip(" ")

  def evaluation_prompt(self, instruction: str, given: str) -> str:
    """What a model reads that tries an instruction on an input.

    Without white space at its end: tokens of most vocabularies begin with it.
    """
    before = self.evaluation.partition("[OUTPUT]")[0]
    values = {"[PROMPT]": instruction, "[INPUT]": given}
    return fill(before, values).rstrip(" ")

  def target(self, output: str) -> str:
    """The output as it follows `evaluation_prompt`."""
    before = self.evaluation.partition("[OUTPUT]")[0]
    return before[len(before.rstrip(" ")) :] + output


def fill(template: str, values: dict[str, str]) -> str:
  """Values in place of marks; marks inside a value stay as they are.

  >>> fill("[INPUT] -> [OUTPUT]", {"[INPUT]": "[OUTPUT]", "[OUTPUT]": "b"})
  '[OUTPUT] -> b'
  """
  out, rest = [], template
  while rest:
    places = [(rest.find(m), m) for m in values if m in rest]
    if not places:
      break
    place, mark = min(places)
    out += [rest[:place], values[mark]]
    rest = rest[place + len(mark) :]
  return "".join([*out, rest])
