"""Vocabularies: the shipped one, own files, and text that gets lost."""

import copy
import doctest
import io
import json
import pickle
import random
import warnings

import pytest
import sentencepiece
import seqio
import tensorflow as tf
import tokenizers

from flan_jax.data import catalogue, sample, train_vocabulary, vocabulary
from flan_jax.errors import UserError

PROMPT = "Premise: a  b\nHypothesis: {c} <d>\n\nOPTIONS:\n- yes\n- no"


@pytest.fixture(scope="module")
def shipped():
  return vocabulary.load()


def train_like_t5(**changes):
  """A model with the limits of T5's: NFKC, no newline, brace, `<` or bytes."""
  words = ["the", "a", "of", "in", "is", "it", "review", "film", "question"]
  words += ["answer", "yes", "no", "premise"]
  rng = random.Random(0)
  texts = [
    " ".join(rng.choices(words, k=8)) + rng.choice(".?!:;,-()'\"") + " Ab 0"
    for _ in range(400)
  ] + ["OPTIONS abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ"] * 20
  out = io.BytesIO()
  options = dict(
    vocab_size=120,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    normalization_rule_name="nmt_nfkc",
    hard_vocab_limit=False,
    minloglevel=2,
  )
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts), model_writer=out, **(options | changes)
  )
  return out.getvalue()


@pytest.fixture(scope="module")
def t5_file(tmp_path_factory):
  file = tmp_path_factory.mktemp("t5") / "sentencepiece.model"
  file.write_bytes(train_like_t5())
  return file


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
  """A byte-level BPE as decoder-only checkpoints have them."""
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<pad>", "<end>", "<system>"],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator([PROMPT] * 3, trainer)
  # Left by a training script; it must not cut our inputs.
  tokenizer.enable_truncation(4)
  file = tmp_path_factory.mktemp("hf") / "tokenizer.json"
  tokenizer.save(str(file))
  return file


def test_docstrings():
  result = doctest.testmod(vocabulary)
  assert result.failed == 0
  assert result.attempted > 0


# ------------------------------------------------------------- the shipped one


def test_shipped_ids(shipped):
  assert (shipped.pad_id, shipped.eos_id, shipped.unk_id) == (0, 1, 2)
  assert shipped.vocab_size == 4096
  assert shipped.extra_ids == 0
  pieces = [shipped.tokenizer.id_to_piece(i) for i in range(4096)]
  assert [p for p in pieces if "\n" in p] == ["\n"]
  assert {"{", "}", "<"} <= set(pieces)
  assert not [
    p for p in pieces if sum(c.isdigit() for c in p) > 1 and "<" not in p
  ]


def test_shipped_restores_any_text(shipped):
  rng = random.Random(0)
  characters = (
    " \n\t\r{}<>/\\abcABC019.,'é漢😀\u00a0\u200b\ufeff\u0301\x00\x7fﬁ½"
  )
  for _ in range(3000):
    text = "".join(rng.choices(characters, k=rng.randint(0, 20)))
    ids = shipped.encode(text)
    assert shipped.decode(ids) == text
    assert not {0, 1, 2} & set(ids), text


def test_shipped_restores_every_row_of_the_sample(shipped):
  texts = train_vocabulary.corpus()
  for text, ids in zip(texts, shipped.tokenizer.encode(texts), strict=True):
    assert shipped.tokenizer.decode(ids) == text


def test_special_tokens_in_text_are_only_text(shipped):
  text = "</s> <pad> <unk> <0x0A>"
  assert min(shipped.encode(text)) > 2
  assert shipped.decode(shipped.encode(text)) == text


def test_graph_and_python_agree(shipped):
  texts = [PROMPT, "", " x", "\n\n", "漢 1234"]
  ragged = shipped.encode_tf(tf.constant(texts))
  assert ragged.to_list() == [shipped.encode(t) for t in texts]
  assert shipped.encode_tf(tf.constant(PROMPT)).numpy().tolist() == (
    shipped.encode(PROMPT)
  )


def test_shipped_says_all_templates(shipped):
  texts = vocabulary.template_texts(catalogue.load().values())
  assert any("\n- yes" in t for t in texts)
  assert vocabulary.check_representable(shipped, [*texts, PROMPT]) == {}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert vocabulary.warn_lost(shipped, texts) == {}


