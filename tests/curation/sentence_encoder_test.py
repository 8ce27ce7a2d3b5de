"""Sentence encoders beside transformers' BERT."""

import json

import numpy as np
import pytest
import tokenizers

from flan_jax.curation import sentence_encoder
from flan_jax.curation.sentence_encoder import FromSentenceEncoder
from flan_jax.errors import UserError

TEXTS = ["name a fruit", "a", "name a red fruit and a green one " * 9, ""]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "name", "a", "fruit", "red", "and"]


def write(folder, pooling="pooling_mode_mean_tokens"):
  """A folder as sentence-transformers writes it, and its model in torch."""
  transformers = pytest.importorskip("transformers")
  import torch

  torch.manual_seed(0)
  model = transformers.BertModel(
    transformers.BertConfig(
      vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2,
      num_attention_heads=4, intermediate_size=24, max_position_embeddings=40,
      # So large that every part shows in the vectors.
      initializer_range=0.5,
    )
  ).eval()  # fmt: skip
  model.save_pretrained(folder)
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(
      {w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"
    )
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = tokenizers.processors.BertProcessing(
    ("[SEP]", 3), ("[CLS]", 2)
  )
  # As published files do; what the folder says of the length counts.
  tokenizer.enable_padding(length=12)
  tokenizer.enable_truncation(12)
  tokenizer.save(str(folder / "tokenizer.json"))
  (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
  (folder / "modules.json").write_text(
    json.dumps(
      [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in (
          ("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "Normalize"),
        )
      ]
    )
  )  # fmt: skip
  (folder / "1_Pooling").mkdir()
  (folder / "1_Pooling/config.json").write_text(
    json.dumps({"word_embedding_dimension": 16, pooling: True})
  )
  return model


def states(model, ids):
  import torch

  with torch.no_grad():
    return model(torch.tensor([ids])).last_hidden_state[0].numpy()


@pytest.mark.parametrize("pooling", sentence_encoder.POOLINGS)
def test_vectors_are_those_of_transformers(tmp_path, pooling):
  model = write(tmp_path, pooling)
  told = []
  made = FromSentenceEncoder(str(tmp_path), batch_size=3)
  found_ND = made(TEXTS, told=told.append)
  tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  tokenizer.no_padding()
  tokenizer.enable_truncation(24)
  for text, found_D in zip(TEXTS, found_ND, strict=True):
    hidden_SD = states(model, tokenizer.encode(text).ids)
    expected = hidden_SD.mean(0) if "mean" in pooling else hidden_SD[0]
    np.testing.assert_allclose(found_D, expected, atol=2e-5)
  assert told == [3, 4]
  assert made.identity["length"] == 24
  assert made.identity["pooling"] == sentence_encoder.POOLINGS[pooling]
  again = FromSentenceEncoder(str(tmp_path), length=10)
  assert again.identity["model"] == made.identity["model"]
  assert again.identity != made.identity


def test_names_with_a_prefix_are_the_same_model(tmp_path):
  safetensors = pytest.importorskip("safetensors.numpy")
  write(tmp_path)
  first = FromSentenceEncoder(str(tmp_path))(TEXTS)
  file = tmp_path / "model.safetensors"
  arrays = safetensors.load_file(file)
  arrays = {f"bert.{name}": x for name, x in arrays.items()}
  arrays["bert.embeddings.position_ids"] = np.arange(40)[None]
  safetensors.save_file(arrays, file)
  np.testing.assert_array_equal(
    FromSentenceEncoder(str(tmp_path))(TEXTS), first
  )


@pytest.mark.parametrize(
  ("file", "changes", "message"),
  [
    ("config.json", {"model_type": "mpnet"}, "model_type is 'mpnet'; we read"),
    ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
    (
      "1_Pooling/config.json", {"pooling_mode_max_tokens": True},
      "the pooling is pooling_mode_mean_tokens, pooling_mode_max_tokens",
    ),
    ("tokenizer.json", None, "tokenizer.json cannot be read"),
    ("model.safetensors", None, "safetensors"),
    ("config.json", None, "config.json"),
  ],
)  # fmt: skip
def test_what_is_refused(tmp_path, file, changes, message):
  write(tmp_path)
  path = tmp_path / file
  if changes is None:
    path.unlink()
  else:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(UserError, match=message):
    FromSentenceEncoder(str(tmp_path))(TEXTS)


def test_lengths_and_modules(tmp_path):
  with pytest.raises(UserError, match="BATCH_SIZE is 0"):
    FromSentenceEncoder("a", batch_size=0)
  write(tmp_path)
  with pytest.raises(UserError, match="EMBEDDING_LENGTH is 41, .* has 40 posi"):
    FromSentenceEncoder(str(tmp_path), length=41)(TEXTS)
  path = tmp_path / "modules.json"
  path.write_text(path.read_text().replace("Normalize", "Dense"))
  with pytest.raises(UserError, match="the module 'Dense' of modules.json"):
    FromSentenceEncoder(str(tmp_path))(TEXTS)
  path.write_text("{}}")
  with pytest.raises(UserError, match="is no list of modules"):
    FromSentenceEncoder(str(tmp_path))(TEXTS)
