"""A vocabulary that replaces what it cannot say, before it encodes."""

import re
from collections.abc import Mapping

import seqio
import tensorflow as tf

from flan_jax.errors import UserError

# What T5's vocabulary turns into a space or <unk>, and the nearest thing that
# it can say. A newline becomes a space, as in the inputs of every published T5
# and FLAN-T5 (its normaliser does that), but now by declaration; the three
# marks would be <unk>. Applied in this order to inputs and targets.
T5_REPLACEMENTS: Mapping[str, str] = {
  "\r\n": " ",
  "\n": " ",
  "\t": " ",
  "{": "(",
  "}": ")",
  "<": " less than ",
}


class ReplacingVocabulary(seqio.Vocabulary):
  r"""Replaces texts that the inner vocabulary cannot say, before encoding.

  >>> from flan_jax.data import vocabulary as vocabularies
  >>> vocabulary = ReplacingVocabulary(vocabularies.load(), {"\n": " / "})
  >>> vocabulary.decode(vocabulary.encode("a\nb"))
  'a / b'

  Attributes:
    inner: the vocabulary that encodes the replaced text.
    replacements: pairs (text, instead), applied in order.
  """

  def __init__(self, inner: seqio.Vocabulary, replacements: Mapping[str, str]):
    super().__init__(extra_ids=0)
    self.inner = inner
    self.replacements = tuple(replacements.items())

  @property
  def bos_id(self):
    return self.inner.bos_id

  @property
  def eos_id(self):
    return self.inner.eos_id

  @property
  def pad_id(self):
    return self.inner.pad_id

  @property
  def unk_id(self):
    return self.inner.unk_id

  @property
  def extra_ids(self):
    return self.inner.extra_ids

  @property
  def vocab_size(self):
    return self.inner.vocab_size

  @property
  def _base_vocab_size(self):
    return self.inner._base_vocab_size  # seqio's own protocol

  def replaced(self, text: str) -> str:
    """The text with every replacement made."""
    for old, new in self.replacements:
      text = text.replace(old, new)
    return text

  def _encode(self, s):
    return self.inner.encode(self.replaced(s))

  def _decode(self, ids):
    return self.inner.decode(ids)

  def _encode_tf(self, s):
    for old, new in self.replacements:
      # RE2's rewrite knows only backslash as special.
      s = tf.strings.regex_replace(s, re.escape(old), new.replace("\\", r"\\"))
    return self.inner.encode_tf(s)

  def _decode_tf(self, ids):
    return self.inner.decode_tf(ids)

  def __eq__(self, other):
    return (
      isinstance(other, ReplacingVocabulary)
      and self.inner == other.inner
      and self.replacements == other.replacements
    )

  def __str__(self):
    pairs = ", ".join(f"{a!r} -> {b!r}" for a, b in self.replacements)
    return f"ReplacingVocabulary({self.inner}, {pairs})"


def table_of(replacements) -> dict[str, str]:
  """The table that an argument `replacements` means; empty for None."""
  if replacements is None:
    return {}
  if replacements == "t5":
    return dict(T5_REPLACEMENTS)
  if not isinstance(replacements, Mapping) or not all(
    isinstance(k, str) and k and isinstance(v, str)
    for k, v in replacements.items()
  ):
    raise UserError(
      f"replacements={replacements!r}: write 't5', a table of text -> text"
      " such as {'\\n': ' '}, or None."
    )
  return dict(replacements)


def innermost(vocabulary: seqio.Vocabulary) -> seqio.Vocabulary:
  """The vocabulary that encodes, without what replaces texts before it."""
  while isinstance(vocabulary, ReplacingVocabulary):
    vocabulary = vocabulary.inner
  return vocabulary
