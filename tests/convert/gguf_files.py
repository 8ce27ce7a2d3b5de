"""Small GGUF files of transformers' models, as llama.cpp's converter has them.

Names come from the `gguf` package's own table; what the converter does to the
numbers is written out here from its description.
"""

import gguf
import numpy as np
import torch

ARCHITECTURES = {
  "llama": "llama",
  "mistral": "llama",
  "qwen2": "qwen2",
  "qwen3": "qwen3",
  "gemma2": "gemma2",
  "gemma3_text": "gemma3",
  "olmo": "olmo",
  "olmo2": "olmo2",
}
INTERLEAVED = ("llama", "olmo")


def perturb(model, seed=0):
  """Every parameter moved, so that none is at a value that hides a fault."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      parameter.copy_(parameter + 0.1 * noise)
  return model.eval()


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
  """The two halves of a head's rows, one of each in turn."""
  halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
  return halves.swapaxes(1, 2).reshape(rows.shape)


def tensors_of(model):
  """Their name -> float32 array, of every tensor in the file."""
  config = model.config
  name = ARCHITECTURES[config.model_type]
  number = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[name]
  table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
  out = {}
  for theirs, value in model.state_dict().items():
    if theirs == "lm_head.weight" and config.tie_word_embeddings:
      continue
    stem, _, suffix = theirs.rpartition(".")
    array = value.detach().float().numpy().copy()
    if name in INTERLEAVED and stem.endswith("q_proj"):
      array = interleave(array, config.num_attention_heads)
    if name in INTERLEAVED and stem.endswith("k_proj"):
      array = interleave(array, config.num_key_value_heads)
    if name.startswith("gemma") and stem.endswith("norm"):
      array = array + np.float32(1.0)
    out[f"{table.get_name(stem)}.{suffix}"] = array
  return out


def write(path, model, *, quantise=None, extra_tensors=(), edit=None):
  """A file of the model; `quantise`: (name, array) -> (array, type) or None.

  Args:
    path: of the file.
    model: transformers', for causal LM.
    quantise: what a tensor is stored as; None leaves float32.
    extra_tensors: pairs (name, float32 array) beside the model's.
    edit: called with the writer, to add metadata.
  """
  config = model.config
  writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type])
  writer.add_name("tiny")
  writer.add_context_length(config.max_position_embeddings)
  writer.add_embedding_length(config.hidden_size)
  writer.add_block_count(config.num_hidden_layers)
  writer.add_feed_forward_length(config.intermediate_size)
  writer.add_head_count(config.num_attention_heads)
  writer.add_head_count_kv(config.num_key_value_heads)
  writer.add_vocab_size(config.vocab_size)
  head_dim = getattr(config, "head_dim", None)
  if head_dim and head_dim != config.hidden_size // config.num_attention_heads:
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
  parameters = config.rope_parameters
  if config.model_type == "gemma3_text":
    parameters = parameters["full_attention"]
  writer.add_rope_freq_base(parameters["rope_theta"])
  if config.model_type == "olmo":
    writer.add_layer_norm_eps(1e-5)
    if config.clip_qkv is not None:
      writer.add_clamp_kqv(config.clip_qkv)
  else:
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
  window = getattr(config, "sliding_window", None)
  if window and config.model_type != "qwen2":
    writer.add_sliding_window(window)
  if config.model_type == "gemma2":
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
  if edit is not None:
    edit(writer)
  for name, array in [*tensors_of(model).items(), *extra_tensors]:
    stored = quantise(name, array) if quantise else None
    data, kind = stored or (array, None)
    writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path
