"""Response ranking: whether a model knows a response from others' responses.

For an instruction x with response y, and the response y' of another
instruction, the capability holds where score(y | x) > score(y' | x); the value
is the share of such pairs. A model that was never tuned on instructions has it
for most pairs, which is why tuning on responses alone can teach it to follow
instructions.

Two forms of the score, from one pass of `rank.py`:

* `sum`: log p(y | x), as the paper's equation 3 has it;
* `mean`: that divided by the tokens of y, as the released code has it, and as
  the published numbers (Llama-2-7B: 80.4 %, tuned 77.4 %) were made.

The other responses are drawn from the same rows, each once, and none with the
tokens of the instruction's own; the released code draws with replacement and
may draw the own one.

Source: Hewitt et al., 2024 (arXiv 2409.14254), equation 3 and table 2.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import bootstrap, rank

if TYPE_CHECKING:
  from flan_jax.data.evaluation import EvalExample

OTHERS = 5
INSTRUCTIONS = 1000
SCORES = ("mean", "sum")


def pairs(
  rows: Sequence["EvalExample"],
  *,
  others: int = OTHERS,
  instructions: int | None = INSTRUCTIONS,
  seed: int = 0,
) -> list["EvalExample"]:
  """Each instruction with its own response and some of others', as choices.

  Args:
    rows: with `inputs` and `targets`, the instruction's tokens and the
      response's, end included.
    others: responses of other instructions for each.
    instructions: how many are drawn; None, or more than there are: all.
    seed: decides what is drawn.

  Returns:
    Examples of `rank.py`; choice 0 is the instruction's own response.

  Raises:
    UserError: fewer than two different responses, or a row without a response.
  """
  if others < 1:
    raise UserError(f"OTHER_RESPONSES is {others}; give 1 or more.")
  drawn = list(rows)
  if instructions is not None and instructions < len(drawn):
    drawn = random.Random(f"{seed}/instructions").sample(drawn, instructions)
  pool: dict[bytes, EvalExample] = {}
  for row in drawn:
    if not len(row.targets):
      raise UserError(
        f"task {row.task!r}, row {row.index} has no response to rank."
      )
    pool.setdefault(row.targets.tobytes(), row)
  if len(pool) < 2:
    raise UserError(
      f"response ranking needs two different responses; there are {len(pool)}"
      f" in {len(drawn)} rows."
    )
  distinct = list(pool.values())
  out = []
  for number, row in enumerate(drawn):
    own = row.targets.tobytes()
    draw = random.Random(f"{seed}/{number}")
    # One more than needed, since the own response may be among them.
    count = min(others + 1, len(distinct))
    picked = [
      other
      for other in draw.sample(distinct, count)
      if other.targets.tobytes() != own
    ][:others]
    out.append(
      dataclasses.replace(
        row,
        choices=(row.targets, *(o.targets for o in picked)),
        choices_text=(row.targets_text, *(o.targets_text for o in picked)),
        label=0,
      )
    )
  return out


@dataclasses.dataclass(frozen=True)
class RankingScore:
  """How often the own response has the higher score.

  Attributes:
    score: of `SCORES`.
    share: of pairs in which it has, in per cent.
    interval: its 95 % bootstrap interval; instructions are drawn.
    first: instructions whose own response beats all others it is compared
      with, in per cent.
    pairs, instructions: how many.
    ties: pairs of equal scores, which do not count as held.
  """

  score: str
  share: float
  interval: tuple[float, float]
  first: float
  pairs: int
  instructions: int
  ties: int


def scores(ranked: Sequence[rank.Scored]) -> tuple[RankingScore, ...]:
  """The shares of `rank.rank`'s results of `pairs`, for both forms.

  Raises:
    UserError: there is no result.
  """
  if not ranked:
    raise UserError("response ranking: there is no instruction to rank.")
  return tuple(_score(name, ranked) for name in SCORES)


def _score(name: str, ranked: Sequence[rank.Scored]) -> RankingScore:
  own_and_others = [r.by_score[name] for r in ranked]
  held_R = np.array([sum(s[0] > o for o in s[1:]) for s in own_and_others])
  pairs_R = np.array([len(s) - 1 for s in own_and_others])
  draws = [
    weights_XR @ held_R / (weights_XR @ pairs_R)
    for weights_XR in bootstrap.weights(
      np.arange(len(ranked)), bootstrap.generator(f"response ranking {name}")
    )
  ]
  low, high = bootstrap.interval(100 * np.concatenate(draws))
  return RankingScore(
    score=name,
    share=100 * float(held_R.sum() / pairs_R.sum()),
    interval=(low, high),
    first=100 * float((held_R == pairs_R).mean()),
    pairs=int(pairs_R.sum()),
    instructions=len(ranked),
    ties=sum(s[0] == o for s in own_and_others for o in s[1:]),
  )


def row(result: rank.Scored) -> Mapping[str, object]:
  """One instruction with all scores, for a line of JSON; the first response
  is its own."""
  e = result.example
  return {
    "task": e.task,
    "index": int(e.index),
    "template": int(e.template),
    "inputs_text": e.inputs_text,
    "responses": list(e.choices_text),
    **{name: list(result.by_score[name]) for name in SCORES},
  }
