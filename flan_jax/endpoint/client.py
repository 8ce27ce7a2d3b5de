"""Any OpenAI-compatible HTTP endpoint as a text generator.

Many requests are on their way at once in one event loop; the client library
is httpx2, because a limit on the whole of a response (and not on each read of
it) and a clean stop of all requests are one line each there, it reads proxies
and certificates as the system has them, and it comes with `tokenizers` anyway.

What goes wrong, and what is done:

  an attempt fails (timeout, 408, 409, 425, 429, 5xx, a body that is cut or no
    answer): tried again, after a doubling wait with jitter or what
    `Retry-After` asks for, which holds all other requests too;
  400, 413, 422 and the like: this request has no answer; the others go on;
  401, 403, 404: the run stops, since no request can do better;
  nothing listens: at the start, one error; later, all requests pause until it
    answers again, at most `patience` seconds;
  many requests fail one after another: the run stops.

However a run stops, what was answered is in the journal and the same command
goes on from there.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2

from flan_jax.endpoint import pace as pace_lib
from flan_jax.endpoint import wire
from flan_jax.endpoint.budget import Budget, Meter, Prices
from flan_jax.endpoint.exchange import Failure, Line
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import OnReply, Reply, Request, pending
from flan_jax.errors import UserError, check_known

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
FATAL = {301, 302, 307, 308, 401, 403, 404, 405}
# Requests that fail one after another before the run stops.
FAILURES_IN_A_ROW = 20


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """An endpoint and how it is asked.

      endpoint = Endpoint("http://localhost:8000/v1", "my-model")
      with Journal("journal.jsonl") as journal:
        endpoint.generate([Request("Name a fruit.")], journal=journal)[0].text

  Attributes:
    base_url: up to the version: `https://host/v1`. No key in it.
    model: its name there.
    api: "chat" or "completions".
    key_variable: the environment's variable that holds the key; None: none is
      sent. The key is read when it is needed and written nowhere.
    concurrency: requests on their way at once.
    requests_per_minute, tokens_per_minute: None: no limit.
    timeout: seconds for the whole of a response.
    retries: further attempts of a request.
    patience: seconds to wait for an endpoint that went down.
    budget: at which the run stops.
    prices: that costs are counted by.
    max_tokens_field: what the endpoint calls a request's `max_tokens`; newer
      models want "max_completion_tokens".
    say: what tells of pauses.

  Raises:
    UserError: a value that is out of range, a URL that cannot be used.
  """

  base_url: str
  model: str
  api: str = "chat"
  key_variable: str | None = None
  concurrency: int = 8
  requests_per_minute: float | None = None
  tokens_per_minute: float | None = None
  timeout: float = 120.0
  retries: int = 6
  patience: float = 600.0
  budget: Budget = dataclasses.field(default_factory=Budget)
  prices: Prices = dataclasses.field(default_factory=Prices)
  max_tokens_field: str = "max_tokens"
  say: Callable[[str], None] = print

  def __post_init__(self):
    check_known("API", self.api, tuple(wire.APIS))
    check_known(
      "MAX_TOKENS_FIELD", self.max_tokens_field, wire.MAX_TOKENS_FIELDS
    )
    _check_url(self.base_url)
    if not self.model or not isinstance(self.model, str):
      raise UserError(f"ENDPOINT_MODEL is {self.model!r}; name the model.")
    for name, least in (("concurrency", 1), ("retries", 0), ("patience", 0)):
      if not getattr(self, name) >= least:
        raise UserError(
          f"{name.upper()} is {getattr(self, name)}; give {least} or more."
        )
    if not self.timeout > 0:
      raise UserError(f"TIMEOUT is {self.timeout}; give seconds above 0.")
    if self.budget.cost is not None and self.prices == Prices():
      raise UserError(
        f"BUDGET_COST is {self.budget.cost}, but PRICE_PROMPT and"
        " PRICE_COMPLETION are 0: nothing would count. Give the prices per"
        " million tokens."
      )
    pace_lib.Pace(self.requests_per_minute, self.tokens_per_minute)

  @property
  def identity(self) -> Mapping[str, Any]:
    """What names the model: where it is, its name, the form of asking."""
    return {
      "model": self.model,
      "base_url": self.base_url.rstrip("/"),
      "api": self.api,
    }

  def generate(
    self,
    requests: Sequence[Request],
    *,
    journal: Journal,
    on_reply: OnReply | None = None,
  ) -> list[Reply]:
    """See `Generator.generate`.

    Raises:
      BudgetSpent: the budget does not suffice for the next request.
      UserError: the endpoint cannot be reached, refuses the key, does not know
        the model, was down for longer than `patience`, or has failed many
        requests one after another; the variable with the key is not set.
    """
    keys = [r.key(self.identity) for r in requests]
    replies, left = pending(requests, keys, journal)
    if on_reply:
      for number, reply in enumerate(replies):
        if reply is not None:
          on_reply(number, reply)

    def done(key: str, reply: Reply):
      for number in left[key]:
        replies[number] = reply
        if on_reply:
          on_reply(number, reply)

    if left:
      queue = [(key, requests[numbers[0]]) for key, numbers in left.items()]
      for _, request in queue:
        self.body(request)
      _run(lambda: _Session(self, journal, self._key(), done).ask_all(queue))
    return replies

  def body(self, request: Request) -> dict[str, Any]:
    """The JSON that asks a request; see `wire.body`."""
    if request.target:
      raise UserError(
        "Request: target: an endpoint gives no log-probability of a given text."
        " Use a checkpoint."
      )
    return wire.body(request, self.model, self.api, self.max_tokens_field)

  def _key(self) -> str | None:
    if self.key_variable is None:
      return None
    key = os.environ.get(self.key_variable, "").strip()
    if not key:
      raise UserError(
        f"the environment has no {self.key_variable}, which is to hold the key"
        f" for {self.base_url}. Export it, or set API_KEY_VARIABLE to None if"
        " the endpoint needs none."
      )
    return key


class _Session:
  """One call of `generate`."""

  def __init__(self, endpoint: Endpoint, journal: Journal, key, done):
    self._endpoint, self._journal, self._done = endpoint, journal, done
    self._secret = key
    self._pace = pace_lib.Pace(
      endpoint.requests_per_minute,
      endpoint.tokens_per_minute,
      sleep=self._sleep,
    )
    self._meter = Meter(endpoint.budget, endpoint.prices, journal)
    self._probing = asyncio.Lock()
    self._stop: UserError | None = None
    self._stopped = asyncio.Event()
    self._failed_in_a_row = 0
    self._url = endpoint.base_url.rstrip("/") + wire.APIS[endpoint.api]

  async def ask_all(self, requests: Sequence[tuple[str, Request]]) -> None:
    queue = collections.deque(requests)
    headers = {"Authorization": f"Bearer {self._secret}"}
    async with httpx2.AsyncClient(
      headers=headers if self._secret else {},
      timeout=httpx2.Timeout(self._endpoint.timeout, connect=10.0, pool=None),
      limits=httpx2.Limits(max_connections=self._endpoint.concurrency + 1),
    ) as client:
      self._line = Line(
        client,
        self._endpoint.base_url,
        self._url,
        self._secret,
        self._endpoint.timeout,
      )
      why = await self._line.unreachable()
      if why and not self._journal.written:
        raise UserError(
          f"{self._endpoint.base_url} cannot be reached: {why}. Check BASE_URL"
          " and that the server runs."
        )
      if why:
        # It has answered this run already: it went down since.
        await self._pause(why)
      count = min(self._endpoint.concurrency, len(queue))
      async with asyncio.TaskGroup() as group:
        for _ in range(count):
          group.create_task(self._work(queue))
    if self._stop is not None:
      raise self._stop

  async def _work(self, queue):
    # A worker that must stop lets the others end what they have asked.
    while queue and self._stop is None:
      key, request = queue.popleft()
      held = request.estimated_tokens, _most_tokens(request)
      try:
        await self._meter.hold(*held)
      except UserError as e:
        self._halt(e)
        return
      try:
        reply = await self._ask(key, request)
      except UserError as e:
        self._halt(e)
        return
      finally:
        self._meter.release(*held)
      self._done(key, reply)
      self._count(reply)

  def _halt(self, error: UserError):
    """The first reason to stop is the one that is told."""
    self._stop = self._stop or error
    self._stopped.set()

  async def _sleep(self, seconds: float):
    """Waits, but not for a run that has stopped."""
    with contextlib.suppress(TimeoutError):
      await asyncio.wait_for(self._stopped.wait(), seconds)
    if self._stop is not None:
      raise self._stop

  def _count(self, reply):
    if not reply.error:
      self._failed_in_a_row = 0
      return
    self._failed_in_a_row += 1
    if self._failed_in_a_row >= FAILURES_IN_A_ROW:
      self._halt(
        UserError(
          f"{self._url}: {self._failed_in_a_row} requests failed one after"
          f" another, the last one so: {reply.error} What was answered is kept"
          f" in {self._journal.path}; the same command goes on."
        )
      )

  async def _ask(self, key: str, request: Request) -> Reply:
    content = self._endpoint.body(request)
    attempt = 1
    while True:
      await self._pace.wait(request.estimated_tokens + _most_tokens(request))
      if self._stop is not None:
        raise self._stop
      self._journal.append(
        {
          "record": "request",
          "key": key,
          "attempt": attempt,
          "time": round(time.time(), 3),
          "url": self._url,
          "body": content,
        }
      )
      outcome = await self._exchange(key, content, request, attempt)
      if isinstance(outcome, Reply):
        return outcome
      if outcome.status in FATAL:
        raise UserError(self._fatal(outcome))
      if outcome.down:
        await self._pause(outcome.reason)
        continue
      client_side = 400 <= (outcome.status or 0) < 500
      if outcome.final or (client_side and outcome.status not in RETRIED):
        return Reply(error=f"{outcome.reason}.")
      if attempt > self._endpoint.retries:
        return Reply(error=f"{attempt} attempts; the last: {outcome.reason}.")
      wait = pace_lib.delay(attempt)
      if outcome.after is not None:
        wait = max(wait, outcome.after)
        self._pace.hold(outcome.after)
      if wait > max(self._endpoint.patience, pace_lib.LONGEST_DELAY):
        return Reply(
          error=f"it asks to wait {wait:,.0f} seconds ({outcome.reason})."
        )
      await self._sleep(wait)
      attempt += 1

  async def _exchange(self, key, content, request, attempt) -> Reply | Failure:
    """One attempt; its outcome is in the journal when this returns."""
    outcome = await self._line.post(content)
    answered = not isinstance(outcome, Failure)
    record = {"key": key, "attempt": attempt, "time": round(time.time(), 3)}
    if answered:
      text, seconds = outcome
      try:
        reply = wire.reply(
          text, request, self._endpoint.api, self._endpoint.prices, seconds
        )
      except wire.Unreadable as e:
        outcome = Failure(str(e), 200, text, final=e.final)
      else:
        self._journal.append(
          {"record": "response", **record, "status": 200, "reply": reply.record}
        )
        return reply
    self._journal.append(
      {
        "record": "failure",
        **record,
        "status": outcome.status,
        "reason": outcome.reason,
        "body": outcome.body[:2000],
        # An answer that cannot be read was written and is paid for.
        "used": self._spent(request) if answered else None,
      }
    )
    return outcome

  async def _pause(self, reason):
    """Until it answers again; one of all waiting requests looks."""
    async with self._probing:
      if self._stop is not None:
        raise self._stop
      if not await self._line.unreachable():
        return
      patience = self._endpoint.patience
      self._endpoint.say(
        f"{self._endpoint.base_url} is down ({reason}); waiting up to"
        f" {patience:,.0f} seconds for it. {len(self._journal):,} answers are"
        f" kept in {self._journal.path}."
      )
      began, attempt = time.monotonic(), 0
      while (gone := time.monotonic() - began) < patience:
        attempt += 1
        wait = min(pace_lib.delay(attempt), patience - gone)
        await asyncio.sleep(wait)
        if not await self._line.unreachable():
          self._endpoint.say(f"{self._endpoint.base_url} answers again.")
          return
      self._halt(
        UserError(
          f"{self._endpoint.base_url} was down for {patience:,.0f} seconds"
          f" ({reason}). {len(self._journal):,} answers are kept in"
          f" {self._journal.path}; the same command goes on."
        )
      )
      raise self._stop

  def _spent(self, request):
    prompt = request.estimated_tokens
    completion = _most_tokens(request)
    return {
      "prompt_tokens": prompt,
      "completion_tokens": completion,
      "cost": self._endpoint.prices.cost(prompt, completion),
    }

  def _fatal(self, failure) -> str:
    if failure.status in (401, 403):
      key = self._endpoint.key_variable
      way_out = (
        f"Check the key in the environment's {key}"
        if key
        else "Name the environment's variable with the key in API_KEY_VARIABLE"
      )
    elif failure.status in (404, 405):
      way_out = (
        f"Check BASE_URL, API {self._endpoint.api!r} and ENDPOINT_MODEL"
        f" {self._endpoint.model!r}"
      )
    else:
      way_out = "It sends elsewhere: give that address as BASE_URL"
    return f"{self._url}: {failure.reason}. {way_out}."


def _most_tokens(request: Request) -> int:
  return 1 if request.choices else request.max_tokens


def _check_url(url: str) -> None:
  if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#@]*)?", url or ""):
    raise UserError(
      "BASE_URL must be like http://host:8000/v1, without a user, a password,"
      " a query or a key in it (keys come from the environment)."
    )


def _run(start: Callable[[], Any]) -> None:
  """Runs an event loop, also inside another one's thread (a notebook)."""

  def loop():
    try:
      asyncio.run(start())
    except BaseExceptionGroup as group:
      raise group.exceptions[0] from None

  try:
    asyncio.get_running_loop()
  except RuntimeError:
    return loop()
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    return pool.submit(loop).result()
