"""Self-Instruct's first step: new instructions from a list of known ones.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2 and
appendix A; the rules are those of its code.
"""

import dataclasses
import random
import re
from collections.abc import Sequence
from typing import Any

from flan_jax.curation import wording as wording_lib
from flan_jax.curation.asking import Decoding
from flan_jax.curation.growth import Admitted, Asked, Piece
from flan_jax.curation.seeds import Seed
from flan_jax.curation.wording import Wording
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError

# Between instructions, as the published code cuts a reply.
_PUBLISHED = re.compile(r"\n\d+\s?\. ?")
# Also at the start of a reply, and with the marks that other models write.
_NUMBER = re.compile(r"(?:^|\n)[ \t]*\**\d+\s?[.)、．:：]\**(?!\d)\s*")
_BULLET = re.compile(r"(?:^|\n)[ \t]*[-*•][ \t]+")
CUT_OFF = "cut off"
ANOTHER_FORMAT = "another format"

DECODING = Decoding(
  1024,
  temperature=0.7,
  top_p=0.5,
  presence_penalty=2.0,
  stop=("\n\n", "\n16", "16.", "16 ."),
)


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """What a prompt for instructions shows, and how a reply is read.

  Attributes:
    in_context: instructions in a prompt.
    machine_in_context: of them, at most so many that were generated.
    classification: whether only classification seeds are shown, and
      classification tasks asked for.
    faithful: whether the published code's defects are kept: a reply that was
      cut off is dropped whole, and all letters after the first become small.
    decoding: how replies are drawn.

  Raises:
    UserError: numbers that do not fit.
  """

  in_context: int = 8
  machine_in_context: int = 2
  classification: bool = False
  faithful: bool = False
  decoding: Decoding = DECODING

  def __post_init__(self):
    if not 0 <= self.machine_in_context < self.in_context:
      raise UserError(
        f"MACHINE_IN_CONTEXT is {self.machine_in_context} and IN_CONTEXT is"
        f" {self.in_context}; at least one instruction of a prompt is a seed's."
      )


def seeds_in_context(options: Bootstrap, seeds: Sequence[Seed]) -> list[Seed]:
  """The seeds that prompts show.

  Raises:
    UserError: fewer than the first prompt needs.
  """
  found = list(seeds)
  if options.classification:
    found = wording_lib.check_examples(seeds, True, "CLASSIFICATION_ONLY")
  if len(found) < options.in_context:
    raise UserError(
      f"the first prompt shows IN_CONTEXT = {options.in_context} seeds, and"
      f" there are {len(found)}. Give more seeds or a smaller IN_CONTEXT."
    )
  return found


def ask(
  number: int,
  admitted: Sequence[Admitted],
  *,
  seeds: Sequence[Seed],
  options: Bootstrap,
  wording: Wording,
  seed: int,
) -> Asked:
  """The request of that number.

  Its prompt shows up to `machine_in_context` generated instructions and seeds
  for the rest, in a drawn order.
  """
  # A text seeds the same generator on every machine.
  draws = random.Random(f"{seed} {number}")
  machine = draws.sample(
    range(len(admitted)), min(options.machine_in_context, len(admitted))
  )
  human = draws.sample(range(len(seeds)), options.in_context - len(machine))
  shown = [(admitted[i].id, admitted[i].instruction) for i in machine]
  shown += [(seeds[i].id, seeds[i].instruction) for i in human]
  draws.shuffle(shown)
  prompt = wording_lib.instruction_prompt(
    [text for _, text in shown], wording, classification=options.classification
  )
  request = options.decoding.request(prompt, number)
  return Asked(request, tuple(id for id, _ in shown))


def read(reply: Reply, *, faithful: bool = False) -> list[Piece]:
  r"""The instructions in a reply.

  >>> reply = Reply(" Name a fruit.\n10. Sort it.")
  >>> [p.row["instruction"] for p in read(reply)]
  ['Name a fruit.', 'Sort it.']
  >>> [p.reason for p in read(Reply(" Name a fruit.\n10. So", complete=False))]
  [None, 'cut off']

  Args:
    reply: to a prompt that ends with a number.
    faithful: see `Bootstrap`.
  """
  if faithful:
    if not reply.complete:
      return [_piece(reply.text, CUT_OFF)]
    parts = [wording_lib.squeeze(p) for p in _PUBLISHED.split(reply.text)]
    return [_piece(p.capitalize()) for p in parts if p]
  mark = _NUMBER if _NUMBER.search(reply.text) else _BULLET
  parts = [p for p in mark.split(reply.text) if p.strip()]
  if len(parts) == 1 and not mark.search(reply.text):
    # The prompt ended with a number: the first line is that instruction.
    first, _, rest = reply.text.strip().partition("\n")
    if rest.strip():
      return [_piece(first), _piece(rest, ANOTHER_FORMAT)]
  out = [_piece(p) for p in parts]
  if out and not reply.complete:
    out[-1] = dataclasses.replace(out[-1], reason=CUT_OFF)
  return out


def _piece(text: str, reason: str | None = None) -> Piece:
  row: dict[str, Any] = {"instruction": wording_lib.squeeze(text)}
  return Piece(row, reason)
