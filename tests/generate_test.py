"""The generation job, from a checkpoint and prompts to lines of JSON."""

import dataclasses
import doctest
import json
import pathlib

import jax
import numpy as np
import pytest

from flan_jax import config, evaluated, generate
from flan_jax.convert import native, trees
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.models import decoder, t5
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.training import checkpoint, optimiser, state

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ("Is it so?", "Name three fruits.\n", "Is it so?")
CONFIG = DecodeConfig(max_decode_len=6)


@pytest.fixture(scope="module")
def vocabulary():
  return vocabulary_lib.load("flan_jax")


def made(kind):
  if kind == "decoder_only":
    return decoder.DecoderOnly(
      decoder.DecoderConfig(
        vocab_size=4096, emb_dim=8, num_heads=1, head_dim=8, mlp_dim=8,
        num_layers=1,
      )
    )
  return t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=4096, emb_dim=8, num_heads=1, head_dim=8, mlp_dim=8,
      num_encoder_layers=1, num_decoder_layers=1,
    )
  )


@pytest.fixture(scope="module", params=["encoder_decoder", "decoder_only"])
def saved(request, tmp_path_factory):
  """(model, folder) of a checkpoint."""
  model = made(request.param)
  folder = tmp_path_factory.mktemp("run") / "checkpoints"
  checkpoints = checkpoint.Checkpoints(folder)
  params = model.init(jax.random.key(0))
  made_state = state.create(params, optimiser.adafactor(1e-3))
  checkpoints.save(3, made_state, {"step": 3})
  checkpoints.close()
  return model, str(folder)


def test_docstrings():
  assert doctest.testmod(generate).failed == 0


def test_from_a_checkpoint_to_lines(saved, vocabulary, tmp_path, capsys):
  model, folder = saved
  path = tmp_path / "deep" / "out.jsonl"
  options = {
    "initial_checkpoint_path": folder, "model": model,
    "vocabulary": vocabulary, "prompts": PROMPTS, "inputs_length": 32,
    "decode": dataclasses.replace(CONFIG, return_scores=True),
    "output_path": str(path),
  }
  results = generate.generate(**options)
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line["prompt"] for line in lines] == list(PROMPTS)
  assert lines[0] == lines[2]
  for line, result in zip(lines, results, strict=True):
    (answer,) = line["continuations"]
    assert answer["text"] == result.text
    assert answer["complete"] == result.complete
    assert answer["tokens"] <= 6
    assert answer["score"] < 0
  printed = capsys.readouterr().out
  assert "> Name three fruits." in printed
  assert "text ends with 1 ('</s>')" in printed
  assert list(path.parent.iterdir()) == [path]
  with pytest.raises(UserError, match="exists and is kept: .*OVERWRITE=True"):
    generate.generate(**options)
  generate.generate(**options, overwrite=True)


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
def test_a_tokenizer_that_was_copied_beside_a_checkpoint(
  vocabulary, tmp_path, kind
):
  model = made(kind)
  params = trees.flatten(model.init(jax.random.key(0)))
  spiece = tmp_path / "spiece.model"
  spiece.write_bytes(vocabulary_lib.shipped_file().read_bytes())
  native.write_native(
    tmp_path / "checkpoint",
    params,
    ((name, np.asarray(x)) for name, x in params.items()),
    config=model.config,
    tokenizer_files=[spiece],
  )
  options = {
    "initial_checkpoint_path": str(tmp_path / "checkpoint"),
    "prompts": PROMPTS, "inputs_length": 32, "decode": CONFIG,
  }
  alone = generate.generate(**options)
  given = generate.generate(**options, model=model, vocabulary=vocabulary)
  assert [r.text for r in alone] == [r.text for r in given]


def test_tokens_that_a_model_reads(vocabulary):
  prompts = generate.read_prompts(("Is it so?",))
  ids = vocabulary.encode("Q: Is it so? A:")
  affixes = {"prefix": "Q: ", "suffix": " A:"}

  def tokens(kind, eos):
    (prompt,) = generate.tokenised(
      prompts, vocabulary, kind=kind, eos=eos, **affixes
    )
    return prompt.inputs.tolist()

  assert tokens("encoder_decoder", True) == [*ids, 1]
  assert tokens("decoder_only", False) == [0, *ids]
  assert tokens("decoder_only", True) == [0, *ids, 1]


