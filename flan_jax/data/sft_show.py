"""Conversations in the terminal, each token coloured by its loss weight.

python launch/run.py --gin_file=gin/sft_dolly.gin --show 3
"""

from collections.abc import Mapping
from typing import Any

import rich.console
import rich.text
import seqio

from flan_jax import config as config_lib
from flan_jax.data import (
  replacing,
  sft,
  sft_examples,
  sft_files,
  template,
  tokenizers,
)
from flan_jax.errors import UserError

# Two shades in turn, so that one sees where a token ends.
TRAINED = ("bold black on green3", "bold black on spring_green2")
READ = ("grey70", "grey50")
# Where there are no colours.
OPEN, CLOSE = "[[", "]]"


def run(config: config_lib.Config, count: int) -> None:
  """Prints the first conversations that a job would train on.

  Raises:
    UserError: the job does not train on instruction data; see `SFT.read`.
  """
  _, arguments = config_lib.job_arguments(config)
  collection = arguments.get("task_collection")
  if not isinstance(collection, sft.SFT):
    raise UserError(
      "--show prints conversations of instruction data, and this"
      " configuration's TASK_COLLECTION has none. Include gin/data/sft.gin and"
      " set TASK_COLLECTION = %SFT, as gin/sft_dolly.gin does."
    )
  show(
    collection.for_model(arguments["model"].kind),
    count,
    vocabulary=arguments["vocabulary"],
    lengths=arguments["task_feature_lengths"],
    wrapper=arguments.get("wrapper") or template.PLAIN,
  )


def show(
  collection: sft.SFT,
  count: int,
  *,
  vocabulary: seqio.Vocabulary,
  lengths: Mapping[str, int],
  wrapper: template.Wrapper = template.PLAIN,
  console: Any = None,
) -> None:
  """Prints the first `count` conversations of the training split.

  Args:
    collection: for the kind of model.
    count: how many, 1 or more.
    vocabulary: of the run.
    lengths: of inputs and targets in tokens.
    wrapper: says whether inputs of an encoder-decoder end with EOS.
    console: rich's, by default of standard output. Where it has no colours,
      what is in the loss stands between [[ and ]].
  """
  console = console or rich.console.Console(soft_wrap=True)
  maker = collection.maker(vocabulary, lengths, wrapper.eos)
  rows, counts = collection.read
  for record in rows["train"][:count]:
    (example,) = maker.examples([record])
    if isinstance(example, str):
      console.print(f"{record.where}: not trained on, {_WHY[example]}")
      continue
    ids = [*example.inputs.tolist(), *example.targets.tolist()]
    weights = [0] * len(example.inputs) + example.weights.tolist()
    said = f"{len(ids):,} tokens, {sum(weights):,} in the loss"
    if example.turns_lost:
      said += f", {example.turns_lost} turns left out"
    console.print(
      f"{record.where}: {said}",
      style="bold",
      markup=False,
      highlight=False,
    )
    console.print(
      coloured(vocabulary, ids, weights, console.color_system is not None)
    )
    console.print()
  console.print(
    f"{sft_files.describe(counts)}; {len(rows['train']):,} conversations to"
    f" train on, {len(rows['test']):,} held out",
    highlight=False,
  )


_WHY = {
  sft_examples.EMPTY: "since nothing stands before its answer",
  sft_examples.LONG: "since it is too long for a row",
  sft_examples.ENDED: "since a turn holds a token that ends turns",
}


def coloured(
  vocabulary: seqio.Vocabulary, ids, weights, colours: bool = True
) -> rich.text.Text:
  """Tokens as text, in the loss or not.

  Args:
    vocabulary: of the tokens.
    ids: token ids.
    weights: as many; more than 0 is in the loss.
    colours: else what is in the loss stands between marks.
  """
  out = rich.text.Text()
  inside = False
  for number, (said, weight) in enumerate(
    zip(texts(vocabulary, ids), weights, strict=True)
  ):
    if colours:
      out.append(said, (TRAINED if weight else READ)[number % 2])
      continue
    if bool(weight) != inside:
      out.append(CLOSE if inside else OPEN)
      inside = bool(weight)
    out.append(said)
  if inside:
    out.append(CLOSE)
  return out


def texts(vocabulary: seqio.Vocabulary, ids: list[int]) -> list[str]:
  """What each token says.

  >>> from flan_jax.data import vocabulary as vocabulary_lib
  >>> vocabulary = vocabulary_lib.load()
  >>> "".join(texts(vocabulary, [*vocabulary.encode("Yes or no"), 1]))
  ' Yes or no</s>'
  """
  inner = replacing.innermost(vocabulary)
  if isinstance(inner, tokenizers.TokenizerVocabulary):
    return inner.texts(ids)
  if isinstance(inner, seqio.SentencePieceVocabulary):
    pieces = inner.tokenizer.id_to_piece(ids)
    return [piece.replace("\u2581", " ") for piece in pieces]
  return [inner.decode([i]) for i in ids]
