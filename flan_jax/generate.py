"""Continues prompts with a model; prints the answers or writes JSON lines.

  python launch/run.py --gin_file=gin/generate.gin \
      --gin.INITIAL_CHECKPOINT_PATH=checkpoints/smollm2_135m \
      --gin.PROMPTS="('The capital of France is',)"

Read top to bottom: checkpoint -> model and vocabulary -> prompts -> answers ->
files.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import config, evaluated
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.models.rule_adapter import RuleAdapter, missing_notes
from flan_jax.training import checks, processes, progress, sharding


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
  """A text to go on from.

  Attributes:
    text: as it was given.
    where: what messages call it: `prompts.txt, line 3`.
    inputs: tokens that the model reads, int32; None: not yet tokenised.
    rest: further fields of its JSON object, kept in the output.
  """

  text: str
  where: str
  inputs: np.ndarray | None = None
  rest: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def generate(
  *,
  initial_checkpoint_path: str,
  decode: DecodeConfig,
  prompts: Sequence[str] | None = None,
  prompts_path: str | None = None,
  output_path: str | None = None,
  overwrite: bool = False,
  model: Any = None,
  vocabulary: Any = None,
  inputs_length: int = 512,
  batch_size: int = 8,
  prompt_prefix: str = "",
  prompt_suffix: str = "",
  inputs_eos: bool | None = None,
  rule_adapter: RuleAdapter | None = None,
  layout: sharding.Layout | None = None,
) -> list[generation.Generated]:
  """Continues every prompt with the model of a checkpoint.

      generate(initial_checkpoint_path="checkpoints/smollm2_135m",
               prompts=("The capital of France is",),
               decode=DecodeConfig(max_decode_len=16))[0].text
      # ' Paris.'

  Args:
    initial_checkpoint_path: a checkpoint of any format in `convert/source.py`.
    decode: how to decode; without `end_ids`, the vocabulary's end an answer.
    prompts: texts; or
    prompts_path: a `.txt` file with a prompt a line, or a `.jsonl` file of
      objects with `prompt`, whose further fields are kept.
    output_path: `.jsonl` file for the answers; None: they are only printed.
    overwrite: whether a file at `output_path` is replaced.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with the checkpoint.
    inputs_length: tokens of the longest prompt.
    batch_size: prompts at once.
    prompt_prefix, prompt_suffix: text around every prompt, as in training.
    inputs_eos: whether EOS follows a prompt, as in training; None: it does for
      an encoder-decoder model and does not for a decoder-only model.
    rule_adapter: rules on the model's logits; None: none.
    layout: where the parameters lie, see `evaluated.load_params`.

  Returns:
    The answers, in the order of the prompts. Equal prompts get equal answers;
    `num_samples` gives several.

  Raises:
    UserError: no or two sources of prompts; a file that cannot be read, or
      exists already; a prompt that is empty or too long; a checkpoint that does
      not say its model or has no tokenizer, where it must; what `DecodeConfig`
      and `load_params` refuse.
  """
  checks.numbers(inputs_length=inputs_length, batch_size=batch_size)
  given = read_prompts(prompts, prompts_path)
  _check_output(output_path, overwrite)
  opened, model, vocabulary = evaluated.open_model(
    initial_checkpoint_path, model, vocabulary
  )
  if not decode.end_ids:
    decode = dataclasses.replace(
      decode, end_ids=vocabulary_lib.end_ids(vocabulary)
    )
  display = progress.Display(quiet=not processes.is_first())
  if rule_adapter is not None:
    rules, missing = rule_adapter.of(vocabulary.encode, vocabulary.decode)
    decode = dataclasses.replace(decode, rules=rules)
    for note in missing_notes(missing):
      display.say(note)
  decode.check_vocabulary(model.config.vocab_size)
  if inputs_eos is None:
    inputs_eos = model.kind == "encoder_decoder"
  plan = generation.plan(
    tokenised(
      given,
      vocabulary,
      kind=model.kind,
      prefix=prompt_prefix,
      suffix=prompt_suffix,
      eos=inputs_eos,
    ),
    batch_size=batch_size,
    lengths={"inputs": inputs_length, "targets": decode.max_decode_len},
    name=_name,
    limit_name="INPUTS_LENGTH",
  )
  display.say(
    f"{opened.path} ({opened.format}): {model.kind},"
    f" {vocabulary_lib.describe(vocabulary)}"
  )
  asked = repr([x.tolist() for x in plan.inputs]) + repr(decode)
  processes.check_equal(config.fingerprint(asked))
  params, partition = evaluated.load_params(opened, model, layout)
  with evaluated.computing(partition):
    results = generation.generate(
      model,
      params,
      plan,
      decode=vocabulary.decode,
      config=decode,
      name=_name,
      progress=progress.answered(display),
    )
  _print(display, results)
  if output_path is not None and processes.is_first():
    _write(output_path, results)
    display.say(f"wrote {output_path}: {len(results):,} lines")
  return results


def read_prompts(
  prompts: Sequence[str] | None = None, path: str | os.PathLike | None = None
) -> list[Prompt]:
  """Prompts as they were given, or from a file.

  >>> [p.where for p in read_prompts(("Is it so?", "Why?"))]
  ['prompt 1', 'prompt 2']

  Raises:
    UserError: see `generate`.
  """
  if (prompts is None) == (path is None):
    raise UserError(
      "give PROMPTS, texts as ('...', '...'), or PROMPTS_PATH, a .txt or"
      f" .jsonl file: {'both' if path else 'neither'} was given."
    )
  if prompts is not None:
    if isinstance(prompts, str):
      raise UserError(f"PROMPTS is one text; write ({prompts!r},).")
    found = [Prompt(p, f"prompt {i}") for i, p in enumerate(prompts, 1)]
  else:
    found = _read_file(pathlib.Path(path))
  for prompt in found:
    if not isinstance(prompt.text, str) or not prompt.text.strip():
      raise UserError(f"{prompt.where}: {prompt.text!r} is no text to go on.")
  if not found:
    raise UserError(f"{path or 'PROMPTS'} holds no prompt.")
  return found


def tokenised(
  prompts: Sequence[Prompt],
  vocabulary: Any,
  *,
  kind: str,
  prefix: str = "",
  suffix: str = "",
  eos: bool = True,
) -> list[Prompt]:
  """Prompts with the tokens that a model of that kind reads.

  Args:
    prompts: from `read_prompts`.
    vocabulary: of the model.
    kind: a decoder-only model's tokens begin with the vocabulary's begin id.
    prefix, suffix: text around each.
    eos: whether the vocabulary's EOS follows.
  """
  begin = vocabulary_lib.begin_id(vocabulary)
  start = [begin] if kind == "decoder_only" and begin is not None else []
  end = [vocabulary_lib.end_ids(vocabulary)[0]] if eos else []
  texts = [prefix + p.text + suffix for p in prompts]
  ids = vocabulary_lib.encode_batch(vocabulary, texts)
  return [
    dataclasses.replace(p, inputs=np.array([*start, *i, *end], np.int32))
    for p, i in zip(prompts, ids, strict=True)
  ]


def _name(prompt: Prompt) -> str:
  return prompt.where


def _read_file(path: pathlib.Path) -> list[Prompt]:
  if path.suffix not in (".txt", ".jsonl"):
    raise UserError(
      f"PROMPTS_PATH {str(path)!r} is neither .txt, a prompt a line, nor"
      " .jsonl, an object with 'prompt' a line."
    )
  try:
    # Not splitlines: a prompt may hold U+2028 and the like.
    lines = path.read_text(encoding="utf-8").split("\n")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"PROMPTS_PATH {path} cannot be read: {reason}.") from None
  numbered = [
    (f"{path.name}, line {i}", line)
    for i, line in enumerate(lines, 1)
    if line.strip()
  ]
  if path.suffix == ".txt":
    return [Prompt(line.rstrip("\r"), where) for where, line in numbered]
  return [_from_json(line, where) for where, line in numbered]


def _from_json(line: str, where: str) -> Prompt:
  try:
    row = json.loads(line)
  except json.JSONDecodeError as e:
    raise UserError(f"{where}: not JSON: {e}.") from None
  if not isinstance(row, dict) or "prompt" not in row:
    raise UserError(f"{where}: {line[:60]!r} is no object with 'prompt'.")
  return Prompt(row.pop("prompt"), where, rest=row)


def _check_output(path, overwrite: bool):
  if path is None:
    if overwrite:
      raise UserError("OVERWRITE=True has no effect without OUTPUT_PATH.")
    return
  path = pathlib.Path(path)
  if path.suffix != ".jsonl":
    raise UserError(f"OUTPUT_PATH {str(path)!r}: name a .jsonl file.")
  if path.exists() and not overwrite:
    raise UserError(
      f"OUTPUT_PATH {path} exists and is kept: choose another name, or add"
      " --gin.OVERWRITE=True."
    )


def _print(display, results):
  for result in results:
    display.say(f"\n> {result.example.text}")
    for answer in result.answers:
      score = "" if answer.score is None else f"  [{answer.score:.2f}]"
      cut = "" if answer.complete else " ..."
      display.say(f"{answer.text}{cut}{score}")


def _write(path, results):
  """All lines or none: beside the file first, then in its place."""
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.name}.draft")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
      for result in results:
        file.write(json.dumps(_row(result), ensure_ascii=False) + "\n")
    draft.replace(path)
  except OSError as e:
    raise UserError(
      f"OUTPUT_PATH {path} cannot be written: {e.strerror}."
    ) from None
  finally:
    draft.unlink(missing_ok=True)


def _row(result: generation.Generated) -> dict[str, Any]:
  answers = []
  for answer in result.answers:
    row = {
      "text": answer.text,
      "complete": answer.complete,
      "tokens": len(answer.tokens),
    }
    if answer.score is not None:
      row["score"] = answer.score
    answers.append(row)
  prompt = result.example
  return {**prompt.rest, "prompt": prompt.text, "continuations": answers}
