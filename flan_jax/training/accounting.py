"""Where the time of a run goes: every second in one category.

    account = Account(folder, began=time.time())
    account.resume(step=0)
    with account.spending("checkpoint"):
      ...
    account.record(step=10)

The categories are times of the main thread, which does one thing at a time, so
they sum to the wall time from the run's first start until now, restarts and the
time between them included:

    start       imports, data, parameters, what a restart reads
    compile     tracing and compiling, whatever was going on
    step        computing training steps
    input       waiting for a batch while no step was being computed
    checkpoint  copying the state, and waiting for a save that is not done
    evaluation  held-out tasks and validation
    lost        work that was done after the checkpoint a restart went back to
    idle        no process, and all that is none of the above

`time.jsonl` has the sums at every logged step. What a run that was killed had
done is known from its last line and from when the file was last touched, which
happens at least every few steps.
"""

import contextlib
import logging
import os
import pathlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping

import jax

from flan_jax.training import writers

CATEGORIES = (
  "start",
  "compile",
  "step",
  "input",
  "checkpoint",
  "evaluation",
  "lost",
  "idle",
)
# Of the work of a step; what a rate of tokens or operations is over.
WORKING = ("step", "input", "checkpoint")
FILE = "time.jsonl"
_COMPILING = "/jax/core/compile/"
_BEAT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Account:
  """The time of one run, through all its starts.

  Attributes:
    seconds: category -> seconds so far, as of the last change of category.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    began: float | None = None,
    clock: Callable[[], float] | None = None,
  ):
    """Args:
    directory: the run's folder, which exists.
    began: when this process began, in seconds since 1970; None: now.
    clock: seconds since 1970; None: steady ones, whatever sets the clock of
      the machine meanwhile.
    """
    self.path = directory / FILE
    self._clock = clock or _steady_clock()
    self._now = self._clock()
    began = self._now if began is None else min(began, self._now)
    self._began = self._first = began
    self.seconds = dict.fromkeys(CATEGORIES, 0.0)
    self.seconds["start"] = self._now - began
    self._category = "start"
    self._beat = self._now
    self._compiled: list[tuple[float, float]] = []
    self._lines: writers.JsonLines | None = None
    self._marks: list[tuple[int, dict[str, float]]] = []
    self._thread = threading.get_ident()
    self._listener = _listener(weakref.WeakMethod(self._on_event))
    jax.monitoring.register_event_duration_secs_listener(self._listener)

  def resume(self, step: int) -> None:
    """Takes over what earlier starts of the run wrote, as of `step`.

    Args:
      step: that this start goes on from; what they did after it is lost.
    """
    rows = [row for row in writers.read(self.path) if _is_row(row)]
    if rows:
      last = rows[-1]
      with contextlib.suppress(OSError):
        touched = self.path.stat().st_mtime
        last = {**last, "time": max(last["time"], min(touched, self._began))}
      kept = next((r for r in reversed(rows) if r["step"] <= step), rows[0])
      self._first = rows[0]["first"]
      carried = _since(kept["seconds"], rows[-1]["seconds"])
      carried["lost"] += last["time"] - rows[-1]["time"]
      carried["idle"] += max(self._began - last["time"], 0.0)
      for name in CATEGORIES:
        self.seconds[name] += carried[name]
      rows = [row for row in rows if row["step"] <= step]
    self._lines = writers.JsonLines(self.path, rows)
    self.record(step)

  def started(self) -> None:
    """The steps begin: what is none of the categories is idle from now on."""
    self._switch("idle")

  @contextlib.contextmanager
  def spending(self, category: str) -> Iterator[None]:
    """The time inside is of `category`, but for what is spent further in."""
    outer = self._category
    self._switch(category)
    try:
      yield
    finally:
      self._switch(outer)

  @contextlib.contextmanager
  def waiting(self, computing: Callable[[], bool]) -> Iterator[None]:
    """Waiting for input, which costs nothing while a step is computed.

    Args:
      computing: whether the device was busy all along, asked at the end.
    """
    outer = self._category
    self._switch("input")
    try:
      yield
    finally:
      self._switch(outer, "step" if computing() else "input")

  def record(self, step: int) -> dict[str, float]:
    """Writes the sums down, with the step they are of, and returns them."""
    self._switch(self._category)
    self._marks.append((step, dict(self.seconds)))
    self._lines.append(
      {
        "step": step,
        "process": os.getpid(),
        "first": self._first,
        "time": self._now,
        "seconds": {n: round(s, 4) for n, s in self.seconds.items()},
      }
    )
    return dict(self.seconds)

  def lose(self, step: int) -> None:
    """The run goes back to `step`: what was done after it is lost."""
    self._switch(self._category)
    kept = next(
      (seconds for at, seconds in reversed(self._marks) if at <= step), None
    )
    if kept is not None:
      self.seconds = _since(kept, self.seconds)
    self._marks = [mark for mark in self._marks if mark[0] <= step]
    self.record(step)

  def working(self) -> float:
    """Seconds of steps, with input and checkpoints, without compiling."""
    self._switch(self._category)
    return sum(self.seconds[name] for name in WORKING)

  def totals(self) -> dict[str, float]:
    """Seconds by category, and `wall`, which they sum to."""
    self._switch(self._category)
    return {**self.seconds, "wall": self._now - self._first}

  def close(self) -> None:
    jax.monitoring.unregister_event_duration_listener(self._listener)
    if self._lines is not None:
      self._lines.close()

  def _switch(self, category: str, spent: str | None = None) -> None:
    """Ends a category; its time goes to `spent` where that is given."""
    now = self._clock()
    self.seconds[spent or self._category] += now - self._now
    self._now, self._category = now, category
    if self._compiled:
      self._compiled = []
    if now - self._beat > _BEAT_SECONDS and self._lines is not None:
      self._beat = now
      with contextlib.suppress(OSError):
        os.utime(self.path, (now, now))

  def _on_event(self, event: str, duration: float, **_) -> None:
    """JAX says how long a trace, lowering or compilation took, at its end."""
    if (
      not event.startswith(_COMPILING)
      or self._category == "compile"
      or threading.get_ident() != self._thread
    ):
      return
    begin, net = self._clock() - duration, duration
    # Functions inside a function are traced meanwhile, and said first.
    while self._compiled and self._compiled[-1][0] >= begin:
      net -= self._compiled.pop()[1]
    self._compiled.append((begin, duration))
    self.seconds["compile"] += net
    self.seconds[self._category] -= net


def _steady_clock():
  offset = time.time() - time.monotonic()
  return lambda: offset + time.monotonic()


def _listener(method):
  """For JAX, which keeps it: an account that is dropped hears nothing."""

  def listen(event, duration, **kwargs):
    found = method()
    if found is not None:
      found(event, duration, **kwargs)

  return listen


def _since(
  kept: Mapping[str, float], now: Mapping[str, float]
) -> dict[str, float]:
  """What was kept, and the work since then as lost."""
  out = {name: float(kept.get(name, 0.0)) for name in CATEGORIES}
  for name in CATEGORIES:
    if name in ("lost", "idle"):
      out[name] = float(now.get(name, 0.0))
  for name in CATEGORIES:
    if name not in ("lost", "idle"):
      out["lost"] += float(now.get(name, 0.0)) - out[name]
  return out


def _is_row(row: object) -> bool:
  return isinstance(row, dict) and {"step", "first", "time", "seconds"} <= set(
    row
  )
