"""LoRA in PEFT's folders and merged into its base, against PEFT itself."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from flan_jax.convert import fingerprint as fingerprint_lib
from flan_jax.convert import job, load, merged, peft, peft_lora, source
from flan_jax.errors import UserError
from flan_jax.models import lora

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("peft")

# PEFT calls what transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*in v6:FutureWarning")
KINDS = ("llama", "t5")
TARGETS = {
  "llama": ["q_proj", "v_proj", "down_proj"],
  "t5": ["q", "o", "wi_1", "wo"],
}
INPUTS = np.random.default_rng(0).integers(2, 60, (2, 7))
TARGET = np.random.default_rng(1).integers(2, 60, (2, 5))


def make(kind):
  torch.manual_seed(3)
  if kind == "llama":
    config = transformers.LlamaConfig(
      vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
      num_attention_heads=4, num_key_value_heads=2, bos_token_id=1,
      eos_token_id=2,
    )
    return transformers.LlamaForCausalLM(config)
  config = transformers.T5Config(
    vocab_size=61, d_model=24, d_kv=8, d_ff=40, num_layers=2,
    num_decoder_layers=1, num_heads=4, dropout_rate=0.0,
    decoder_start_token_id=0, feed_forward_proj="gated-gelu",
  )
  return transformers.T5ForConditionalGeneration(config)


def their_logits(model, kind):
  model.eval()
  with torch.no_grad():
    if kind == "llama":
      return model(input_ids=torch.tensor(INPUTS)).logits.numpy()
    return model(
      input_ids=torch.tensor(INPUTS), labels=torch.tensor(TARGET)
    ).logits.numpy()


def our_logits(path_or_source):
  opened = load.opened(path_or_source)
  model = load.model_of(opened)
  params = load.load_params(opened, model)
  batch = {
    "encoder_input_tokens": INPUTS,
    "decoder_input_tokens": np.pad(TARGET[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": TARGET,
  }
  if model.kind == "decoder_only":
    batch = {"decoder_input_tokens": INPUTS}
  return np.asarray(jax.jit(model.logits)(params, batch))


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
  """(kind, folder of the base, folder of PEFT's adapter, its logits)."""
  kind, folder = request.param, tmp_path_factory.mktemp(request.param)
  base = make(kind)
  base.save_pretrained(folder / "base")
  config = theirs.LoraConfig(
    r=3, lora_alpha=7, target_modules=TARGETS[kind], lora_dropout=0.1,
    init_lora_weights=False,
    task_type="CAUSAL_LM" if kind == "llama" else "SEQ_2_SEQ_LM",
  )
  model = theirs.get_peft_model(base, config)
  model.save_pretrained(folder / "adapter")
  return kind, folder / "base", folder / "adapter", their_logits(model, kind)


def loaded(kind, base, adapter):
  model = type(make(kind)).from_pretrained(base)
  return theirs.PeftModel.from_pretrained(model, adapter)


def test_theirs_is_read(made):
  _, base, adapter, wanted = made
  with pytest.raises(UserError, match="Give the folder of the model"):
    source.open_source(adapter)
  ours = our_logits(peft.PeftSource(adapter, base))
  np.testing.assert_allclose(ours, wanted, atol=1e-5)
  plain = our_logits(base)
  assert np.abs(plain - wanted).max() > 1e-3


def test_ours_is_read_by_theirs(made, tmp_path):
  kind, base, adapter, wanted = made
  opened = peft.PeftSource(adapter, base)
  opened._arrays = {n: 1.5 * x for n, x in opened._arrays.items()}
  opened.fingerprint = fingerprint_lib.fingerprint(
    load.load_params(base, load.model_of(source.open_source(base)))
  )
  ours = our_logits(opened)
  peft.write(opened, tmp_path / "out")
  again = their_logits(loaded(kind, base, tmp_path / "out"), kind)
  np.testing.assert_allclose(again, ours, atol=1e-5)
  assert np.abs(again - wanted).max() > 1e-3
  said = json.loads((tmp_path / "out" / peft.CONFIG).read_text())
  # Short where it can be. (Of a T5, `o` and `q` are in three kinds of layers.)
  assert said["target_modules"] == sorted(TARGETS[kind])
  # The folder names its base and its fingerprint.
  np.testing.assert_allclose(our_logits(tmp_path / "out"), ours, atol=1e-6)
  opened.fingerprint = "00000000"
  peft.write(opened, tmp_path / "other")
  with pytest.raises(UserError, match="00000000.* so that it is another one"):
    our_logits(tmp_path / "other")
  with pytest.raises(UserError, match="00000000"):
    merged.whole(source.open_source(tmp_path / "other"))


def test_merged_has_the_same_logits(made, tmp_path):
  kind, base, adapter, wanted = made
  job.convert(
    input_path=str(adapter), base_path=str(base),
    output_path=str(tmp_path / "out"), output_format="hf",
  )
  np.testing.assert_allclose(our_logits(tmp_path / "out"), wanted, atol=1e-5)
  model = type(make(kind)).from_pretrained(tmp_path / "out")
  np.testing.assert_allclose(their_logits(model, kind), wanted, atol=1e-5)


def test_merged_into_a_quantised_base(made):
  _, base, adapter, wanted = made
  opened = peft.PeftSource(adapter, base)
  opened.adapter = {**opened.adapter, "base_type": "nf4"}
  ours = our_logits(opened)
  np.testing.assert_allclose(
    our_logits(merged.whole(opened)), ours, atol=1e-5
  )
  assert np.abs(ours - wanted).max() > 1e-5


def edited(adapter, folder, arrays=None, **changes):
  shutil.copytree(adapter, folder)
  config = json.loads((folder / peft.CONFIG).read_text()) | changes
  (folder / peft.CONFIG).write_text(json.dumps(config))
  if arrays is not None:
    safetensors.save_file(arrays, folder / peft.WEIGHTS)
  return folder


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"peft_type": "LOHA"}, "'LOHA', which we do not know; known are LORA"),
    ({"use_dora": True}, "use_dora is True, which ours does not compute"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"init_lora_weights": "pissa"}, "changes the base's own kernels"),
    ({"rank_pattern": {"q": 2}}, "rank_pattern"),
    ({"r": 4}, "is \\[3, .*r = 4"),
    ({"lora_alpha": -1}, "alpha is -1"),
  ],
)
def test_configs_that_are_refused(made, tmp_path, changes, message):
  _, base, adapter, _ = made
  folder = edited(adapter, tmp_path / "x", **changes)
  with pytest.raises(UserError, match=message):
    peft.PeftSource(folder, base)


