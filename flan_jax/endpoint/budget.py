"""What may be spent on a run, and what has been.

The journal counts what earlier runs spent too, so a budget is that of the
whole piece of work and not of one start of it.
"""

import asyncio
import dataclasses

from flan_jax.endpoint.journal import Journal
from flan_jax.errors import UserError


class BudgetSpent(UserError):
  """The next request would go over the budget; what was answered is kept."""


@dataclasses.dataclass(frozen=True)
class Budget:
  """Limits of a piece of work; None: no limit.

  >>> Budget(tokens=0)
  Traceback (most recent call last):
  flan_jax.errors.UserError: BUDGET_TOKENS is 0: nothing could be asked. Give a\
 number above 0, or None for no limit.

  Attributes:
    tokens: read and written, together.
    cost: in the currency of the prices.
    requests: answers.

  Raises:
    UserError: a limit that is not above 0.
  """

  tokens: int | None = None
  cost: float | None = None
  requests: int | None = None

  def __post_init__(self):
    for name in ("tokens", "cost", "requests"):
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise UserError(
          f"BUDGET_{name.upper()} is {value}: nothing could be asked. Give a"
          " number above 0, or None for no limit."
        )


@dataclasses.dataclass(frozen=True)
class Prices:
  """Per million tokens, in any one currency.

  >>> Prices(prompt=2.5, completion=10.0).cost(1000, 100)
  0.0035
  """

  prompt: float = 0.0
  completion: float = 0.0

  def __post_init__(self):
    for name in ("prompt", "completion"):
      if not getattr(self, name) >= 0:
        raise UserError(
          f"PRICE_{name.upper()} is {getattr(self, name)}; it is 0 or more."
        )

  def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
    """The price of one request."""
    dear = prompt_tokens * self.prompt + completion_tokens * self.completion
    return dear / 1e6


class Meter:
  """Compares what is spent, and what may be on its way, with the budget.

  A request holds its estimated tokens and its `max_tokens` until it is
  answered. What the prompt is estimated too low is the most by which a
  token budget can be passed.
  """

  def __init__(self, budget: Budget, prices: Prices, journal: Journal):
    self._budget, self._prices, self._journal = budget, prices, journal
    self._held: list[tuple[int, int]] = []
    self._settled = asyncio.Event()

  async def hold(self, prompt_tokens: int, completion_tokens: int) -> None:
    """Waits until there is room for a request that needs at most so much.

    Raises:
      BudgetSpent: there will be none, since nothing is on its way.
    """
    asked = prompt_tokens, completion_tokens
    while over := self._over([*self._held, asked]):
      if not self._held:
        name, used, more, limit = over
        raise BudgetSpent(
          f"BUDGET_{name} is {limit:,}: {used:,} are spent and the next"
          f" request may take {more:,}. {self._journal.totals.responses:,}"
          f" answers are kept in {self._journal.path}; raise BUDGET_{name} and"
          " the same command goes on."
        )
      self._settled.clear()
      await self._settled.wait()
    self._held.append(asked)

  def release(self, prompt_tokens: int, completion_tokens: int) -> None:
    """The request is over, and what it took stands in the journal."""
    self._held.remove((prompt_tokens, completion_tokens))
    self._settled.set()

  def _over(self, held):
    totals, budget = self._journal.totals, self._budget
    tokens = sum(map(sum, held))
    cost = sum(self._prices.cost(*h) for h in held)
    for name, used, more, limit in (
      ("TOKENS", totals.tokens, tokens, budget.tokens),
      ("COST", round(totals.cost, 6), round(cost, 6), budget.cost),
      ("REQUESTS", totals.responses, len(held), budget.requests),
    ):
      if limit is not None and used + more > limit:
        return name, used, more, limit
    return None
