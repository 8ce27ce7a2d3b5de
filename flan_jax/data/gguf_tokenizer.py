"""The tokenizer inside a GGUF file, as the `tokenizers` library has it.

Two kinds are read. `gpt2` is a byte-level BPE: the file lists tokens and
merges, and `tokenizer.ggml.pre` names the way that text is split before (the
rules are in `PRE_TOKENIZERS`). `llama` is a SentencePiece BPE: the file lists
pieces with scores, and a merge of two neighbours ranks as its result's score.

Source: Sennrich et al., 2016 (arXiv 1508.07909) for BPE; Kudo and Richardson,
2018 (arXiv 1808.06226) for pieces, scores and byte fallback.
"""

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Mapping

import gguf
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from flan_jax.data import gguf_file
from flan_jax.errors import UserError

SPACE = "\u2581"
# Whether a space is put before a text, and what a file means that is silent.
_PREFIX = ("add_space_prefix", True)
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = f"{_WORDS}|{_SPACES}"


def _cl100k(numbers: str) -> str:
  """Words with the sign before them, numbers, signs with line ends."""
  return (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + numbers
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    + _SPACES
  )


# Letters with an upper-case beginning, as in camelCase, are words of their own.
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
  rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+"
  rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
  r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + _SPACES
)


@dataclasses.dataclass(frozen=True)
class PreTokenizer:
  """How a byte-level BPE splits text before it merges.

  Attributes:
    splits: patterns; each splits what the ones before it left.
    nfc: text is composed first (Unicode normal form C).
    whole_words: a word that is a token is taken whole, whatever the merges.
    begins: the model was trained with a BOS token before each text.
  """

  splits: tuple[str, ...]
  nfc: bool = False
  whole_words: bool = False
  begins: bool = False


_LLAMA3 = PreTokenizer((_cl100k(r"\p{N}{1,3}"),), whole_words=True, begins=True)
# The names are llama.cpp's. Digits alone first: SmolLM and StarCoder.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
  "gpt-2": PreTokenizer((_GPT2,)),
  "olmo": PreTokenizer((_GPT2,), nfc=True),
  "smollm": PreTokenizer((r"\p{N}", _GPT2)),
  "starcoder": PreTokenizer((r"\p{N}", _GPT2)),
  "llama-bpe": _LLAMA3,
  "llama3": _LLAMA3,
  "llama-v3": _LLAMA3,
  "dbrx": PreTokenizer((_cl100k(r"\p{N}{1,3}"),)),
  "qwen2": PreTokenizer((_cl100k(r"\p{N}"),), nfc=True),
  "tekken": PreTokenizer((_TEKKEN,), whole_words=True, begins=True),
}


@dataclasses.dataclass(frozen=True)
class GgufTokenizer:
  """What `read` finds.

  Attributes:
    tokenizer: encodes as the model was trained; its post-processor adds BOS
      where the model wants one.
    config: the content of a `tokenizer_config.json` that says the same.
    end_ids: ids that end a turn, as far as the file says them.
  """

  tokenizer: tokenizers.Tokenizer
  config: dict
  end_ids: tuple[int, ...]


def read(file: str | os.PathLike | gguf.GGUFReader) -> GgufTokenizer:
  """The tokenizer of a GGUF file.

  >>> found = read("model.gguf")  # doctest: +SKIP
  >>> found.tokenizer.encode("a b").ids  # doctest: +SKIP
  [81, 298]

  Args:
    file: its path, or the reader of `gguf_file.open_gguf`.

  Raises:
    UserError: the file has no tokenizer, or one that the `tokenizers` library
      cannot do exactly; the message names what is in the way.
  """
  reader = file
  if not isinstance(file, gguf.GGUFReader):
    reader = gguf_file.open_gguf(file)
  try:
    return _read(reader)
  except UserError as e:
    raise UserError(f"{reader.data.filename}: {e}") from None


def _read(reader: gguf.GGUFReader) -> GgufTokenizer:
  def get(key, default=None):
    return gguf_file.metadata(reader, f"tokenizer.ggml.{key}", default)

  kind, tokens = get("model"), get("tokens")
  if kind is None or not tokens:
    raise UserError(
      "the file has no tokenizer; give the model's tokenizer.json."
    )
  if kind not in _BUILDERS:
    raise UserError(
      f"tokenizer.ggml.model is {kind!r}; read are"
      f" {', '.join(map(repr, _BUILDERS))}. Give the model's tokenizer.json."
    )
  if len(set(tokens)) < len(tokens):
    double = next(t for t in tokens if tokens.count(t) > 1)
    raise UserError(f"tokenizer.ggml.tokens lists {double!r} twice.")
  types = get("token_type") or [gguf.TokenType.NORMAL] * len(tokens)
  tokenizer, begins = _BUILDERS[kind](get, tokens, types)
  for special, wanted in (
    (True, gguf.TokenType.CONTROL),
    (False, gguf.TokenType.USER_DEFINED),
  ):
    # Pieces of one's own are found where the spaces are marked already.
    marked = kind == "llama" and not special and not get(*_PREFIX)
    tokenizer.add_tokens(
      [
        tokenizers.AddedToken(t, special=special, normalized=marked)
        for t, type_ in zip(tokens, types, strict=True)
        if type_ == wanted
      ]
    )
  config = _config(reader, get, tokens, begins)
  _add_ends(tokenizer, config)
  ends = (get("eot_token_id"), get("eom_token_id"))
  return GgufTokenizer(
    tokenizer, config, tuple(i for i in ends if i is not None)
  )