def test_folders_that_are_refused(made, tmp_path):
  _, base, adapter, _ = made
  arrays = safetensors.load_file(adapter / peft.WEIGHTS)
  name = next(iter(arrays))
  embedding = {"base_model.model.lm_head.lora_A.weight": arrays[name]}
  folder = edited(adapter, tmp_path / "stray", {**arrays, **embedding})
  with pytest.raises(UserError, match="lm_head.*LoRA of no kernel"):
    peft.PeftSource(folder, base)
  lone = {n: x for n, x in arrays.items() if n != name}
  with pytest.raises(UserError, match="one of A and B alone"):
    peft.PeftSource(edited(adapter, tmp_path / "lone", lone), base)
  folder = edited(adapter, tmp_path / "pickle")
  (folder / peft.WEIGHTS).rename(folder / "adapter_model.bin")
  with pytest.raises(UserError, match="pickled weights"):
    peft.PeftSource(folder, base)
  (folder / "adapter_model.bin").unlink()
  with pytest.raises(UserError, match="fetch the whole adapter"):
    peft.PeftSource(folder, base)
  with pytest.raises(UserError, match="BASE_PATH=.* has no effect"):
    job.convert(
      input_path=str(base), base_path=str(base),
      output_path=str(tmp_path / "o"), output_format="hf",
    )
  with pytest.raises(UserError, match="holds no adapter"):
    job.convert(
      input_path=str(base), output_path=str(tmp_path / "o"),
      output_format="peft",
    )


