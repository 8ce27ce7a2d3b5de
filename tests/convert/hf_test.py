"""Reading and writing Hugging Face folders: what is refused, what is kept."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch

from flan_jax.convert import hf, shapes, shards, tables
from flan_jax.convert.source import open_source
from flan_jax.convert.tables.family import differences, read_config
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, RopeScaling
from tests.convert import hf_models


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """One checkpoint in one file, one in several."""
  made = {}
  for name, size in (("llama2", "1GB"), ("qwen2", "9KB")):
    folder = tmp_path_factory.mktemp(name)
    made[name] = hf_models.save(
      hf_models.make(name), folder, max_shard_size=size
    )
  return made


@pytest.fixture
def folder(saved, tmp_path):
  return shutil.copytree(saved["llama2"], tmp_path / "single")


@pytest.fixture
def sharded(saved, tmp_path):
  return shutil.copytree(saved["qwen2"], tmp_path / "sharded")


def change_tensors(folder, change):
  file = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  change(tensors)
  safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})


def refused(folder, *words):
  with pytest.raises(UserError) as error:
    open_source(folder)
  for word in words:
    assert word in str(error.value)
  return str(error.value)


def add_tokenizer(folder, size, *, extra=(), name="tokenizer.json"):
  vocab = {f"t{i}": i for i in range(size)}
  added = [
    {
      "id": size + i,
      "content": token,
      "single_word": False,
      "lstrip": False,
      "rstrip": False,
      "normalized": False,
      "special": True,
    }
    for i, token in enumerate(extra)
  ]
  said = {
    "version": "1.0",
    "added_tokens": added,
    "model": {
      "type": "WordLevel",
      "vocab": vocab,
      "unk_token": "t0",
    },
  }
  (folder / name).write_text(json.dumps(said))
  return folder / name


def write(source, out, **options):
  return hf.write_hf(
    out,
    source.config,
    ((name, source.read(name)) for name in source.shapes),
    **options,
  )


# Folders that are not whole.


def test_nothing_there(tmp_path):
  refused(tmp_path / "none", "none does not exist")
  refused(tmp_path, "is no checkpoint of a known format", "Hugging Face folder")
  (tmp_path / "notes.txt").write_text("")
  refused(tmp_path, "It holds notes.txt.", "gguf", "t5x", "orbax")


def test_config_alone(folder):
  (folder / "model.safetensors").unlink()
  refused(folder, "has no weights", "model.safetensors.index.json")


def test_weights_alone(folder):
  (folder / "config.json").unlink()
  refused(folder, "has no config.json", "Fetch the whole checkpoint")
  refused(folder / "model.safetensors", "give its folder")


def test_a_config_cut_short(folder):
  text = (folder / "config.json").read_text()
  (folder / "config.json").write_text(text[: len(text) // 2])
  refused(folder, "config.json is no JSON", "fetch it again")


def test_a_missing_shard(sharded):
  shards = sorted(sharded.glob("*-of-*.safetensors"))
  shards[1].unlink()
  refused(sharded, f"lacks {shards[1].name}", f"has {len(shards)} files")


def test_shards_without_their_index(sharded):
  (sharded / "model.safetensors.index.json").unlink()
  refused(sharded, "model-00001-of-", "but no model.safetensors.index.json")


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_shard_cut_short(sharded, keep):
  shard = sorted(sharded.glob("*-of-*.safetensors"))[1]
  shard.write_bytes(shard.read_bytes()[:keep])
  refused(sharded, shard.name, "no whole safetensors file", "Fetch it again")


def test_an_index_of_another_checkpoint(sharded):
  index = sharded / "model.safetensors.index.json"
  said = json.loads(index.read_text())
  said["weight_map"]["model.other"] = max(said["weight_map"].values())
  index.write_text(json.dumps(said))
  refused(sharded, "names model.other", "different checkpoints")
  index.write_text("{}")
  refused(sharded, "has no weight_map")


def test_pickled_weights_are_never_loaded(folder):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
  for path in (folder, folder / "pytorch_model.bin"):
    refused(
      path, "pickled weights (pytorch_model.bin)", "never loaded",
      "save_pretrained(OUT, safe_serialization=True)",
    )  # fmt: skip


# Configs.


def test_an_unknown_architecture(folder):
  hf_models.change_config(
    folder, model_type="lama", architectures=["LamaForCausalLM"]
  )
  message = refused(folder, "'lama'", "LamaForCausalLM", "nearest is 'llama'")
  for family in tables.FAMILIES.values():
    assert f"{family.model_type} ({family.architecture})" in message


def test_a_model_without_its_head(folder):
  hf_models.change_config(folder, architectures=["LlamaModel"])
  refused(folder, "architecture LlamaModel", "we know LlamaForCausalLM")


@pytest.mark.parametrize(
  ("model", "field", "value", "words"),
  [
    ("llama", "partial_rotary_factor", 0.5, "turns whole heads"),
    ("llama", "attention_dropout", 0.1, "attention_dropout = 0.1"),
    ("llama", "quantization_config", {"bits": 4}, "quantization_config"),
    ("llama", "num_local_experts", 8, "num_local_experts = 8"),
    ("llama", "residual_multiplier", 0.2, "residual_multiplier = 0.2"),
    ("llama", "hidden_act", "gelu", "hidden_act is 'gelu'"),
    ("llama", "hidden_size", "24", "must be of the type int"),
    ("llama", "hidden_size", True, "must be of the type int"),
    ("llama", "vocab_size", ..., "does not say vocab_size"),
    ("llama", "rope_scaling", {"type": "mrope"}, "rope_type is 'mrope'"),
    ("llama", "rope_scaling", {"type": "linear", "factor": 2.0, "alpha": 3},
     "alpha = 3"),
    ("llama", "rope_scaling", {"type": "linear"}, "needs factor"),
    ("llama", "rope_scaling",
     {"type": "linear", "rope_type": "yarn", "factor": 2.0}, "rope_type 'yarn'"),
    ("llama", "rope_parameters", {"rope_theta": 3.0}, "says 3.0"),
    ("llama", "layer_types", ["sliding_attention"] * 2, "every layer is"),
    ("mistral", "layer_types", ["full_attention"] * 2, "with sliding_window 9"),
    ("qwen2", "mlp_bias", True, "mlp_bias = True"),
    ("qwen3", "layer_types", ["sliding_attention"] * 2, "use_sliding_window"),
    ("qwen3", "layer_types", ["full_attention"], "names 1 layers"),
    ("qwen3", "layer_types", ["linear_attention"] * 2, "linear_attention"),
    ("gemma2", "use_bidirectional_attention", True, "use_bidirectional"),
    ("gemma3_text", "attn_logit_softcapping", 50.0, "attn_logit_softcapping"),
    ("gemma3_text", "rope_parameters", {"other": {}}, "has other"),
    ("gemma3_text", "rope_parameters",
     {"sliding_attention": {"rope_type": "linear", "factor": 2.0}},
     "scales the sliding layers"),
    ("olmo", "clip_qkv", "8", "must be of the type float"),
    ("olmo2", "clip_qkv", 8.0, "clip_qkv = 8.0"),
  ],
)  # fmt: skip
def test_what_we_do_not_compute_is_refused(model, field, value, words):
  said = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "sliding_window": 9,
    "rope_theta": 10.0,
  }
  if model in ("llama", "olmo", "olmo2"):
    del said["sliding_window"]
  family = tables.FAMILIES[model]
  assert read_config(family, said, "config.json").emb_dim == 24
  said[field] = value
  if value is ...:
    del said[field]
  with pytest.raises(UserError) as error:
    read_config(family, said, "config.json")
  assert words in str(error.value)
  assert "config.json" in str(error.value)


def test_switches_that_are_off_are_no_matter(folder):
  before = open_source(folder).config
  hf_models.change_config(
    folder, rope_interleaved=False, use_mrope=False, is_llama_config=True,
    pretraining_tp=2, torch_dtype="bfloat16",
  )  # fmt: skip
  assert open_source(folder).config == before


def test_configs_that_no_family_has():
  for changes in (
    {"position": "relative"},
    {"mlp_activations": ("silu",)},
    {"qkv_bias": True, "qk_norm": "head"},
    {"norm_epsilon": 1e-6, "norm": "layer"},
    {"logits_scale": 0.5},
  ):
    with pytest.raises(UserError, match="No family of Hugging Face"):
      tables.written_by(DecoderConfig(vocab_size=8, **changes))


def test_the_family_that_is_written():
  plain = DecoderConfig(vocab_size=8, emb_dim=64, num_heads=2, head_dim=32)
  assert tables.written_by(plain)[0].model_type == "llama"
  assert tables.written_by(plain, "mistral")[0].model_type == "mistral"
  # Not one that cannot hold it.
  assert tables.written_by(plain, "gemma2")[0].model_type == "llama"


def test_two_ways_to_say_one_model():
  one = DecoderConfig(
    vocab_size=8, num_layers=4, sliding_window=4, head_dim=64,
    layer_pattern=("sliding", "full"),
  )  # fmt: skip
  other = DecoderConfig(
    vocab_size=8, num_layers=4, sliding_window=4, head_dim=64,
    layer_pattern=("sliding", "full") * 2, query_scale=0.125,
    scan_layers=True, dropout_rate=0.1,
  )  # fmt: skip
  assert differences(one, other) == []
  scaled = DecoderConfig(vocab_size=8, rope_scaling=RopeScaling("linear", 2.0))
  assert any("rope_scaling" in line for line in differences(one, scaled))


# Tensors and config.


def test_every_tensor_that_does_not_fit_is_listed(folder):
  def change(tensors):
    del tensors["model.norm.weight"]
    tensors["model.extra"] = np.ones(3, np.float32)
    up = "model.layers.1.mlp.up_proj.weight"
    tensors[up] = tensors[up][:-1].copy()

  change_tensors(folder, change)
  refused(
    folder, "do not fit config.json", "missing: model.norm.weight",
    "extra: model.extra",
    "reshaped: model.layers.1.mlp.up_proj.weight is [39, 24], config.json says"
    " [40, 24]",
  )  # fmt: skip


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_hidden_layers": 2}, "extra: model.layers.2.mlp.up_proj.weight"),
    ({"num_hidden_layers": 4}, "missing: model.layers.3.mlp.up_proj.weight"),
    ({"num_key_value_heads": 2}, "k_proj.weight is [24, 24], config.json says"),
    ({"vocab_size": 64}, "embed_tokens.weight is [61, 24], config.json says"),
    ({"attention_bias": True}, "missing: model.layers.0.self_attn.q_proj.bias"),
    ({"tie_word_embeddings": True}, "they differ. Set tie_word_embeddings"),
  ],
)
def test_a_config_that_contradicts_the_tensors(folder, changes, words):
  hf_models.change_config(folder, **changes)
  refused(folder, words)


def test_untied_without_a_head(folder):
  change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
  refused(folder, "missing: lm_head.weight", "tie_word_embeddings false")


@pytest.mark.parametrize("kept", ["both", "head only"])
def test_a_tied_head_may_be_stored_twice_or_under_its_name(folder, kept):
  def change(tensors):
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding.copy()
    if kept == "head only":
      del tensors["model.embed_tokens.weight"]

  name = "decoder/token_embedder/embedding"
  want = open_source(folder).read(name)
  change_tensors(folder, change)
  hf_models.change_config(folder, tie_word_embeddings=True)
  source = open_source(folder)
  assert "decoder/logits_dense/kernel" not in source.shapes
  np.testing.assert_array_equal(source.read(name), want)


def test_buffers_of_older_files_are_left_out(folder):
  name = "model.layers.0.self_attn.rotary_emb.inv_freq"
  before = open_source(folder).shapes
  change_tensors(folder, lambda t: t.update({name: np.ones(3, np.float32)}))
  assert open_source(folder).shapes == before


def test_types_that_are_not_weights(folder):
  name = "model.norm.weight"
  change_tensors(folder, lambda t: t.update({name: np.ones(24, np.int8)}))
  refused(folder, f"tensor {name} has the type I8", "F32, F16, BF16")


def test_tensors_are_read_when_asked_for(folder, monkeypatch):
  read = []
  original = shards.Shards.read
  monkeypatch.setattr(
    shards.Shards,
    "read",
    lambda self, name: read.append(name) or original(self, name),
  )
  source = open_source(folder)
  assert read == []
  source.read("decoder/layers_0/mlp/wo/kernel")
  assert read == ["model.layers.0.mlp.down_proj.weight"]


# Tokenizers.


def test_a_tokenizer_larger_than_the_embedding(folder, tmp_path):
  add_tokenizer(folder, 61)
  source = open_source(folder)
  assert [f.name for f in source.tokenizer_files] == [
    "tokenizer.json", "generation_config.json",
  ]  # fmt: skip
  file = add_tokenizer(folder, 60, extra=["<a>", "<b>"])
  words = ("up to id 61 ('<b>')", "vocab_size 61 rows")
  refused(folder, *words)
  with pytest.raises(UserError, match="up to id 61"):
    write(source, tmp_path / "out", tokenizer_files=[file])
  assert not (tmp_path / "out").exists()


def test_a_sentencepiece_model_larger_than_the_embedding(folder):
  from flan_jax.data import vocabulary

  shutil.copy(vocabulary.shipped_file(), folder / "tokenizer.model")
  refused(folder, "tokenizer.model has tokens up to id", "vocab_size 61 rows")
  (folder / "tokenizer.model").write_bytes(b"no model")
  refused(folder, "tokenizer.model is no SentencePiece model")


def test_gemma_has_a_token_for_images_beyond_the_embedding(tmp_path):
  folder = hf_models.save(hf_models.make("gemma3"), tmp_path)
  add_tokenizer(folder, 61, extra=["<image_soft_token>"])
  assert open_source(folder).config.vocab_size == 61
  add_tokenizer(folder, 61, extra=["<other>"])
  refused(folder, "<other>")


# Writing.


def test_an_export_has_the_tokenizer_and_its_ends(folder, tmp_path):
  (folder / "generation_config.json").unlink()
  file = add_tokenizer(folder, 58, extra=["<s>", "</s>", "<|im_end|>"])
  config = file.with_name("tokenizer_config.json")
  config.write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
  out = write(
    open_source(folder), tmp_path / "out", tokenizer_files=[file, config]
  )
  assert (out / file.name).read_bytes() == file.read_bytes()
  said = json.loads((out / "generation_config.json").read_text())
  assert said["eos_token_id"] == [59, 60]
  assert json.loads((out / "config.json").read_text())["bos_token_id"] == 58


def test_generation_config_is_copied(folder, tmp_path):
  source = open_source(folder)
  given = folder / "generation_config.json"
  given.write_text('{"eos_token_id": [7, 8], "temperature": 0.5}')
  out = write(source, tmp_path / "out", tokenizer_files=source.tokenizer_files)
  assert (out / given.name).read_text() == given.read_text()


def test_without_a_tokenizer_nothing_is_made_up(folder, tmp_path, caplog):
  out = write(open_source(folder), tmp_path / "out")
  assert not (out / "generation_config.json").exists()
  assert "has no generation_config.json" in caplog.text
  assert json.loads((out / "config.json").read_text())["eos_token_id"] is None


def test_an_export_that_exists_is_kept(folder, tmp_path):
  source = open_source(folder)
  out = write(source, tmp_path / "out")
  (out / "config.json").write_text("mine")
  with pytest.raises(UserError, match="exists and is kept"):
    write(source, out)
  assert (out / "config.json").read_text() == "mine"
  write(source, out, overwrite=True)
  assert open_source(out).config == source.config


@pytest.mark.parametrize("fault", [UserError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written_is_left(folder, tmp_path, fault, exists):
  source = open_source(folder)
  out = tmp_path / "out"
  if exists:
    write(source, out)
  before = sorted(tmp_path.rglob("*"))

  def stop():
    for i, name in enumerate(source.shapes):
      if i == 5:
        raise fault("stopped")
      yield name, source.read(name)

  with pytest.raises(fault, match="stopped"):
    hf.write_hf(out, source.config, stop(), overwrite=True)
  assert sorted(tmp_path.rglob("*")) == before


def test_tensors_that_do_not_fit_are_listed(folder, tmp_path):
  source = open_source(folder)
  names = list(source.shapes)
  arrays = [(name, source.read(name)) for name in names[2:]]
  arrays += [("decoder/other", np.ones(2)), arrays[0]]
  arrays[1] = (arrays[1][0], arrays[1][1][:1])
  with pytest.raises(UserError) as error:
    hf.write_hf(tmp_path / "out", source.config, arrays)
  for word in (
    f"missing: {names[0]}", f"missing: {names[1]}", "extra: decoder/other",
    f"twice: {names[2]}", f"reshaped: {names[3]} is [1",
  ):  # fmt: skip
    assert word in str(error.value)
  assert not (tmp_path / "out").exists()


def test_options_of_an_export(folder, tmp_path):
  source = open_source(folder)
  for options, words in (
    ({"dtype": "int8"}, "dtype is 'int8'"),
    ({"max_shard_bytes": 0}, "max_shard_bytes is 0"),
    ({"details": {"colour": 1}}, "details has colour"),
  ):
    with pytest.raises(UserError, match=words):
      write(source, tmp_path / "out", **options)


def test_float16_does_not_hold_everything(folder, tmp_path):
  source = open_source(folder)
  arrays = {name: source.read(name).copy() for name in source.shapes}
  name = "decoder/decoder_norm/scale"
  arrays[name][3] = 1e5
  with pytest.raises(UserError, match=r"model.norm.weight has numbers beyond"):
    hf.write_hf(tmp_path / "a", source.config, arrays.items(), dtype="float16")
  out = hf.write_hf(
    tmp_path / "b", source.config, arrays.items(), dtype="bfloat16"
  )
  got = open_source(out).read(name)
  want = torch.tensor(arrays[name]).bfloat16().float().numpy()
  assert got.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(got.astype(np.float32), want)


def test_a_shard_is_never_larger_than_asked(folder, tmp_path):
  source = open_source(folder)
  out = write(source, tmp_path / "out", max_shard_bytes=12_000)
  files = sorted(out.glob("*.safetensors"))
  assert len(files) > 3
  for file in files:
    # safetensors' own reader; all of a file's bytes belong to a tensor.
    tensors = safetensors.numpy.load_file(file)
    assert sum(x.nbytes for x in tensors.values()) <= 12_000
  index = json.loads((out / "model.safetensors.index.json").read_text())
  assert set(index["weight_map"].values()) == {file.name for file in files}
  assert index["metadata"]["total_size"] == sum(
    s.size * 4 for s in source.shapes.values()
  )


def test_shapes_of_published_models():
  """Llama 3.2 1B, whose parameters are counted as 1,235,814,400."""
  said = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
    "rope_theta": 500000.0, "max_position_embeddings": 131072,
    "rope_scaling": {
      "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
      "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
  }  # fmt: skip
  config = read_config(tables.FAMILIES["llama"], said, "config.json")
  found = shapes.parameter_shapes(config)
  assert sum(s.size for s in found.values()) == 1_235_814_400
  names = hf.names(tables.FAMILIES["llama"], found)
  assert len({row.theirs for row in names.values()}) == len(found) == 146
  assert next(iter(found)) == "decoder/token_embedder/embedding"


def test_every_row_is_a_tensor_of_some_model():
  """No family's table names what its models never have."""
  for family in tables.FAMILIES.values():
    if not family.causal:
      continue
    said = {
      "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40,
      "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 6,
      "tie_word_embeddings": False,
    }  # fmt: skip
    config = read_config(family, said, "config.json")
    found = shapes.parameter_shapes(config)
    assert hf.names(family, found).keys() == found.keys()
    reached = {
      row.ours
      for row in family.rows
      for name in found
      if row.ours.replace("{i}", "0") == name
    }
    unreached = {row.ours for row in family.rows} - reached
    assert all("bias" in name for name in unreached), family.model_type


