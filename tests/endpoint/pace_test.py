"""Rates and waits, with a clock of its own."""

import asyncio
import doctest

from flan_jax.endpoint import budget, client, pace, request, wire
from flan_jax.endpoint.pace import Pace, delay, retry_after


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now

  async def sleep(self, seconds):
    self.now += seconds


def starts(pace, clock, tokens):
  async def run():
    out = []
    for t in tokens:
      await pace.wait(t)
      out.append(round(clock.now - 100.0, 6))
    return out

  return asyncio.run(run())


def made(*limits):
  clock = Clock()
  return Pace(*limits, clock=clock, sleep=clock.sleep), clock


def test_requests_and_tokens_are_spaced():
  assert starts(*made(None, None), [5, 5, 5]) == [0, 0, 0]
  assert starts(*made(60, None), [5, 5, 5]) == [0, 1, 2]
  assert starts(*made(None, 600), [10, 50, 1]) == [0, 1, 6]
  assert starts(*made(60, 600), [10, 50, 1]) == [0, 1, 6]


def test_a_hold_is_for_all():
  spaced, clock = made(60, None)
  spaced.hold(5.0)
  assert starts(spaced, clock, [1, 1]) == [5, 5]


def test_waits_double_with_jitter():
  waits = [delay(3) for _ in range(50)]
  assert all(2.0 <= w < 4.0 for w in waits)
  assert len(set(waits)) > 40


def test_retry_after():
  assert retry_after(None) is None
  assert retry_after("-3") == 0.0
  assert retry_after("nan") is None
  assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_docstrings():
  for module in (budget, client, pace, request, wire):
    assert doctest.testmod(module).failed == 0
