"""SIGTERM and SIGINT: what was done is saved, and the process ends in time.

    with Stopping(grace_seconds=30) as stopping:
      for step in steps:
        with stopping.interruptible():   # waiting, evaluating
          batch = next(batches)
        state = train_step(state, batch)  # never cut in two
        if stopping.requested:
          save(state)
          raise stopping.stopped(step)

A machine that is taken away says so by SIGTERM and waits a while before it
kills: the grace period. The handler raises where nothing can be left half
done, and elsewhere leaves a flag for the loop. A thread counts the grace
period from the moment the signal arrives, also while the main thread compiles,
and ends the process when it is over.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from flan_jax.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
  """Whether this run was asked to stop.

  Attributes:
    requested: the name of the signal that came; None if none did.
  """

  def __init__(
    self,
    grace_seconds: float = 30.0,
    agree: Callable[[int], bool] | None = None,
  ):
    """Args:
    grace_seconds: from the signal to the end of the process at most, saved
      or not.
    agree: of a run of several processes, asked at every step, whether all of
      them stop at it; signals are then its business. None: there is one.
    """
    self._agree = agree
    self.requested: str | None = None
    self._grace = grace_seconds
    self._interruptible = False
    self._over = threading.Event()
    self._before: dict = {}
    self._pipe: tuple[socket.socket, socket.socket] | None = None
    self._wakeup = -1

  def __enter__(self) -> "Stopping":
    if self._agree is not None:
      return self
    # Only the main thread gets signals; elsewhere they are the caller's.
    if threading.current_thread() is not threading.main_thread():
      return self
    self._pipe = socket.socketpair()
    for end in self._pipe:
      end.setblocking(False)
    self._wakeup = signal.set_wakeup_fd(
      self._pipe[1].fileno(), warn_on_full_buffer=False
    )
    self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
    threading.Thread(target=self._count_down, daemon=True).start()
    return self

  def __exit__(self, *_):
    self._over.set()
    if self._pipe is None:
      return
    for number, handler in self._before.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._wakeup)
    self._pipe[1].close()  # The thread reads the end of it and leaves.
    self._pipe = None

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """Inside, a signal raises `Stopped` at once.

    Raises:
      Stopped: the signal comes, or had come before.
    """
    outer, self._interruptible = self._interruptible, True
    try:
      if self.requested:
        raise self.stopped()
      yield
    finally:
      self._interruptible = outer

  def at(self, step: int) -> bool:
    """Whether to save and stop after this step."""
    if self._agree is not None and self._agree(step):
      self.requested = "SIGTERM"
    return self.requested is not None

  def stopped(self, step: int | None = None) -> Stopped:
    """The exception that ends the run.

    Args:
      step: that was saved; None: nothing had to be.
    """
    saved = "" if step is None else f" step {step:,} is saved;"
    return Stopped(
      f"stopped by {self.requested}:{saved} the same command goes on from"
      " the last checkpoint."
    )

  def _handle(self, number, _):
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt(
        "stopped at the second Ctrl-C, without saving; the same command goes"
        " on from the last checkpoint."
      )
    self.requested = signal.Signals(number).name
    if self._interruptible:
      self._interruptible = False
      raise self.stopped()

  def _count_down(self):
    """In a thread: the C part of Python writes a byte when a signal comes."""
    reader = self._pipe[0]
    reader.setblocking(True)
    with reader:
      while byte := reader.recv(1):
        if byte[0] in SIGNALS and not self._over.wait(self._grace):
          name = signal.Signals(byte[0]).name
          print(
            f"\n{name} came {self._grace:g} s ago (GRACE_SECONDS), and the run"
            " could not save in that time: it ends without. The same command"
            " goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
          )
          os._exit(128 + byte[0])
