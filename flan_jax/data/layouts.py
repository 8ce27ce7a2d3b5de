"""How examples lie in a row: what a batch of a kind of model is made of.

Dimension key: S input tokens, T target tokens of a row. Names and meaning of
the features are seqio's.
"""

import dataclasses
from typing import Protocol

import numpy as np

from flan_jax.data import packing

# An example: its input tokens, its target tokens and, where not all of these
# count in the loss, a weight for each.
Pair = tuple[np.ndarray, ...]
Row = dict[str, np.ndarray]


class Layout(Protocol):
  """What `features` asks of a kind of batch.

  Attributes:
    room: what a row holds, in the two sizes that `packing.rows` weighs.
    pack: whether a row holds several examples.
    pads_with_zero: whether padding is told by id 0, so that no example may
      hold it.
  """

  room: packing.Sized
  pads_with_zero: bool
  pack: bool

  def size(self, pair: Pair) -> packing.Sized:
    """What an example takes of `room`."""

  def sizes(self, tokens_N2: np.ndarray) -> np.ndarray:
    """The same of many, from their (inputs, targets) tokens: [N, 2]."""

  def empty(self, batch_size: int) -> Row:
    """A batch of nothing but padding."""

  def fill(self, row: Row, pairs: list[Pair]) -> None:
    """Writes the examples of one row, in order, into views of a batch."""


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
  """Inputs in a row of the encoder, targets in a row of the decoder.

  Attributes:
    inputs, targets: S and T.
    pack: whether a row holds several examples; only then there are segment
      ids and positions.
  """

  inputs: int
  targets: int
  pack: bool = True
  pads_with_zero = True

  @property
  def room(self) -> packing.Sized:
    return self.inputs, self.targets

  def size(self, pair: Pair) -> packing.Sized:
    return len(pair[0]), len(pair[1])

  def sizes(self, tokens_N2: np.ndarray) -> np.ndarray:
    return tokens_N2

  def empty(self, batch_size: int) -> Row:
    sides = [
      ("encoder_input_tokens", self.inputs, np.int32),
      ("decoder_target_tokens", self.targets, np.int32),
      ("decoder_input_tokens", self.targets, np.int32),
      ("decoder_loss_weights", self.targets, np.float32),
    ]
    if self.pack:
      sides += [
        ("encoder_segment_ids", self.inputs, np.int32),
        ("encoder_positions", self.inputs, np.int32),
        ("decoder_segment_ids", self.targets, np.int32),
        ("decoder_positions", self.targets, np.int32),
      ]
    return {name: np.zeros((batch_size, n), kind) for name, n, kind in sides}

  def fill(self, row: Row, pairs: list[Pair]) -> None:
    if not self.pack:
      return self._fill_single(row, *pairs)
    inputs, targets = zip(*pairs, strict=True)
    _write(row, inputs, "encoder_input_tokens", "encoder")
    starts, n = _write(row, targets, "decoder_target_tokens", "decoder")
    row["decoder_input_tokens"][1:n] = row["decoder_target_tokens"][: n - 1]
    row["decoder_input_tokens"][starts] = 0
    row["decoder_loss_weights"][:n] = 1

  def _fill_single(self, row: Row, pair: Pair):
    inputs, targets = pair
    n = len(targets)
    row["encoder_input_tokens"][: len(inputs)] = inputs
    row["decoder_target_tokens"][:n] = targets
    # As seqio does it, the last token is shifted into the padding too; nothing
    # reads it there, and batches are equal to those of other seqio users.
    row["decoder_input_tokens"][1:] = row["decoder_target_tokens"][:-1]
    row["decoder_loss_weights"][:n] = 1


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
  """Inputs and targets one after the other in one row; loss on targets alone.

  Padding is where the segment id is 0: id 0 is a real token of several
  vocabularies.

  Attributes:
    length: tokens of a row.
    begin_id: what the first token of an example is predicted from; None:
      nothing, so the first token is read and not predicted. It takes the place
      that the last token leaves, which nothing is predicted from.
    pack: whether a row holds several examples.
  """

  length: int
  begin_id: int | None = None
  pack: bool = True
  pads_with_zero = False

  @property
  def room(self) -> packing.Sized:
    # One dimension, given twice to a packer of two.
    return self.length, self.length

  def size(self, pair: Pair) -> packing.Sized:
    n = len(pair[0]) + len(pair[1]) - (self.begin_id is None)
    return n, n

  def sizes(self, tokens_N2: np.ndarray) -> np.ndarray:
    tokens_N1 = tokens_N2.sum(1, keepdims=True) - (self.begin_id is None)
    return np.repeat(tokens_N1, 2, axis=1)

  def empty(self, batch_size: int) -> Row:
    kinds = {
      "decoder_input_tokens": np.int32,
      "decoder_target_tokens": np.int32,
      "decoder_loss_weights": np.float32,
      "decoder_segment_ids": np.int32,
      "decoder_positions": np.int32,
      "decoder_causal_attention": np.int32,
    }
    shape = batch_size, self.length
    return {name: np.zeros(shape, kind) for name, kind in kinds.items()}

  def fill(self, row: Row, pairs: list[Pair]) -> None:
    whole = [np.concatenate(pair[:2]) for pair in pairs]
    if self.begin_id is None:
      read, said = [x[:-1] for x in whole], [x[1:] for x in whole]
    else:
      begin = np.array([self.begin_id], np.int32)
      read = [np.concatenate((begin, x[:-1])) for x in whole]
      said = whole
    _write(row, said, "decoder_target_tokens", "decoder")
    starts, n = _write(row, read, "decoder_input_tokens", "decoder")
    # Where input tokens are read, the begin id among them, and from where on
    # target tokens are predicted: the last of these places is both.
    for start, end, (_, targets, *weights) in zip(
      starts, [*starts[1:], n], pairs, strict=True
    ):
      row["decoder_loss_weights"][end - len(targets) : end] = (
        weights[0] if weights else 1
      )
      row["decoder_causal_attention"][start : end - len(targets) + 1] = 1


def _write(row: Row, tokens, name: str, side: str) -> tuple[np.ndarray, int]:
  """Tokens, segment ids and positions; returns starts and the end."""
  sizes = np.array([len(t) for t in tokens])
  ends = sizes.cumsum()
  starts, n = ends - sizes, int(ends[-1])
  row[name][:n] = np.concatenate(tokens)
  row[f"{side}_segment_ids"][:n] = np.arange(1, len(sizes) + 1).repeat(sizes)
  row[f"{side}_positions"][:n] = np.arange(n) - starts.repeat(sizes)
  return starts, n
