"""GGUF files with a tokenizer and nothing else."""

import json

import gguf


def write(path, model, tokens, *, architecture="llama", **fields):
  """A file of `tokenizer.ggml.*`; values that are None are left out."""
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_context_length(64)
  writer.add_tokenizer_model(model)
  writer.add_token_list(tokens)
  add = {
    "pre": writer.add_tokenizer_pre,
    "types": writer.add_token_types,
    "scores": writer.add_token_scores,
    "merges": writer.add_token_merges,
    "bos": writer.add_bos_token_id,
    "eos": writer.add_eos_token_id,
    "eot": writer.add_eot_token_id,
    "unk": writer.add_unk_token_id,
    "pad": writer.add_pad_token_id,
    "add_bos": writer.add_add_bos_token,
    "add_eos": writer.add_add_eos_token,
    "prefix": writer.add_add_space_prefix,
    "extra_spaces": writer.add_remove_extra_whitespaces,
    "chat": writer.add_chat_template,
  }
  for name, value in fields.items():
    if value is not None:
      add[name](value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def of_bpe(path, tokenizer, pre, *, special, plain=(), **fields):
  """The file of a byte-level BPE of the `tokenizers` library."""
  model = json.loads(tokenizer.to_str())["model"]
  ids = tokenizer.get_vocab()
  tokens = sorted(ids, key=ids.__getitem__)
  types = [
    gguf.TokenType.CONTROL
    if t in special
    else gguf.TokenType.USER_DEFINED
    if t in plain
    else gguf.TokenType.NORMAL
    for t in tokens
  ]
  merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
  return write(
    path, "gpt2", tokens, pre=pre, types=types, merges=merges, **fields
  )


def of_sentencepiece(path, model, **fields):
  """The file of a SentencePiece model, as llama.cpp's converter has it."""
  kinds = (
    (model.is_unknown, gguf.TokenType.UNKNOWN),
    (model.is_control, gguf.TokenType.CONTROL),
    (model.is_unused, gguf.TokenType.UNUSED),
    (model.is_byte, gguf.TokenType.BYTE),
  )
  tokens, types = [], []
  for i in range(model.get_piece_size()):
    piece = model.id_to_piece(i)
    kind = next((k for is_, k in kinds if is_(i)), gguf.TokenType.NORMAL)
    if kind == gguf.TokenType.NORMAL and piece in fields.get("defined", ()):
      kind, piece = gguf.TokenType.USER_DEFINED, piece.replace("\u2581", " ")
    tokens.append(piece)
    types.append(kind)
  fields.pop("defined", None)
  scores = [model.get_score(i) for i in range(len(tokens))]
  return write(
    path, "llama", tokens, types=types, scores=scores, pre="default", **fields
  )
