"""GGUF files against transformers: equal logits, every quantisation."""

import flax.traverse_util
import gguf
import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.integrations.gguf import dequant
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from flan_jax.convert import gguf as gguf_source
from flan_jax.convert import gguf_config, load, source
from flan_jax.data import vocabulary
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderOnly
from tests.convert import gguf_files
from tests.models import sizes_test

Kind = gguf.GGMLQuantizationType
SMALL = dict(
  vocab_size=61,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
  pad_token_id=0,
  attn_implementation="eager",
)
WIDE = SMALL | dict(hidden_size=256, intermediate_size=256)
T = 40


def build(config, seed=0):
  torch.manual_seed(seed)
  model = transformers.AutoModelForCausalLM.from_config(config)
  return gguf_files.perturb(model.float(), seed)


def rope(theta=10_000.0, **scaling):
  return {"rope_type": "default", "rope_theta": theta} | scaling


def llama3_divisors(model):
  """What transformers divides its frequencies by, from its own buffers."""
  parameters = model.config.rope_parameters
  size = model.config.head_dim
  plain = parameters["rope_theta"] ** (-np.arange(0, size, 2) / size)
  return (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)


LLAMA3 = rope(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=8192,
)
MODELS = {
  "llama2": transformers.LlamaConfig(**SMALL, tie_word_embeddings=False),
  "llama_biases": transformers.LlamaConfig(
    **SMALL, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
  ),
  "smollm2": transformers.LlamaConfig(
    **SMALL, rope_parameters=rope(1e5), tie_word_embeddings=True
  ),
  "llama3": transformers.LlamaConfig(
    **SMALL | {"head_dim": 16}, rope_parameters=LLAMA3
  ),
  "llama3_other": transformers.LlamaConfig(
    **SMALL,
    rope_parameters=LLAMA3 | {"original_max_position_embeddings": 16},
  ),
  "mistral": transformers.MistralConfig(**SMALL, sliding_window=8),
  "qwen2": transformers.Qwen2Config(
    **SMALL, tie_word_embeddings=True, use_sliding_window=False
  ),
  "qwen2_yarn": transformers.Qwen2Config(
    **SMALL,
    use_sliding_window=False,
    rope_parameters=rope(
      rope_type="yarn", factor=4.0, original_max_position_embeddings=32
    ),
  ),
  "qwen3": transformers.Qwen3Config(**SMALL, head_dim=16),
  "gemma2": transformers.Gemma2Config(
    **SMALL, head_dim=16, sliding_window=8, query_pre_attn_scalar=16
  ),
  "gemma3": transformers.Gemma3TextConfig(
    **SMALL | {"num_hidden_layers": 7},
    head_dim=16,
    sliding_window=8,
    query_pre_attn_scalar=16,
    rope_parameters={
      "full_attention": rope(1e6, rope_type="linear", factor=8.0),
      "sliding_attention": rope(1e4),
    },
  ),
  "olmo": transformers.OlmoConfig(
    **SMALL | {"num_key_value_heads": 4}, clip_qkv=0.5
  ),
  "olmo2": transformers.Olmo2Config(**SMALL),
}


def scaling_keys(model, writer):
  parameters = model.config.rope_parameters
  parameters = parameters.get("full_attention", parameters)
  if parameters["rope_type"] in ("linear", "yarn"):
    writer.add_rope_scaling_type(gguf.RopeScalingType(parameters["rope_type"]))
    writer.add_rope_scaling_factor(parameters["factor"])
  if parameters["rope_type"] == "yarn":
    writer.add_rope_scaling_orig_ctx_len(
      parameters["original_max_position_embeddings"]
    )


