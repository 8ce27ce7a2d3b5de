"""tokenizer.json and SentencePiece files: exact ids, and the special ones."""

import io
import json

import pytest
import sentencepiece
import seqio
import tensorflow as tf
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors, trainers

from flan_jax.data import vocabulary
from flan_jax.errors import UserError
from tests.data import gguf_vocabularies, scripts

TEXTS = scripts.strings(1000)
SPECIAL = ["<pad>", "<end>", "<begin>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def trained():
  """A byte-level BPE as decoder-only checkpoints have them."""
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=1000,
    special_tokens=SPECIAL,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS, trainer)
  return tokenizer


def folder_of(folder, tokenizer, config=None, generation=None, adds=()):
  """A model's folder; `adds`: what the post-processor puts first."""
  made = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  if adds:
    made.post_processor = processors.TemplateProcessing(
      single=[*adds, "$A"],
      special_tokens=[(t, made.token_to_id(t)) for t in adds],
    )
  folder.mkdir()
  made.save(str(folder / "tokenizer.json"))
  for name, content in (
    ("tokenizer_config.json", config),
    ("generation_config.json", generation),
  ):
    if content is not None:
      (folder / name).write_text(json.dumps(content))
  return folder


def test_ids_are_the_librarys(trained, tmp_path):
  file = tmp_path / "tokenizer.json"
  trained.save(str(file))
  v = vocabulary.load(file, eos="<end>")
  expected = [e.ids for e in trained.encode_batch(TEXTS)]
  assert [v.encode(t) for t in TEXTS] == expected
  assert vocabulary.encode_batch(v, TEXTS) == expected
  assert v.encode_tf(tf.constant(TEXTS)).to_list() == expected
  assert [v.decode(i) for i in expected] == TEXTS


def test_special_tokens_in_a_prompt_are_special(trained, tmp_path):
  v = vocabulary.load(folder_of(tmp_path / "x", trained), eos="<end>")
  prompt = "<|im_start|>user\nyes<|im_end|>\n"
  ids = v.encode(prompt)
  assert ids == [
    3, *v.encode("user\nyes"), 4, *v.encode("\n")
  ]  # fmt: skip
  assert v.encode_tf(tf.constant(prompt)).numpy().tolist() == ids


def test_what_a_row_begins_with(trained, tmp_path):
  bos = {"bos_token": "<begin>", "eos_token": "<end>"}
  for number, (config, adds, expected) in enumerate((
    # Llama 3, Gemma: the post-processor adds it.
    (bos, ["<begin>"], 2),
    # Llama 2, Mistral: the configuration says so.
    (bos | {"add_bos_token": True}, [], 2),
    (bos | {"add_bos_token": False}, ["<begin>"], None),
    # SmolLM2 has a BOS token, Qwen and OLMo have none; none puts it first.
    (bos, [], None),
    ({"eos_token": "<end>", "add_bos_token": False}, [], None),
  )):  # fmt: skip
    folder = folder_of(tmp_path / str(number), trained, config, adds=adds)
    v = vocabulary.load(folder)
    assert vocabulary.begin_id(v) == expected, number
    # Whatever a text begins with, encoding adds nothing.
    assert v.encode("yes") == trained.encode("yes").ids
  with pytest.raises(UserError, match="add_bos_token is set, but bos_token No"):
    vocabulary.load(
      folder_of(
        tmp_path / "none",
        trained,
        {"eos_token": "<end>", "add_bos_token": True},
      )
    )


def test_what_a_text_ends_with(trained, tmp_path):
  end = {"eos_token": "<end>"}
  for number, (generation, expected) in enumerate((
    (None, (1, 4)),
    ({"eos_token_id": 0}, (1, 4, 0)),
    ({"eos_token_id": [1, 3]}, (1, 4, 3)),
    ({"temperature": 1.0}, (1, 4)),
  )):  # fmt: skip
    folder = folder_of(tmp_path / str(number), trained, end, generation)
    assert vocabulary.end_ids(vocabulary.load(folder)) == expected
  turn = {"eos_token": "<|im_end|>"}
  folder = folder_of(tmp_path / "turn", trained, turn)
  assert vocabulary.end_ids(vocabulary.load(folder)) == (4,)
  (folder / "generation_config.json").write_text("[1]")
  with pytest.raises(UserError, match="generation_config.json holds no JSON"):
    vocabulary.load(folder)