def write(
  file: str | os.PathLike | gguf.GGUFReader, folder: str | os.PathLike
) -> tuple[pathlib.Path, ...]:
  """Writes `tokenizer.json` and `tokenizer_config.json`; their paths.

  >>> write("model.gguf", "exported")  # doctest: +SKIP
  (PosixPath('exported/tokenizer.json'), ...)
  """
  found = read(file)
  path = pathlib.Path(folder) / "tokenizer.json"
  found.tokenizer.save(str(path))
  beside = path.with_name("tokenizer_config.json")
  text = json.dumps(found.config, indent=2, ensure_ascii=False)
  beside.write_text(text + "\n", encoding="utf-8")
  return path, beside


def _byte_level(get, tokens, types):
  name = get("pre")
  if name not in PRE_TOKENIZERS:
    near = difflib.get_close_matches(str(name), PRE_TOKENIZERS, 1, 0.0)[0]
    raise UserError(
      f"tokenizer.ggml.pre is {name!r}, a way to split text that is not known"
      f" here; the nearest is {near!r}, known are {', '.join(PRE_TOKENIZERS)}."
      " Give the model's tokenizer.json."
    )
  rules = PRE_TOKENIZERS[name]
  vocab = {t: i for i, t in enumerate(tokens)}
  merges = [tuple(m.split(" ")) for m in get("merges") or ()]
  for merge in merges:
    _check_merge(merge, vocab)
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab=vocab,
      merges=merges,
      ignore_merges=rules.whole_words,
    )
  )
  if rules.nfc:
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
      for pattern in rules.splits
    ]
    + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  )
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer, rules.begins


def _check_merge(merge: tuple[str, ...], vocab: Mapping[str, int]):
  """The library says no more than a token, and of a pair's shape nothing."""
  written = " ".join(merge)
  if len(merge) != 2:
    raise UserError(
      f"tokenizer.ggml.merges has {written!r}, which is no pair of tokens with"
      " a space between them. Give the model's tokenizer.json."
    )
  for token in (*merge, "".join(merge)):
    if token not in vocab:
      raise UserError(
        f"tokenizer.ggml.merges has {written!r}, but {token!r} is none of the"
        f" {len(vocab)} tokens: the lists are of different tokenizers. Give"
        " the model's tokenizer.json."
      )


def _sentencepiece(get, tokens, types):
  for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
    if get(key):
      raise UserError(
        f"tokenizer.ggml.{key} is set: this SentencePiece model changes the"
        " text before it encodes, which is not read here. Give the model's"
        " tokenizer.model."
      )
  scores = get("scores")
  if not scores:
    raise UserError("tokenizer.ggml.scores is missing.")
  # Two pieces merge where their sum is a piece; the best score goes first, and
  # of one piece's ways the one that ends further right.
  score = {
    t: (-s, i)
    for i, (t, s, type_) in enumerate(zip(tokens, scores, types, strict=True))
    if type_ == gguf.TokenType.NORMAL
  }
  merges = [
    (piece[:cut], piece[cut:])
    for piece in sorted(score, key=score.__getitem__)
    for cut in range(len(piece) - 1, 0, -1)
    if piece[:cut] in score and piece[cut:] in score
  ]
  unknown = get("unknown_token_id", 0)
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab={t: i for i, t in enumerate(tokens)},
      merges=merges,
      unk_token=tokens[unknown],
      fuse_unk=True,
      byte_fallback=gguf.TokenType.BYTE in types,
    )
  )
  prefix = get(*_PREFIX)
  steps = [normalizers.Prepend(SPACE)] if prefix else []
  tokenizer.normalizer = normalizers.Sequence(
    [*steps, normalizers.Replace(" ", SPACE)]
  )
  back = [decoders.Replace(SPACE, " "), decoders.ByteFallback()]
  back += [decoders.Fuse()]
  if prefix:
    back += [decoders.Strip(" ", 1, 0)]
  tokenizer.decoder = decoders.Sequence(back)
  return tokenizer, True


_BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece}


def _config(reader, get, tokens, begins: bool) -> dict:
  config = {"tokenizer_class": "PreTrainedTokenizerFast"}
  for name, key in (
    ("bos_token", "bos_token_id"),
    ("eos_token", "eos_token_id"),
    ("unk_token", "unknown_token_id"),
    ("pad_token", "padding_token_id"),
  ):
    id_ = get(key)
    if id_ is not None:
      if not 0 <= id_ < len(tokens):
        raise UserError(
          f"tokenizer.ggml.{key} is {id_}, but there are {len(tokens)} tokens."
        )
      config[name] = tokens[id_]
  config["add_bos_token"] = bool(get("add_bos_token", begins))
  config["add_eos_token"] = bool(get("add_eos_token", False))
  config["clean_up_tokenization_spaces"] = False
  architecture = gguf_file.metadata(reader, "general.architecture")
  length = gguf_file.metadata(reader, f"{architecture}.context_length")
  if length:
    config["model_max_length"] = length
  template = gguf_file.metadata(reader, "tokenizer.chat_template")
  if template:
    config["chat_template"] = template
  return config


def _add_ends(tokenizer: tokenizers.Tokenizer, config: dict):
  """BOS and EOS by the post-processor, where the model was trained so."""
  ends = []
  for name in ("bos", "eos"):
    token = config.get(f"{name}_token")
    if config[f"add_{name}_token"] and token is None:
      raise UserError(
        f"tokenizer.ggml.add_{name}_token is set, but no {name} token is given."
      )
    ends.append(token if config[f"add_{name}_token"] else None)
  if any(ends):
    first, second = (
      [piece for piece in (ends[0], text, ends[1]) if piece]
      for text in ("$A", "$B:1")
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
      single=first,
      pair=first + second,
      special_tokens=[
        (t, tokenizer.token_to_id(t)) for t in set(ends) - {None}
      ],
    )
