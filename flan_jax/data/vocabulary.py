"""Vocabularies: which one a run uses, and what it cannot say.

Every vocabulary is a `seqio.Vocabulary`, so tasks and mixtures take any of
them. Nothing is fetched: a vocabulary is the one shipped with the package or a
file on this machine.

The shipped model (`vocabularies/flan_jax.model`, made by
`train_vocabulary.py`) restores every text exactly, but for two characters:
U+2581, which SentencePiece uses for the space, and U+FDD0, which no text may
hold. T5's own cannot: it has no newline, brace or
`<` and normalises with NFKC. `check_representable` says what a vocabulary
loses, `load(..., replacements="t5")` replaces it by something it can say.

Source: Kudo and Richardson, 2018 (arXiv 1808.06226); Raffel et al., 2020
(arXiv 1910.10683), section 2.2.
"""

import collections
import hashlib
import importlib.resources
import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

import sentencepiece
import seqio
import tensorflow as tf

from flan_jax.data.spec import Task
from flan_jax.data.tokenizers import TokenizerVocabulary
from flan_jax.errors import UserError

SHIPPED = "flan_jax"

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


class LostTextWarning(UserWarning):
  """A vocabulary cannot represent a part of the text it will be given."""


def load(
  name: str | os.PathLike = SHIPPED,
  *,
  pad: str | None = None,
  eos: str | None = None,
  extra_ids: int = 0,
  replacements: str | Mapping[str, str] | None = None,
) -> seqio.Vocabulary:
  r"""The vocabulary of that name or in that file.

  >>> vocabulary = load()
  >>> vocabulary.decode(vocabulary.encode("OPTIONS:\n- yes\n- {no}"))
  'OPTIONS:\n- yes\n- {no}'

  Args:
    name: "flan_jax" for the shipped one (pad 0, EOS 1, unknown 2), the path of
      a SentencePiece model (`*.model`) or of a Hugging Face `tokenizer.json`.
    pad: padding token of a `tokenizer.json`, as text; default: what
      `tokenizer_config.json` beside it says, else its token 0.
    eos: its end-of-sequence token; default: what `tokenizer_config.json` says.
    extra_ids: sentinels added at the end of a SentencePiece model (T5: 100).
    replacements: "t5" for `T5_REPLACEMENTS`, a table text -> text, or None for
      no replacement: then `warn_lost` says what is lost.

  Raises:
    UserError: no such name or file, not a vocabulary, or its special tokens
      cannot be told.
  """
  path = pathlib.Path(name).expanduser()
  if str(name) == SHIPPED:
    path = shipped_file()
  elif path.suffix not in (".model", ".json"):
    raise UserError(
      f"Vocabulary {str(name)!r} is neither {SHIPPED!r} nor the path of a"
      " SentencePiece *.model or a tokenizer.json. Nothing is downloaded: copy"
      " the file here and name it."
    )
  if not path.is_file():
    raise UserError(f"Vocabulary file {path} does not exist.")
  if path.suffix == ".json":
    if extra_ids:
      raise UserError(
        f"extra_ids={extra_ids} has no effect on {path}: a tokenizer.json lists"
        " its own special tokens. Leave it 0."
      )
    vocabulary = TokenizerVocabulary(path, pad=pad, eos=eos)
  else:
    if pad is not None or eos is not None:
      raise UserError(
        f"pad={pad!r}, eos={eos!r} have no effect on {path}: a SentencePiece"
        " model says them itself. Leave them out."
      )
    vocabulary = _sentencepiece(path, extra_ids)
  table = _table(replacements)
  return ReplacingVocabulary(vocabulary, table) if table else vocabulary


# Words, numbers and signs enough that two vocabularies part them differently.
_PROBE = (
  "Whether a report of 1,024 unusually careful readings shows it or not, the"
  " editors of the weekly paper asked: \"Could both sentences be true?\"\n"
  "OPTIONS:\n- yes\n- no\n- it is not possible to tell\t{x} <y> 37% &amp; #5"
)


def fingerprint(vocabulary: seqio.Vocabulary) -> str:
  """Eight hex digits that tell vocabularies apart: how they part a text."""
  ids = [int(i) for i in vocabulary.encode(_PROBE)]
  special = (vocabulary.vocab_size, vocabulary.pad_id, vocabulary.eos_id)
  return hashlib.sha256(repr((special, ids)).encode()).hexdigest()[:8]


def shipped_file() -> pathlib.Path:
  """The SentencePiece model that comes with the package."""
  folder = importlib.resources.files("flan_jax.data") / "vocabularies"
  return pathlib.Path(str(folder / f"{SHIPPED}.model"))


