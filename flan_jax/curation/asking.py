"""Asking a generator in the course of a run, so that the run can be repeated.

A run that was stopped asks the same questions again in the same order; the
journal answers those that were answered. What each question is depends on the
answers before it, so a request that failed for good must fail again: it is
noted in the journal (record `given_up`) as soon as a later one is answered.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.endpoint.client import FAILURES_IN_A_ROW
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Generator, Reply, Request
from flan_jax.errors import UserError

# How endpoints say that a prompt and its answer are too long together.
_TOO_LONG = re.compile(
  r"reduce (the length of )?(your|the) (prompt|messages)|context[ _]length",
  re.IGNORECASE,
)
SHRINK = 0.8
FEWEST_TOKENS = 16


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How an answer is drawn.

  >>> Decoding(8, temperature=0.7).request("Name a fruit.").temperature
  0.7

  Attributes:
    max_tokens: of an answer.
    temperature: 0 takes the likeliest token at each step, and reads no top_p.
    top_p: as in `Request`; None: all tokens.
    stop: texts that end an answer.
    presence_penalty, frequency_penalty, extra: as in `Request`.
  """

  max_tokens: int
  temperature: float = 0.0
  top_p: float | None = None
  stop: tuple[str, ...] = ()
  presence_penalty: float = 0.0
  frequency_penalty: float = 0.0
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def request(self, prompt: str, draw: int = 0, *, system: str = "") -> Request:
    """A request with these options."""
    return Request(
      prompt,
      system,
      max_tokens=self.max_tokens,
      temperature=self.temperature,
      top_p=self.top_p if self.temperature else None,
      stop=tuple(dict.fromkeys(self.stop)),
      draw=draw,
      presence_penalty=self.presence_penalty,
      frequency_penalty=self.frequency_penalty,
      extra=self.extra,
    )


class Asker:
  """A generator with its journal, for many rounds of requests.

  Attributes:
    takes_extra: whether the generator reads a request's `extra`.
    identity: of the generator.
    journal: the open one.

  Args:
    generator: an `Endpoint` or a `Checkpoint`.
    journal: an open one.

  Raises:
    UserError: there is no generator.
  """

  def __init__(self, generator: Generator, journal: Journal):
    check_generator(generator)
    self._generator = generator
    self.journal = journal
    self.takes_extra = getattr(generator, "takes_extra", True)
    self.identity = dict(generator.identity)
    self._given_up = {
      r["key"]: r["error"]
      for r in journal.records()
      if r["record"] == "given_up"
    }
    self._failed: dict[str, str] = {}
    self._failed_in_a_row = 0

  @property
  def model(self) -> str:
    """The generator's name."""
    return self.identity["model"]

  def ask(
    self, requests: Sequence[Request], *, shrink: bool = False
  ) -> list[Reply]:
    """The replies, in the order of the requests.

    Args:
      requests: any number.
      shrink: asks again for fewer tokens where prompt and answer are too long
        together for the generator.

    Raises:
      UserError: what the generator raises; many requests that failed one after
        another, over all calls.
    """
    replies = self._ask(requests)
    while shrink:
      again = [
        n
        for n, reply in enumerate(replies)
        if _TOO_LONG.search(reply.error)
        and requests[n].max_tokens * SHRINK >= FEWEST_TOKENS
      ]
      if not again:
        break
      requests = list(requests)
      for n in again:
        fewer = int(requests[n].max_tokens * SHRINK)
        requests[n] = dataclasses.replace(requests[n], max_tokens=fewer)
      for n, reply in zip(
        again, self._ask([requests[n] for n in again]), strict=True
      ):
        replies[n] = reply
    self._count(requests, replies)
    return replies

  def _ask(self, requests) -> list[Reply]:
    keys = [r.key(self.identity) for r in requests]
    left = [n for n, key in enumerate(keys) if key not in self._given_up]
    found = self._generator.generate(
      [requests[n] for n in left], journal=self.journal
    )
    replies = [Reply(error=self._given_up.get(key, "")) for key in keys]
    for n, reply in zip(left, found, strict=True):
      replies[n] = reply
      if reply.error:
        self._failed[keys[n]] = reply.error
    return replies

  def _count(self, requests, replies):
    for request, reply in zip(requests, replies, strict=True):
      key = request.key(self.identity)
      if reply.error:
        if key in self._given_up:
          continue
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
          raise UserError(
            f"{self.model}: {self._failed_in_a_row} requests failed one after"
            f" another, the last one so: {reply.error} What was answered is"
            f" kept in {self.journal.path}; the same command goes on."
          )
        continue
      self._failed_in_a_row = 0
      if self._failed:
        self.journal.append(
          *(
            {"record": "given_up", "key": k, "error": e}
            for k, e in self._failed.items()
          )
        )
        self._given_up |= self._failed
        self._failed = {}


def check_generator(generator: Any) -> None:
  """Refuses a job without a generator.

  Raises:
    UserError: it is None.
  """
  if generator is None:
    raise UserError(
      "BACKEND is None: nothing to ask. Add --gin_file="
      "gin/backends/endpoint.gin or --gin_file=gin/backends/checkpoint.gin."
    )
