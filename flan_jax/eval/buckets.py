"""Buckets: rows of different lengths in a few fixed shapes.

A compiled function serves one shape. Rows are therefore padded up to one of a
short list of sizes, and the few rows of a thinly filled shape ride along in
the next larger one: a little more padding, one compilation less.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from flan_jax.errors import UserError

Row = TypeVar("Row")
Shape = tuple[int, ...]


def sizes(limit: int, *, smallest: int, factor: int = 2) -> Shape:
  """Bucket sizes up to and including `limit`.

  >>> sizes(512, smallest=64)
  (64, 128, 256, 512)
  >>> sizes(300, smallest=64)
  (64, 128, 256, 300)
  >>> sizes(32, smallest=64)
  (32,)

  Args:
    limit: the largest size, in tokens (or choices).
    smallest: the smallest size, unless `limit` is below it.
    factor: what one size is multiplied by to give the next.

  Raises:
    ValueError: `limit` or `smallest` is below 1, or `factor` below 2.
  """
  if limit < 1 or smallest < 1 or factor < 2:
    raise ValueError(f"sizes({limit=}, {smallest=}, {factor=})")
  out = []
  while smallest < limit:
    out.append(smallest)
    smallest *= factor
  return (*out, limit)


def fit(length: int, buckets: Sequence[int]) -> int:
  """The smallest of `buckets` that holds `length`.

  >>> fit(65, (64, 128, 256))
  128

  Raises:
    ValueError: no bucket holds it.
  """
  for bucket in buckets:
    if length <= bucket:
      return bucket
  raise ValueError(f"length {length} is over the largest bucket {buckets[-1]}")


def group(
  rows: Iterable[tuple[Shape, Row]], *, at_least: int
) -> dict[Shape, list[Row]]:
  """Rows by shape; a shape with fewer than `at_least` rows is merged away.

  It is merged into the smallest shape in use that covers it in every
  dimension, and stays as it is where there is none.

  >>> group([((8, 2), "a"), ((8, 2), "b"), ((4, 2), "c")], at_least=2)
  {(8, 2): ['a', 'b', 'c']}
  >>> group([((8, 2), "a"), ((8, 2), "b"), ((4, 4), "c")], at_least=2)
  {(4, 4): ['c'], (8, 2): ['a', 'b']}

  Args:
    rows: pairs of a row's shape and the row.
    at_least: rows that are worth a compilation, usually the batch size.

  Returns:
    Shapes in ascending order, each with its rows in the order given.
  """
  order: dict[Shape, list[tuple[int, Row]]] = {}
  for number, (shape, row) in enumerate(rows):
    order.setdefault(shape, []).append((number, row))
  for shape in sorted(order, key=_area):
    if len(order[shape]) >= at_least:
      continue
    covering = [
      other
      for other in order
      if other != shape
      and all(o >= s for o, s in zip(other, shape, strict=True))
    ]
    if covering:
      order[min(covering, key=_area)] += order.pop(shape)
  return {
    shape: [row for _, row in sorted(order[shape], key=lambda pair: pair[0])]
    for shape in sorted(order)
  }


def _area(shape: Shape) -> tuple[int, Shape]:
  return int(np.prod(shape)), shape


# Lengths of inputs, in tokens, of ranking and of generation.
INPUT_SIZES = functools.partial(sizes, smallest=64)


def pad_inputs(
  inputs: Sequence[np.ndarray], rows: int, length: int
) -> np.ndarray:
  """`inputs` as one int32 [rows, length] array, -1 after each row's end.

  Rows past the last input are -1 throughout. Id 0 is no padding: it is a token
  of several vocabularies.

  >>> pad_inputs([np.array([5, 0, 1])], rows=2, length=4).tolist()
  [[5, 0, 1, -1], [-1, -1, -1, -1]]
  """
  out = np.full((rows, length), -1, np.int32)
  for row, tokens in zip(out, inputs, strict=False):
    row[: len(tokens)] = tokens
  return out


def example_name(example: Any) -> str:
  """How messages name an example: `task 'rte', template 3, row 17`."""
  return (
    f"task {example.task!r}, template {example.template}, row {example.index}"
  )


def check_input(
  example: Any,
  limit: int,
  name: Callable[[Any], str] = example_name,
  limit_name: str = "TASK_FEATURE_LENGTHS",
) -> None:
  """Raises UserError for an example without a token, or with over `limit`."""
  if not len(example.inputs):
    raise UserError(
      f"{name(example)}: its input has no token, so there is nothing to go on"
      " from."
    )
  if len(example.inputs) > limit:
    raise UserError(
      f"{name(example)}: its input of {len(example.inputs)} tokens is over the"
      f" limit of {limit}; raise {limit_name}."
    )


def check_lengths(lengths: Mapping[str, int], batch_size: int) -> None:
  """Raises ValueError unless both lengths and the batch size are positive."""
  if set(lengths) < {"inputs", "targets"} or batch_size < 1:
    raise ValueError(
      f"lengths need inputs and targets, batch_size at least 1: got"
      f" {dict(lengths)}, {batch_size}"
    )
