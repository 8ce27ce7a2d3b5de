"""Small randomly initialised models of transformers, one of each kind.

Every parameter is perturbed, norms and biases too, so that none can be left
out unnoticed.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

# Shared by all; few of anything that a wrong reshape could leave unnoticed.
SIZES = {
  "vocab_size": 61,
  "hidden_size": 24,
  "intermediate_size": 40,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 64,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "pad_token_id": None,
}
LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 500.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
YARN = {
  "rope_type": "yarn",
  "rope_theta": 100.0,
  "factor": 4.0,
  "original_max_position_embeddings": 16,
}
LONGROPE = {
  "rope_type": "longrope",
  "rope_theta": 100.0,
  "factor": 4.0,
  "original_max_position_embeddings": 16,
  "short_factor": [1.0, 1.1, 1.3],
  "long_factor": [1.0, 2.0, 3.5],
}
HALF_GLOBAL = {
  "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
  "full_attention": {
    "rope_type": "linear",
    "rope_theta": 1000.0,
    "factor": 8.0,
  },
}


def _rope(theta, kind="default", **fields):
  return {
    "rope_parameters": {"rope_theta": theta, "rope_type": kind, **fields}
  }


# name -> (model, what differs from SIZES). Windows are of 8 tokens.
CASES = {
  "llama2": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
  "llama3": (
    "Llama",
    {"rope_parameters": LLAMA3, "head_dim": 8, "tie_word_embeddings": True},
  ),
  "llama_bias": ("Llama", {"attention_bias": True, "mlp_bias": True}),
  "llama_linear": ("Llama", _rope(50.0, "linear", factor=4.0)),
  "llama_dynamic": (
    "Llama",
    {**_rope(50.0, "dynamic", factor=2.0), "max_position_embeddings": 16},
  ),
  "llama_yarn": ("Llama", {"rope_parameters": YARN}),
  "llama_yarn_mscale": (
    "Llama",
    {
      "rope_parameters": {
        **YARN,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "mscale": 1.2,
        "mscale_all_dim": 0.7,
        "truncate": False,
      },
    },
  ),
  "llama_longrope": ("Llama", {"rope_parameters": LONGROPE}),
  "smollm2": (
    "Llama",
    {
      **_rope(100000.0),
      "hidden_size": 36,
      "num_attention_heads": 9,
      "num_key_value_heads": 3,
      "tie_word_embeddings": True,
      "rms_norm_eps": 1e-5,
    },
  ),
  "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 8}),
  "mistral_full": ("Mistral", {"sliding_window": None}),
  "qwen2": ("Qwen2", {**_rope(1e6), "tie_word_embeddings": True}),
  "qwen2_windows": (
    "Qwen2",
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
  ),
  "qwen3": ("Qwen3", {**_rope(1e6), "head_dim": 10}),
  "qwen3_bias": (
    "Qwen3",
    {
      "head_dim": 6,
      "attention_bias": True,
      "use_sliding_window": True,
      "sliding_window": 8,
      "max_window_layers": 2,
    },
  ),
  "gemma2": (
    "Gemma2",
    {
      "head_dim": 8,
      "sliding_window": 8,
      "query_pre_attn_scalar": 14,
      "attn_logit_softcapping": 2.0,
      "final_logit_softcapping": 3.0,
    },
  ),
  "gemma3": (
    "Gemma3",
    {
      "head_dim": 8,
      "num_hidden_layers": 7,
      "num_key_value_heads": 1,
      "sliding_window": 8,
      "query_pre_attn_scalar": 20,
      "rope_parameters": HALF_GLOBAL,
    },
  ),
  "olmo": ("Olmo", {"clip_qkv": 0.8, "num_key_value_heads": 4}),
  "olmo_tied": ("Olmo", {"tie_word_embeddings": True}),
  "olmo2": ("Olmo2", {**_rope(500000.0)}),
}


def gemma3_with_images(seed: int = 0) -> torch.nn.Module:
  """The case `gemma3` inside a model that has a vision tower too."""
  config = transformers.Gemma3Config(
    text_config=transformers.Gemma3TextConfig(**SIZES | CASES["gemma3"][1]),
    vision_config={
      "model_type": "siglip_vision_model",
      "hidden_size": 8,
      "intermediate_size": 8,
      "num_hidden_layers": 1,
      "num_attention_heads": 1,
      "image_size": 8,
      "patch_size": 2,
    },
    mm_tokens_per_image=4,
    boi_token_index=58,
    eoi_token_index=59,
    image_token_index=60,
    attn_implementation="eager",
  )
  torch.manual_seed(seed)
  return _perturbed(transformers.Gemma3ForConditionalGeneration(config))


def _perturbed(model):
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.15 * torch.randn_like(parameter)
  return model.eval()


def make(name: str, seed: int = 0) -> torch.nn.Module:
  """The model of a case, in float32 and for inference."""
  kind, changes = CASES[name]
  config_name = f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config"
  config = getattr(transformers, config_name)(**SIZES | changes)
  # SDPA has no soft cap.
  config._attn_implementation = "eager"
  torch.manual_seed(seed)
  return _perturbed(getattr(transformers, f"{kind}ForCausalLM")(config))


def save(model, folder: pathlib.Path, **options) -> pathlib.Path:
  model.save_pretrained(folder, **options)
  return folder


def logits(model, tokens, mask=None) -> np.ndarray:
  """Logits of rows of token ids, float32."""
  tokens = torch.tensor(np.asarray(tokens)).long()
  mask = torch.ones_like(tokens) if mask is None else torch.tensor(mask)
  with torch.no_grad():
    if "dynamic" in json.dumps(model.config.to_dict()):
      # It keeps the frequencies of the longest text so far until a short one.
      model(tokens[:, :2])
    return model(tokens, attention_mask=mask).logits.float().numpy()


def change_config(folder: pathlib.Path, **changes) -> None:
  """Rewrites fields of config.json; None takes one out."""
  file = folder / "config.json"
  said = json.loads(file.read_text()) | changes
  said = {k: v for k, v in said.items() if v is not None or k not in changes}
  file.write_text(json.dumps(said))
