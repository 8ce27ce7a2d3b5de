import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from flan_jax.errors import EXIT_STOPPED, Stopped
from flan_jax.training.stopping import SIGNALS, Stopping


def send(number):
  """The handler has run when this returns."""
  signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_flag_outside_and_an_exception_inside(number):
  before = [signal.getsignal(s) for s in SIGNALS]
  with Stopping() as stopping:
    assert stopping.requested is None
    with stopping.interruptible():
      pass
    send(number)
    assert stopping.requested == number.name
    # What had come before is raised at the next place that may be left.
    with pytest.raises(Stopped, match=number.name), stopping.interruptible():
      pytest.fail("was entered")
  assert [signal.getsignal(s) for s in SIGNALS] == before
  with Stopping() as stopping:
    with pytest.raises(Stopped), stopping.interruptible():
      send(number)
    assert stopping.requested == number.name


def test_waiting_for_a_queue_is_left():
  import queue

  with Stopping() as stopping:
    timer = threading.Timer(
      0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    timer.start()
    began = time.monotonic()
    with pytest.raises(Stopped), stopping.interruptible():
      queue.Queue().get(timeout=30)
    assert time.monotonic() - began < 20


def test_a_second_ctrl_c_does_not_wait():
  with Stopping() as stopping:
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="without saving"):
      send(signal.SIGINT)
    assert stopping.requested == "SIGINT"


def test_what_it_says():
  with Stopping() as stopping:
    send(signal.SIGTERM)
    assert str(stopping.stopped(1200)) == (
      "stopped by SIGTERM: step 1,200 is saved; the same command goes on from"
      " the last checkpoint."
    )
    assert "saved" not in str(stopping.stopped())


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone():
  before = signal.getsignal(signal.SIGTERM)
  seen = []

  def body():
    with Stopping() as stopping:
      seen.append((signal.getsignal(signal.SIGTERM), stopping.requested))

  thread = threading.Thread(target=body)
  thread.start()
  thread.join()
  assert seen == [(before, None)]


def run_child(body, number, grace):
  """Sends the signal once the child says so; exit code, seconds, stderr."""
  code = textwrap.dedent(
    """
    import hashlib, sys, time
    from flan_jax.errors import EXIT_STOPPED, Stopped
    from flan_jax.training.stopping import Stopping
    try:
      with Stopping({grace}) as stopping:
        print("ready", flush=True)
        {body}
    except Stopped:
      sys.exit(EXIT_STOPPED)
    """
  ).format(grace=grace, body=body)
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  began = time.monotonic()
  process.send_signal(number)
  _, said = process.communicate(timeout=100)
  return process.returncode, time.monotonic() - began, said


# C code that holds the main thread for minutes, as a compilation does.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2_000_000_000)"


@pytest.mark.parametrize("number", SIGNALS)
def test_the_grace_period_ends_what_cannot_save(number):
  code, seconds, said = run_child(BUSY, number, grace=0.5)
  assert code == 128 + number
  assert seconds >= 0.5
  assert seconds < 30
  assert f"{number.name} came 0.5 s ago (GRACE_SECONDS)" in said


def test_in_time_it_is_not_cut_short():
  wait = "while not stopping.requested: time.sleep(0.01)"
  body = f"exec({wait!r}); raise stopping.stopped()"
  code, _, said = run_child(body, signal.SIGTERM, grace=60)
  assert (code, said) == (EXIT_STOPPED, "")


def test_several_processes_stop_at_the_step_they_agree_on():
  before = signal.getsignal(signal.SIGTERM)
  with Stopping(agree=lambda step: step == 3) as stopping:
    assert signal.getsignal(signal.SIGTERM) == before
    assert [stopping.at(step) for step in (1, 2, 3)] == [False, False, True]
  assert stopping.requested == "SIGTERM"
