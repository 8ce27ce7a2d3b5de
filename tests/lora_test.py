"""LoRA end to end: trained, resumed, evaluated, merged and exported."""

import pathlib

import numpy as np
import pytest

from flan_jax import config, evaluated
from flan_jax.convert import job, load, native, peft, shapes, trees
from flan_jax.errors import UserError
from flan_jax.models.lora import WithLora
from flan_jax.models.t5_network import T5Config
from flan_jax.training import restore, writers

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ["gin/flan_holdout_nli.gin", "gin/adapters/lora.gin"]
CONFIG = T5Config(
  vocab_size=4096, emb_dim=16, num_heads=4, head_dim=32, mlp_dim=16,
  num_encoder_layers=2, num_decoder_layers=2, dropout_rate=0.0,
)
SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 16},
  "BATCH_SIZE": 4,
  "t5.T5Config.emb_dim": 16,
  "t5.T5Config.mlp_dim": 16,
  "TRAIN_STEPS": 4,
  "CHECKPOINT_PERIOD": 2,
  "EVAL_PERIOD": 4,
  "LOG_PERIOD": 1,
  "LEARNING_RATE": 0.3,
  "LORA_RANK": 2,
}


def run(folder, base, files=FILES, **changes):
  values = {
    **SMALL, "MODEL_DIR": str(folder), "INITIAL_CHECKPOINT_PATH": str(base),
    **changes,
  }
  flags = [(name, repr(value)) for name, value in values.items()]
  return config.call_job(config.load(files, flags, [str(ROOT)]), ["test"])


def write_base(path, seed):
  wanted = shapes.parameter_shapes(CONFIG)
  random = np.random.default_rng(seed)
  arrays = (
    (n, 0.1 * random.standard_normal(x.shape).astype(np.float32))
    for n, x in wanted.items()
  )
  return native.write_native(path, wanted, arrays, config=CONFIG)


@pytest.fixture(scope="module")
def runs(sample_cache, tmp_path_factory):
  """A base, and LoRA tuned on it."""
  folder = tmp_path_factory.mktemp("runs")
  write_base(folder / "base", 0)
  run(folder / "lora", folder / "base", TRAIN_STEPS=2)
  run(folder / "lora", folder / "base")  # goes on
  return folder


@pytest.mark.parametrize(
  "path", sorted((ROOT / "gin" / "adapters").glob("*.gin")),
  ids=lambda path: path.stem,
)  # fmt: skip
def test_adapters_go_on_top_of_a_training_file(path):
  loaded = config.load([FILES[0], str(path)], search_paths=[str(ROOT)])
  assert loaded.value("ADAPTER") is not None


def opened(path):
  source, model, _ = evaluated.open_model(str(path))
  return model, load.load_params(source, model)


def logits(model, params):
  tokens_BT = np.random.default_rng(0).integers(2, 4000, (2, 8))
  batch = {
    "encoder_input_tokens": tokens_BT,
    "decoder_input_tokens": tokens_BT,
    "decoder_target_tokens": tokens_BT,
  }
  return np.asarray(model.logits(params, batch))


def test_the_checkpoint_holds_the_adapter_and_the_base_is_bit_equal(runs):
  _, manifest = restore.find(runs / "lora")
  params = [n for n in manifest["arrays"] if n.startswith("params/")]
  assert len(params) == 2 * 2 * (2 + 4)  # A and B of queries and values
  assert all(n.startswith("params/lora/") for n in params)
  rows = writers.read(runs / "lora" / "metrics.jsonl")
  assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
  model, tree = opened(runs / "lora")
  assert isinstance(model, WithLora)
  assert model.options.rank == 2
  flat = trees.flatten(tree)
  source = load.opened(str(runs / "base"))
  for name in source.shapes:
    np.testing.assert_array_equal(flat[name], source.read(name))
  b = [x for n, x in flat.items() if n.endswith("lora_b")]
  # Adafactor's first steps are 0.3 of 1e-3, the least size of a parameter.
  assert all(np.abs(x).max() > 1e-4 for x in b)


def test_merged_and_exported(runs, tmp_path):
  wanted = logits(*opened(runs / "lora"))
  job.convert(
    input_path=str(runs / "lora"), output_path=str(tmp_path / "merged"),
    output_format="flan_jax",
  )
  source = load.opened(str(tmp_path / "merged"))
  merged = load.model_of(source)
  assert not hasattr(merged, "key")
  ours = logits(merged, load.load_params(source, merged))
  np.testing.assert_allclose(ours, wanted, atol=1e-5)
  job.convert(
    input_path=str(runs / "lora"), output_path=str(tmp_path / "peft"),
    output_format="peft",
  )
  source = peft.PeftSource(tmp_path / "peft")
  model = load.model_of(source)
  ours = logits(model, load.load_params(source, model))
  np.testing.assert_allclose(ours, wanted, atol=1e-6)
  # And it is gone on with.
  run(
    tmp_path / "on", tmp_path / "peft", TRAIN_STEPS=1, LEARNING_RATE=1e-9,
    LORA_TARGETS=source.adapter["targets"],
  )
  np.testing.assert_allclose(
    logits(*opened(tmp_path / "on")), wanted, atol=1e-4
  )


def test_another_base_is_refused(runs, tmp_path):
  write_base(tmp_path / "other", 1)
  with pytest.raises(UserError, match="that it is another checkpoint"):
    run(
      runs / "lora", tmp_path / "other", TRAIN_STEPS=5, RESUME_CHANGED=True
    )


@pytest.mark.slow
def test_a_base_in_four_bits(runs, tmp_path):
  run(
    tmp_path, runs / "base", ["gin/flan_holdout_nli.gin",
                              "gin/adapters/qlora.gin"],
  )
  model, params = opened(tmp_path)
  assert model.options.base_type == "nf4"
  kernel = params["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
  assert kernel["nf4"].dtype == np.uint8
  wanted = logits(model, params)
  job.convert(
    input_path=str(tmp_path), output_path=str(tmp_path / "merged"),
    output_format="flan_jax",
  )
  source = load.opened(str(tmp_path / "merged"))
  merged = load.model_of(source)
  ours = logits(merged, load.load_params(source, merged))
  np.testing.assert_allclose(ours, wanted, atol=1e-5)
