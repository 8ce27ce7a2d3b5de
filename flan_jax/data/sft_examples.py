"""Examples of conversations: tokens and loss weights that fit a row.

A decoder-only model reads a conversation as one text and is trained on every
answer in it. An encoder-decoder reads all that comes before the last answer and
writes that. What is too long loses whole turns, or is left out whole; no answer
is ever cut, so none loses its end.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import seqio

from flan_jax.data import chat_formats, chat_tokens, replacing, tokenizers
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.chat_formats import Rendered
from flan_jax.data.sft_records import Record

DECODER_ONLY, ENCODER_DECODER = "decoder_only", "encoder_decoder"
# What happens to a conversation that is too long for a row.
TOO_LONG = ("turns", "row")

Renderer = Callable[..., Rendered]


class Example(NamedTuple):
  """One conversation, ready for a batch.

  Attributes:
    inputs, targets: int32 tokens, neither empty.
    weights: 1 for each token of `targets` that is in the loss, else 0.
    inputs_text, targets_text: what they were made from.
    turns_lost: turns that did not fit.
  """

  inputs: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  inputs_text: str
  targets_text: str
  turns_lost: int = 0


# Why a conversation gives no example: its prompt is nothing, it does not fit a
# row, or a turn holds a token that ends turns.
EMPTY, LONG, ENDED = "empty", "too long", "ended"


@dataclasses.dataclass(frozen=True, eq=False)
class Maker:
  """Makes examples of conversations.

  Attributes:
    vocabulary: of the run.
    render: `chat_formats.render` with its format, or a template's.
    lengths: tokens of `inputs` and `targets`; {} for no limit. A decoder-only
      row holds both together.
    kind: of the model.
    too_long: of `TOO_LONG`.
    inputs_eos: whether the inputs of an encoder-decoder end with EOS.
  """

  vocabulary: seqio.Vocabulary
  render: Renderer
  lengths: Mapping[str, int]
  kind: str = DECODER_ONLY
  too_long: str = "turns"
  inputs_eos: bool = True

  def examples(self, records: Sequence[Record]) -> list[Example | str]:
    """For each conversation an example, or why there is none."""
    make = self._encoder_decoder
    if self.kind == DECODER_ONLY:
      make = self._decoder_only
    return self._safely(make, records)

  def prompts(self, records: Sequence[Record]) -> list[Example | str]:
    """What a model is asked for the last answer, and that answer.

    Of a prompt that is too long, the earliest exchanges go. The answer, which
    is only compared with, may have any length.
    """
    make = functools.partial(self._encoder_decoder, any_answer=True)
    return self._safely(make, records)

  @functools.cached_property
  def _marks(self) -> tuple[str, ...]:
    """Texts that the vocabulary reads as a token that begins or ends."""
    inner = replacing.innermost(self.vocabulary)
    if not isinstance(inner, tokenizers.TokenizerVocabulary):
      return ()
    ids = (inner.bos_id, *inner.end_ids)
    return tuple(inner.token(i) for i in dict.fromkeys(ids) if i is not None)

  def _safely(self, make, records: Sequence[Record]) -> list[Example | str]:
    """Examples of those that say no token which ends a turn.

    Within a turn it would end it, for the model and for generation.
    """
    safe = [not self._says_mark(record) for record in records]
    made = iter(make([r for r, s in zip(records, safe, strict=True) if s]))
    return [next(made) if s else ENDED for s in safe]

  def _says_mark(self, record: Record) -> bool:
    return bool(self._marks) and any(
      mark in text
      for turn in record.turns
      for text in (turn.text, turn.input)
      for mark in self._marks
    )

  # ---------------------------------------------------------- decoder-only

  def _decoder_only(self, records):
    tokenizer = chat_tokens.Tokenizer(self.vocabulary)
    room = None
    if self.lengths:
      room = self.lengths["inputs"] + self.lengths["targets"]
    rendered = [self.render(r) for r in records]
    found = tokenizer.encode(rendered)
    out: list[Example | str] = [""] * len(found)
    shorter: list[tuple[int, Record]] = []
    for number, (record, tokens) in enumerate(zip(records, found, strict=True)):
      if room is None or len(tokens.ids_N) <= room:
        out[number] = _split(tokens, rendered[number], 0)
        continue
      out[number] = LONG
      fits = sum(end <= room for end in tokens.ends[:-1])
      if self.too_long == "turns" and fits:
        shorter.append((number, record.first(fits)))
    # What is kept is a text of its own: its tokens, not a part of the longer's.
    while shorter:
      parts = [self.render(record) for _, record in shorter]
      again = []
      for (number, record), part, tokens in zip(
        shorter, parts, tokenizer.encode(parts), strict=True
      ):
        kept = len(record.turns)
        if len(tokens.ids_N) <= room:
          lost = len(records[number].turns) - kept
          out[number] = _split(tokens, part, lost)
        elif kept > 2:
          again.append((number, record.first(kept // 2 - 1)))
      shorter = again
    return out

  # ------------------------------------------------------- encoder-decoder

  def _encoder_decoder(self, records, any_answer: bool = False):
    eos = self.vocabulary.eos_id
    tail = [eos] if self.inputs_eos and self.kind == ENCODER_DECODER else []
    answers = vocabulary_lib.encode_batch(
      self.vocabulary, [r.answer.strip() for r in records]
    )
    targets = [np.array([*ids, eos], np.int32) for ids in answers]
    most_in, most_out = (self.lengths.get(n) for n in ("inputs", "targets"))
    if any_answer:
      most_out = None
    out: list[Example | str] = [LONG] * len(records)
    # From which exchange on each is shown: the earliest go first.
    todo = [
      (number, record, 0)
      for number, record in enumerate(records)
      if most_out is None or len(targets[number]) <= most_out
    ]
    begun = self.kind == DECODER_ONLY
    tokenizer = chat_tokens.Tokenizer(self.vocabulary, begun)
    while todo:
      rendered = [
        self.render(
          dataclasses.replace(record, turns=record.turns[2 * start :]),
          prompt=True,
        )
        for _, record, start in todo
      ]
      again = []
      for (number, record, start), part, tokens in zip(
        todo, rendered, tokenizer.encode(rendered), strict=True
      ):
        ids = np.array([*tokens.ids_N, *tail], np.int32)
        if most_in is not None and len(ids) > most_in:
          if self.too_long == "turns" and 2 * start + 2 < len(record.turns):
            again.append((number, record, start + 1))
          continue
        out[number] = (
          Example(
            ids,
            targets[number],
            np.ones(len(targets[number]), np.int32),
            chat_formats.text(part.pieces),
            record.answer.strip(),
            2 * start,
          )
          if len(tokens.ids_N)
          else EMPTY
        )
      todo = again
    return out


def _split(tokens, rendered: Rendered, lost: int) -> Example | str:
  """Inputs are what stands before the first token in the loss."""
  first = int(tokens.trained_N.argmax())
  if first == 0:  # nothing to read, or nothing in the loss
    return EMPTY
  pieces = rendered.pieces
  at = next(n for n, piece in enumerate(pieces) if piece.trained)
  return Example(
    tokens.ids_N[:first],
    tokens.ids_N[first:],
    tokens.trained_N[first:].astype(np.int32),
    chat_formats.text(pieces[:at]),
    chat_formats.text(pieces[at:]),
    lost,
  )


def counted(found: Sequence[Example | str]) -> dict[str, int]:
  """How many gave no example and why, and turns that did not fit."""
  why = collections.Counter(e for e in found if isinstance(e, str))
  return {
    "ended": why[ENDED],
    "empty": why[EMPTY],
    "too_long": why[LONG],
    "turns": sum(e.turns_lost for e in found if not isinstance(e, str)),
  }