def test_an_adapter_of_another_width_names_both(made, tmp_path):
  _, base, adapter, _ = made
  arrays = safetensors.load_file(adapter / peft.WEIGHTS)
  wide = {n: np.concatenate([x, x], axis=-1) for n, x in arrays.items()}
  folder = edited(adapter, tmp_path / "wide", wide)
  with pytest.raises(UserError, match="another model") as error:
    peft.PeftSource(folder, base)
  assert str(base) in str(error.value)


def test_a_part_of_the_layers(made, tmp_path):
  """PEFT's layers_to_transform, and our regex of their names."""
  kind, base, _, _ = made
  if kind == "t5":
    pytest.skip("layers of one side")
  config = theirs.LoraConfig(
    r=2, target_modules=["q_proj"], layers_to_transform=[1],
    init_lora_weights=False, use_rslora=True,
  )
  model = theirs.get_peft_model(make(kind), config)
  model.save_pretrained(tmp_path / "a")
  opened = peft.PeftSource(tmp_path / "a", base)
  name = r"decoder/layers_(1)/self_attention/query/kernel"
  assert opened.adapter["targets"] == name
  assert opened.adapter["rank_stabilised"]
  np.testing.assert_allclose(
    our_logits(opened), their_logits(model, kind), atol=1e-5
  )
  peft.write(opened, tmp_path / "b")
  said = json.loads((tmp_path / "b" / peft.CONFIG).read_text())
  assert said["target_modules"] == ["model.layers.1.self_attn.q_proj"]
  again = loaded(kind, base, tmp_path / "b")
  np.testing.assert_allclose(
    their_logits(again, kind), their_logits(model, kind), atol=1e-5
  )


def test_ia3_both_ways_and_merged(made, tmp_path):
  kind, base, _, _ = made
  last = {"llama": "down_proj", "t5": "wo"}[kind]
  names = {"llama": ["k_proj", "v_proj"], "t5": ["k", "v"]}[kind]
  config = theirs.IA3Config(
    target_modules=[*names, last], feedforward_modules=[last],
    init_ia3_weights=False,
    task_type="CAUSAL_LM" if kind == "llama" else "SEQ_2_SEQ_LM",
  )
  model = theirs.get_peft_model(make(kind), config)
  model.save_pretrained(tmp_path / "a")
  wanted = their_logits(model, kind)
  opened = peft.PeftSource(tmp_path / "a", base)
  np.testing.assert_allclose(our_logits(opened), wanted, atol=1e-4)
  np.testing.assert_allclose(
    our_logits(merged.whole(opened)), wanted, atol=1e-4
  )
  peft.write(opened, tmp_path / "b")
  again = their_logits(loaded(kind, base, tmp_path / "b"), kind)
  np.testing.assert_allclose(again, wanted, atol=1e-5)
  wrong = peft.PeftSource(tmp_path / "b").path / peft.WEIGHTS
  arrays = safetensors.load_file(wrong)
  name = next(iter(arrays))
  wide = {**arrays, name: np.tile(arrays[name], (2, 2))}
  folder = edited(tmp_path / "b", tmp_path / "wide", wide)
  with pytest.raises(UserError, match="another model"):
    peft.PeftSource(folder, base)


def test_other_rank_or_scale_is_refused(made):
  _, base, adapter, _ = made
  opened = peft.PeftSource(adapter, base)
  model = load.model_of(source.open_source(base))
  options = lora.Lora.of(opened.adapter)
  for changed in ({"rank": 2}, {"alpha": 5.0}):
    other = lora.Lora(
      **{"rank": 3, "alpha": 7.0, "targets": options.targets, **changed}
    ).on(model)
    with pytest.raises(UserError, match="Give LORA_RANK and LORA_ALPHA"):
      load.load_params(opened, other)


def test_names_have_their_modules():
  every = [f"d/layers_{i}/{x}/kernel" for i in (0, 1) for x in "qv"]
  assert peft_lora.regex_of(every, every) == (
    r"d/layers_\d+/q/kernel|d/layers_\d+/v/kernel"
  )
