"""Tokenizers out of GGUF files, exact against independent ones."""

import copy
import io
import itertools
import unicodedata

import pytest
import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, pre_tokenizers, trainers

from flan_jax.data import gguf_tokenizer, vocabulary
from flan_jax.errors import UserError
from tests.data import gguf_vocabularies, scripts

TEXTS = scripts.strings(1000)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS_WITH_SPECIAL = [
  f"<|im_start|>user\n{t}<|im_end|>{t}" for t in TEXTS[:100]
]


def bytes_after(*splits):
  return pre_tokenizers.Sequence(
    [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  )


def split(pattern):
  return pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


# As the families' own tokenizer.json files have them.
PUBLISHED = {
  "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
  "olmo": pre_tokenizers.ByteLevel(add_prefix_space=False),
  "smollm": pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  ),
  "qwen2": bytes_after(
    split(
      r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
      r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
  ),
  "llama-bpe": bytes_after(
    split(
      r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
      r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
  ),
}
PUBLISHED["dbrx"] = PUBLISHED["llama-bpe"]


def train(pre):
  """A byte-level BPE of that family, trained on the texts."""
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(ignore_merges=pre == "llama-bpe")
  )
  if pre in ("qwen2", "olmo"):
    tokenizer.normalizer = tokenizers.normalizers.NFC()
  tokenizer.pre_tokenizer = PUBLISHED[pre]
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=900,
    special_tokens=list(SPECIAL),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS, trainer)
  return tokenizer


@pytest.fixture(scope="module", params=list(PUBLISHED))
def bpe(request, tmp_path_factory):
  """Name of the rules, the published form, and a GGUF file of it."""
  folder = tmp_path_factory.mktemp("bpe")
  made = train(request.param)
  path = gguf_vocabularies.of_bpe(
    folder / "m.gguf", made, request.param, special=SPECIAL, bos=1, eos=2,
    unk=0, pad=2,
  )  # fmt: skip
  return request.param, made, path


def test_byte_level_is_exact(bpe):
  _, made, path = bpe
  found = gguf_tokenizer.read(path).tokenizer
  texts = TEXTS + TEXTS_WITH_SPECIAL
  for text, a, b in zip(
    texts, found.encode_batch(texts, add_special_tokens=False),
    made.encode_batch(texts), strict=True,
  ):  # fmt: skip
    assert a.ids == b.ids, text
    assert found.decode(a.ids) == made.decode(b.ids)


def digits_after_space(text):
  """Where transformers' GGUF reader is not SmolLM's published tokenizer.

  It does not part digits from the space before them.
  """
  return any(a.isspace() and b.isnumeric() for a, b in itertools.pairwise(text))


def test_byte_level_is_what_transformers_reads(bpe):
  name, _, path = bpe
  theirs = transformers.AutoTokenizer.from_pretrained(
    path.parent, gguf_file=path.name
  )
  found = gguf_tokenizer.read(path).tokenizer
  compared = 0
  for text in TEXTS + TEXTS_WITH_SPECIAL:
    if name in ("qwen2", "olmo"):
      # Composed by these families' own tokenizers, not by its GGUF reader.
      text = unicodedata.normalize("NFC", text)
    if name == "smollm" and digits_after_space(text):
      continue
    got = found.encode(text, add_special_tokens=False).ids
    assert got == theirs.encode(text, add_special_tokens=False), text
    compared += 1
  assert compared > (300 if name == "smollm" else 1000)


def test_what_is_written_is_the_same_tokenizer(bpe, tmp_path):
  _, _, path = bpe
  files = gguf_tokenizer.write(path, tmp_path)
  assert [f.name for f in files] == ["tokenizer.json", "tokenizer_config.json"]
  ours = vocabulary.load(path)
  again = vocabulary.load(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  begin = [] if ours.begin_id is None else [ours.begin_id]
  assert (again.begin_id, again.end_ids) == (ours.begin_id, ours.end_ids)
  assert (again.pad_id, again.eos_id, again.unk_id, again.bos_id) == (
    2,
    2,
    0,
    1,
  )
  for text in TEXTS[:200]:
    assert again.encode(text) == ours.encode(text)
    assert theirs.encode(text) == begin + ours.encode(text), text


def test_begin_and_end_ids(bpe):
  name, _, path = bpe
  found = vocabulary.load(path)
  assert vocabulary.begin_id(found) == (1 if name == "llama-bpe" else None)
  assert vocabulary.end_ids(found) == (2,)


@pytest.mark.slow
def test_smollm2(smollm2):
  """The real file, against transformers' reading and the published form."""
  found = vocabulary.load(smollm2)
  assert vocabulary.describe(found) == (
    "49,152 ids; a decoder's row begins with its text; text ends with"
    " 2 ('<|im_end|>'); padding 2 ('<|im_end|>')"
  )
  assert found.encode("<|im_start|>user\nHi<|im_end|>")[::4] == [1, 2]
  theirs = transformers.AutoTokenizer.from_pretrained(
    smollm2.parent, gguf_file=smollm2.name
  )
  texts = [*TEXTS, *TEXTS_WITH_SPECIAL]
  apart = copy.deepcopy(theirs.backend_tokenizer)
  apart.pre_tokenizer = PUBLISHED["smollm"]
  for text, ids, published in zip(
    texts,
    found.encode_batch(texts),
    apart.encode_batch(texts, add_special_tokens=False),
    strict=True,
  ):
    assert ids == published.ids, text
    if not digits_after_space(text):
      assert ids == theirs.encode(text, add_special_tokens=False), text
    if found.eos_id not in ids:  # where decoding ends
      assert found.decode(ids) == text


# ------------------------------------------------------------- SentencePiece

DEFINED = ("▁▁", "▁▁▁", "▁▁▁▁", "\n\n", "<start_of_turn>", "<end_of_turn>")


@pytest.fixture(scope="module", params=["llama", "gemma"])
def pieces(request, tmp_path_factory):
  """A SentencePiece BPE with byte fallback, and a GGUF file of it."""
  gemma = request.param == "gemma"
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    # The other scripts' characters are bytes.
    sentence_iterator=(t for t in TEXTS if t and max(t) < "\u1000"),
    model_writer=out,
    model_type="bpe",
    vocab_size=2000,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    add_dummy_prefix=not gemma,
    user_defined_symbols=list(DEFINED) if gemma else [],
    character_coverage=1.0,
    split_digits=True,
    hard_vocab_limit=False,
    minloglevel=2,
    **(
      dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3)
      if gemma
      else dict(unk_id=0, bos_id=1, eos_id=2)
    ),
  )
  folder = tmp_path_factory.mktemp(request.param)
  (folder / "tokenizer.model").write_bytes(out.getvalue())
  model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
  ids = dict(bos=model.bos_id(), eos=model.eos_id(), unk=model.unk_id())
  path = gguf_vocabularies.of_sentencepiece(
    folder / "m.gguf",
    model,
    prefix=not gemma,
    defined=DEFINED if gemma else (),
    architecture="gemma2" if gemma else "llama",
    **ids,
  )
  return model, path


