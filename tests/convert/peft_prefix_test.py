"""Prefix tuning in PEFT's folders, against PEFT itself."""

import jax
import numpy as np
import pytest

from flan_jax.convert import job, load, peft, source
from flan_jax.errors import UserError
from flan_jax.models import prefix

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("peft")

# PEFT calls what transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*in v6:FutureWarning")
TOKENS = np.random.default_rng(0).integers(2, 60, (2, 7))
P = 4


def make(**changes):
  torch.manual_seed(3)
  config = transformers.LlamaConfig(
    vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, bos_token_id=1,
    eos_token_id=2, **changes,
  )  # fmt: skip
  return transformers.LlamaForCausalLM(config)


def their_logits(model):
  model.eval()
  ids = torch.tensor(TOKENS)
  with torch.no_grad():
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def our_logits(opened):
  model = load.model_of(opened)
  params = load.load_params(opened, model)
  batch = {"decoder_input_tokens": TOKENS}
  return np.asarray(jax.jit(model.logits)(params, batch))


@pytest.fixture(scope="module", params=["plain", "projected"])
def made(request, tmp_path_factory):
  """(folder of the base, folder of PEFT's prefix, its logits)."""
  folder = tmp_path_factory.mktemp(request.param)
  base = make()
  base.save_pretrained(folder / "base")
  config = theirs.PrefixTuningConfig(
    num_virtual_tokens=P,
    prefix_projection=request.param == "projected",
    encoder_hidden_size=12,
    task_type="CAUSAL_LM",
  )
  model = theirs.get_peft_model(base, config)
  with torch.no_grad():
    for parameter in model.prompt_encoder.parameters():
      parameter.copy_(0.5 * torch.randn(parameter.shape))
  model.save_pretrained(folder / "prefix")
  return folder / "base", folder / "prefix", their_logits(model).numpy()


def test_theirs_is_read_and_ours_is_read_by_theirs(made, tmp_path):
  base, folder, wanted = made
  opened = peft.PeftSource(folder, base)
  assert opened.adapter == prefix.Prefix(P).described()
  np.testing.assert_allclose(our_logits(opened), wanted, atol=1e-5)
  plain = our_logits(source.open_source(base))
  assert np.abs(plain - wanted).max() > 1e-2
  opened._arrays = {n: 1.5 * x for n, x in opened._arrays.items()}
  ours = our_logits(opened)
  peft.write(opened, tmp_path / "out")
  model = theirs.PeftModel.from_pretrained(
    transformers.LlamaForCausalLM.from_pretrained(base), tmp_path / "out"
  )
  np.testing.assert_allclose(their_logits(model), ours, atol=1e-5)
  assert np.abs(ours - wanted).max() > 1e-2


def test_what_is_refused(made, tmp_path):
  base, folder, _ = made
  opened = peft.PeftSource(folder, base)
  with pytest.raises(UserError, match="no part of any tensor"):
    job.convert(
      input_path=str(folder), base_path=str(base),
      output_path=str(tmp_path / "merged"), output_format="hf",
    )  # fmt: skip
  lacking = "prefix/decoder/layers_1/self_attention/prefix_key"
  opened.own = opened.own - {lacking}
  with pytest.raises(UserError, match="no prefix in layer 1"):
    peft.write(opened, tmp_path / "some")
  config = {
    "peft_type": "PREFIX_TUNING", "num_virtual_tokens": P,
    "base_model_name_or_path": str(base),
  }  # fmt: skip
  short = {"prompt_embeddings": np.zeros((P, 32), np.float32)}
  peft.write_folder(tmp_path / "short", config, short)
  with pytest.raises(UserError, match=r"\[4, 32\].*are .*\[4, 64\].*another"):
    source.open_source(tmp_path / "short")
  peft.write_folder(tmp_path / "odd", {**config, "gate": 1}, short)
  with pytest.raises(UserError, match="gate is 1, which ours does not"):
    source.open_source(tmp_path / "odd")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rope_type": "yarn", "factor": 4.0}, "scales RoPE by 'yarn'"),
    (None, "is an encoder-decoder"),
  ],
)
def test_bases_whose_prefixes_differ(tmp_path, changes, message):
  if changes is None:
    base = transformers.T5ForConditionalGeneration(
      transformers.T5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2
      )
    )
  else:
    base = make(
      max_position_embeddings=64,
      rope_parameters={"rope_theta": 1e4, **changes},
    )
  base.save_pretrained(tmp_path / "base")
  config = {
    "peft_type": "PREFIX_TUNING", "num_virtual_tokens": P,
    "base_model_name_or_path": str(tmp_path / "base"),
  }  # fmt: skip
  array = np.zeros((P, 64), np.float32)
  peft.write_folder(tmp_path / "p", config, {"prompt_embeddings": array})
  with pytest.raises(UserError, match=message):
    source.open_source(tmp_path / "p")
