"""A vocabulary that was written is the one it was written from."""

import json

import seqio
import tokenizers

from flan_jax.data import vocabulary, vocabulary_files
from tests.data import gguf_vocabularies

TEXT = "ab ba\n"


def tokenizer():
  found = tokenizers.Tokenizer(
    tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
  )
  found.add_special_tokens(["<pad>", "</s>", "<|im_end|>"])
  return found


def kept(given, folder):
  vocabulary_files.keep(given, folder)
  found = vocabulary.load(folder)
  for special in ("pad_id", "eos_id", "bos_id"):
    assert getattr(found, special) == getattr(given, special)
  assert vocabulary.end_ids(found) == vocabulary.end_ids(given)
  assert vocabulary.begin_id(found) == vocabulary.begin_id(given)
  assert vocabulary.fingerprint(found) == vocabulary.fingerprint(given)
  return {p.name: p for p in folder.iterdir()}


def test_the_shipped_one(tmp_path):
  files = kept(vocabulary.load(), tmp_path / "v")
  assert list(files) == ["spiece.model"]
  written = files["spiece.model"].read_bytes()
  assert written == vocabulary.shipped_file().read_bytes()
  assert [p.name for p in tmp_path.iterdir()] == ["v"]
  replacing = vocabulary.load(replacements="t5")
  vocabulary_files.keep(replacing, tmp_path / "w")
  assert (tmp_path / "w" / "spiece.model").read_bytes() == written


def test_one_that_is_there_is_left(tmp_path):
  (tmp_path / "v").mkdir()
  vocabulary_files.keep(vocabulary.load(), tmp_path / "v")
  assert not list((tmp_path / "v").iterdir())


def test_one_without_a_file(tmp_path):
  assert vocabulary_files.keep(seqio.ByteVocabulary(), tmp_path / "v") is None
  assert not list(tmp_path.iterdir())


def test_a_tokenizer_with_its_files(tmp_path):
  tokenizer().save(str(tmp_path / "mine.json"))
  config = {"eos_token": "</s>", "chat_template": "x"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  ends = {"eos_token_id": [4, 1], "temperature": 0.5}
  (tmp_path / "generation_config.json").write_text(json.dumps(ends))
  files = kept(vocabulary.load(tmp_path / "mine.json"), tmp_path / "v")
  assert sorted(files) == [
    "generation_config.json", "tokenizer.json", "tokenizer_config.json"
  ]
  for name, file in files.items():
    source = "mine.json" if name == "tokenizer.json" else name
    assert file.read_bytes() == (tmp_path / source).read_bytes()


def test_special_tokens_that_an_argument_says(tmp_path):
  tokenizer().save(str(tmp_path / "tokenizer.json"))
  given = vocabulary.load(tmp_path, eos="</s>", pad="<pad>")
  files = kept(given, tmp_path / "v")
  said = json.loads(files["tokenizer_config.json"].read_text())
  assert said == {"eos_token": "</s>", "pad_token": "<pad>"}


def test_the_tokenizer_of_a_gguf_file(tmp_path):
  file = gguf_vocabularies.of_bpe(
    tmp_path / "m.gguf", tokenizer(), "gpt-2",
    special={"<pad>", "</s>", "<|im_end|>"}, eos=4, eot=1,
  )
  files = kept(vocabulary.load(file), tmp_path / "v")
  said = json.loads(files["generation_config.json"].read_text())
  assert said["eos_token_id"] == [4, 5, 1]
