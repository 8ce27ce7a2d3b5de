"""Model batches from tokenised examples: packing, padding, masks.

Dimension key: B batch, S source (input) tokens, T target tokens. Names and
meaning of the features are seqio's for encoder-decoder models.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from flan_jax.data import packing
from flan_jax.errors import UserError

PAD_ID = 0
Batch = dict[str, np.ndarray]


def encoder_decoder_batches(
  examples: Iterable[Mapping],
  *,
  lengths: Mapping[str, int],
  batch_size: int,
  pack: bool = True,
  pool: int = packing.POOL,
) -> Iterator[Batch]:
  """Batches of fixed shapes for an encoder-decoder model.

  Two examples in one row of 8 input and 6 target tokens:

  >>> batch = next(encoder_decoder_batches(
  ...   [{"inputs": [5, 6, 7, 1], "targets": [8, 9, 1]},
  ...    {"inputs": [4, 3, 1], "targets": [2, 1]}],
  ...   lengths={"inputs": 8, "targets": 6}, batch_size=1))
  >>> for name, value in batch.items():
  ...   print(f"{name:22} {value[0]}")
  encoder_input_tokens   [5 6 7 1 4 3 1 0]
  decoder_target_tokens  [8 9 1 2 1 0]
  decoder_input_tokens   [0 8 9 0 2 0]
  decoder_loss_weights   [1. 1. 1. 1. 1. 0.]
  encoder_segment_ids    [1 1 1 1 2 2 2 0]
  encoder_positions      [0 1 2 3 0 1 2 0]
  decoder_segment_ids    [1 1 1 2 2 0]
  decoder_positions      [0 1 2 0 1 0]

  Args:
    examples: mappings with `inputs` and `targets`, 1-D integer tokens that end
      with EOS and hold no id 0; other fields are not used. May be endless.
    lengths: `{"inputs": S, "targets": T}` in tokens.
    batch_size: rows of a batch, B.
    pack: several examples in a row (`packing.rows`), in which case their order
      changes by at most `pool` rows; otherwise one example a row in order, and
      no segment ids or positions.
    pool: examples that wait for a row at once: how far it reads ahead.

  Yields:
    int32 [B, S] `encoder_input_tokens`; int32 [B, T] `decoder_target_tokens`
    and `decoder_input_tokens` (the targets one to the right, 0 where an
    example starts); float32 [B, T] `decoder_loss_weights`, 1 on every target
    token, EOS included; if packed, int32 `encoder_segment_ids` and
    `decoder_segment_ids` (examples of a row from 1, padding 0) and
    `encoder_positions`, `decoder_positions` (from 0 in each example).
    Rows that the last batch lacks are all zero.

  Raises:
    UserError: an example is longer than `lengths`, empty, or holds id 0; there
      is no example; a length or the batch size is not positive.
  """
  shape = _shape(lengths)
  for name, value in (("batch_size", batch_size), ("pool", pool)):
    if value < 1:
      raise UserError(f"{name} is {value}; it is at least 1.")
  return _batches(examples, shape, batch_size, pack, pool)


def token_waste(batches: Iterable[Batch]) -> dict[str, float]:
  """Padding as a share of all slots, of inputs, of targets and of both.

  >>> token_waste([{"encoder_input_tokens": np.array([[5, 1, 0, 0]]),
  ...               "decoder_target_tokens": np.array([[7, 1]])}])
  {'inputs': 0.5, 'targets': 0.0, 'total': 0.3333333333333333}

  Raises:
    UserError: there is no batch.
  """
  slots = {"inputs": 0, "targets": 0}
  used = {"inputs": 0, "targets": 0}
  for batch in batches:
    for side, name in (
      ("inputs", "encoder_input_tokens"),
      ("targets", "decoder_target_tokens"),
    ):
      slots[side] += batch[name].size
      used[side] += int(np.count_nonzero(batch[name]))
  if not slots["inputs"]:
    raise UserError("No batch: token waste is not defined.")
  slots["total"] = sum(slots.values())
  used["total"] = sum(used.values())
  return {side: (slots[side] - used[side]) / slots[side] for side in slots}


def _shape(lengths: Mapping[str, int]) -> packing.Sized:
  if set(lengths) != {"inputs", "targets"}:
    raise UserError(
      f"lengths has {sorted(lengths)}; it needs exactly inputs and targets."
    )
  for name, value in lengths.items():
    if value < 1:
      raise UserError(f"lengths[{name!r}] is {value} tokens; at least 1.")
  return int(lengths["inputs"]), int(lengths["targets"])


def _batches(examples, shape, batch_size, pack, pool) -> Iterator[Batch]:
  rows = (
    _packed_rows(examples, shape, pool)
    if pack
    else ([tokens] for tokens in _checked(examples, shape))
  )
  fill = _fill_packed if pack else _fill_single
  filled = 0
  for group in _groups(rows, batch_size):
    filled += len(group)
    batch = _empty(shape, batch_size, pack)
    for b, row in enumerate(group):
      fill({name: value[b] for name, value in batch.items()}, row)
    yield batch
  if not filled:
    raise UserError(
      "Not one usable example: the source is empty, or every row was filtered"
      " out. Check the split, `keep` and the lengths"
      f" (inputs {shape[0]}, targets {shape[1]} tokens)."
    )


def _groups(items: Iterable, size: int) -> Iterator[list]:
  stream = iter(items)
  while group := list(itertools.islice(stream, size)):
    yield group


def _checked(examples: Iterable[Mapping], shape) -> Iterator[tuple]:
  """(inputs, targets) arrays of each example, after checking them."""
  for number, example in enumerate(examples):
    pair = []
    for name, limit in zip(("inputs", "targets"), shape, strict=True):
      tokens = np.asarray(example[name], np.int32)
      if not 0 < tokens.size <= limit or tokens.ndim != 1 or not tokens.all():
        _refuse(number, example, name, tokens, limit)
      pair.append(tokens)
    yield tuple(pair)


def _refuse(number: int, example, name: str, tokens: np.ndarray, limit: int):
  where = f"Example {number}"
  known = [
    f"{field} {example[field]}"
    for field in ("task", "template", "example_index")
    if field in example
  ]
  if known:
    where += f" ({', '.join(known)})"
  text = example.get(f"{name}_pretokenized")
  if text is not None:
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    where += f", {str(text)[:60]!r}"
  if tokens.ndim != 1:
    reason = f"{name} have shape {tokens.shape}; one row of tokens is needed."
  elif not tokens.size:
    reason = f"{name} are empty; filter such rows out (`keep`)."
  elif tokens.size > limit:
    reason = (
      f"{name} are {tokens.size} tokens, the limit is {limit}. Trim before"
      f" batching, or set lengths[{name!r}] to at least {tokens.size}."
    )
  else:
    reason = (
      f"{name} hold id {PAD_ID} at position {int(tokens.argmin())}, which is"
      " padding. Use a vocabulary that keeps id 0 for padding."
    )
  raise UserError(f"{where}: {reason}")


def _packed_rows(examples, shape, pool) -> Iterator[list[tuple]]:
  """Rows as lists of (inputs, targets); holds the examples that wait."""
  waiting: dict[int, tuple] = {}

  def sizes():
    for number, pair in enumerate(_checked(examples, shape)):
      waiting[number] = pair
      yield len(pair[0]), len(pair[1])

  for row in packing.rows(sizes(), shape, pool):
    yield [waiting.pop(number) for number in row]


def _empty(shape, batch_size: int, pack: bool) -> Batch:
  s, t = shape
  sides = [
    ("encoder_input_tokens", s, np.int32),
    ("decoder_target_tokens", t, np.int32),
    ("decoder_input_tokens", t, np.int32),
    ("decoder_loss_weights", t, np.float32),
  ]
  if pack:
    sides += [
      ("encoder_segment_ids", s, np.int32),
      ("encoder_positions", s, np.int32),
      ("decoder_segment_ids", t, np.int32),
      ("decoder_positions", t, np.int32),
    ]
  return {name: np.zeros((batch_size, n), kind) for name, n, kind in sides}


def _fill_packed(row: Batch, pairs: list[tuple]):
  inputs, targets = zip(*pairs, strict=True)
  segments = np.arange(1, len(pairs) + 1)
  for side, tokens, name in (
    ("encoder", inputs, "encoder_input_tokens"),
    ("decoder", targets, "decoder_target_tokens"),
  ):
    sizes = np.array([len(t) for t in tokens])
    ends = sizes.cumsum()
    n = ends[-1]
    row[name][:n] = np.concatenate(tokens)
    row[f"{side}_segment_ids"][:n] = segments.repeat(sizes)
    row[f"{side}_positions"][:n] = np.arange(n) - (ends - sizes).repeat(sizes)
  # `ends`, `sizes` and `n` are the targets' now.
  row["decoder_input_tokens"][1:n] = row["decoder_target_tokens"][: n - 1]
  row["decoder_input_tokens"][ends - sizes] = 0
  row["decoder_loss_weights"][:n] = 1


def _fill_single(row: Batch, pairs: list[tuple]):
  ((inputs, targets),) = pairs
  n = len(targets)
  row["encoder_input_tokens"][: len(inputs)] = inputs
  row["decoder_target_tokens"][:n] = targets
  # As seqio does it, the last token is shifted into the padding too; nothing
  # reads it there, and batches are equal to those of other seqio users.
  row["decoder_input_tokens"][1:] = row["decoder_target_tokens"][:-1]
  row["decoder_loss_weights"][:n] = 1
