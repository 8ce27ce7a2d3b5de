"""The one exception for what a user can mend.

`launch/run.py` prints the message of a `UserError` alone, without a traceback,
and exits with code 2. Everything else is our mistake and keeps its traceback.
"""

import difflib
from collections.abc import Collection
from typing import Any


class UserError(ValueError):
  """Names the thing, its value, the limit and the way out."""


class SpecError(UserError):
  """A task that is written wrongly; the message names the task and field."""


def check_known(name: str, value: Any, known: Collection[str]) -> None:
  """Refuses a value that is none of the names that an option has.

  >>> check_known("FORMAT", "h5", ("hf",))
  Traceback (most recent call last):
  flan_jax.errors.UserError: FORMAT is 'h5'; known are hf (the nearest is 'hf').

  Args:
    name: of the option, as its user writes it.
    value: that was given.
    known: names that it may have, at least one.

  Raises:
    UserError: naming the known ones and the nearest.
  """
  if value not in known:
    near = difflib.get_close_matches(str(value), known, 1, 0.0)[0]
    raise UserError(
      f"{name} is {value!r}; known are {', '.join(known)} (the nearest is"
      f" {near!r})."
    )


class Stopped(Exception):
  """The run was asked to stop by a signal, and what it had done is saved.

  `launch/run.py` prints the message and exits with `EXIT_STOPPED`, so that
  what started the run can tell it from a fault and start it again.
  """


# The code that sysexits.h calls EX_TEMPFAIL: try again later.
EXIT_STOPPED = 75