def test_shapes_are_read_without_tensors(saved):
  source = open_source(saved["qwen2"])
  assert source.shapes["decoder/layers_0/self_attention/key/bias"] == (
    jax.ShapeDtypeStruct((12,), np.float32)
  )


def test_a_gemma3_with_images_says_little_of_its_language_model():
  """A published config.json's form: what is a default is left out."""
  said = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "boi_token_index": 255999,
    "eos_token_id": [1, 106],
    "mm_tokens_per_image": 256,
    "text_config": {
      "hidden_size": 2560,
      "intermediate_size": 10240,
      "model_type": "gemma3_text",
      "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"model_type": "siglip_vision_model"},
  }
  part, within = tables.language_part(said, "config.json")
  assert within.architecture == "Gemma3ForConditionalGeneration"
  assert part["eos_token_id"] == [1, 106]
  config = read_config(tables.family_of(part, ""), part, "config.json")
  assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
  assert (config.rope_theta, config.rope_theta_sliding) == (1e6, 1e4)
  assert config.rope_scaling == RopeScaling("linear", factor=8.0)
  assert config.kinds.count("full") == 5
  # The language model of Gemma 3 4B.
  sizes = shapes.parameter_shapes(config).values()
  assert sum(s.size for s in sizes) == 3_880_263_168
  quantised = said | {"quantization_config": {"bits": 4}}
  part, _ = tables.language_part(quantised, "config.json")
  with pytest.raises(UserError, match="quantization_config"):
    read_config(tables.family_of(part, ""), part, "config.json")
  untied = said | {"tie_word_embeddings": False}
  with pytest.raises(UserError, match="once true and once false"):
    tables.language_part(untied, "config.json")
