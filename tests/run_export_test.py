"""What was trained is exported and used without naming its vocabulary."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest

from flan_jax import config, generate
from flan_jax.convert import hf, source, trees
from flan_jax.data import vocabulary
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.decoding_config import DecodeConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {"emb_dim": 16, "num_layers": 1, "mlp_dim": 16}
TINY = DecoderConfig(
  vocab_size=4096, num_heads=4, num_kv_heads=2, head_dim=32, **SIZES
)
PROMPT = "Is it {so}?\n"


def job(files, **macros):
  flags = [(name, repr(value)) for name, value in macros.items()]
  return config.call_job(config.load(files, flags, [str(ROOT)]), ["test"])


def train(folder, steps, start):
  return job(
    ["gin/flan_holdout_nli.gin", "gin/models/decoder_tiny.gin"],
    MIXTURE_OR_TASK_NAME="flan_sst2",
    EVAL_MIXTURE_OR_TASK_NAME=None,
    TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 64},
    BATCH_SIZE=2,
    TRAIN_STEPS=steps,
    DROPOUT_RATE=0.0,
    INITIAL_CHECKPOINT_PATH=start,
    MODEL_DIR=str(folder),
    **{f"decoder.DecoderConfig.{k}": v for k, v in SIZES.items()},
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of two starts, from a checkpoint that says more than its model."""
  folder = tmp_path_factory.mktemp("run")
  params = trees.flatten(DecoderOnly(TINY).init(jax.random.key(0)))
  arrays = ((name, np.asarray(x)) for name, x in params.items())
  details = {"max_position_embeddings": 777, "eos_token_id": 9}
  start = hf.write_hf(folder / "start", TINY, arrays, details=details)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(os.environ, "FLAN_JAX_CACHE", str(folder / "cache"))
    patch.delitem(os.environ, "TFDS_DATA_DIR", raising=False)
    for steps in (1, 2):
      train(folder / "run", steps, str(start))
  return folder / "run"


def answer(path, **options):
  (result,) = generate.generate(
    initial_checkpoint_path=str(path),
    prompts=(PROMPT,),
    decode=DecodeConfig(max_decode_len=4),
    **options,
  )
  return result.answers[0].tokens


def test_a_run_brings_its_vocabulary(run, tmp_path, capsys):
  shipped = vocabulary.shipped_file().read_bytes()
  assert (run / "vocabulary" / "spiece.model").read_bytes() == shipped
  given = answer(run, vocabulary=vocabulary.load())
  assert answer(run) == given
  assert answer(run / "checkpoints" / "checkpoint_2") == given
  outs = {}
  for name in ("flan_jax", "hf"):
    outs[name] = tmp_path / name
    job(
      ["gin/convert.gin"],
      INPUT_PATH=str(outs.get("flan_jax", run) if name == "hf" else run),
      OUTPUT_PATH=str(outs[name]),
      OUTPUT_FORMAT=name,
    )
    assert "tokenizer: spiece.model" in capsys.readouterr().out
    assert (outs[name] / "spiece.model").read_bytes() == shipped
    assert answer(outs[name]) == given
  assert source.open_source(outs["flan_jax"]).step == 2
  said = json.loads((outs["hf"] / "config.json").read_text())
  assert said["max_position_embeddings"] == 777
  # The vocabulary of the run stands over what it began from.
  assert (said["eos_token_id"], said["pad_token_id"]) == (1, 0)
  ends = json.loads((outs["hf"] / "generation_config.json").read_text())
  assert (ends["eos_token_id"], ends["pad_token_id"]) == (1, 0)


def test_a_run_without_its_vocabulary(run, tmp_path):
  """As runs were before they kept it."""
  (run / "vocabulary").rename(tmp_path / "aside")
  try:
    with pytest.raises(UserError, match="comes without a tokenizer"):
      answer(run)
  finally:
    (tmp_path / "aside").rename(run / "vocabulary")
