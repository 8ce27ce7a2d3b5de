"""The model that a GGUF file's metadata describes."""

import difflib
import math

import gguf
import numpy as np

from flan_jax.convert import gguf_tables
from flan_jax.data import gguf_file
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, RopeScaling

# Metadata that says nothing about the computation, or what we compute anyway.
_NO_EFFECT = {
  "context_length",
  "vocab_size",
  "tensor_data_layout",
  "rope.scaling.finetuned",
}
# The published settings of Llama 3.1 and later; only `factor` differs.
_LLAMA3 = {
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position": 8192,
}


def decoder_config(reader: gguf.GGUFReader) -> DecoderConfig:
  """The configuration of the model in a GGUF file.

  >>> decoder_config(gguf_file.open_gguf("model.gguf"))  # doctest: +SKIP
  DecoderConfig(vocab_size=49152, emb_dim=576, num_heads=9, ...)

  Raises:
    UserError: an architecture that we do not have (those we have are listed),
      a needed key missing, or a key that asks for what we do not compute.
  """
  name = gguf_file.metadata(reader, "general.architecture")
  if name not in gguf_tables.ARCHITECTURES:
    known = gguf_tables.ARCHITECTURES
    near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
    raise UserError(
      f"{reader.data.filename}: general.architecture is {name!r}; read are"
      f" {', '.join(known)} (the nearest is {near!r})."
    )
  keys = _Keys(reader, name)
  config = _decoder_config(keys, gguf_tables.ARCHITECTURES[name])
  keys.check_all_read()
  return config


class _Keys:
  """The metadata of one architecture; remembers which keys were asked for."""

  def __init__(self, reader: gguf.GGUFReader, architecture: str):
    self.path = reader.data.filename
    self.architecture = architecture
    self.tensors = {t.name: t for t in reader.tensors}
    self._values = {
      key.removeprefix(f"{architecture}."): field
      for key, field in reader.fields.items()
      if key.startswith(f"{architecture}.")
    }
    self._read = set(_NO_EFFECT)

  def get(self, key: str, default=None):
    self._read.add(key)
    field = self._values.get(key)
    return default if field is None else field.contents()

  def need(self, key: str):
    value = self.get(key)
    if value is None:
      raise UserError(f"{self.path} lacks {self.architecture}.{key}.")
    return value

  def count(self, key: str, default: int | None = None) -> int:
    """A number that all layers share; some files list it per layer."""
    value = self.get(key, default)
    if value is None:
      raise UserError(f"{self.path} lacks {self.architecture}.{key}.")
    if isinstance(value, list):
      if len(set(value)) != 1:
        self.refuse(key, value, "layers of different sizes are not supported")
      value = value[0]
    return int(value)

  def refuse(self, key: str, value, why: str):
    raise UserError(
      f"{self.path}: {self.architecture}.{key} is {value!r}; {why}."
    )

  def check_all_read(self):
    for key in sorted(set(self._values) - self._read):
      value = self._values[key].contents()
      # Such as expert_count 0: what is off asks for nothing.
      if value not in (0, None, False, "none", []):
        self.refuse(key, value, "that is not supported")


