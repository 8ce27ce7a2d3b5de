"""Filters of instruction data: which conversations a recipe leaves out.

Each function here gives a filter for `SFT_FILTERS`, from conversations to
conversations, in their order; none is cut or changed. A filter says by its name
and options what a run's record holds.

Source: Ouyang et al., 2022 (InstructGPT, arXiv 2203.02155), section 3.2: of
prompts that share a long prefix one is kept, and at most 200 of a user.
"""

import functools
from collections.abc import Sequence

from flan_jax.data.sft_records import Filter, Record
from flan_jax.errors import UserError

PREFIX_CHARACTERS = 200
MOST_PER_USER = 200


def shared_prefixes(characters: int = PREFIX_CHARACTERS) -> Filter:
  """Leaves out a prompt that begins like an earlier one.

  Prompts with the same first `characters` are one, with runs of white space
  taken as a blank; shorter prompts, where they are the same as a whole. The
  paper does not say how long its "long" is.

  >>> from flan_jax.data.sft_records import ASSISTANT, USER, Turn
  >>> from flan_jax.data.sft_records import conversation
  >>> def asked(text):
  ...   return conversation([Turn(USER, text), Turn(ASSISTANT, "so")])
  >>> rows = [asked(t) for t in ("Sort: 2 1", "Sort: 3 1", "Say it", "Say")]
  >>> [r.prompt for r in shared_prefixes(5)(rows)]
  ['Sort: 2 1', 'Say it', 'Say']

  Args:
    characters: of the beginning, at least 1.

  Raises:
    UserError: fewer than one character.
  """
  _at_least_one("characters", characters)
  return functools.partial(without_shared_prefixes, characters=characters)


def without_shared_prefixes(
  records: Sequence[Record], characters: int
) -> list[Record]:
  """What `shared_prefixes` gives; the first of each is kept."""
  kept: dict[str, Record] = {}
  for record in records:
    prompt = " ".join(record.prompt.split())
    kept.setdefault(prompt[:characters], record)
  return list(kept.values())


def most_per_user(
  most: int = MOST_PER_USER, user_key: str = "user_id"
) -> Filter:
  """Leaves out the conversations of a user after so many.

  Args:
    most: conversations of one user, the first ones.
    user_key: of the rows' metadata, where the user stands.

  Raises:
    UserError: fewer than one; a row without a user, when it is applied.
  """
  _at_least_one("most", most)
  return functools.partial(with_most_per_user, most=most, user_key=user_key)


def with_most_per_user(
  records: Sequence[Record], most: int, user_key: str
) -> list[Record]:
  """What `most_per_user` gives."""
  seen: dict[str, int] = {}
  kept = []
  for record in records:
    user = record.metadata.get(user_key)
    if user is None:
      raise UserError(
        f"{record.where}: it has no {user_key!r}, by which sft_filters."
        "most_per_user counts. Give every row one, name another key, or leave"
        " the filter out."
      )
    seen[str(user)] = seen.get(str(user), 0) + 1
    if seen[str(user)] <= most:
      kept.append(record)
  return kept


def first_rows(count: int) -> Filter:
  """Keeps the first conversations of all that is read, at most so many.

  >>> first_rows(2)([1, 2, 3])
  [1, 2]

  Args:
    count: how many, at least 1.

  Raises:
    UserError: fewer than one.
  """
  _at_least_one("count", count)
  return functools.partial(the_first_rows, count=count)


def the_first_rows(records: Sequence[Record], count: int) -> list[Record]:
  """What `first_rows` gives."""
  return list(records[:count])


def _at_least_one(name: str, value: int):
  if not isinstance(value, int) or value < 1:
    raise UserError(f"sft_filters: {name} is {value!r}; give 1 or more.")