def params_of(opened):
  """Every tensor, after a check that the model has just these."""
  model = DecoderOnly(opened.config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
  assert {n: s.shape for n, s in shapes.items()} == {
    n: s.shape for n, s in opened.shapes.items()
  }
  flat = {}
  for name, shape in opened.shapes.items():
    flat[name] = opened.read(name)
    assert flat[name].shape == shape.shape
    assert flat[name].dtype == shape.dtype
    flat[name] = flat[name].astype(np.float32)
  return model, flax.traverse_util.unflatten_dict(flat, sep="/")


def our_logits(opened, ids_BT):
  model, params = params_of(opened)
  batch = {"decoder_input_tokens": ids_BT.astype(np.int32)}
  return np.asarray(model.logits(params, batch))


def their_logits(model, ids_BT):
  with torch.no_grad():
    return model(torch.tensor(ids_BT, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_every_architecture(name, tmp_path):
  model = build(MODELS[name])
  extra = []
  if name.startswith("llama3"):
    extra = [("rope_freqs.weight", llama3_divisors(model))]
  path = gguf_files.write(
    tmp_path / "m.gguf",
    model,
    extra_tensors=extra,
    edit=lambda writer: scaling_keys(model, writer),
  )
  opened = source.open_source(path)
  assert opened.format == "gguf"
  kinds = {"llama3": "llama3", "llama3_other": "longrope"}
  if name in kinds:
    assert opened.config.rope_scaling.kind == kinds[name]
  ids_BT = np.random.default_rng(0).integers(1, 61, (2, T))
  np.testing.assert_allclose(
    our_logits(opened, ids_BT), their_logits(model, ids_BT), atol=1e-4
  )
  assert opened.tokenizer_files == ()
  context = model.config.max_position_embeddings
  assert opened.details == {"max_position_embeddings": context}


def test_the_tokenizer_is_written_beside_an_export(tmp_path):
  def edit(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<end>", "a", "b"])
    writer.add_token_types([3, 1, 1])
    writer.add_eos_token_id(0)

  model = build(MODELS["smollm2"])
  opened = source.open_source(
    gguf_files.write(tmp_path / "m.gguf", model, edit=edit)
  )
  files = opened.tokenizer_files
  assert [f.name for f in files] == ["tokenizer.json", "tokenizer_config.json"]
  assert opened.tokenizer_files == files
  assert vocabulary.load(files[0]).encode("ab") == [1, 2]


# --------------------------------------------------------------- quantisation

PLAIN = {"F32": np.float32, "F16": np.float16}
QUANTISED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
K_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
# Where a block's float16 scales stand, in bytes.
K_SCALES = {
  "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2),
  "Q6_K": (208,),
}  # fmt: skip


def stored(name, kind, array, rng):
  """The array in that type; for K types random blocks in its place."""
  if array.ndim == 1:
    return None
  if kind == "F32":
    return array, None
  if kind not in K_TYPES:
    return gguf.quantize(array, Kind[kind]), Kind[kind]
  width, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
  blocks = rng.integers(0, 256, (array.size // width, size), dtype=np.uint8)
  # Six bits of an int8 scale and of a number, or four of a scale and two.
  most = 5e-5 if kind == "Q6_K" else 2e-4
  for start in K_SCALES[kind]:
    scale = rng.uniform(most / 10, most, len(blocks)).astype(np.float16)
    blocks[:, start : start + 2] = scale.view(np.uint8).reshape(-1, 2)
  return blocks.reshape(len(array), -1), Kind[kind]


def by_hand(data, kind):
  """Dequantised by the format's description, not by the gguf package."""
  if kind == "F32":
    return data
  if kind in ("F16", "BF16"):
    torch_type = torch.float16 if kind == "F16" else torch.bfloat16
    flat = torch.from_numpy(np.ascontiguousarray(data).view(np.int16))
    return flat.view(torch_type).float().numpy()
  if kind in ("Q5_0", "Q5_1"):
    return five_bits(data, kind)
  flat = torch.from_numpy(data.copy()).reshape(-1)
  values = dequant.dequantize(flat, Kind[kind].value)
  return values.numpy().reshape(len(data), -1)


def five_bits(data, kind):
  out = []
  head = 2 if kind == "Q5_0" else 4
  for block in data.reshape(-1, head + 4 + 16):
    scale = float(block[:2].view(np.float16)[0])
    least = -16 * scale
    if kind == "Q5_1":
      least = float(block[2:4].view(np.float16)[0])
    fifth = int(block[head : head + 4].view(np.uint32)[0])
    for j in range(32):
      byte = int(block[head + 4 + j % 16])
      four = byte & 15 if j < 16 else byte >> 4
      out.append(scale * (four | (fifth >> j & 1) << 4) + least)
  return np.array(out, np.float32).reshape(len(data), -1)


@pytest.mark.parametrize("kind", [*PLAIN, "BF16", *QUANTISED, *K_TYPES])
def test_every_quantisation(kind, tmp_path, monkeypatch):
  # Several pieces to each tensor, the last one short.
  monkeypatch.setattr(gguf_source, "_AT_ONCE", 50 * 256)
  model = build(transformers.Qwen2Config(**WIDE, tie_word_embeddings=False))
  rng, written = np.random.default_rng(0), {}

  def quantise(name, array):
    found = stored(name, kind, array, rng)
    written[name] = found[0] if found else array
    return found

  path = gguf_files.write(tmp_path / "m.gguf", model, quantise=quantise)
  opened = source.open_source(path)
  for theirs, ours, rows in (
    ("token_embd.weight", "decoder/token_embedder/embedding", False),
    ("output.weight", "decoder/logits_dense/kernel", True),
    ("blk.1.ffn_gate.weight", "decoder/layers_1/mlp/wi_0/kernel", True),
  ):
    expected = by_hand(written[theirs], kind)
    got = opened.read(ours)
    assert got.flags.c_contiguous
    got = got.T if rows else got
    np.testing.assert_allclose(
      got.astype(np.float32), expected, rtol=1e-6, atol=1e-7
    )
    assert opened.shapes[ours].dtype == (
      {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    )


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_1", "Q3_K", "Q6_K"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_logits_of_a_quantised_file(family, kind, tmp_path):
  options = WIDE | {"hidden_size": 256, "tie_word_embeddings": False}
  made = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
  model = build(made[family](**options))
  rng = np.random.default_rng(0)
  path = gguf_files.write(
    tmp_path / "m.gguf",
    model,
    quantise=lambda name, array: stored(name, kind, array, rng),
  )
  loaded = read_by_transformers(path)
  ids_BT = np.random.default_rng(0).integers(1, 61, (2, T))
  np.testing.assert_allclose(
    our_logits(source.open_source(path), ids_BT),
    their_logits(loaded, ids_BT),
    atol=1e-4,
  )


def read_by_transformers(path):
  """Its own reading of the file, without the accelerate package."""
  config = transformers.AutoConfig.from_pretrained(
    path.parent, gguf_file=path.name, attn_implementation="eager"
  )
  model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
  read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
  missing, unexpected = model.load_state_dict(read["tensors"], strict=False)
  tied = ["lm_head.weight"] if config.tie_word_embeddings else []
  assert (missing, unexpected) == (tied, [])
  model.tie_weights()
  return model


# ------------------------------------------------------------- the real file


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads(smollm2, tmp_path):
  gin = sizes_test.ROOT / "gin" / "models" / "smollm2_135m.gin"
  model = sizes_test.model_of(gin, tmp_path)
  params = load.load_params(smollm2.parent, model)
  theirs = read_by_transformers(smollm2)
  ids_BT = np.random.default_rng(0).integers(3, 49_152, (2, 48))
  batch = {"decoder_input_tokens": ids_BT.astype(np.int32)}
  np.testing.assert_allclose(
    np.asarray(model.logits(params, batch)),
    their_logits(theirs, ids_BT),
    atol=1e-3,
  )
  tokenizer = transformers.AutoTokenizer.from_pretrained(
    smollm2.parent, gguf_file=smollm2.name
  )
  prompts = (
    "The capital of France is",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n",
  )
  ids = [tokenizer.encode(p, add_special_tokens=False) for p in prompts]
  for row, got in zip(ids, greedy(model, params, ids, 20), strict=True):
    expected = theirs.generate(
      torch.tensor([row]), max_new_tokens=20, do_sample=False
    )[0, len(row) :].tolist()
    assert got[: len(expected)] == expected, tokenizer.decode(expected)


def greedy(model, params, ids, count):
  """Tokens of each row, through the cache; all rows in one batch."""
  step = jax.jit(model.decode_step)
  inputs_BS = np.full((len(ids), max(map(len, ids))), -1, np.int32)
  for row, tokens in zip(inputs_BS, ids, strict=True):
    row[: len(tokens)] = tokens
  logits_BV, cache = model.start_decoding(params, inputs_BS, count)
  out = []
  for index in range(count):
    out.append(np.asarray(logits_BV.argmax(-1)).astype(np.int32))
    logits_BV, cache = step(params, out[-1], cache, index)
  return np.stack(out, 1).tolist()


# --------------------------------------------------------------------- errors


@pytest.fixture(scope="module")
def tiny():
  return build(MODELS["smollm2"])


def test_files_that_are_none(tiny, tmp_path):
  good = gguf_files.write(tmp_path / "good.gguf", tiny).read_bytes()
  bad = tmp_path / "bad.gguf"
  for data, message in (
    (b"", "is not a GGUF file"),
    (b"PK\x03\x04 and more", "not a GGUF file: it begins with"),
    (good[: len(good) // 2], r"bad.gguf \([\d,]+ bytes\) is cut short"),
    (good[:-8], "is cut short or damaged"),
    (good[:40], "is cut short or damaged"),
  ):
    bad.write_bytes(data)
    with pytest.raises(UserError, match=message):
      source.open_source(bad)
  with pytest.raises(UserError, match="does not exist"):
    gguf_source.GgufSource(tmp_path / "none.gguf")
  with pytest.raises(UserError, match="holds 2 GGUF files"):
    gguf_source.GgufSource(tmp_path)


def test_one_part_of_several(tiny, tmp_path):
  def edit(writer):
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)

  path = gguf_files.write(tmp_path / "m.gguf", tiny, edit=edit)
  with pytest.raises(UserError, match="is part 2 of 3"):
    source.open_source(path)


def test_what_is_not_computed_is_refused_by_name(tiny, tmp_path):
  for number, (edit, message) in enumerate((
    (lambda w: w.add_expert_count(8), "llama.expert_count is 8; .* not supp"),
    (lambda w: w.add_rope_dimension_count(4), "rope.dimension_count is 4"),
    (lambda w: w.add_causal_attention(False), "attention.causal is False"),
    (lambda w: w.add_string("llama.rope.scaling.type", "longrope"),
     "scaling.type is 'longrope'; read are none, linear and yarn"),
    (lambda w: w.add_logit_scale(0.5), "llama.logit_scale is 0.5"),
  )):  # fmt: skip
    path = gguf_files.write(tmp_path / f"{number}.gguf", tiny, edit=edit)
    with pytest.raises(UserError, match=message):
      source.open_source(path)
  off = gguf_files.write(
    tmp_path / "off.gguf", tiny, edit=lambda w: w.add_expert_count(0)
  )
  source.open_source(off)


def test_tensors_without_a_place(tiny, tmp_path):
  extra = [("blk.0.ffn_gate_inp.weight", np.zeros((4, 4), np.float32))]
  path = gguf_files.write(tmp_path / "m.gguf", tiny, extra_tensors=extra)
  with pytest.raises(UserError, match="no place in .*'llama' for blk.0.ffn_ga"):
    source.open_source(path)


def test_a_type_that_cannot_be_read(tiny, tmp_path):
  def quantise(name, array):
    if name == "blk.1.ffn_up.weight":
      return array.astype(np.int8), None
    return None

  path = gguf_files.write(tmp_path / "m.gguf", tiny, quantise=quantise)
  with pytest.raises(UserError, match="blk.1.ffn_up.weight is quantised as I8"):
    source.open_source(path)


def test_an_unknown_architecture(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2moe")
  writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  with pytest.raises(
    UserError, match="'qwen2moe'; read are llama, qwen2, .*nearest is 'qwen2'"
  ):
    source.open_source(tmp_path / "m.gguf")


def test_a_folder_with_the_config_of_another_format(tiny, tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "llama"}')
  gguf_files.write(tmp_path / "a.gguf", tiny)
  opened = source.open_source(tmp_path)
  assert opened.format == "gguf"
  assert "decoder/decoder_norm/scale" in opened.shapes
  (tmp_path / "b.gguf").write_bytes(b"")
  with pytest.raises(UserError, match="holds 2 GGUF files; name the one: a.gguf"):
    source.open_source(tmp_path)


def test_divisors_that_scale_twice(tiny, tmp_path):
  def edit(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.0)

  extra = [("rope_freqs.weight", np.full(4, 2.0, np.float32))]
  path = gguf_files.write(
    tmp_path / "m.gguf", tiny, extra_tensors=extra, edit=edit
  )
  with pytest.raises(UserError, match="scales RoPE twice"):
    source.open_source(path)


def test_numbers_of_the_file_as_they_were_meant():
  assert gguf_config._decimal(np.float32(1e-5)) == 1e-5
  assert gguf_config._decimal(500_000.0) == 500_000.0
