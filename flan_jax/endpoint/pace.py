"""When the next request may go: rate limits, and waits after a failure."""

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable

from flan_jax.errors import UserError

# Seconds before a second attempt, and the longest wait that we choose.
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


class Pace:
  """Spaces requests evenly, so that no minute goes over a limit.

  Attributes:
    requests_per_minute, tokens_per_minute: None: no limit.
  """

  def __init__(
    self,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
  ):
    for name, value in (
      ("REQUESTS_PER_MINUTE", requests_per_minute),
      ("TOKENS_PER_MINUTE", tokens_per_minute),
    ):
      if value is not None and not value > 0:
        raise UserError(f"{name} is {value}; give a number above 0, or None.")
    self._requests, self._tokens = requests_per_minute, tokens_per_minute
    self._clock, self._sleep = clock, sleep
    self._next = 0.0
    self._held_until = 0.0

  async def wait(self, tokens: int) -> None:
    """Returns when a request of so many tokens may go."""
    gap = 0.0
    if self._requests is not None:
      gap = 60.0 / self._requests
    if self._tokens is not None:
      gap = max(gap, 60.0 * tokens / self._tokens)
    # Taken before sleeping, so that the next one stands behind it.
    turn = max(self._clock(), self._next)
    self._next = turn + gap
    while (now := self._clock()) < max(turn, self._held_until):
      await self._sleep(max(turn, self._held_until) - now)

  def hold(self, seconds: float) -> None:
    """Nothing goes for so long: the endpoint has asked for it."""
    self._held_until = max(self._held_until, self._clock() + seconds)


def delay(attempt: int, draw: Callable[[], float] = random.random) -> float:
  """Seconds before the next attempt: doubling, with jitter.

  >>> [delay(n, lambda: 1.0) for n in (1, 2, 3, 9)]
  [1.0, 2.0, 4.0, 60.0]

  Args:
    attempt: how many have failed, 1 or more.
    draw: uniform in [0, 1); half of the wait is drawn, so that clients that
      failed together do not come back together.
  """
  whole = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (attempt - 1))
  return whole / 2 + whole / 2 * draw()


def retry_after(value: str | None, now: float | None = None) -> float | None:
  """Seconds that a `Retry-After` header asks for; None: it asks for nothing.

  >>> retry_after("2.5"), retry_after("soon")
  (2.5, None)
  >>> retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=45.0)
  15.0

  Args:
    value: of the header: seconds, or a date (RFC 9110, section 10.2.3).
    now: seconds since 1970.
  """
  if value is None:
    return None
  try:
    seconds = float(value)
  except ValueError:
    try:
      date = email.utils.parsedate_to_datetime(value)
    except ValueError:
      return None
    seconds = date.timestamp() - (time.time() if now is None else now)
  return max(0.0, seconds) if seconds < 1e9 else None
