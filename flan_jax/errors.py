"""The one exception for what a user can mend.

`launch/run.py` prints the message of a `UserError` alone, without a traceback,
and exits with code 2. Everything else is our mistake and keeps its traceback.
"""


class UserError(ValueError):
  """Names the thing, its value, the limit and the way out."""


class SpecError(UserError):
  """A task that is written wrongly; the message names the task and field."""
