"""Trains the vocabulary that ships with the package.

    python -m flan_jax.data.train_vocabulary

reads the embedded sample and the templates of the catalogue (text of this
project, nothing else), writes `vocabularies/flan_jax.model`, beside it
`flan_jax_chat.model`, which has a piece that ends a turn, and prints how many
tokens a word takes. Less than a minute on one core; the same text gives
the same file. A new vocabulary makes older checkpoints useless, so this is run
when the catalogue grows a cluster, not with every dataset.

Source: Kudo, 2018 (arXiv 1804.10959), unigram language model.
"""

import argparse
import io
import json
import pathlib
import re
import string
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from flan_jax.data import catalogue, sample, vocabulary
from flan_jax.data.spec import OPTIONS, Task

SIZE = 4096
FIELD = re.compile(r"\{[^{}]*\}")
# A template is read with every row of its dataset: with 48 rows and ten
# templates, about five times as often as a row.
_TEMPLATE_WEIGHT = 5


def corpus() -> list[str]:
  """Texts of the embedded sample and of all templates, in a fixed order."""
  texts = []
  for _, file in sorted(sample.embedded().items()):
    for line in file.read_text(encoding="utf-8").splitlines():
      if line.strip():
        row = json.loads(line)
        row.pop("split", None)
        texts += _strings(row)
  for task in catalogue.load().values():
    texts += list(_templates(task)) * _TEMPLATE_WEIGHT
  return texts


def _templates(task: Task) -> Iterator[str]:
  r"""Templates with options filled in and `\n` for the other fields.

  A newline bounds pieces as a field does, and words keep the neighbours that
  decide their pieces: a line's first word has no space before it.
  """
  fixed = task.choices if isinstance(task.choices, tuple) else ("",)
  options = "\n- ".join(("OPTIONS:", *fixed))
  for template in task.templates:
    filled = template.inputs.replace("{" + OPTIONS + "}", options)
    yield FIELD.sub("\n", filled)
    yield from fixed


def _strings(value) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    for name in sorted(value):
      yield from _strings(value[name])
  elif isinstance(value, list):
    for item in value:
      yield from _strings(item)


def train(texts: Iterable[str], size: int = SIZE) -> bytes:
  r"""A SentencePiece unigram model of `size` pieces, as bytes of its file.

  Pad 0, EOS 1, unknown 2. What matters for instructions: text is not
  normalised and spaces are not merged, `\n` is a piece of its own that no
  other piece contains, digits are single pieces, printable ASCII is always
  covered and everything else falls back to bytes, so that any text comes back
  from its tokens as it was.
  """
  out = io.BytesIO()
  with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
    # U+FDD0 is no character and stands in no text, so the rule changes
    # nothing. With the named identity the model has no table of rules at all,
    # which TensorFlow's reader remarks on, once for every task.
    rules.write("FDD0\tFFFD\n")
    rules.flush()
    _train(texts, size, rules.name, out)
  model = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
  # The table itself is inside; where it once lay differs from call to call.
  model.normalizer_spec.ClearField("normalization_rule_tsv")
  return model.SerializeToString(deterministic=True)


def _train(texts: Iterable[str], size: int, rules: str, out: io.BytesIO):
  sentencepiece.SentencePieceTrainer.train(
    # The trainer skips texts with a tab, which it uses itself.
    sentence_iterator=(t.replace("\t", " ") for t in texts),
    model_writer=out,
    model_type="unigram",
    vocab_size=size,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    normalization_rule_tsv=rules,
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    # "yes" is one piece whether it starts the target or follows "- ".
    add_dummy_prefix=True,
    user_defined_symbols=["\n"],
    split_digits=True,
    byte_fallback=True,
    character_coverage=1.0,
    required_chars="".join(c for c in string.printable if not c.isspace()),
    max_sentence_length=1_000_000,
    # One thread: sums in another order would give another model.
    num_threads=1,
    minloglevel=2,
  )


def with_turn_end(model: bytes, mark: str = "<|eot_id|>") -> bytes:
  """The model with a piece that ends a turn and is no part of any text's.

  It takes the place of the last letter beyond ASCII, which bytes spell since
  then; all other ids stay.

  Args:
    model: of `train`.
    mark: the piece; of `tokenizers.TURN_ENDS`, so that it ends answers.
  """
  found = sentencepiece_model_pb2.ModelProto.FromString(model)
  piece = [p for p in found.pieces if not p.piece.isascii()][-1]
  piece.piece, piece.score = mark, 0.0
  piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
  return found.SerializeToString(deterministic=True)


def tokens_per_word(model: bytes, texts: Sequence[str]) -> float:
  """Tokens for each word (a run of characters other than white space)."""
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  tokens = sum(len(ids) for ids in processor.encode(list(texts)))
  return tokens / max(1, sum(len(t.split()) for t in texts))


def main(arguments: Sequence[str] | None = None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", type=int, default=SIZE, help="pieces")
  parser.add_argument(
    "--output", type=pathlib.Path, default=vocabulary.shipped_file()
  )
  args = parser.parse_args(arguments)
  texts = corpus()
  model = train(texts, args.size)
  args.output.parent.mkdir(parents=True, exist_ok=True)
  args.output.write_bytes(model)
  chat = args.output.with_stem(f"{args.output.stem}_chat")
  chat.write_bytes(with_turn_end(model))
  pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
  print(
    f"{args.output}: {pieces.get_piece_size()} pieces, {len(model)} bytes,"
    f" {tokens_per_word(model, texts):.2f} tokens a word on its own"
    f" {len(texts)} texts"
  )


if __name__ == "__main__":
  main()