def without_names(texts):
  """A `tokenizers` tokenizer reads <s> in a text as the one token."""
  return [t for t in texts if "<s>" not in t]


def test_sentencepiece_is_exact(pieces):
  model, path = pieces
  found = gguf_tokenizer.read(path).tokenizer
  different = [
    text
    for text in without_names(TEXTS + scripts.strings(1000, seed=1))
    if found.encode(text, add_special_tokens=False).ids != model.encode(text)
  ]
  assert different == []
  for text in without_names(TEXTS):
    ids = model.encode(text)
    assert found.decode(ids) == model.decode(ids), repr(text)


def test_sentencepiece_begins_with_bos(pieces):
  model, path = pieces
  found, plain = vocabulary.load(path), vocabulary.load(path.parent)
  assert found.encode("a b") == plain.encode("a b") == model.encode("a b")
  for v in (found, plain):
    assert vocabulary.begin_id(v) == model.bos_id()
    ends = [model.eos_id()]
    if model.piece_to_id("<end_of_turn>") != model.unk_id():
      ends.append(model.piece_to_id("<end_of_turn>"))
    assert vocabulary.end_ids(v) == tuple(ends)


def test_sentencepiece_written(pieces, tmp_path):
  model, path = pieces
  gguf_tokenizer.write(path, tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in without_names(TEXTS[:200]):
    assert theirs.encode(text) == [model.bos_id(), *model.encode(text)], text


# --------------------------------------------------------------------- errors


def test_tokenizers_that_are_refused(tmp_path):
  for number, (args, fields, message) in enumerate((
    (("rwkv", ["a", "b"]), {}, "model is 'rwkv'; read are 'gpt2', 'llama'"),
    (("t5", ["a", "b"]), {}, "model is 't5'"),
    (("gpt2", ["a", "b"]), {}, "pre is None, a way to split"),
    (("gpt2", ["a", "b"]), {"pre": "smollm2"}, "nearest is 'smollm'"),
    (("gpt2", ["a", "a"]), {"pre": "gpt-2"}, "lists 'a' twice"),
    (("gpt2", ["a", "b"]), {"pre": "gpt-2", "eos": 7}, "eos_token_id is 7"),
    (("gpt2", ["a", "b"]), {"pre": "gpt-2", "add_bos": True},
     "add_bos_token is set, but no bos token"),
    (("gpt2", ["a", "b"]), {"pre": "gpt-2", "merges": ["a c"]},
     "merges has 'a c', but 'c' is none of the 2 tokens"),
    (("gpt2", ["a", "b"]), {"pre": "gpt-2", "merges": ["a b"]},
     "merges has 'a b', but 'ab' is none of"),
    (("gpt2", ["a", "b"]), {"pre": "gpt-2", "merges": ["ab"]},
     "merges has 'ab', which is no pair"),
    (("llama", ["a", "b"]), {}, "scores is missing"),
    (("llama", ["a", "b"]), {"scores": [0.0, 0.0], "extra_spaces": True},
     "remove_extra_whitespaces is set"),
  )):  # fmt: skip
    path = gguf_vocabularies.write(tmp_path / f"{number}.gguf", *args, **fields)
    with pytest.raises(UserError, match=f"{number}.gguf: .*{message}"):
      gguf_tokenizer.read(path)


def test_a_file_without_eos(tmp_path):
  path = gguf_vocabularies.write(
    tmp_path / "m.gguf", "gpt2", ["a", "b"], pre="gpt-2"
  )
  with pytest.raises(UserError, match="m.gguf: the eos token is not said"):
    vocabulary.load(path)