def test_prompts_from_files(tmp_path):
  text = tmp_path / "a.txt"
  text.write_text("one\u2028line\r\n\n  two\n", encoding="utf-8", newline="")
  found = generate.read_prompts(path=text)
  assert [(p.text, p.where) for p in found] == [
    ("one\u2028line", "a.txt, line 1"), ("  two", "a.txt, line 3"),
  ]
  rows = tmp_path / "a.jsonl"
  rows.write_text('{"prompt": "x\\ny", "id": 7}\n')
  (prompt,) = generate.read_prompts(path=rows)
  assert (prompt.text, prompt.rest) == ("x\ny", {"id": 7})


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.csv", b"x", "is neither .txt, a prompt a line, nor .jsonl"),
    ("a.txt", b"\n\n", "holds no prompt"),
    ("a.txt", b"\xff\xfe", "cannot be read: 'utf-8'"),
    ("a.jsonl", b'{"prompt": "x"}\n{"prom', "a.jsonl, line 2: not JSON"),
    ("a.jsonl", b'{"text": "x"}', "line 1: .* is no object with 'prompt'"),
    ("a.jsonl", b'{"prompt": 3}', "line 1: 3 is no text"),
    (None, None, "cannot be read: No such file"),
  ],
)
def test_files_without_prompts(tmp_path, name, content, message):
  path = tmp_path / (name or "missing.txt")
  if name:
    path.write_bytes(content)
  with pytest.raises(UserError, match=message):
    generate.read_prompts(path=path)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"prompts": None}, "PROMPTS.*neither was given"),
    ({"prompts_path": "x.txt"}, "both was given"),
    ({"prompts": "text"}, r"PROMPTS is one text; write \('text',\)"),
    ({"prompts": ("a", " ")}, "prompt 2: ' ' is no text"),
    ({"prompts": ()}, "PROMPTS holds no prompt"),
    ({"prompts": ("word " * 90,)}, "prompt 1: its input of .* INPUTS_LENGTH"),
    ({"inputs_length": 0}, "INPUTS_LENGTH is 0"),
    ({"output_path": "x.txt"}, "name a .jsonl file"),
    ({"overwrite": True}, "no effect without OUTPUT_PATH"),
    ({"initial_checkpoint_path": "nothing"}, "nothing does not exist"),
    ({"vocabulary": None}, "comes without a tokenizer"),
    ({"decode": DecodeConfig(end_ids=(5000,))}, "are over 4096 ids"),
    ({"decode": DecodeConfig("sample", top_k=4096)}, "has 4096 ids"),
  ],
)
def test_what_is_refused(saved, vocabulary, options, message):
  model, folder = saved
  given = {
    "initial_checkpoint_path": folder, "model": model,
    "vocabulary": vocabulary, "prompts": ("a",), "inputs_length": 64,
    "decode": CONFIG,
  }
  with pytest.raises(UserError, match=message):
    generate.generate(**given | options)


@pytest.mark.parametrize(
  "flags",
  [
    {},
    {"STRATEGY": "sample", "TOP_P": "0.9", "NUM_SAMPLES": "4", "SEED": "1"},
    {"STRATEGY": "beam", "BEAM_SIZE": "4", "STOP_STRINGS": "()"},
  ],
)
def test_gin_files(flags):
  loaded = config.load(
    ["gin/generate.gin", "gin/data/flan_jax_vocabulary.gin"],
    [("INITIAL_CHECKPOINT_PATH", "x"), ("PROMPTS", "('a',)"), *flags.items()],
    [str(ROOT)],
  )
  assert loaded.value("STRATEGY") == flags.get("STRATEGY", "greedy")


def test_a_prompt_whose_logits_are_not_finite_is_named(
  saved, vocabulary, tmp_path, monkeypatch
):
  model, folder = saved
  real = evaluated.load.load_params

  def broken(*args):
    return jax.tree.map(lambda x: x * np.nan, real(*args))

  monkeypatch.setattr(evaluated.load, "load_params", broken)
  out = tmp_path / "out.jsonl"
  with pytest.raises(UserError, match="^prompt 1, prompt 2: logits are not"):
    generate.generate(
      initial_checkpoint_path=folder, model=model, vocabulary=vocabulary,
      prompts=PROMPTS[:2], decode=CONFIG, output_path=str(out),
    )
  assert not out.exists()