def test_shipped_file_names_no_folder():
  data = vocabulary.shipped_file().read_bytes()
  assert b"/tmp" not in data
  assert b".tsv" not in data


def test_the_shipped_one_with_a_turn_end():
  chat = vocabulary.load("flan_jax_chat")
  file = vocabulary.shipped_file("flan_jax_chat")
  plain = vocabulary.shipped_file().read_bytes()
  assert file.read_bytes() == train_vocabulary.with_turn_end(plain)
  assert vocabulary.end_ids(chat) == (1, 4087)
  said = "Hi<|eot_id|>\nko\u010dka, na\u00efve"
  ids = chat.encode(said)
  assert ids.count(4087) == 1
  assert chat.decode(ids) == said
  assert chat.encode("a plain text") == vocabulary.load().encode("a plain text")


def test_training_is_reproducible():
  texts = ["Is it {x}?\n\nOPTIONS:\n- yes\n- no", "12 <b> plums", "a  b"] * 30
  first, second = (train_vocabulary.train(texts, 400) for _ in range(2))
  assert first == second
  model = sentencepiece.SentencePieceProcessor(model_proto=first)
  assert model.decode(model.encode(PROMPT)) == PROMPT
  words = sum(len(t.split()) for t in texts)
  assert train_vocabulary.tokens_per_word(first, texts) == (
    sum(len(i) for i in model.encode(texts)) / words
  )


def test_corpus_is_the_embedded_sample_and_the_templates():
  texts = train_vocabulary.corpus()
  file = sample.embedded()["super_glue/rte:1.0.2"]
  row = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
  assert row["premise"] in texts
  assert "validation" not in texts
  assert any(t.endswith("OPTIONS:\n- yes\n- no") for t in texts)


# ------------------------------------------------------------------- T5's kind


def test_what_t5_loses_is_named(t5_file):
  t5 = vocabulary.load(t5_file)
  assert vocabulary.check_representable(t5, [PROMPT, "x\n"]) == {
    "\n": 6,
    "<": 1,
    "{": 1,
    "}": 1,
    "  ": 1,
    ">": 1,
  }
  with pytest.warns(vocabulary.LostTextWarning) as caught:
    vocabulary.warn_lost(t5, [PROMPT])
  assert len(caught) == 1
  message = str(caught[0].message)
  assert "'\\n' (5 times)" in message
  assert "replacements='t5' replaces '\\n' by ' '" in message
  assert "'{' by '('" in message


def test_t5_replacements(t5_file):
  t5 = vocabulary.load(t5_file, replacements="t5")
  text = "OPTIONS\n- {yes}\r\n- a<b"
  assert t5.decode(t5.encode(text)) == "OPTIONS - (yes) - a less than b"
  assert vocabulary.check_representable(t5, [text]) == {}
  plain = vocabulary.load(t5_file)
  assert plain.unk_id in plain.encode(text)
  assert t5.unk_id not in t5.encode(text)


def test_replacing_is_the_same_in_a_graph(t5_file):
  table = {"\n": " ", "{": "(", "\\": "/", "a.c": "\\1 x", "$": ""}
  v = vocabulary.load(t5_file, replacements=table)
  texts = ["a.c {b\n", "abc", "\\x$"]
  graph = v.encode_tf(tf.constant(texts)).to_list()
  assert graph == [v.encode(t) for t in texts]
  assert v.decode_tf(tf.constant([v.encode("yes no")])).numpy().tolist() == [
    b"yes no"
  ]


def test_a_replacing_vocabulary_stands_in_for_the_inner_one(t5_file):
  inner = vocabulary.load(t5_file, extra_ids=10)
  v = vocabulary.load(t5_file, extra_ids=10, replacements="t5")
  for name in (
    "pad_id",
    "eos_id",
    "unk_id",
    "bos_id",
    "vocab_size",
    "extra_ids",
  ):
    assert getattr(v, name) == getattr(inner, name), name
  assert v == copy.deepcopy(v) == pickle.loads(pickle.dumps(v))
  assert v != inner
  assert v != vocabulary.load(t5_file, extra_ids=10, replacements={"a": "b"})
  assert "'{' -> '('" in str(v)


def test_a_table_that_is_no_table():
  for table in ("t6", {"": "x"}, {"a": 1}, ["a"]):
    with pytest.raises(UserError, match="write 't5', a table"):
      vocabulary.load(replacements=table)


# -------------------------------------------------------------- tokenizer.json


