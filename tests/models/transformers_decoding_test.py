"""Greedy decoding is `transformers.generate`'s, token for token."""

import numpy as np
import pytest

from flan_jax.convert import load, source
from flan_jax.models import decoding
from flan_jax.models.decoder import DecoderOnly
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.models.t5 import EncoderDecoder
from tests.models.decoding_test import answers, padded

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = [[5, 9, 3, 22, 7, 7, 31], [8], [30, 2, 44, 11], [60, 3, 17, 12, 9]]


def t5():
  config = transformers.T5Config(
    vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
    num_decoder_layers=2, dropout_rate=0.0, feed_forward_proj="relu",
    decoder_start_token_id=0,
  )
  return transformers.T5ForConditionalGeneration(config)


def llama():
  config = transformers.LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    tie_word_embeddings=True, pad_token_id=None, bos_token_id=None,
    eos_token_id=None,
  )
  return transformers.LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=[t5, llama])
def both(request, tmp_path_factory):
  """(theirs, our model, our parameters)."""
  folder = tmp_path_factory.mktemp("model")
  torch.manual_seed(4)
  theirs = request.param().eval()
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.add_(0.3 * torch.randn_like(parameter))
  theirs.save_pretrained(folder)
  opened = source.open_source(folder)
  kind = EncoderDecoder if request.param is t5 else DecoderOnly
  model = kind(opened.config)
  return theirs, model, load.load_params(opened, model)


def generated(theirs, left, **options):
  """Their answers; left padding for the decoder-only model, as they want."""
  inputs_BS = np.zeros((len(PROMPTS), 8), np.int64)
  mask_BS = np.zeros_like(inputs_BS)
  for row, tokens in enumerate(PROMPTS):
    place = slice(-len(tokens), None) if left else slice(len(tokens))
    inputs_BS[row, place], mask_BS[row, place] = tokens, 1
  with torch.no_grad():
    out = theirs.generate(
      torch.tensor(inputs_BS), attention_mask=torch.tensor(mask_BS),
      generation_config=transformers.GenerationConfig(
        max_new_tokens=12, decoder_start_token_id=0, pad_token_id=63, **options
      ),
    ).numpy()
  return out[:, 8:] if left else out[:, 1:]


@pytest.mark.parametrize("ends", [False, True])
def test_greedy_with_ragged_prompts(both, ends):
  theirs, model, params = both
  left = model.kind == "decoder_only"
  end_ids = ()
  if ends:  # ids that rows reach at different places
    free = generated(theirs, left, do_sample=False)
    end_ids = tuple({int(free[0, 5]), int(free[2, 2])} - {63})
  expected = generated(
    theirs, left, do_sample=False, eos_token_id=list(end_ids) or None
  )
  decoded = decoding.decode(
    model, params, padded(PROMPTS, 8),
    DecodeConfig(max_decode_len=12, end_ids=end_ids),
  )
  lengths = set()
  for (ours,), row in zip(answers(decoded), expected.tolist(), strict=True):
    ended = [t for t, token in enumerate(row) if token in end_ids]
    assert ours == row[: ended[0] + 1 if ended else None]
    lengths.add(len(ours))
  assert (len(lengths) > 1) == ends
