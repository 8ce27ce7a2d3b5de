"""Soft prompts in PEFT's layout: `prompt_embeddings` [P, D], or [2 P, D].

PEFT puts the vectors before the whole input, the begin token too, as ours are.
Of an encoder-decoder it makes twice as many by default (its
`num_transformer_submodules` is 2) and reads the first half, before the encoder.
"""

from typing import Any

import numpy as np

from flan_jax.convert import prompts
from flan_jax.errors import UserError
from flan_jax.models.decoder_config import DecoderConfig
from flan_jax.models.soft_prompt import KEY

EMBEDDINGS = "prompt_embeddings"
_CAUSAL, _SEQ2SEQ = "CAUSAL_LM", "SEQ_2_SEQ_LM"
# What the vectors say already, or what matters before training alone.
_INERT = frozenset(
  (
    *("auto_mapping", "base_model_name_or_path", "inference_mode"),
    *("num_attention_heads", "num_layers", "num_transformer_submodules"),
    *("num_virtual_tokens", "peft_type", "peft_version"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "revision"),
    *("task_type", "token_dim", "tokenizer_kwargs", "tokenizer_name_or_path"),
  )
)


def read(folder: Any, base: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """`SoftPrompt.described` of a folder, and the vectors by our names.

  Args:
    folder: a `peft.Folder`.
    base: the source of the base.

  Raises:
    UserError: an option that ours has not, a task type of another kind of
      model, or vectors of another width or number than said, both named.
  """
  decoder_only = isinstance(base.config, DecoderConfig)
  if base.config is not None:
    _check_scale(base.config, base.path)
    wanted = _CAUSAL if decoder_only else _SEQ2SEQ
    said = folder.config.get("task_type")
    if said not in (None, wanted):
      raise UserError(
        f"{folder.path} has task_type {said!r}, and {base.path} is a model for"
        f" {wanted!r}: the prompt is of another model."
      )
  names = ("token_embedder/embedding", "decoder/token_embedder/embedding")
  width = next(base.shapes[n].shape[1] for n in names if n in base.shapes)
  array_PD = vectors(folder)
  if array_PD.shape[1] != width:
    raise UserError(
      f"{folder.path} has vectors of {array_PD.shape[1]} numbers, {base.path}"
      f" has a width of {width}: the prompt is of another model."
    )
  side = "decoder" if decoder_only else "encoder"
  described = {
    "kind": KEY,
    "length": array_PD.shape[0],
    "names": ["prompt"],
    "side": side,
    "reparameterisation": 0,
  }
  return described, {f"{KEY}/{side}/prompt": array_PD}


def vectors(folder: Any) -> np.ndarray:
  """The vectors of a folder that PEFT reads, [P, D], float32.

  Raises:
    UserError: an option that ours has not; tensors other than the vectors, or
      another number of them than the config says.
  """
  config = folder.config
  others = {
    name: value
    for name, value in config.items()
    if name not in _INERT and value not in (None, False, {}, [])
  }
  if others:
    said = ", ".join(f"{n} = {v!r}" for n, v in sorted(others.items()))
    raise UserError(
      f"{folder.path} has options that a soft prompt of ours has not: {said}."
    )
  if set(folder.arrays) != {EMBEDDINGS}:
    raise UserError(
      f"{folder.path} has the tensors {', '.join(sorted(folder.arrays))}; a"
      f" soft prompt is {EMBEDDINGS} alone."
    )
  array = folder.arrays[EMBEDDINGS].astype(np.float32)
  length = config.get("num_virtual_tokens")
  parts = config.get("num_transformer_submodules") or (
    2 if config.get("task_type") == _SEQ2SEQ else 1
  )
  if array.ndim != 2 or array.shape[0] != length * parts:
    raise UserError(
      f"{folder.path}: {EMBEDDINGS} is {list(array.shape)}, and the config says"
      f" {parts} x {length} vectors."
    )
  return array[:length]


def write(source: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The config of PEFT and its tensors, of a checkpoint with a soft prompt.

  Raises:
    UserError: a prompt before the decoder of an encoder-decoder, which PEFT
      never reads; several prompts, which are several folders there.
  """
  _check_scale(source.config, source.path)
  found = prompts.vectors_of(source)
  decoder_only = isinstance(source.config, DecoderConfig)
  if not decoder_only and set(found) != {"encoder"}:
    raise UserError(
      f"{source.path} has a prompt before the decoder, PROMPT_SIDE ="
      f" {source.adapter['side']!r}, which PEFT does not read: train with"
      " PROMPT_SIDE = 'encoder' for it."
    )
  (array_PD,) = found.values()
  c = source.config
  config = {
    "task_type": _CAUSAL if decoder_only else _SEQ2SEQ,
    "num_virtual_tokens": array_PD.shape[0],
    "token_dim": array_PD.shape[1],
    "num_transformer_submodules": 1,
    "num_attention_heads": c.num_heads,
    "num_layers": c.num_layers if decoder_only else c.num_encoder_layers,
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "tokenizer_name_or_path": None,
  }
  return config, {EMBEDDINGS: array_PD}


def _check_scale(config, where):
  if getattr(config, "embedding_scale", 1.0) != 1.0:
    raise UserError(
      f"{where}: this model multiplies its embeddings by"
      f" {config.embedding_scale:g} (Gemma). Whether that comes before or after"
      " the prompt depends on the version of transformers: write a .npy"
      " instead."
    )
