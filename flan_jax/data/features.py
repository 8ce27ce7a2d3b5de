"""Model batches from tokenised examples: packing, padding, masks.

Dimension key: B batch, S source (input) tokens, T target tokens. Names and
meaning of the features are seqio's; `layouts.py` writes them.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from flan_jax.data import layouts, packing
from flan_jax.errors import UserError

PAD_ID = 0
# A feature of examples of which not all target tokens are in the loss: a weight
# for each. Only a decoder-only model takes them.
WEIGHTS = "targets_weights"
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
  layout = layout_for("encoder_decoder", lengths, pack=pack)
  return _batches(examples, layout, _lengths(lengths), batch_size, pool)


def decoder_only_batches(
  examples: Iterable[Mapping],
  *,
  lengths: Mapping[str, int],
  batch_size: int,
  pack: bool = True,
  pool: int = packing.POOL,
  begin_id: int | None = None,
) -> Iterator[Batch]:
  """Batches of fixed shapes for a decoder-only model, with loss on targets.

  Two examples in one row of 7 + 3 tokens, after a begin id of 0:

  >>> batch = next(decoder_only_batches(
  ...   [{"inputs": [5, 6, 1], "targets": [8, 1]},
  ...    {"inputs": [4], "targets": [9, 1]}],
  ...   lengths={"inputs": 7, "targets": 3}, batch_size=1, begin_id=0))
  >>> for name, value in batch.items():
  ...   print(f"{name:24} {value[0].astype(int)}")
  decoder_input_tokens     [0 5 6 1 8 0 4 9 0 0]
  decoder_target_tokens    [5 6 1 8 1 4 9 1 0 0]
  decoder_loss_weights     [0 0 0 1 1 0 1 1 0 0]
  decoder_segment_ids      [1 1 1 1 1 2 2 2 0 0]
  decoder_positions        [0 1 2 3 4 0 1 2 0 0]
  decoder_causal_attention [1 1 1 1 0 1 1 0 0 0]

  Args:
    examples: mappings with `inputs` and `targets`, 1-D integer tokens; any id
      may occur in them, 0 too. With `targets_weights`, one for each target
      token, inputs and targets may share S + T tokens in any way (a
      conversation, `sft_examples.py`). May be endless.
    lengths: `{"inputs": S, "targets": T}` in tokens; a row has S + T.
    batch_size: rows of a batch, B.
    pack: several examples in a row (`packing.rows`); otherwise one example a
      row in order.
    pool: examples that wait for a row at once: how far it reads ahead.
    begin_id: what stands before the first token of each example; None:
      nothing, so that first tokens are not predicted (`layouts.DecoderOnly`).

  Yields:
    [B, S + T] arrays: int32 `decoder_input_tokens` (what is read) and
    `decoder_target_tokens` (what follows it); float32 `decoder_loss_weights`,
    1 where a target token, EOS included, is predicted, or its weight; int32
    `decoder_segment_ids` (examples of a row from 1; 0 is padding, whatever
    the tokens say), `decoder_positions` (from 0 in each example) and
    `decoder_causal_attention` (1 where inputs are read, which a prefix-LM lets
    see each other). Rows that the last batch lacks are all padding.

  Raises:
    UserError: an example is longer than `lengths` or empty; there is no
      example; a length or the batch size is not positive.
  """
  layout = layout_for("decoder_only", lengths, begin_id, pack)
  return _batches(examples, layout, _lengths(lengths), batch_size, pool)


def batches_for(
  kind: str, begin_id: int | None = None
) -> Callable[..., Iterator[Batch]]:
  """The function that makes batches for a kind of model.

  >>> batches_for("encoder_decoder").__name__
  'encoder_decoder_batches'

  Args:
    kind: `kind` of a model, "encoder_decoder" or "decoder_only".
    begin_id: see `decoder_only_batches`; an encoder-decoder has its own.
  """
  if kind == "encoder_decoder":
    return encoder_decoder_batches
  if kind == "decoder_only":
    return functools.partial(decoder_only_batches, begin_id=begin_id)
  raise ValueError(f"kind {kind!r} is neither encoder_decoder nor decoder_only")


def layout_for(
  kind: str,
  lengths: Mapping[str, int],
  begin_id: int | None = None,
  pack: bool = True,
) -> layouts.Layout:
  """How examples lie in a row of a kind of model.

  >>> layout_for("encoder_decoder", {"inputs": 8, "targets": 6}).room
  (8, 6)

  Args:
    kind, begin_id: as for `batches_for`.
    lengths: `{"inputs": S, "targets": T}` in tokens.
    pack: several examples a row.

  Raises:
    UserError: a length is not positive.
  """
  limits = _lengths(lengths)
  if kind == "encoder_decoder":
    return layouts.EncoderDecoder(*limits, pack=pack)
  if kind == "decoder_only":
    return layouts.DecoderOnly(sum(limits), begin_id, pack)
  raise ValueError(f"kind {kind!r} is neither encoder_decoder nor decoder_only")


def token_waste(batches: Iterable[Batch]) -> dict[str, float]:
  """Padding as a share of all slots, of inputs, of targets and of both.

  A decoder-only batch has no inputs of its own.

  >>> token_waste([{"encoder_input_tokens": np.array([[5, 1, 0, 0]]),
  ...               "decoder_target_tokens": np.array([[7, 1]])}])
  {'inputs': 0.5, 'targets': 0.0, 'total': 0.3333333333333333}

  Raises:
    UserError: there is no batch.
  """
  slots: collections.Counter[str] = collections.Counter()
  used: collections.Counter[str] = collections.Counter()
  for batch in batches:
    for side, name in (
      ("inputs", "encoder_input_tokens"),
      ("targets", "decoder_target_tokens"),
    ):
      if name in batch:
        # Of a decoder's tokens only the segment ids tell the padding.
        place = batch.get(f"{name.partition('_')[0]}_segment_ids", batch[name])
        for key in (side, "total"):
          slots[key] += place.size
          used[key] += int(np.count_nonzero(place))
  if not slots["total"]:
    raise UserError("No batch: token waste is not defined.")
  return {
    side: (slots[side] - used[side]) / slots[side]
    for side in ("inputs", "targets", "total")
    if side in slots
  }


def _lengths(lengths: Mapping[str, int]) -> packing.Sized:
  if set(lengths) != {"inputs", "targets"}:
    raise UserError(
      f"lengths has {sorted(lengths)}; it needs exactly inputs and targets."
    )
  for name, value in lengths.items():
    if value < 1:
      raise UserError(f"lengths[{name!r}] is {value} tokens; at least 1.")
  return int(lengths["inputs"]), int(lengths["targets"])


def _batches(examples, layout, limits, batch_size, pool) -> Iterator[Batch]:
  for name, value in (("batch_size", batch_size), ("pool", pool)):
    if value < 1:
      raise UserError(f"{name} is {value}; it is at least 1.")
  return _made(examples, layout, limits, batch_size, pool)


def _made(
  examples, layout: layouts.Layout, limits, batch_size, pool
) -> Iterator[Batch]:
  pairs = _checked(examples, limits, layout.pads_with_zero)
  rows = (
    _packed_rows(pairs, layout, pool)
    if layout.pack
    else ([pair] for pair in pairs)
  )
  filled = 0
  for group in _groups(rows, batch_size):
    filled += len(group)
    batch = layout.empty(batch_size)
    for b, row in enumerate(group):
      layout.fill({name: value[b] for name, value in batch.items()}, row)
    yield batch
  if not filled:
    raise UserError(
      "Not one usable example: the source is empty, or every row was filtered"
      " out. Check the split, `keep` and the lengths"
      f" (inputs {limits[0]}, targets {limits[1]} tokens)."
    )


def _groups(items: Iterable, size: int) -> Iterator[list]:
  stream = iter(items)
  while group := list(itertools.islice(stream, size)):
    yield group


def _checked(
  examples: Iterable[Mapping], limits, pads_with_zero: bool
) -> Iterator[layouts.Pair]:
  """(inputs, targets) arrays of each example, after checking them."""
  for number, example in enumerate(examples):
    pair = []
    weighted = WEIGHTS in example
    sizes = (sum(limits),) * 2 if weighted else limits
    for name, limit in zip(("inputs", "targets"), sizes, strict=True):
      tokens = np.asarray(example[name], np.int32)
      if (
        not 0 < tokens.size <= limit
        or tokens.ndim != 1
        or (pads_with_zero and not tokens.all())
      ):
        _refuse(number, example, name, tokens, limit)
      pair.append(tokens)
    if weighted:
      _add_weights(number, example, pair, sum(limits), pads_with_zero)
    yield tuple(pair)


def _add_weights(number: int, example, pair, limit: int, encoded: bool):
  weights = np.asarray(example[WEIGHTS], np.float32)
  size = len(pair[0]) + len(pair[1])
  reason = None
  if encoded:
    reason = "an encoder-decoder model weighs all targets alike"
  elif weights.shape != pair[1].shape:
    reason = f"their shape is {weights.shape}, of targets {pair[1].shape}"
  elif not (weights > 0).any():
    reason = "not one is more than 0: nothing is in the loss"
  elif size > limit:
    reason = f"inputs and targets are {size} tokens, a row has {limit}"
  if reason:
    raise UserError(f"Example {number}: {WEIGHTS}: {reason}.")
  pair.append(weights)


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


def _packed_rows(pairs, layout, pool) -> Iterator[list[layouts.Pair]]:
  """Rows as lists of (inputs, targets); holds the examples that wait."""
  waiting: dict[int, layouts.Pair] = {}

  def sizes():
    for number, pair in enumerate(pairs):
      waiting[number] = pair
      yield layout.size(pair)

  for row in packing.rows(sizes(), layout.room, pool):
    yield [waiting.pop(number) for number in row]
