"""What the tokenizer's files in a Hugging Face folder say of ids."""

import logging
import pathlib
from collections.abc import Iterable, Sequence

from flan_jax.convert.shards import read_json
from flan_jax.errors import UserError

_log = logging.getLogger(__name__)


def _named(files, *names):
  return next((f for n in names for f in files if f.name == n), None)


def check_size(
  files: Sequence[pathlib.Path],
  vocab_size: int,
  outside: Iterable[str] = (),
) -> None:
  """The embedding has a row for each token; it may have more (padding).

  Args:
    files: of a tokenizer, or none.
    vocab_size: V.
    outside: tokens that are never a model's input, for which none is needed.

  Raises:
    UserError: the tokenizer has more tokens.
  """
  file = _named(files, "tokenizer.json")
  if file is not None:
    found = read_json(file)
    base = found.get("model", {}).get("vocab", {})
    ids = {token: i for i, token in enumerate(base)} | (
      base if isinstance(base, dict) else {}
    )
    if isinstance(base, list):
      ids = {piece[0]: i for i, piece in enumerate(base)}
    ids |= {t["content"]: t["id"] for t in found.get("added_tokens") or ()}
    ids = {token: i for token, i in ids.items() if token not in set(outside)}
    token = max(ids, key=ids.get, default=None)
    size = 0 if token is None else ids[token] + 1
  else:
    file = _named(files, "tokenizer.model", "spiece.model")
    if file is None:
      return
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
      processor.Load(str(file))
    except (OSError, RuntimeError) as error:
      raise UserError(
        f"{file} is no SentencePiece model ({error}); fetch it again."
      ) from None
    size = processor.GetPieceSize()
    token = processor.IdToPiece(size - 1)
  if size > vocab_size:
    raise UserError(
      f"{file} has tokens up to id {size - 1} ({token!r}), but the embedding"
      f" has vocab_size {vocab_size} rows. Use the tokenizer of this"
      " checkpoint, or enlarge the embedding first."
    )


def special_ids(files: Sequence[pathlib.Path]) -> dict[str, int | list[int]]:
  """`bos_token_id`, `eos_token_id`, `pad_token_id` where files say them."""
  file = _named(files, "generation_config.json")
  if file is not None:
    said = read_json(file)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {k: said[k] for k in keys if said.get(k) is not None}
  file = _named(files, "tokenizer.json", "tokenizer.model", "spiece.model")
  if file is None:
    return {}
  from flan_jax.data import vocabulary

  try:
    found = vocabulary.load(file)
    ends = vocabulary.end_ids(found)
  except UserError as error:
    _log.warning("The export does not say its special tokens: %s", error)
    return {}
  ids = {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)}
  for name, id_ in (("bos", found.bos_id), ("pad", found.pad_id)):
    if id_ is not None and id_ >= 0:
      ids[f"{name}_token_id"] = id_
  return ids