def test_tokenizer_json(tokenizer_file):
  v = vocabulary.load(tokenizer_file, eos="<end>")
  assert (v.pad_id, v.eos_id, v.unk_id, v.bos_id) == (0, 1, None, None)
  read = tokenizers.Tokenizer.from_file(str(tokenizer_file))
  assert v.vocab_size == read.get_vocab_size()
  ids = v.encode(PROMPT)
  assert len(ids) > 4  # the file's truncation is off
  assert v.decode([*ids, 1, 5, 5]) == PROMPT
  assert vocabulary.check_representable(v, [PROMPT]) == {}
  texts = [PROMPT, "", "漢"]
  expected = [v.encode(t) for t in texts]
  assert v.encode_tf(tf.constant(texts)).to_list() == expected
  data = tf.data.Dataset.from_tensor_slices(texts).map(v.encode_tf)
  assert [x.tolist() for x in data.as_numpy_iterator()] == expected
  padded = v.encode_tf(tf.constant(texts)).to_tensor()
  assert v.decode_tf(padded).numpy().tolist() == [t.encode() for t in texts]


def test_tokenizer_json_works_in_a_seqio_feature(tokenizer_file):
  v = vocabulary.load(tokenizer_file, eos="<end>")
  data = tf.data.Dataset.from_tensors({"inputs": PROMPT, "targets": "yes"})
  out = {n: seqio.Feature(v, add_eos=True) for n in ("inputs", "targets")}
  data = seqio.preprocessors.tokenize(data, out)
  row = next(seqio.preprocessors.append_eos(data, out).as_numpy_iterator())
  assert row["targets"].tolist() == [*v.encode("yes"), 1]


def test_tokenizer_json_is_copied_by_gin_and_pickle(tokenizer_file):
  v = vocabulary.load(tokenizer_file, eos="<end>")
  for other in (copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
    assert other == v
    assert other.encode(PROMPT) == v.encode(PROMPT)
  assert v != vocabulary.load(tokenizer_file, eos="<system>")


def test_special_tokens_come_from_the_file_beside_it(tokenizer_file, tmp_path):
  file = tmp_path / "tokenizer.json"
  file.write_bytes(tokenizer_file.read_bytes())
  config = {"eos_token": {"content": "<end>"}, "pad_token": "<system>"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  v = vocabulary.load(file)
  assert (v.eos_id, v.pad_id) == (1, 2)
  assert vocabulary.load(file, pad="<pad>").pad_id == 0


def test_special_tokens_that_cannot_be_told(tokenizer_file):
  candidates = "'<pad>', '<end>', '<system>'"
  with pytest.raises(
    UserError, match="the eos token is not said.*" + candidates
  ):
    vocabulary.load(tokenizer_file)
  with pytest.raises(UserError, match="eos token '</s>' is not a token"):
    vocabulary.load(tokenizer_file, eos="</s>")


# ---------------------------------------------------------------------- errors


def test_errors_name_the_file(t5_file, tokenizer_file, tmp_path):
  broken = tmp_path / "broken.model"
  broken.write_text("no model")
  other = tmp_path / "tokenizer.json"
  other.write_text("{}")
  no_eos = tmp_path / "no_eos.model"
  no_eos.write_bytes(train_like_t5(eos_id=-1, unk_id=1))
  for name, kwargs, message in (
    ("t5-base", {}, "'t5-base' is neither 'flan_jax', 'flan_jax_chat' nor"),
    (tmp_path / "x.model", {}, "x.model does not exist"),
    (broken, {}, "broken.model is not a SentencePiece model"),
    (other, {}, "is not a tokenizer.json"),
    (no_eos, {}, "no end-of-sequence piece"),
    (t5_file, {"eos": "</s>"}, "eos='</s>' have no effect"),
    (tokenizer_file, {"extra_ids": 9}, "extra_ids=9 has no effect"),
  ):
    with pytest.raises(UserError, match=message):
      vocabulary.load(name, **kwargs)


def test_fingerprints_tell_added_marks_apart():
  plain, chat = map(vocabulary.load, ("flan_jax", "flan_jax_chat"))
  assert plain.encode("a text") == chat.encode("a text")
  assert vocabulary.fingerprint(plain) != vocabulary.fingerprint(chat)
  assert vocabulary.fingerprint(chat) == vocabulary.fingerprint(
    vocabulary.load("flan_jax_chat")
  )
