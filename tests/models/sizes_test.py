"""Every file of gin/models reads, and has its published number of parameters."""

import math
import pathlib

import jax
import pytest

from flan_jax import config

ROOT = pathlib.Path(__file__).parent.parent.parent
MODELS = sorted((ROOT / "gin" / "models").glob("*.gin"))
JOB = """
from __gin__ import dynamic_registration

from flan_jax import config
from tests.models import sizes_test

include '{path}'
config.run.job = @sizes_test.identity
sizes_test.identity.model = %MODEL
"""
# As the checkpoints count them; padded rows of embeddings are in.
PARAMETERS = {
  "llama2_7b": 6_738_415_616,
  "llama2_13b": 13_015_864_320,
  "llama2_70b": 68_976_648_192,
  "llama3_8b": 8_030_261_248,
  "llama3_70b": 70_553_706_496,
  "llama3_2_1b": 1_235_814_400,
  "llama3_2_3b": 3_212_749_824,
  "mistral_7b": 7_241_732_096,
  "qwen2_5_0_5b": 494_032_768,
  "qwen2_5_1_5b": 1_543_714_304,
  "qwen2_5_7b": 7_615_616_512,
  "qwen3_0_6b": 596_049_920,
  "qwen3_1_7b": 1_720_574_976,
  "qwen3_8b": 8_190_735_360,
  "gemma2_2b": 2_614_341_888,
  "gemma2_9b": 9_241_705_984,
  "gemma3_270m": 268_098_176,
  "gemma3_1b": 999_885_952,
  "olmo_1b": 1_176_764_416,
  "olmo_7b": 6_888_095_744,
  "olmo2_1b": 1_484_916_736,
  "olmo2_7b": 7_298_617_344,
  "smollm2_135m": 134_515_008,
  "smollm2_360m": 361_821_120,
  "smollm2_1_7b": 1_711_376_384,
  "t5_1_0_small": 60_506_624,
  "t5_1_0_base": 222_903_552,
  "t5_1_0_large": 737_668_096,
  "t5_1_0_3b": 2_851_598_336,
  "t5_1_0_11b": 11_307_321_344,
  "t5_1_1_small": 76_961_152,
  "t5_1_1_base": 247_577_856,
  "t5_1_1_large": 783_150_080,
  "t5_1_1_xl": 2_849_757_184,
  "t5_1_1_xxl": 11_135_332_352,
  "mt5_small": 300_176_768,
  "mt5_base": 582_401_280,
  "mt5_large": 1_229_581_312,
  "mt5_xl": 3_742_619_648,
  "mt5_xxl": 12_921_057_280,
}
# Where the count is published in billions: Gemma 3's report, table 1, and
# LaMDA's leave the embedding out.
BILLIONS = {"gemma3_4b": "3.209", "lamda_137b": "137", "ul2_20b": "20"}
OURS = {"decoder_tiny", "t5_1_1_tiny"}


def identity(model):
  """The job of these tests: the model that a file describes."""
  return model


def model_of(path, tmp_path):
  job = tmp_path / "job.gin"
  job.write_text(JOB.format(path=path))
  read = config.load([str(job)], [("DROPOUT_RATE", "0.1")])
  return config.call_job(read)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_a_file_has_the_published_number_of_parameters(path, tmp_path):
  model = model_of(path, tmp_path)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
  name = path.stem
  if name in PARAMETERS:
    assert count == PARAMETERS[name]
  elif name in BILLIONS:
    if name != "ul2_20b":
      count -= model.config.vocab_size * model.config.emb_dim
    digits = len(BILLIONS[name].partition(".")[2])
    assert f"{count / 1e9:.{digits}f}" == BILLIONS[name]
  else:
    assert name in OURS
    assert count == pytest.approx(2e6, rel=0.1)
  assert model.config.dropout_rate == 0.1
  assert f"{model.config.vocab_size:,} ids" in path.read_text()