def _decoder_config(
  keys: _Keys, architecture: gguf_tables.Architecture
) -> DecoderConfig:
  heads = keys.count("attention.head_count")
  width, layers = keys.need("embedding_length"), keys.need("block_count")
  size = keys.get("attention.key_length") or width // heads
  for key in ("rope.dimension_count", "attention.value_length"):
    value = keys.get(key)
    if value not in (None, size):
      keys.refuse(key, value, f"only the head's size, {size}, is supported")
  if not keys.get("attention.causal", True):
    keys.refuse("attention.causal", False, "only causal models are supported")
  options = dict(architecture.options)
  if options.get("norm") == "layer":
    epsilon = keys.need("attention.layer_norm_epsilon")
    clip = keys.get("attention.clamp_kqv")
    options["clip_qkv"] = clip or None
  else:
    epsilon = keys.need("attention.layer_norm_rms_epsilon")
  options["norm_epsilon"] = _decimal(epsilon)
  if options.get("norm") == "rms_one_plus":
    options["embedding_scale"] = math.sqrt(width)
  if layers == architecture.width_scale_layers:
    options["query_scale"] = 1 / math.sqrt(width // heads)
  if architecture.softcaps:
    options["attention_softcap"] = keys.get("attn_logit_softcapping") or None
    options["logits_softcap"] = keys.get("final_logit_softcapping") or None
  options |= _positions(keys, size) | _windows(keys, architecture)
  if "token_embd.weight" not in keys.tensors:
    raise UserError(f"{keys.path} lacks the tensor token_embd.weight.")
  return DecoderConfig(
    vocab_size=int(keys.tensors["token_embd.weight"].shape[1]),
    emb_dim=width,
    num_heads=heads,
    num_kv_heads=keys.count("attention.head_count_kv", heads),
    num_layers=layers,
    head_dim=size,
    mlp_dim=keys.count("feed_forward_length"),
    qkv_bias="blk.0.attn_q.bias" in keys.tensors,
    out_bias="blk.0.attn_output.bias" in keys.tensors,
    mlp_bias="blk.0.ffn_up.bias" in keys.tensors,
    logits_via_embedding="output.weight" not in keys.tensors,
    **options,
  )


def _windows(keys: _Keys, architecture: gguf_tables.Architecture) -> dict:
  if architecture.window_pattern is None:
    return {}
  window = keys.get("attention.sliding_window")
  if not window:
    if len(architecture.window_pattern) > 1:
      keys.need("attention.sliding_window")
    return {}
  pattern = keys.get("attention.sliding_window_pattern")
  if isinstance(pattern, list):
    kinds = tuple("sliding" if slides else "full" for slides in pattern)
  elif pattern:
    kinds = (*["sliding"] * (pattern - 1), "full")
  else:
    kinds = architecture.window_pattern
  return {"sliding_window": window, "layer_pattern": kinds}


def _positions(keys: _Keys, size: int) -> dict:
  out = {"rope_theta": _decimal(keys.get("rope.freq_base", 10_000.0))}
  if keys.architecture == "gemma3":
    local = keys.get("rope.freq_base_swa", 10_000.0)
    out["rope_theta_sliding"] = _decimal(local)
  kind = keys.get("rope.scaling.type")
  factor = keys.get("rope.scaling.factor") or keys.get("rope.scale_linear")
  freqs = keys.tensors.get(gguf_tables.ROPE_FREQS)
  if kind in (None, "linear") and factor and factor != 1.0:
    out["rope_scaling"] = RopeScaling("linear", factor=_decimal(factor))
  elif kind == "yarn":
    out["rope_scaling"] = _yarn(keys, factor)
  elif kind not in (None, "none", "linear"):
    keys.refuse("rope.scaling.type", kind, "read are none, linear and yarn")
  if freqs is not None:
    if "rope_scaling" in out:
      raise UserError(
        f"{keys.path} scales RoPE twice: by {gguf_tables.ROPE_FREQS} and by"
        f" {keys.architecture}.rope.scaling.factor {factor}."
      )
    divisors = np.asarray(freqs.data, np.float64).reshape(-1)
    out["rope_scaling"] = _by_divisors(keys, divisors, out["rope_theta"], size)
  return out


def _yarn(keys: _Keys, factor: float | None) -> RopeScaling:
  if not factor:
    factor = keys.need("rope.scaling.factor")
  trained = keys.get("rope.scaling.original_context_length")
  multiplier = keys.get("rope.scaling.attn_factor", 1.0)
  amplitude = None
  if multiplier != 1.0:
    amplitude = multiplier * (0.1 * math.log(factor) + 1.0)
  beta = {
    name: keys.get(f"rope.scaling.yarn_{name}")
    for name in ("beta_fast", "beta_slow")
  }
  return RopeScaling(
    "yarn",
    factor=_decimal(factor),
    original_max_position=trained or keys.need("context_length"),
    attention_factor=amplitude,
    **beta,
  )


def _by_divisors(
  keys: _Keys, divisors: np.ndarray, theta: float, size: int
) -> RopeScaling | None:
  """Llama 3's scaling, of which a file keeps only the resulting divisors."""
  if divisors.size != size // 2:
    raise UserError(
      f"{keys.path}: {gguf_tables.ROPE_FREQS} has {divisors.size} numbers; a"
      f" head of {size} dimensions needs {size // 2}."
    )
  factor = _decimal(divisors.max())
  if factor == 1.0 and divisors.min() == 1.0:
    return None
  if np.allclose(_llama3_divisors(factor, theta, size), divisors, rtol=1e-4):
    return RopeScaling("llama3", factor=factor, **_LLAMA3)
  # Trained with other settings: the same divisors at every length.
  exact = tuple(map(float, divisors))
  return RopeScaling(
    "longrope",
    factor=max(factor, 1.0),
    original_max_position=keys.need("context_length"),
    attention_factor=1.0,
    short_factor=exact,
    long_factor=exact,
  )


def _llama3_divisors(factor: float, theta: float, size: int) -> np.ndarray:
  """What frequencies are divided by, K / 2 of them."""
  wavelength = 2 * np.pi * theta ** (np.arange(0, size, 2) / size)
  low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
  turns = _LLAMA3["original_max_position"] / wavelength
  share = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return 1.0 / ((1.0 - share) / factor + share)


def _decimal(value: float) -> float:
  """A float32 of the file as the short decimal that was meant: 1e-05."""
  return float(str(np.float32(value)))
