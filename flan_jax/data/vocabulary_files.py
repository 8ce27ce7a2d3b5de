"""A vocabulary's files beside what was trained with it."""

import json
import os
import pathlib
import shutil
import tempfile

import seqio

from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.replacing import innermost
from flan_jax.data.tokenizers import TokenizerVocabulary, json_beside
from flan_jax.errors import UserError

_CONFIG = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_MAP = "special_tokens_map.json"
# What stands beside a tokenizer and says more of it.
_BESIDE = (
  _CONFIG,
  _MAP,
  _GENERATION,
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
)
_SENTENCEPIECE_NAMES = ("tokenizer.model", "spiece.model")


def keep(
  vocabulary: seqio.Vocabulary, folder: str | os.PathLike
) -> pathlib.Path | None:
  """Writes a vocabulary's files into a folder, where there is none yet.

      keep(vocabulary.load(), "runs/mine/vocabulary")
      vocabulary.load("runs/mine/vocabulary")       # the same ids

  The folder holds a `spiece.model` or `tokenizer.model`, or a `tokenizer.json`,
  under the name that programs look for, and the files beside it that say more
  (special tokens, chat template). Of a GGUF file, only its tokenizer is
  written. `pad` and `eos` that `vocabulary.load` was given are written into
  `tokenizer_config.json`; its `extra_ids` and `replacements` are not.

  Args:
    vocabulary: of `vocabulary.load`.
    folder: to be made; one that is there is left as it is.

  Returns:
    The folder; None for a vocabulary that is not of a file, such as
    `seqio.ByteVocabulary`.

  Raises:
    UserError: the vocabulary's file is gone, or the folder cannot be written.
  """
  vocabulary = innermost(vocabulary)
  if isinstance(vocabulary, TokenizerVocabulary):
    file = vocabulary.path
  elif isinstance(vocabulary, seqio.SentencePieceVocabulary):
    file = pathlib.Path(vocabulary.sentencepiece_model_file)
  else:
    return None
  folder = pathlib.Path(folder)
  if folder.is_dir():
    return folder
  try:
    with tempfile.TemporaryDirectory(
      ".draft", f".{folder.name}.", folder.parent
    ) as made:
      draft = pathlib.Path(made) / folder.name
      draft.mkdir()
      _write(vocabulary, file, draft)
      draft.rename(folder)
  except OSError as e:
    raise UserError(
      f"{folder} cannot be written from the vocabulary {file}: {e.strerror}."
    ) from None
  return folder


def _write(vocabulary, file: pathlib.Path, folder: pathlib.Path):
  if file.suffix == ".gguf":
    # Its reader is not imported for any other vocabulary.
    from flan_jax.data import gguf_tokenizer

    gguf_tokenizer.write(file, folder)
  else:
    name = file.name
    if isinstance(vocabulary, TokenizerVocabulary):
      name = "tokenizer.json"
    elif name not in _SENTENCEPIECE_NAMES:
      name = "spiece.model"
    shutil.copyfile(file, folder / name)
    for beside in _BESIDE:
      if file.with_name(beside).is_file():
        shutil.copyfile(file.with_name(beside), folder / beside)
  if isinstance(vocabulary, TokenizerVocabulary):
    _say_special(vocabulary, folder / "tokenizer.json")


def _say_special(vocabulary: TokenizerVocabulary, file: pathlib.Path):
  """What arguments of `load`, or a GGUF file, said besides."""
  try:
    plain = vocabulary_lib.load(file)
  except UserError:  # EOS is not said at all
    plain = None
  if plain is None or (plain.pad_id, plain.eos_id) != (
    vocabulary.pad_id,
    vocabulary.eos_id,
  ):
    tokens = {
      "eos_token": vocabulary.token(vocabulary.eos_id),
      "pad_token": vocabulary.token(vocabulary.pad_id),
    }
    for name in (_CONFIG, _MAP):
      if name == _CONFIG or file.with_name(name).is_file():
        _dump(file.with_name(name), json_beside(file, name) | tokens)
    plain = vocabulary_lib.load(file)
  if plain.end_ids != vocabulary.end_ids:
    said = json_beside(file, _GENERATION)
    ends = {"eos_token_id": list(vocabulary.end_ids)}
    if not said:
      ends["pad_token_id"] = vocabulary.pad_id
      if vocabulary.bos_id is not None:
        ends["bos_token_id"] = vocabulary.bos_id
    _dump(file.with_name(_GENERATION), said | ends)


def _dump(path: pathlib.Path, value):
  text = json.dumps(value, indent=2, ensure_ascii=False)
  path.write_text(text + "\n", encoding="utf-8")