def _sentencepiece(path: pathlib.Path, extra_ids: int):
  try:
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
  except (RuntimeError, OSError) as e:
    raise UserError(
      f"{path} is not a SentencePiece model ({str(e).splitlines()[0]})."
    ) from e
  if model.eos_id() < 0:
    raise UserError(
      f"{path} has no end-of-sequence piece; train it with eos_id (T5: 1)."
    )
  if model.pad_id() != 0 and not (
    model.is_control(0) or model.is_unknown(0) or model.is_unused(0)
  ):
    raise UserError(
      f"{path}: id 0 is the piece {model.id_to_piece(0)!r}, but batches are"
      " padded with 0. Use a model with pad_id=0."
    )
  return seqio.SentencePieceVocabulary(str(path), extra_ids=extra_ids)


def _table(replacements) -> dict[str, str]:
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


class ReplacingVocabulary(seqio.Vocabulary):
  r"""Replaces texts that the inner vocabulary cannot say, before encoding.

  >>> vocabulary = ReplacingVocabulary(load(), {"\n": " / "})
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

  def _encode(self, s):
    for old, new in self.replacements:
      s = s.replace(old, new)
    return self.inner.encode(s)

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


def check_representable(
  vocabulary: seqio.Vocabulary, texts: Iterable[str]
) -> dict[str, int]:
  r"""What the vocabulary turns into unknown or silently into something else.

  Each character and each run of white space is encoded and decoded between two
  letters and compared.

  >>> check_representable(seqio.ByteVocabulary(), ["{a}\n<b>"])
  {}

  With T5's vocabulary (the newline becomes a space, the rest unknown):

  >>> check_representable(t5, ["{a}\n<b>"])  # doctest: +SKIP
  {'\n': 1, '<': 1, '{': 1, '}': 1}

  Args:
    vocabulary: without replacements what is lost is named; with them, only
      what is still lost after replacing (a replaced text counts as said).
    texts: texts it will be given, such as `template_texts(tasks)`.

  Returns:
    Fragment -> number of occurrences, most frequent first.
  """
  units: collections.Counter[str] = collections.Counter()
  for text in texts:
    units.update(re.findall(r"\s+|\S", _replaced(vocabulary, text)))
  inner = vocabulary
  while isinstance(inner, ReplacingVocabulary):
    inner = inner.inner
  lost: collections.Counter[str] = collections.Counter()
  for unit, count in units.items():
    if _survives(inner, unit):
      continue
    single = [c for c in unit if not _survives(inner, c)]
    for fragment in single or [unit]:
      lost[fragment] += count
  return dict(sorted(lost.items(), key=lambda kv: (-kv[1], kv[0])))


def _replaced(vocabulary, text: str) -> str:
  while isinstance(vocabulary, ReplacingVocabulary):
    for old, new in vocabulary.replacements:
      text = text.replace(old, new)
    vocabulary = vocabulary.inner
    # Runs of spaces that a replacement makes are its own doing.
    text = re.sub(" {2,}", " ", text)
  return text


def _survives(vocabulary, fragment: str) -> bool:
  text = f"a{fragment}b"
  ids = list(vocabulary.encode(text))
  unknown = vocabulary.unk_id
  if unknown is not None and unknown in ids:
    return False
  return vocabulary.decode(ids) == text


def template_texts(tasks: Iterable[Task]) -> list[str]:
  r"""What templates say themselves: their text without the fields, options.

  >>> template_texts([rte])  # doctest: +SKIP
  ['\n\nIs it true that ', '\n\n', 'OPTIONS:\n- yes\n- no', ...]
  """
  texts = []
  for task in tasks:
    fixed = task.choices if isinstance(task.choices, tuple) else ("",)
    for template in task.templates:
      for part in (template.inputs, template.targets):
        texts += [t for t in re.split(r"\{[^{}]*\}", part) if t]
      if template.shows_options:
        texts.append("\n- ".join(("OPTIONS:", *fixed)))
      elif fixed != ("",):
        texts += fixed
  return texts


def warn_lost(
  vocabulary: seqio.Vocabulary, texts: Iterable[str], shown: int = 12
) -> dict[str, int]:
  """Warns once, naming what of `texts` the vocabulary loses.

  Returns:
    `check_representable(vocabulary, texts)`.
  """
  lost = check_representable(vocabulary, texts)
  if lost:
    warnings.warn(describe_lost(vocabulary, lost, shown), LostTextWarning, 2)
  return lost


def describe_lost(
  vocabulary: seqio.Vocabulary, lost: Mapping[str, int], shown: int = 12
) -> str:
  """One sentence for the log and the report."""
  names: Sequence[str] = [f"{k!r} ({n} times)" for k, n in lost.items()]
  more = f" and {len(names) - shown} more" if len(names) > shown else ""
  replaceable = [k for k in lost if k in T5_REPLACEMENTS]
  way_out = (
    "; replacements='t5' replaces "
    + ", ".join(f"{k!r} by {T5_REPLACEMENTS[k]!r}" for k in replaceable)
    if replaceable
    else "; give a table of replacements"
  )
  return (
    f"{vocabulary} cannot represent {', '.join(names[:shown])}{more} of the"
    f" text it is given: the model reads a space or <unk> there{way_out}."
  )