def test_padding(trained, tmp_path):
  """Without a token for it EOS pads, which only a decoder can live with."""
  plain = tokenizers.Tokenizer.from_str(trained.to_str().replace(
    '"id":0,"content":"<pad>","single_word":false,"lstrip":false,"rstrip":false'
    ',"normalized":false,"special":true',
    '"id":0,"content":"<pad>","single_word":false,"lstrip":false,"rstrip":false'
    ',"normalized":false,"special":false',
  ))  # fmt: skip
  v = vocabulary.load(folder_of(tmp_path / "x", plain, {"eos_token": "<end>"}))
  assert (v.pad_id, v.eos_id) == (1, 1)
  assert vocabulary.describe(v) == (
    f"{v.vocab_size:,} ids; a decoder's row begins with its text; text ends"
    " with 1 ('<end>'), 4 ('<|im_end|>'); padding 1 ('<end>')"
  )
  vocabulary.check_padding(v, "decoder_only")
  with pytest.raises(UserError, match="pads with id 1, but .* padded with 0"):
    vocabulary.check_padding(v, "encoder_decoder")
  v = vocabulary.load(folder_of(tmp_path / "y", trained), eos="<end>")
  assert v.pad_id == 0
  vocabulary.check_padding(v, "encoder_decoder")


# --------------------------------------------------------------- SentencePiece


@pytest.fixture(scope="module")
def model_bytes():
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=(t for t in TEXTS if t and "\x00" not in t),
    model_writer=out,
    vocab_size=4000,
    byte_fallback=True,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=3,
    user_defined_symbols=["<end_of_turn>"],
    minloglevel=2,
  )
  return out.getvalue()


def test_sentencepiece_ids_are_the_librarys(model_bytes, tmp_path):
  file = tmp_path / "tokenizer.model"
  file.write_bytes(model_bytes)
  model = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
  texts = TEXTS
  v = vocabulary.load(file)
  expected = model.encode(texts)
  assert [list(v.encode(t)) for t in texts] == expected
  assert vocabulary.encode_batch(v, texts) == expected
  assert v.encode_tf(tf.constant(texts)).to_list() == expected
  replacing = vocabulary.load(file, replacements={"\n": " / "})
  assert vocabulary.encode_batch(replacing, texts) == [
    list(replacing.encode(t)) for t in texts
  ]


def test_sentencepiece_begins_and_ends(model_bytes, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(model_bytes)
  v = vocabulary.load(tmp_path, replacements={"\n": " "})
  turn = v.inner.tokenizer.piece_to_id("<end_of_turn>")
  assert vocabulary.begin_id(v) == 3
  assert vocabulary.end_ids(v) == (1, turn)
  assert vocabulary.describe(v) == (
    f"{v.vocab_size:,} ids; a decoder's row begins with 3 ('<s>'); text ends"
    f" with 1 ('</s>'), {turn} ('<end_of_turn>'); padding 0 ('<pad>')"
  )
  config = tmp_path / "tokenizer_config.json"
  config.write_text('{"add_bos_token": false}')
  (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 9]}')
  assert vocabulary.begin_id(v) is None
  assert vocabulary.end_ids(v) == (1, turn, 9)


def test_vocabularies_without_bos_begin_with_zero():
  for v in (vocabulary.load(), seqio.ByteVocabulary()):
    assert vocabulary.begin_id(v) == 0
    assert vocabulary.end_ids(v) == (1,)
    assert vocabulary.encode_batch(v, ["a b", ""]) == [
      list(v.encode("a b")), []
    ]  # fmt: skip
  assert vocabulary.describe(seqio.ByteVocabulary()) == (
    "259 ids; a decoder's row begins with 0; text ends with 1; padding 0"
  )


# --------------------------------------------------------------------- folders


def test_a_folder_is_its_vocabulary(trained, model_bytes, tmp_path):
  with pytest.raises(UserError, match="holds no vocabulary: none of tokenizer"):
    vocabulary.load(tmp_path)
  tokens = ["<end>", "a", "b"]
  for name in ("one.gguf", "two.gguf"):
    gguf_vocabularies.write(
      tmp_path / name, "gpt2", tokens, pre="gpt-2", eos=0, types=[3, 1, 1]
    )
  with pytest.raises(UserError, match=r"name the one: one.gguf, two.gguf"):
    vocabulary.load(tmp_path)
  (tmp_path / "two.gguf").unlink()
  v = vocabulary.load(tmp_path)
  assert v.path == tmp_path / "one.gguf"
  assert (v.encode("ab"), v.vocab_size) == ([1, 2], 3)
  (tmp_path / "spiece.model").write_bytes(model_bytes)
  assert isinstance(vocabulary.load(tmp_path), seqio.SentencePieceVocabulary)
  trained.save(str(tmp_path / "tokenizer.json"))
  v = vocabulary.load(tmp_path, eos="<end>")
  assert v.path == tmp_path / "tokenizer.json"
