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

from flan_jax.data.replacing import (
  T5_REPLACEMENTS,
  ReplacingVocabulary,
  innermost,
  table_of,
)
from flan_jax.data.spec import Task
from flan_jax.data.tokenizers import (
  TURN_ENDS,
  TokenizerVocabulary,
  generation_ends,
  json_beside,
)
from flan_jax.errors import UserError

SHIPPED = "flan_jax"
# The same with a piece that ends a turn, see `train_vocabulary.with_turn_end`.
SHIPPED_CHAT = "flan_jax_chat"


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
    name: "flan_jax" for the shipped one (pad 0, EOS 1, unknown 2),
      "flan_jax_chat" for that with the piece `<|eot_id|>`, the path of a
      SentencePiece model (`*.model`), of a Hugging Face `tokenizer.json`, of
      a GGUF file with a tokenizer in it, or of a folder with one of them.
    pad: padding token of a `tokenizer.json` or GGUF file, as text; default:
      what the file or `tokenizer_config.json` beside it says, else its token 0
      if that is special, else EOS (`check_padding`).
    eos: its end-of-sequence token; default: what file or config says.
    extra_ids: sentinels added at the end of a SentencePiece model (T5: 100).
    replacements: "t5" for `T5_REPLACEMENTS`, a table text -> text, or None for
      no replacement: then `warn_lost` says what is lost.

  Raises:
    UserError: no such name or file, not a vocabulary, or its special tokens
      cannot be told.
  """
  shipped = str(name) in (SHIPPED, SHIPPED_CHAT)
  path = shipped_file(str(name)) if shipped else _file(name)
  if path.suffix in (".json", ".gguf"):
    if extra_ids:
      raise UserError(
        f"extra_ids={extra_ids} has no effect on {path}: a tokenizer lists its"
        " own special tokens. Leave it 0."
      )
    vocabulary = TokenizerVocabulary(path, pad=pad, eos=eos)
  else:
    if pad is not None or eos is not None:
      raise UserError(
        f"pad={pad!r}, eos={eos!r} have no effect on {path}: a SentencePiece"
        " model says them itself. Leave them out."
      )
    vocabulary = _sentencepiece(path, extra_ids)
  table = table_of(replacements)
  return ReplacingVocabulary(vocabulary, table) if table else vocabulary


def begin_id(vocabulary: seqio.Vocabulary) -> int | None:
  """The id that a decoder-only row begins with; None: the text's own first.

  BOS where the tokenizer puts one before a text (Llama, Mistral, Gemma), None
  where it does not (Qwen, SmolLM2, OLMo). A vocabulary without BOS that is no
  tokenizer of such a model begins with 0, as T5X's decoders do.

  >>> begin_id(load())
  0
  """
  vocabulary = innermost(vocabulary)
  if isinstance(vocabulary, TokenizerVocabulary):
    return vocabulary.begin_id
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    config = json_beside(_model_file(vocabulary), "tokenizer_config.json")
    bos = vocabulary.tokenizer.bos_id()
    if bos >= 0:
      return bos if config.get("add_bos_token", True) else None
  return 0


def end_ids(vocabulary: seqio.Vocabulary) -> tuple[int, ...]:
  """The ids that end a text: EOS first, then those that end a turn.

  The latter are `<|im_end|>`, `<|eot_id|>` and `<end_of_turn>` where the
  vocabulary has them, and what `generation_config.json` beside the file or the
  GGUF file itself lists.

  >>> end_ids(load())
  (1,)
  """
  vocabulary = innermost(vocabulary)
  if isinstance(vocabulary, TokenizerVocabulary):
    return vocabulary.end_ids
  ends = [vocabulary.eos_id]
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    ids = (vocabulary.tokenizer.piece_to_id(t) for t in TURN_ENDS)
    ends += [i for i in ids if i != vocabulary.unk_id]
    ends += generation_ends(_model_file(vocabulary))
  return tuple(dict.fromkeys(i for i in ends if i is not None))


def token_text(vocabulary: seqio.Vocabulary, id_: int) -> str | None:
  """What its file calls an id; None for a vocabulary without a file.

  >>> token_text(load(), 1)
  '</s>'
  """
  inner = innermost(vocabulary)
  if isinstance(inner, TokenizerVocabulary):
    return inner.token(id_)
  if isinstance(inner, seqio.SentencePieceVocabulary):
    return inner.tokenizer.id_to_piece(id_)
  return None


def describe(vocabulary: seqio.Vocabulary) -> str:
  """One line for the log: size, and the ids that are not text.

  >>> print(describe(load()))  # doctest: +NORMALIZE_WHITESPACE
  4,096 ids; a decoder's row begins with 0 ('<pad>'); text ends with
  1 ('</s>'); padding 0 ('<pad>')
  """

  def show(id_):
    token = token_text(vocabulary, id_)
    return str(id_) if token is None else f"{id_} ({token!r})"

  begin = begin_id(vocabulary)
  return (
    f"{vocabulary.vocab_size:,} ids; a decoder's row begins with"
    f" {'its text' if begin is None else show(begin)}; text ends with"
    f" {', '.join(map(show, end_ids(vocabulary)))}; padding"
    f" {show(vocabulary.pad_id)}"
  )


def check_padding(vocabulary: seqio.Vocabulary, kind: str):
  """Refuses a vocabulary whose padding an encoder-decoder would read as text.

  Args:
    vocabulary: the run's.
    kind: `kind` of its model; a decoder-only model takes any.

  Raises:
    UserError: an encoder-decoder model, and id 0 is not the padding.
  """
  if kind == "encoder_decoder" and vocabulary.pad_id != 0:
    raise UserError(
      f"{vocabulary} pads with id {vocabulary.pad_id}, but batches of an"
      " encoder-decoder model are padded with 0, which is a token of its own"
      " there. Use a vocabulary with pad id 0, or a decoder-only model."
    )


def encode_batch(
  vocabulary: seqio.Vocabulary, texts: Sequence[str]
) -> list[list[int]]:
  r"""Ids of each text, as `vocabulary.encode` has them, in one call.

  On all cores and without Python's lock, where the library allows.

  >>> encode_batch(load(), ["yes", "no\n"]) == [
  ...   load().encode("yes"), load().encode("no\n")]
  True
  """
  texts = list(texts)
  while isinstance(vocabulary, ReplacingVocabulary):
    texts = [vocabulary.replaced(t) for t in texts]
    vocabulary = vocabulary.inner
  if isinstance(vocabulary, TokenizerVocabulary):
    return vocabulary.encode_batch(texts)
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    return vocabulary.tokenizer.encode(texts, num_threads=os.cpu_count() or 1)
  return [list(vocabulary.encode(t)) for t in texts]


def _model_file(vocabulary: seqio.SentencePieceVocabulary) -> pathlib.Path:
  return pathlib.Path(vocabulary.sentencepiece_model_file)


# Words, numbers and signs enough that two vocabularies part them differently.
_PROBE = (
  "Whether a report of 1,024 unusually careful readings shows it or not, the"
  ' editors of the weekly paper asked: "Could both sentences be true?"\n'
  "OPTIONS:\n- yes\n- no\n- it is not possible to tell\t{x} <y> 37% &amp; #5"
)


def fingerprint(vocabulary: seqio.Vocabulary) -> str:
  """Eight hex digits that tell vocabularies apart.

  By how they part a text, and by their last pieces, where marks of turns that
  were added to another vocabulary are.
  """
  ids = [int(i) for i in vocabulary.encode(_PROBE)]
  size = vocabulary.vocab_size
  last = [vocabulary.decode([i]) for i in range(max(0, size - 64), size)]
  special = (size, vocabulary.pad_id, vocabulary.eos_id)
  return hashlib.sha256(repr((special, ids, last)).encode()).hexdigest()[:8]


def shipped_file(name: str = SHIPPED) -> pathlib.Path:
  """A SentencePiece model that comes with the package."""
  folder = importlib.resources.files("flan_jax.data") / "vocabularies"
  return pathlib.Path(str(folder / f"{name}.model"))


def _file(name: str | os.PathLike) -> pathlib.Path:
  """The file that a path names; in a model's folder, its tokenizer."""
  path = pathlib.Path(name).expanduser()
  if path.is_dir():
    names = ("tokenizer.json", "tokenizer.model", "spiece.model")
    found = [path / n for n in names if (path / n).is_file()]
    found = found or sorted(path.glob("*.gguf"))
    if not found:
      raise UserError(
        f"Folder {path} holds no vocabulary: none of {', '.join(names)} and no"
        " *.gguf."
      )
    if found[0].suffix == ".gguf" and len(found) > 1:
      raise UserError(
        f"Folder {path} holds several GGUF files; name the one:"
        f" {', '.join(f.name for f in found)}."
      )
    return found[0]
  if path.suffix not in (".model", ".json", ".gguf"):
    raise UserError(
      f"Vocabulary {str(name)!r} is neither {SHIPPED!r}, {SHIPPED_CHAT!r} nor"
      " the path of a SentencePiece *.model, a tokenizer.json, a *.gguf or a"
      " model's folder. Nothing is downloaded: copy the file here and name it."
    )
  if not path.is_file():
    raise UserError(f"Vocabulary file {path} does not exist.")
  return path


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
  inner = innermost(vocabulary)
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
    text = vocabulary.replaced(text)
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
    if not isinstance(task, Task):
      texts += task.texts()
      continue
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
